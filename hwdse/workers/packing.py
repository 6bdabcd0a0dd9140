"""What goes to workers as bytes: shared things once, as parts, and everything else by their places.

A tensor, or anything else of a kind that is *held*, is sent once, in a part, and later messages name it by its place.
Tensors lie in a part as they lie in memory, so that processes of one machine map them from one file instead of copying.
"""

from __future__ import annotations

import io
import pickle
import sys
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import Any

import cloudpickle
import torch
from torch._ops import OpOverload
from torch.utils import _pytree as pytree

from hwdse.errors import WorkerError
from hwdse.factories import FROM_FILE

__all__ = ["Packer", "Unpacker", "fingerprint_of_part"]


def fingerprint_of_part(part: bytes) -> str:
    """Return the address of a part's content."""
    return sha256(part).hexdigest()[:32]


class Packer:
    """Turns Python values into bytes for workers, and collects what these must have beforehand.

    Parameters
    ----------
    held
        Types whose values are sent once, besides tensors: what is large, or needed again and again.
    """

    def __init__(self, held: Iterable[type] = ()) -> None:
        self._held = (torch.Tensor, *held)
        self._places: dict[int, int] = {}
        self._kept: list[object] = []  # so that no other value gets the same identity
        self._tensors: dict[int, torch.Tensor] = {}
        self._objects: dict[int, torch.Tensor] = {}

    def pack(self, value: object) -> bytes:
        """Return ``value`` as bytes; what it holds for the first time waits for the next part."""
        return self._dump(value, root=None)

    def part(self) -> bytes | None:
        """Return what was held for the first time since the last part; ``None`` if nothing was."""
        if not self._tensors and not self._objects:
            return None
        stream = io.BytesIO()
        torch.save({"tensors": self._tensors, "objects": self._objects}, stream)
        self._tensors, self._objects = {}, {}
        return stream.getvalue()

    def place(self, value: object) -> int:
        """Return the place of a held value; what it is made of gets a place before it."""
        if id(value) not in self._places:
            if isinstance(value, torch.Tensor):
                content, table = _alone(value), self._tensors
            else:
                data = bytearray(self._dump(value, root=value))
                content, table = torch.frombuffer(data, dtype=torch.uint8), self._objects
            self._places[id(value)] = len(self._kept)
            self._kept.append(value)
            table[self._places[id(value)]] = content
        return self._places[id(value)]

    def _dump(self, value: object, *, root: object) -> bytes:
        stream = io.BytesIO()
        _Pickler(stream, self, self._held, root).dump(value)
        return stream.getvalue()


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # ships no type information
    """Pickles by place what is held, but for ``root``."""

    def __init__(self, stream: io.BytesIO, packer: Packer, held: tuple[type, ...], root: object) -> None:
        super().__init__(stream, protocol=pickle.HIGHEST_PROTOCOL)
        self._packer, self._held, self._root = packer, held, root

    def persistent_id(self, value: object) -> int | None:
        # A parameter is more than its tensor, which comes by itself.
        if value is self._root or isinstance(value, torch.nn.Parameter) or not isinstance(value, self._held):
            return None
        return self._packer.place(value)

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, OpOverload):
            return _operator, (value.namespace, value._schema.name.partition("::")[2], value._overloadname)
        if isinstance(value, pytree.TreeSpec):
            return pytree.treespec_loads, (pytree.treespec_dumps(value),)
        module = sys.modules.get(str(getattr(value, "__module__", "")))
        if module is not None and module.__name__.startswith(FROM_FILE):
            cloudpickle.register_pickle_by_value(module)
        return super().reducer_override(value)


def _operator(namespace: str, name: str, overload: str) -> OpOverload:
    """Return an operator of the framework by its name."""
    found: OpOverload = getattr(getattr(getattr(torch.ops, namespace), name), overload)
    return found


def _alone(tensor: torch.Tensor) -> torch.Tensor:
    """Return ``tensor`` without the rest of the storage that it is a view of."""
    tensor = tensor.detach()
    if tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size():
        return tensor
    return tensor.clone(memory_format=torch.preserve_format)


class Unpacker:
    """Turns bytes back into values, in a worker."""

    def __init__(self) -> None:
        self._table: dict[int, object] = {}

    def load(self, part: bytes | Path) -> None:
        """Take in a part: its bytes, or the file that it is in, which is mapped.

        Raises
        ------
        WorkerError
            If it is none.
        """
        try:
            source: Any = io.BytesIO(part) if isinstance(part, bytes) else part
            content = torch.load(source, weights_only=True, mmap=isinstance(part, Path))
        except (RuntimeError, pickle.UnpicklingError, OSError, EOFError) as error:
            raise WorkerError(f"expected a part of what workers share, got {type(error).__name__}") from error
        self._table |= content["tensors"]
        for place, data in content["objects"].items():
            self._table[place] = self.unpack(data.numpy().tobytes())

    def unpack(self, data: bytes) -> Any:
        """Return the value that was packed."""
        return _Unpickler(io.BytesIO(data), self._table).load()


class _Unpickler(pickle.Unpickler):
    """Finds what is held by its place."""

    def __init__(self, stream: io.BytesIO, table: dict[int, object]) -> None:
        super().__init__(stream)
        self._table = table

    def persistent_load(self, place: int) -> object:
        return self._table[place]
