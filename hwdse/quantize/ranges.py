"""Ranges of activations by what they do to the network's output, once its weights are chosen.

A tensor's own distribution does not tell which of its values matter: a clip with a small error may cut off those few
that decide, and a wide range may drown a channel of small values that decides. Here every candidate is put into the
network, and outputs are compared with those in full precision.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils import _pytree as pytree

from hwdse.calibrate import Boxes, Calibrator, Distribution, Stream, calibrator
from hwdse.errors import InputError
from hwdse.formats import Levels, NumberFormat, Scheme
from hwdse.quantize.batch import tensors_of
from hwdse.quantize.program import Program
from hwdse.quantize.quantizer import Quantizer, activation_quantizer
from hwdse.quantize.runnable import Environment, Quantizers

__all__ = ["CALIBRATORS", "SHARES", "choose_ranges", "mean_harm", "output_harm", "range_candidates"]

Array = NDArray[np.float64]

SHARES = tuple(2.0 ** (-k / 3) for k in range(9))
"""Shares of the seen range that are tried, the preferred one first."""

CALIBRATORS = ("percentile", "entropy", "mse")
"""Calibrators whose ranges are tried after these: they reach further where an outlier makes the seen range wide."""

NOISE = 0.5
"""Standard errors that the mean harm of a candidate must be below that of the first one to be chosen instead."""

_KEPT_BYTES = 2**30
"""Memory for the values of batches that wait between two points; those beyond start again from their inputs."""


def range_candidates(
    streams: Mapping[str, Stream],
    number_format: NumberFormat,
    *,
    scheme: Scheme,
    shares: Sequence[float] = SHARES,
    calibrators: Sequence[str] = CALIBRATORS,
) -> dict[str, list[Quantizer]]:
    """Return the quantizers that may stand at each point of ``streams``, without those that occur twice.

    Parameters
    ----------
    streams
        What each point holds, from :func:`hwdse.quantize.network.observe`.
    number_format, scheme
        What is rounded to. A point whose values the format keeps as they are (fp32) has no candidates.
    shares
        Ranges as shares of the smallest and largest value seen.
    calibrators
        Names of calibrators; their ranges come after the shares.

    Raises
    ------
    InputError
        If a calibrator is unknown, or the format cannot hold a tensor (it is named).
    """
    methods = [*map(_share, shares), *map(calibrator, calibrators)]
    found: dict[str, list[Quantizer]] = {}
    for point, stream in streams.items():
        boxes = Boxes.of_stream(stream)
        try:
            quantizers = [
                activation_quantizer(boxes, number_format=number_format, scheme=scheme, calibrate=method)
                for method in methods
            ]
        except InputError as error:
            raise InputError(f"{error} (tensor {point!r})") from error
        if different := list(dict.fromkeys(q for q in quantizers if q is not None)):
            found[point] = different
    return found


def _share(share: float) -> Calibrator:
    def calibrate(distribution: Distribution, levels: Levels) -> tuple[Array, Array]:
        del levels
        return share * distribution.minimum, share * distribution.maximum

    return calibrate


def output_harm(reference: Any, output: Any, powers: Sequence[float]) -> torch.Tensor:
    """Return how far each sample's ``output`` is from ``reference``, ``(samples,)``, in float64.

    Logits ``(samples, classes)`` of two classes or more as the only output: the Kullback-Leibler divergence of their
    softmax, in nats. Otherwise the mean squared error of each floating-point tensor divided by its entry of ``powers``,
    as a mean over these tensors.
    """
    pairs = list(zip(_tensors(reference), _tensors(output), strict=True))
    first, second = pairs[0]
    if len(pairs) == 1 and first.ndim == 2 and first.shape[1] > 1:
        p, q = first.log_softmax(1), second.log_softmax(1)
        # A class that the first rules out adds nothing, whatever the other says.
        return torch.where(p == -torch.inf, 0.0, p.exp() * (p - q)).sum(1).clamp(min=0.0)
    errors = [(o - r).square().reshape(len(r), -1).mean(1) / power for (r, o), power in zip(pairs, powers, strict=True)]
    return torch.stack(errors).mean(0)


def _tensors(output: Any) -> list[torch.Tensor]:
    """Return the floating-point tensors of a network's output, in float64."""
    leaves = [
        leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, torch.Tensor) and leaf.is_floating_point()
    ]
    if not leaves:
        raise InputError(
            f"expected a network that returns floating-point tensors, got {type(output).__name__}; change its output"
        )
    return [leaf.double() for leaf in leaves]


def _powers(references: Sequence[Any]) -> list[float]:
    """Return the mean square of each floating-point tensor of the outputs of all batches; 1 for one of zeros."""
    squares = [[(float(t.square().sum()), t.numel()) for t in _tensors(reference)] for reference in references]
    means = [sum(s for s, _ in own) / max(1, sum(n for _, n in own)) for own in zip(*squares, strict=True)]
    return [mean or 1.0 for mean in means]


