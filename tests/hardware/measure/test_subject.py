from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hwdse.errors import InputError
from hwdse.graph import Layer
from hwdse.hardware.lut import ShapeKey
from hwdse.hardware.measure.grid import standard_grid
from hwdse.hardware.measure.subject import LayerShape
from hwdse.hardware.rate import OP_CLASSES


@given(size=st.integers(1, 40), kernel=st.integers(1, 7), stride=st.integers(1, 4), padding=st.integers(0, 3))
def test_pads_give_back_the_output_size_of_any_convolution(size: int, kernel: int, stride: int, padding: int) -> None:
    if size + 2 * padding < kernel:
        return
    output = torch.nn.functional.conv1d(torch.zeros(1, 1, size), torch.zeros(1, 1, kernel), None, stride, padding)
    count = output.shape[2]
    shape = LayerShape(ShapeKey("conv", 1, 1, (kernel,), (stride,), 1, (count,)), (size,))
    (before,), (after,) = shape.pads
    assert (size + before + after - kernel) // stride + 1 == count
    assert 0 <= after - before <= 1


def test_equal_padding_is_preferred() -> None:
    assert LayerShape.conv((8, 8), 3, 2, 28).pads == ((1, 1), (1, 1))
    same = LayerShape(ShapeKey("conv", 1, 1, (4, 4), (1, 1), 1, (9, 9)), (9, 9))
    assert same.pads == ((1, 1), (2, 2))


def layer(**changes) -> Layer:
    values = {
        "name": "c", "op": "conv", "input": "x", "output": "y", "input_shape": (6, 9, 11), "output_shape": (8, 5, 6),
        "macs": 8 * 5 * 6 * 3 * 3 * 3, "weight": "w", "weight_shape": (8, 3, 3, 3), "kernel": (3, 3), "stride": (2, 2),
        "groups": 2,
    }  # fmt: skip
    return Layer(**(values | changes))


def test_a_shape_knows_what_its_layer_knows() -> None:
    one = layer()
    shape = LayerShape.of(one)
    assert shape.key == ShapeKey.of(one)
    assert shape.input_size == (9, 11)
    assert (shape.macs, shape.weight_count, shape.op_class) == (one.macs, one.weight_count, one.op_class)


@pytest.mark.parametrize(
    "changes",
    [
        {"groups": 1, "weight_shape": (8, 6, 3, 3)},
        {"groups": 1, "weight_shape": (8, 6, 1, 1), "kernel": (1, 1)},
        {"groups": 6, "weight_shape": (12, 1, 3, 3), "output_shape": (12, 5, 6)},
        {"op": "linear", "input_shape": (7, 6), "output_shape": (7, 8), "weight_shape": (8, 6), "kernel": (),
         "stride": (), "groups": 1, "macs": 7 * 48},
        {"op": "matmul", "input_shape": (2, 7, 6), "output_shape": (2, 7, 8), "weight": None, "weight_shape": (),
         "kernel": (), "stride": (), "groups": 1, "macs": 2 * 7 * 48},
    ],
)  # fmt: skip
def test_classes_are_those_of_the_graph(changes) -> None:
    one = layer(**changes)
    assert LayerShape.of(one).op_class == one.op_class
    if one.op != "conv":
        assert LayerShape.of(one).macs == one.macs


@pytest.mark.parametrize(
    ("key", "size"),
    [
        (ShapeKey("conv", 0, 4, (3, 3), (1, 1), 1, (8, 8)), (8, 8)),
        (ShapeKey("conv", 4, 4, (3, 3), (1, 1), 1, (0, 8)), (8, 8)),
        (ShapeKey("conv", 4, 4, (3, 3), (1, 1), 1, (8, 8)), (0, 8)),
        (ShapeKey("linear", 4, 0, (), (), 1, ()), ()),
        (ShapeKey("pool", 4, 4, (), (), 1, ()), ()),
    ],
)
def test_shapes_without_work_are_refused(key: ShapeKey, size: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="sizes of at least 1"):
        LayerShape(key, size)


def test_groups_that_do_not_divide_are_refused() -> None:
    with pytest.raises(InputError, match="channels that 3 groups divide"):
        LayerShape.conv((8, 8), 3, 1, 8, groups=3)


def test_the_grid_has_every_class_and_each_shape_once() -> None:
    grid = standard_grid()
    assert {shape.op_class for shape in grid} == set(OP_CLASSES)
    assert len({shape.key for shape in grid}) == len(grid)
    for op_class in OP_CLASSES:
        assert sum(shape.op_class == op_class for shape in grid) >= 5
