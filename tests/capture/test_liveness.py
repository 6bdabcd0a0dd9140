"""Buffers and what is in memory together, against sets written out by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional

from hwdse.capture import Capture, capture
from tests import networks

Written = Callable[..., nn.Module]


def sets(captured: Capture) -> dict[str, tuple[str, ...]]:
    return {live.operator: live.tensors for live in captured.live_sets}


def peak(captured: Capture) -> int:
    """Return the largest number of values in memory at once."""
    elements = {tensor.name: tensor.elements for tensor in captured.tensors}
    return max(sum(elements[name] for name in live.tensors) for live in captured.live_sets)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("mlp", 12 + 20),
        ("residual", 3 * 8 * 144),  # the block's input, and both tensors of its second convolution
        ("resnet20", 3 * 16 * 32 * 32),
        ("dscnn", 2 * 64 * 25 * 5),
        ("packed", 144 + 36 + 48),  # queries, keys and values lie together; scores; mixed values
        ("reused", 2 * 6 * 64),
        ("inception", 64 * (4 + 4 + 6 + 14)),  # three branches and their concatenation
        ("tied", 10 + 6),
        ("functional", 4 * 9 * 11 + 8 * 5 * 11),
    ],
)
def test_peak_memory(name: str, values: int) -> None:
    assert peak(networks.captured(name)) == values


def test_a_residual_block_keeps_its_input() -> None:
    captured = networks.captured("residual")
    live = sets(captured)
    stem, a1, a2 = (captured.layers[captured.layer_index[name]].output for name in ("stem", "a1", "a2"))
    assert live["conv2d"] == ("x", stem)
    assert live["conv2d_1"] == (stem, a1)
    assert live["conv2d_2"] == (stem, a1, a2)  # norm, addition and ReLU are written over the second convolution
    assert captured.layers[captured.layer_index["b1"]].input == a2
    owners = ["stem", "a1", "a2", "b1", "b2", "head", "head", "head", None]
    assert [tensor.owner for tensor in captured.tensors] == owners


def test_a_results_tuple_is_in_memory_with_what_it_was_computed_from(written: Written) -> None:
    model = written(
        lambda self, x: functional.max_pool2d(self.conv(x), 2, return_indices=True)[0], conv=nn.Conv2d(1, 2, 1)
    )
    captured = capture(model, torch.randn(2, 1, 4, 4))
    assert peak(captured) == 16 + 32  # the convolution; pooling holds 32 + 8
    pooling = next(live for live in captured.live_sets if live.operator.startswith("max_pool2d"))
    assert [t.elements for t in captured.tensors if t.name in pooling.tensors] == [32, 8]


def test_a_value_with_two_readers_is_not_written_over(written: Written) -> None:
    model = written(lambda self, x: (lambda y: y.relu() + y)(self.line(x)), line=nn.Linear(4, 4))
    captured = capture(model, torch.randn(2, 4))
    entry, linear, relu = (tensor.name for tensor in captured.tensors)  # the addition is written over the ReLU
    assert list(sets(captured).values()) == [(entry,), (entry, linear), (linear, relu), (linear, relu)]


def test_an_input_is_not_written_over(written: Written) -> None:
    captured = capture(written(lambda self, x: self.line(x.relu()), line=nn.Linear(4, 4)), torch.randn(2, 4))
    entry, relu, linear = (tensor.name for tensor in captured.tensors)
    assert list(sets(captured).values()) == [(entry,), (entry, relu), (relu, linear)]


def test_outputs_stay_to_the_end(written: Written) -> None:
    model = written(lambda self, x: (self.a(x), self.b(x)), a=nn.Linear(4, 2), b=nn.Linear(4, 3))
    captured = capture(model, torch.randn(2, 4))
    assert [tensor.owner for tensor in captured.tensors] == ["a", None, None]
    assert [live.tensors for live in captured.live_sets][-1] == ("inputs_0", "linear", "linear_1")


def test_an_input_that_is_an_output_stays(written: Written) -> None:
    model = written(lambda self, x: (self.b(self.a(x)), x), a=nn.Linear(4, 4), b=nn.Linear(4, 4))
    assert [live.tensors for live in capture(model, torch.randn(2, 4)).live_sets][-1] == (
        "inputs_0",
        "linear",
        "linear_1",
    )


def test_views_take_no_memory(written: Written) -> None:
    model = written(lambda self, x: self.line(functional.pad(x[:, ::2].flatten(1), (1, 1))), line=nn.Linear(8, 2))
    captured = capture(model, torch.randn(2, 4, 3))
    assert captured.tensors[0].elements == 12
    assert captured.layers[0].input == captured.tensors[0].name
    assert captured.layers[0].input_shape == (8,)
    assert peak(captured) == 12 + 2


@pytest.mark.parametrize("name", networks.CASES)
def test_every_tensor_that_a_layer_touches_is_stored_and_alive(name: str) -> None:
    captured = networks.captured(name)
    stored = {tensor.name: tensor for tensor in captured.tensors}
    live = {operator: set(tensors) for operator, tensors in sets(captured).items()}
    assert len(stored) == len(captured.tensors)
    assert set().union(*live.values()) == set(stored)
    for layer in captured.layers:
        node = captured.sites[layer.name].node.name
        touched = {layer.input, layer.output} | ({layer.second_input} - {None})
        assert touched <= live[node], layer.name
        assert stored[layer.input].owner is not None
