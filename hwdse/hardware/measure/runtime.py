"""What a runtime must offer to be measured, and how installed ones are found."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

from hwdse.formats import Precision
from hwdse.hardware.measure.subject import LayerShape, Subject
from hwdse.hardware.measure.timing import Call
from hwdse.plugins import load_plugin, plugin_names

__all__ = ["GROUP", "Kernel", "Runtime", "find_runtime", "runtime_names", "whole"]

GROUP = "hwdse.runtimes"


def whole() -> float:
    """Return 1: everything in the call is the subject's."""
    return 1.0


@dataclass(frozen=True)
class Kernel:
    """Something built that can be called.

    Attributes
    ----------
    call
        Runs it once.
    executed
        Operators that really run, in order, as the runtime names them.
    input_format, output_format
        Formats of the tensors at its ends, such as ``int8`` (signed or unsigned) and ``fp32``.
    ends
        What the single call computes besides the subject and a network computes only where formats or layouts change:
        name of the boundary operator and the values it handles.
    share
        Share of a call's time, without the overhead of an empty one, that the subject itself takes; asked after the
        calls, since a runtime counts its operators' times while it is called.
    """

    call: Call
    executed: str
    input_format: str
    output_format: str
    ends: tuple[tuple[str, int], ...] = ()
    share: Callable[[], float] = whole


class Runtime(Protocol):
    """A library that runs layers on this processor.

    An object with these members, registered under the entry-point group ``hwdse.runtimes``, is all that it takes.
    """

    @property
    def name(self) -> str:
        """Name in tables and on the command line."""

    @property
    def scheme(self) -> Mapping[str, object]:
        """How integers are represented, as the keys of a profile's ``[scheme]``."""

    def version(self) -> str:
        """Return the version, or raise :class:`hwdse.errors.InputError` naming what to install."""

    def offers(self, shape: LayerShape, precision: Precision, *, block_size: int) -> Subject | None:
        """Return how the runtime computes a layer at a precision; ``None`` if it cannot or only pretends to.

        Precisions that run as another one (int4 in an int8 container) are not offered: the other one is.
        """

    def boundaries(self) -> Sequence[Subject]:
        """Return the changes of format and layout to measure, each at several sizes."""

    def nodes(self) -> Sequence[Subject]:
        """Return the operators without MACs to measure, each at several sizes."""

    def null(self, *, threads: int) -> Kernel:
        """Return the smallest possible call, whose time every other one contains."""

    def build(self, subject: Subject, *, threads: int) -> Kernel:
        """Return the subject ready to run; weights and inputs are random and the same every time.

        Raises
        ------
        hwdse.errors.InputError
            If the runtime would run something else than asked.
        """


def runtime_names() -> tuple[str, ...]:
    """Return the names of all runtimes that are registered, installed or not."""
    return plugin_names(GROUP)


def find_runtime(name: str) -> Runtime:
    """Return the runtime called ``name``.

    Raises
    ------
    InputError
        If none is registered by that name.
    """
    return cast("Runtime", load_plugin(GROUP, name))
