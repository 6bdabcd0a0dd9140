"""Operators without MACs and the values between operators, against networks read by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional

from hwdse.capture import Capture, capture
from hwdse.graph import Node
from tests import networks

Written = Callable[..., nn.Module]


def described(captured: Capture) -> list[tuple[str, int, str | None]]:
    return [(node.operator, node.elements, node.activation) for node in captured.nodes]


def flows(captured: Capture) -> list[tuple[str | None, int, tuple[str, ...]]]:
    """Return who writes a value (nodes by operator), its elements, and who reads it, layers first."""
    operator = {node.name: node.operator for node in captured.nodes}
    return [
        (v.layer or operator.get(v.node or ""), v.elements, (*v.layers, *(operator[name] for name in v.nodes)))
        for v in captured.values
    ]


def test_a_residual_network() -> None:
    captured = networks.captured("residual")
    assert described(captured) == [("add", 1152, "relu"), ("add", 576, "relu"), ("global_avg_pool", 576, None)]
    assert flows(captured) == [
        (None, 432, ("stem",)),
        ("stem", 1152, ("a1", "add")),
        ("a1", 1152, ("a2",)),
        ("a2", 1152, ("add",)),
        ("add", 1152, ("b1", "short")),
        ("b1", 576, ("b2",)),
        ("b2", 576, ("add",)),
        ("short", 576, ("add",)),
        ("add", 576, ("global_avg_pool",)),
        ("global_avg_pool", 16, ("head",)),
    ]


@pytest.mark.parametrize("name", ["residual", "resnet20", "dscnn", "inception", "packed", "reused"])
def test_layers_read_values_by_the_name_of_their_input(name: str) -> None:
    captured = networks.captured(name)
    values = {value.name: value for value in captured.values}
    assert len(values) == len(captured.values)
    for layer in captured.layers:
        assert layer.name in values[layer.input].layers
        if layer.second_input is not None:
            assert layer.name in values[layer.second_input].layers
    for producer, consumer in captured.edges:
        written = [v for v in captured.values if v.layer == captured.layers[producer].name]
        assert reaches(captured, written, captured.layers[consumer].name)


def reaches(captured: Capture, values: list, reader: str) -> bool:
    """Return whether a layer reads one of the values, directly or through nodes."""
    if any(reader in value.layers for value in values):
        return True
    nodes = {node for value in values for node in value.nodes}
    following = [value for value in captured.values if value.node in nodes]
    return bool(following) and reaches(captured, following, reader)


def test_names_in_one_word() -> None:
    layers = (
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU6(), nn.Conv2d(8, 8, 3), nn.Hardswish(), nn.MaxPool2d(2),
        nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 6), nn.LayerNorm(6), nn.GELU(),
        nn.Linear(6, 4), nn.ReLU(), nn.Softmax(-1),
    )  # fmt: skip
    captured = capture(nn.Sequential(*layers), torch.randn(1, 3, 20, 20))
    assert described(captured) == [
        ("hardswish", 8 * 16 * 16, None),
        ("max_pool", 8 * 16 * 16, None),  # the tensor that it reads is the larger one
        ("avg_pool", 8 * 8 * 8, None),
        ("global_avg_pool", 8 * 4 * 4, None),
        ("layer_norm", 6, None),
        ("gelu", 6, None),
        ("softmax", 4, None),  # the ReLU before it belongs to the linear
    ]


def test_an_activation_with_two_readers_is_a_node_of_its_own(written: Written) -> None:
    model = written(
        lambda self, x: self.two(functional.relu(y := self.one(x))) + y, one=nn.Linear(4, 4), two=nn.Linear(4, 4)
    )
    captured = capture(model, torch.randn(1, 4))
    assert described(captured) == [("relu", 4, None), ("add", 4, None)]
    assert flows(captured) == [
        (None, 4, ("one",)),
        ("one", 4, ("relu", "add")),
        ("relu", 4, ("two",)),
        ("two", 4, ("add",)),
    ]


def test_a_norm_that_cannot_be_folded_is_a_node() -> None:
    layers = (nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2))
    captured = capture(nn.Sequential(*layers), torch.randn(2, 3, 5, 5))
    assert described(captured) == [("batch_norm", 75, None), ("relu", 75, None)]
    assert flows(captured) == [
        (None, 75, ("batch_norm",)),
        ("batch_norm", 75, ("relu",)),
        ("relu", 75, ("2",)),
    ]


def test_an_operator_with_several_results_writes_several_values(written: Written) -> None:
    def forward(self: nn.Module, x: torch.Tensor) -> torch.Tensor:
        values, places = functional.max_pool2d(self.conv(x), 2, return_indices=True)
        return self.last(values) + places

    captured = capture(written(forward, conv=nn.Conv2d(1, 2, 1), last=nn.Conv2d(2, 2, 1)), torch.randn(1, 1, 6, 6))
    assert described(captured) == [("max_pool", 72, None), ("add", 18, None)]
    assert flows(captured)[2:4] == [("max_pool", 18, ("last",)), ("max_pool", 18, ("add",))]


def test_views_are_looked_through_and_constants_are_no_values(written: Written) -> None:
    model = written(
        lambda self, x: self.two(self.one(x).unflatten(1, (2, 3)).transpose(1, 2).flatten(1) + self.shift),
        one=nn.Linear(4, 6), two=nn.Linear(6, 2), shift=torch.ones(6),
    )  # fmt: skip
    captured = capture(model, torch.randn(1, 4))
    assert flows(captured) == [(None, 4, ("one",)), ("one", 6, ("add",)), ("add", 6, ("two",))]
    assert captured.nodes == (Node("transpose", "transpose", 6), Node(captured.nodes[1].name, "add", 6))


def test_views_that_move_values_are_nodes_that_read_nothing(written: Written) -> None:
    """Attention turns queries, keys, values and its result; keys twice, which is one move."""
    captured = capture(written(
        lambda self, x: self.out(functional.scaled_dot_product_attention(*(
            part.unflatten(-1, (2, 4)).transpose(1, 2) for part in self.qkv(x).chunk(3, -1)
        )).transpose(1, 2).flatten(2)),
        qkv=nn.Linear(8, 24), out=nn.Linear(8, 8),
    ), torch.randn(1, 5, 8))  # fmt: skip
    moved = [(node.operator, node.elements) for node in captured.nodes if node.operator == "transpose"]
    assert moved == [("transpose", 5 * 8)] * 4
    assert not {value.node for value in captured.values} & {n.name for n in captured.nodes if n.operator == "transpose"}


def test_views_of_another_size_are_copies_that_are_read_and_written(written: Written) -> None:
    """The shortcut of a residual network without weights: every other row and column, and zeros for new channels."""
    padded = capture(
        written(lambda self, x: self.conv(functional.pad(x, (1, 1, 2, 2))), conv=nn.Conv2d(1, 1, 3)),
        torch.randn(1, 1, 4, 4),
    )
    assert described(padded) == [("pad", 6 * 8, None)]
    assert flows(padded) == [(None, 16, ("conv", "pad")), ("pad", 48, ("conv",))]
    captured = capture(written(
        lambda self, x: self.conv(x) + functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, 2)),
        conv=nn.Conv2d(2, 4, 2, 2),
    ), torch.randn(1, 2, 8, 8))  # fmt: skip
    assert described(captured) == [("slice", 128, None), ("slice", 64, None), ("pad", 64, None), ("add", 64, None)]
    assert set(flows(captured)) == {
        (None, 128, ("conv", "slice")),
        ("conv", 64, ("add",)),
        ("slice", 64, ("slice",)),
        ("slice", 32, ("pad",)),
        ("pad", 64, ("add",)),
    }


def test_a_product_takes_in_a_number_that_multiplies_it(written: Written) -> None:
    model = written(lambda self, x: (self.one(x) @ x.transpose(1, 2) / 3).softmax(-1) * 2, one=nn.Linear(4, 4))
    captured = capture(model, torch.randn(1, 5, 4))
    assert [node.operator for node in captured.nodes] == ["transpose", "softmax", "mul"]
    assert ("matmul", 25, ("softmax",)) in flows(captured)


def test_only_a_mean_over_all_positions_is_a_global_pooling(written: Written) -> None:
    for axes, name in (((2, 3), "global_avg_pool"), ((-1, -2), "global_avg_pool"), ((3,), "mean"), ((1, 2), "mean")):
        captured = capture(
            written(lambda self, x, a=axes: self.conv(x).mean(a), conv=nn.Conv2d(1, 3, 1)), torch.randn(1, 1, 4, 5)
        )
        assert described(captured) == [(name, 60, None)]
