from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.utils import _pytree as pytree

from hwdse.errors import WorkerError
from hwdse.workers.packing import Packer, Unpacker


def there_and_back(packer: Packer, unpacker: Unpacker, value: object) -> object:
    data = packer.pack(value)
    part = packer.part()
    if part is not None:
        unpacker.load(part)
    return unpacker.unpack(data)


def test_what_is_held_is_sent_once() -> None:
    packer, unpacker = Packer([np.ndarray]), Unpacker()
    tensor, array = torch.arange(5000.0), np.arange(3000)
    first = there_and_back(packer, unpacker, {"a": tensor, "b": [array, tensor]})
    assert torch.equal(first["a"], tensor)
    assert first["b"][1] is first["a"]
    again = packer.pack((tensor, array))
    assert packer.part() is None
    assert len(again) < 200
    assert unpacker.unpack(again)[0] is first["a"]
    assert np.array_equal(unpacker.unpack(again)[1], array)


def test_what_is_held_inside_of_what_is_held_is_sent_once_too() -> None:
    class Box:
        def __init__(self, content: object) -> None:
            self.content = content

    packer, unpacker = Packer([Box]), Unpacker()
    tensor = torch.arange(1000.0)
    inner = Box(tensor)
    outer = there_and_back(packer, unpacker, Box([inner, tensor]))
    assert outer.content[0].content is outer.content[1]
    assert there_and_back(packer, unpacker, inner).content is outer.content[1]


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_tensors_lie_as_they_lay(order) -> None:
    tensor = torch.randn(2, 3, 4, 5).contiguous(memory_format=order)
    came = there_and_back(Packer(), Unpacker(), tensor)
    assert came.stride() == tensor.stride()
    assert torch.equal(came, tensor)


def test_a_slice_is_sent_without_the_rest() -> None:
    packer = Packer()
    packer.pack(torch.zeros(1_000_000)[:10])
    assert len(packer.part()) < 10_000


def test_operators_and_structures_arrive() -> None:
    structure = pytree.tree_structure({"a": [1, (2, 3)]})
    operator = torch.ops.aten.add_.Tensor
    came = there_and_back(Packer(), Unpacker(), (structure, operator, torch.relu_))
    assert came == (structure, operator, torch.relu_)
    assert came[1] is operator


def test_a_function_of_a_script_arrives_where_there_is_no_script() -> None:
    factor = 7
    data = Packer().pack(lambda x: factor * x)
    code = "import sys, pickle; print(pickle.loads(sys.stdin.buffer.read())(6))"
    said = subprocess.run([sys.executable, "-c", code], input=data, capture_output=True, check=True)
    assert said.stdout.decode().strip() == "42"


class Bomb:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_part_executes_nothing(tmp_path) -> None:
    marker = tmp_path / "executed"
    stream = io.BytesIO()
    torch.save({"tensors": {}, "objects": {0: Bomb(str(marker))}}, stream, pickle_module=pickle)
    with pytest.raises(WorkerError, match="expected a part of what workers share, got UnpicklingError"):
        Unpacker().load(stream.getvalue())
    assert not marker.exists()