def choose_ranges(
    program: Program,
    batches: Iterable[Any],
    constants: Mapping[int, torch.Tensor],
    candidates: Mapping[str, Sequence[Quantizer]],
    *,
    base: Quantizers | None = None,
    samples: int = 128,
    on_point: Callable[[], None] | None = None,
) -> dict[str, int]:
    """Return the index of the candidate to take at each point: that whose network has the least :func:`output_harm`.

    Points are decided in program order: those before have what was chosen for them, those behind are not rounded. The
    first candidate stays unless the mean harm of another is lower by more than half a standard error of the difference,
    sample by sample. What comes before a point runs once for all of its candidates.

    Parameters
    ----------
    program, batches
        Network and calibration data.
    constants
        Rounded weights, and biases, by position.
    candidates
        Quantizers by point, see :func:`range_candidates`, the preferred one first.
    base
        What rounds other points.
    samples
        How many of the calibration data are used, the first ones.
    on_point
        Called after each point.

    Raises
    ------
    InputError
        If a point is unknown or has no candidate, there is no sample, or an output is not finite (the point is named).
    """
    for point, options in candidates.items():
        if point not in program.points:
            raise InputError(f"expected points of this network, got {point!r}; use those of Program.points")
        if not options:
            raise InputError(f"expected at least one candidate for {point!r}, got none; leave the point out")
    chosen: dict[str, int] = {}
    current = {point: quantizer for point, quantizer in (base or {}).items() if point not in candidates}
    with torch.inference_mode():
        runs = [_Run(program, batch, constants) for batch in _first(batches, samples)]
        if not runs:
            raise InputError("expected at least one batch of calibration data, got none; check the calibration factory")
        powers = _powers([run.reference for run in runs])
        for point, start in _starts(program).items():
            if point not in candidates:
                continue
            options = list(dict.fromkeys(candidates[point]))
            trials = [{**current, point: option} for option in options]
            harms = _harms(runs, start, current, trials, powers) if len(trials) > 1 else np.zeros((1, 1))
            if not np.isfinite(harms).all():
                raise InputError(
                    f"expected finite outputs, got NaN or infinity with {point!r} rounded; check the network and its "
                    "calibration data"
                )
            best = _preferred(harms)
            current[point] = options[best]
            chosen[point] = list(candidates[point]).index(options[best])
            if on_point is not None:
                on_point()
    return chosen


def mean_harm(
    program: Program, batches: Iterable[Any], constants: Mapping[int, torch.Tensor], quantizers: Quantizers
) -> float:
    """Return the mean :func:`output_harm` of weights and biases, by position, and ``quantizers`` on all ``batches``.

    Raises
    ------
    InputError
        If there is no batch.
    """
    with torch.inference_mode():
        runs = [_Run(program, batch, constants) for batch in batches]
        if not runs:
            raise InputError("expected at least one batch of calibration data, got none; check the calibration factory")
        powers = _powers([run.reference for run in runs])
        return float(_harms(runs, -1, quantizers, [quantizers], powers).mean())


class _Run:
    """One batch on its way through the network.

    Parameters
    ----------
    program, batch, constants
        What is run, on what, and with which weights and biases.
    """

    def __init__(self, program: Program, batch: Any, constants: Mapping[int, torch.Tensor]) -> None:
        self.program, self.batch, self.constants = program, batch, constants
        self.values: Environment = []
        self.done = -1
        full = program.start(batch, {})
        program.advance(full, {})
        self.reference = program.result(full)

    def go(self, start: int, quantizers: Quantizers) -> None:
        """Run all steps before step ``start``; -1 stays before the inputs are rounded."""
        if not self.values:
            self.values, self.done = self.program.start(self.batch, self.constants), -1
        if start > self.done:
            self._advance(self.values, quantizers, last=start)
            self.done = start

    def output(self, quantizers: Quantizers) -> Any:
        """Return the network's output if the rest is run with ``quantizers``."""
        # Steps write over values that nobody else reads.
        values = [
            value if constant is not None else pytree.tree_map_only(torch.Tensor, torch.clone, value)
            for value, constant in zip(self.values, self.program.constants, strict=True)
        ]
        self._advance(values, quantizers)
        return self.program.result(values)

    def _advance(self, values: Environment, quantizers: Quantizers, last: int | None = None) -> None:
        if self.done < 0:
            self.program.quantize_inputs(values, quantizers)
        self.program.advance(values, quantizers, first=max(self.done, 0), last=last)

    @property
    def held_bytes(self) -> int:
        """Memory that its values take."""
        pairs = zip(self.values, self.program.constants, strict=False)
        held = [leaf for value, constant in pairs if constant is None for leaf in pytree.tree_leaves(value)]
        return sum(leaf.numel() * leaf.element_size() for leaf in held if isinstance(leaf, torch.Tensor))

    def forget(self) -> None:
        """Let go of all values; the next run starts from the inputs."""
        self.values = []


def _harms(
    runs: Sequence[_Run], start: int, current: Quantizers, trials: Sequence[Quantizers], powers: Sequence[float]
) -> Array:
    """Return the harm of each of ``trials``, which differ from step ``start`` on, ``(trials, samples)``."""
    found, held = [], 0
    for run in runs:
        run.go(start, current)
        found.append(np.stack([output_harm(run.reference, run.output(trial), powers).numpy() for trial in trials]))
        held += run.held_bytes
        if held > _KEPT_BYTES:
            run.forget()
    return np.concatenate(found, axis=1)


def _starts(program: Program) -> dict[str, int]:
    """Return the step to start at for each point, in program order; -1 for the user's inputs."""
    inputs = {point: -1 for _, point in program.inputs if point}
    steps = {name: i for i, step in enumerate(program.steps) for name in (step.second, step.point) if name}
    return {**inputs, **steps}


def _first(batches: Iterable[Any], samples: int) -> Iterator[Any]:
    """Yield ``batches`` up to so many samples in all."""
    if samples <= 0:
        return
    for batch in batches:
        taken = tuple(tensor[:samples] for tensor in tensors_of(batch))
        if len(taken[0]):
            samples -= len(taken[0])
            yield taken
        if samples == 0:
            return


def _preferred(harms: Array) -> int:
    """Return the best candidate if it is better than the first by more than noise; ``harms`` ``(candidates, n)``."""
    best = int(np.argmin(harms.mean(1)))
    gain = harms[0] - harms[best]
    noise = NOISE * gain.std(ddof=1) / np.sqrt(gain.size) if gain.size > 1 else 0.0
    return best if gain.mean() > noise else 0
