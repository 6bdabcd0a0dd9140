"""A configuration through the runtime itself: is it what was simulated, how fast is it, how good is it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils import _pytree as pytree

from hwdse.deploy.onnx import Rounded, cut_model
from hwdse.deploy.translate import needs_packages
from hwdse.errors import InputError
from hwdse.graph import BitConfig
from hwdse.hardware.measure.session import open_session
from hwdse.hardware.measure.timing import Harness, Timing, pinned
from hwdse.quantize.batch import tensors_of
from hwdse.quantize.network import QuantizedNetwork, Setting
from hwdse.reason import reason_of

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

__all__ = ["Agreement", "DeployedNetwork", "compare", "measure_latency"]

Array = NDArray[Any]

_OTHER_ROWS = 0.01


class DeployedNetwork(QuantizedNetwork):
    """A quantized network whose configuration runs in ONNX Runtime; full precision runs as before.

    Parameters
    ----------
    network
        The network that the file was made from.
    model
        ONNX file, or its content.
    threads
        Threads within one operator.
    """

    def __init__(self, network: QuantizedNetwork, model: bytes | Path, *, threads: int = 1) -> None:
        super().__init__(
            network.program,
            scheme=network.scheme,
            streams=network.all_streams,
            recipe=network.recipe,
            batches=network.batches,
        )
        self._rebuilt, self._fitted = network._rebuilt, network._fitted
        self.session = open_session(model, threads=threads)

    def forward(self, batch: Any, setting: Setting) -> Any:
        """Return the runtime's output for one batch, in the model's own structure, whatever ``setting`` quantizes."""
        if not setting.weights and not setting.quantizers:
            return super().forward(batch, setting)
        flat = [torch.from_numpy(array) for array in run(self.session, batch)]
        return pytree.tree_unflatten(flat, self.captured.program.call_spec.out_spec)


def run(
    session: InferenceSession, batch: Any, outputs: list[str] | None = None, given: Mapping[str, Array] | None = None
) -> list[Array]:
    """Return what ``session`` computes for one batch (a tensor or a tuple of tensors) and other inputs by name.

    Raises
    ------
    InputError
        If the runtime fails.
    """
    feed = _feed(session, batch) | dict(given or {})
    try:
        found: list[Array] = session.run(outputs, feed)
    except Exception as error:  # the runtime's errors have no common class but this
        raise InputError(f"expected the exported network to run, got {reason_of(error)}") from error
    return found


def _feed(session: InferenceSession, batch: Any) -> dict[str, Array]:
    """Return the tensors of a batch by the names of the inputs, which come in the same order."""
    return {given.name: tensor.numpy() for given, tensor in zip(session.get_inputs(), tensors_of(batch), strict=False)}


@dataclass(frozen=True)
class Agreement:
    """How the runtime's results differ from the simulation's.

    Attributes
    ----------
    samples, rows
        Number of samples, and of rows of the first output: samples, or tokens.
    other_top1
        Rows whose largest value is at another place.
    relative
        Largest difference of the first output, as a share of its largest magnitude.
    codes
        Number of codes of rounded tensors that were compared, each computed by the runtime from what the simulation
        computes before it: what differs by 1 early in a network is no difference of what comes later.
    equal
        Share of them that are equal; 1 where nothing is rounded.
    largest_lsb
        Their largest difference.
    """

    samples: int
    rows: int
    other_top1: int
    relative: float
    codes: int
    equal: float
    largest_lsb: int

    @property
    def top1(self) -> float:
        """Share of rows whose largest value is at the same place."""
        return 1.0 - self.other_top1 / self.rows

    @property
    def same_answers(self) -> bool:
        """True if at most one row, or 1 % of them, has its largest value elsewhere."""
        return self.other_top1 <= max(1.0, _OTHER_ROWS * self.rows)

    @property
    def holds(self) -> bool:
        """True if codes differ by at most 1, and the answers are the same."""
        return self.largest_lsb <= 1 and self.same_answers


def compare(network: QuantizedNetwork, config: BitConfig, model: bytes, batches: Iterable[Any]) -> Agreement:
    """Compare ONNX Runtime with the simulation on ``batches``: the whole network's output, and each part's codes.

    Raises
    ------
    InputError
        If a package is missing, there is no batch, or the model does not run.
    """
    needs_packages()
    session, setting = open_session(model), network.configure(config)
    parts: tuple[InferenceSession, list[Rounded]] | None = None
    tally = _Tally()
    for batch in batches:
        seen: dict[str, torch.Tensor] = {}
        output = pytree.tree_leaves(network.forward(batch, _watched(setting, seen)))[0].numpy()
        tally.add_output(output, run(session, batch, [session.get_outputs()[0].name])[0])
        if parts is None:
            cut, tensors = cut_model(model, {name: tensor.ndim for name, tensor in seen.items()})
            parts = open_session(cut), tensors
        given = {t.given: _codes(t, seen[t.point]) for t in parts[1]}
        found = run(parts[0], batch, [t.found for t in parts[1]], given) if given else []
        for tensor, codes in zip(parts[1], found, strict=True):
            tally.add_codes(given[tensor.given], codes)
    return tally.agreement()


def _codes(tensor: Rounded, values: torch.Tensor) -> Array:
    """Return the codes of rounded values."""
    return (np.rint(values.numpy().astype(np.float64) / tensor.scale) + tensor.zero).astype(np.uint8)


def _watched(setting: Setting, seen: dict[str, torch.Tensor]) -> Setting:
    """Return ``setting`` with quantizers that keep a copy of what they round to in ``seen``."""
    return replace(setting, quantizers={name: _Watched(name, q, seen) for name, q in setting.quantizers.items()})


@dataclass(frozen=True)
class _Watched:
    """A quantizer that keeps what it gives."""

    name: str
    quantizer: Any
    seen: dict[str, torch.Tensor]

    @property
    def is_unsigned(self) -> bool:
        return bool(self.quantizer.is_unsigned)

    def apply_(self, x: torch.Tensor) -> torch.Tensor:
        return self(x)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        rounded: torch.Tensor = self.quantizer(x)
        self.seen[self.name] = rounded.clone()
        return rounded


class _Tally:
    """Counts differences, batch after batch."""

    def __init__(self) -> None:
        self.samples = self.rows = self.other_rows = self.codes = self.equal = self.largest = 0
        self.difference = self.magnitude = 0.0

    def add_output(self, expected: Array, found: Array) -> None:
        self.samples += len(expected)
        other = expected.argmax(-1) != found.argmax(-1)
        self.rows, self.other_rows = self.rows + other.size, self.other_rows + int(other.sum())
        self.difference = max(self.difference, float(np.abs(expected - found).max(initial=0.0)))
        self.magnitude = max(self.magnitude, float(np.abs(expected).max(initial=0.0)))

    def add_codes(self, expected: Array, found: Array) -> None:
        difference = np.abs(expected.astype(np.int16) - found)
        self.codes += difference.size
        self.equal += int((difference == 0).sum())
        self.largest = max(self.largest, int(difference.max(initial=0)))

    def agreement(self) -> Agreement:
        if self.samples == 0:
            raise InputError("expected at least one batch to compare on, got none; check the evaluation factory")
        return Agreement(
            samples=self.samples,
            rows=self.rows,
            other_top1=self.other_rows,
            relative=self.difference / self.magnitude if self.magnitude > 0 else self.difference,
            codes=self.codes,
            equal=self.equal / self.codes if self.codes else 1.0,
            largest_lsb=self.largest,
        )


def measure_latency(model: bytes | Path, batch: Any, *, threads: int = 1, harness: Harness | None = None) -> Timing:
    """Return how long one inference of ``batch`` takes, pinned to cores.

    Raises
    ------
    InputError
        If the package is missing, the model does not run, or there are fewer cores than threads.
    """
    with pinned(threads):
        session = open_session(model, threads=threads)
        feed = _feed(session, batch)
        (timing,) = (harness or Harness(seconds_per_pass=0.5)).time([lambda: session.run(None, feed)])
    return timing
