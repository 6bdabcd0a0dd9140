"""Layers, tied groups and configurations as plain data."""

from __future__ import annotations

from math import prod

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwdse.errors import InputError
from hwdse.formats import Precision
from hwdse.graph import BitConfig, Layer, LayerGraph, Tensor, TiedGroup, tie


def linear(name: str, *, source: str = "", weight: str = "", bias_count: int = 3, bias: str | None = None) -> Layer:
    return Layer(
        name, "linear", source or f"in_{name}", f"out_{name}", (4,), (3,), 12, weight or f"{name}.weight", (3, 4),
        bias_count, bias=bias,
    )  # fmt: skip


def conv(groups: int, channels: int, kernel: tuple[int, ...]) -> Layer:
    shape = (8, channels // groups, *kernel)
    return Layer(
        "c", "conv", "x", "y", (channels, 5, 5), (8, 5, 5), prod(shape) * 25, "w", shape, 8, kernel, (1, 1), groups
    )


MATMUL = Layer("m", "matmul", "q", "s", (2, 6, 4), (2, 6, 6), 288, second_input="k", second_shape=(2, 4, 6))


@pytest.mark.parametrize(
    ("layer", "op_class", "weights", "inputs", "outputs"),
    [
        (conv(1, 4, (3, 3)), "conv", 288, 4, 8),
        (conv(1, 4, (1, 1)), "pointwise", 32, 4, 8),
        (conv(1, 4, (1,)), "pointwise", 32, 4, 8),
        (conv(4, 4, (3, 3)), "depthwise", 72, 4, 8),
        (conv(2, 4, (3, 3)), "grouped", 144, 4, 8),
        (conv(2, 4, (1, 1)), "grouped", 16, 4, 8),
        (linear("l"), "linear", 12, 4, 3),
        (MATMUL, "matmul", 0, 4, 0),
    ],
)
def test_what_follows_from_a_layers_shapes(
    layer: Layer, op_class: str, weights: int, inputs: int, outputs: int
) -> None:
    assert layer.op_class == op_class
    assert (layer.weight_count, layer.input_channels, layer.output_channels) == (weights, inputs, outputs)


def test_a_tensor_counts_its_elements() -> None:
    assert Tensor("x", (3, 4, 5), None).elements == 60
    assert Tensor("scalar", (), None).elements == 1


def test_readers_of_a_tensor_and_users_of_a_weight_share_a_group() -> None:
    layers = [
        linear("a", source="x"),
        linear("b", source="y", weight="w"),
        linear("c", source="x"),
        linear("d", source="z"),
        linear("e", source="u", weight="w"),
        linear("f", source="u"),
    ]
    assert tie(layers) == (
        TiedGroup("a", ("a", "c")),
        TiedGroup("b", ("b", "e", "f")),  # b and e by the weight, e and f by the tensor
        TiedGroup("d", ("d",)),
    )
    assert tie(layers, [("d", "c"), ("f",)]) == (TiedGroup("a", ("a", "c", "d")), TiedGroup("b", ("b", "e", "f")))


def test_second_operands_do_not_tie() -> None:
    keys = Layer("n", "matmul", "p", "t", (6, 4), (6, 6), 144, second_input="k", second_shape=(4, 6))
    assert len(tie([MATMUL, keys])) == 2


def test_only_layers_can_be_tied() -> None:
    with pytest.raises(InputError, match="expected layers of the network to tie, got 'ghost'"):
        tie([linear("a")], [("a", "ghost")])


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=12))
def test_groups_are_the_connected_components(keys: list[tuple[int, int]]) -> None:
    layers = [linear(f"l{i}", source=f"t{t}", weight=f"w{w}") for i, (t, w) in enumerate(keys)]
    # Oracle: spread the smallest index until nothing changes.
    label = list(range(len(keys)))
    for _ in keys:
        for i, (t, w) in enumerate(keys):
            for j, (u, v) in enumerate(keys):
                if t == u or w == v:
                    label[i] = label[j] = min(label[i], label[j])
    expected = [tuple(f"l{i}" for i, own in enumerate(label) if own == group) for group in sorted(set(label))]
    assert [group.layers for group in tie(layers)] == expected


def graph(layers: list[Layer], **fields: int) -> LayerGraph:
    return LayerGraph(tuple(layers), (), tie(layers), **fields)  # type: ignore[arg-type]


def test_counts_of_a_network() -> None:
    network = graph([linear("a"), linear("b", bias_count=0), MATMUL], other_parameters=7)
    assert network.macs == 12 + 12 + 288
    assert network.parameter_count == 12 + 3 + 12 + 7
    assert dict(network.layer_index) == {"a": 0, "b": 1, "m": 2}


def test_shared_parameters_count_once() -> None:
    twice = [linear("a", weight="w", bias="a.bias"), linear("b", weight="w", bias="a.bias")]
    assert graph(twice).parameter_count == 12 + 3
    own_biases = [linear("a", weight="w", bias="a.bias"), linear("b", weight="w", bias="b.bias")]
    assert graph(own_biases).parameter_count == 12 + 3 + 3


def test_a_configuration_gives_every_layer_its_groups_precision() -> None:
    network = graph([linear("a", source="x"), linear("b"), linear("c", source="x")])
    assert network.group_of == (0, 1, 0)
    config = network.config([Precision.parse("W4A8"), Precision.parse("W2A8")])
    assert config.bits == "W4A8 W2A8 W4A8"
    assert list(config.precisions) == ["a", "b", "c"]
    assert BitConfig({}).bits == ""
    with pytest.raises(InputError, match=r"expected 2 precisions \(groups\), got 3"):
        network.config([Precision.parse("W4A8")] * 3)


def test_a_graph_is_consistent() -> None:
    a, b = linear("a"), linear("b")
    with pytest.raises(InputError, match="unique names, got the same name twice"):
        LayerGraph((a, a), (), tie([a]))
    for groups in ((), (TiedGroup("a", ("a",)),), (*tie([a, b]), TiedGroup("c", ("c",))), tie([a, b]) + tie([a])):
        with pytest.raises(InputError, match="expected every layer in exactly one tied group"):
            LayerGraph((a, b), (), groups)


def test_a_graph_shows_its_counts_and_shared_weights_once() -> None:
    layers = (linear("a"), linear("b", weight="a.weight"))
    graph = LayerGraph(layers, (), (TiedGroup("a", ("a",)), TiedGroup("b", ("b",))))
    assert repr(graph) == "<LayerGraph of 2 layers in 2 tied groups: 24 MACs, 12 weights>"
