"""Fisher sensitivity: the divergence that every group and candidate would cause, from a few backward passes.

To first order the logits change by ``dz = J dy``, where ``dy`` is what rounding does where it happens: to a layer's
output for its weights, to the tensor itself for activations. The divergence of the softmax outputs follows from
``dz``: to second order it is ``dz' F dz / 2`` with the Fisher information ``F = diag(p) - p p'`` of the logits
[Martens2020]_. A backward pass from a vector ``v`` of logits gives ``v' J`` for every place in the network at once, so
its cost does not depend on the number of groups, and each format costs one run of each layer on its own.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx

from hwdse.analysis.distances import kl
from hwdse.analysis.draws import Drawn
from hwdse.analysis.sensitivity import Part, Sensitivity, harms_by_batch, part_of, trials, without_labels
from hwdse.analysis.tape import differentiable, operator_name, record, sign_seeds
from hwdse.capture import Capture
from hwdse.capture.operators import CONVOLUTIONS, LINEARS
from hwdse.errors import InputError
from hwdse.formats import Precision
from hwdse.graph import TiedGroup
from hwdse.quantize.network import QuantizedNetwork
from hwdse.quantize.program import Program, reads
from hwdse.quantize.quantizer import Quantizer
from hwdse.quantize.runnable import Environment, Step
from hwdse.workers import Crew

__all__ = ["predict_sensitivity"]

Floats = NDArray[np.float64]
Divergence = Callable[[torch.Tensor], torch.Tensor]

_TAPE_BYTES = 2**28
"""Memory for the values and gradients of the samples that are on the tape at once."""

_SATURATED = 500.0
"""A class whose log-probability grows by so many nats has all of it; more would overflow."""


def predict_sensitivity(
    network: QuantizedNetwork,
    batches: Iterable[Any],
    *,
    candidates: Sequence[Precision],
    rng: np.random.Generator,
    passes: int = 4,
    measured_share: float = 0.0,
    part: Part = "both",
    on_batch: Callable[[], None] | None = None,
    crew: Crew | None = None,
) -> Sensitivity:
    """Return the predicted Kullback-Leibler divergence of every (group, candidate), method ``kl_predicted``, in nats.

    With one row of logits per sample the divergence of the first-order logits is taken as it is, which grows less than
    its second-order expansion where errors are large: ``log sum_c p_c exp(d_c)`` with ``d = dz - p' dz``. The likeliest
    ``passes - 1`` classes have a backward pass each; the others share the last one by random signs, and enter to second
    order without bias. As many passes as classes make every class exact. With several rows per sample (tokens), every
    pass is a random combination of all classes and tokens, and the divergence is that of second order, averaged.

    What the prediction leaves out: the network's own curvature, which counts with 2 or 3 bits; the product of a
    weight's error with an activation's, which is small beside either; and that a tensor downstream in the same group is
    rounded after it has moved.

    Parameters
    ----------
    network
        Calibrated network under one scheme.
    batches
        Calibration batches, best those of :func:`hwdse.analysis.draws.draw`.
    candidates
        Precisions to try on each group.
    rng
        Draws the signs.
    passes
        Backward passes per sample.
    measured_share
        Share of the (group, candidate) with the largest predictions that are measured on the same samples instead:
        those for which first order is least to be trusted.
    part
        As in :func:`hwdse.analysis.sensitivity.measure_sensitivity`.
    on_batch
        Called after each batch.
    crew
        Who runs what is measured; ``None`` for this process, which always does the few backward passes.

    Raises
    ------
    InputError
        If there is no batch, the part is unknown, there is no pass, or the share is not between 0 and 1.
    """
    if passes < 1 or not 0.0 <= measured_share <= 1.0:
        raise InputError(
            f"expected at least 1 pass and a share between 0 and 1, got {passes} and {measured_share:g}; correct them"
        )
    changes = _Changes.of(network, [part_of(candidate, part) for candidate in candidates])
    drawn = [Drawn.of(batch) for batch in batches]
    found = []
    for batch in drawn:
        parts = [changes.divergences(chunk, passes, rng) for chunk in changes.chunks(batch, passes)]
        found.append(np.concatenate(parts, axis=-1) * batch.weights)
        if on_batch is not None:
            on_batch()
    if not found:
        raise InputError("expected at least one batch of calibration data, got none; check the calibration factory")
    per_sample = np.concatenate(found, axis=-1)
    _measure(network, drawn, candidates, per_sample, share=measured_share, part=part, crew=crew)
    names = tuple(group.name for group in network.captured.groups)
    scores = {"kl_predicted": per_sample.mean(axis=-1)}
    return Sensitivity(names, tuple(candidates), scores, per_sample.shape[-1], {"kl_predicted": per_sample})


def _measure(
    network: QuantizedNetwork,
    drawn: Sequence[Drawn],
    candidates: Sequence[Precision],
    per_sample: Floats,
    *,
    share: float,
    part: Part,
    crew: Crew | None,
) -> None:
    """Put measured divergences in place of the largest predicted ones."""
    scores = per_sample.mean(axis=-1)
    count = round(share * scores.size)
    if count == 0:
        return
    chosen = np.zeros(scores.size, dtype=np.bool_)
    chosen[np.argsort(-scores, axis=None, kind="stable")[:count]] = True
    chosen = chosen.reshape(scores.shape)
    plan = [t for t in trials(network, candidates, part=part) if chosen[t.group, t.columns].any()]
    tried = np.zeros(scores.shape, dtype=np.bool_)
    for trial in plan:
        tried[trial.group, trial.columns] = True
    pairs = ((batch, None) for batch in drawn)
    harms = {"kl": without_labels(kl)}
    measured = [found["kl"] for found in harms_by_batch(network, pairs, harms, plan=plan, size=scores.shape, crew=crew)]
    per_sample[tried] = np.concatenate(measured, axis=-1)[tried]


@dataclass(frozen=True)
class _Change:
    """What rounding does at one place: from all full-precision values to the change of the value at ``position``."""

    position: int
    of: Callable[[Environment], torch.Tensor]


@dataclass(frozen=True)
class _Readers:
    """Where the values that may be rounded are read.

    Attributes
    ----------
    program
        The network.
    steps
        By the node that each computes; a layer with a folded batch norm is found by its own node, too.
    places
        Position of the tensor at each point.
    seconds
        Steps by the point of their second operand.
    stored
        For each of those, the point of the tensor that the operand is a view of, if that is one.
    """

    program: Program
    steps: Mapping[fx.Node, Step]
    places: Mapping[str, int]
    seconds: Mapping[str, Step]
    stored: Mapping[str, str]

    @classmethod
    def of(cls, program: Program) -> Self:
        """Return the readers in ``program``."""
        captured = program.captured
        steps = {captured.flow.nodes[step.output]: step for step in program.steps}
        for site in captured.sites.values():
            if site.batch_norm is not None:
                steps[site.node] = steps[next(user for user in site.batch_norm.users if user in steps)]
        places = {point: position for position, point in program.inputs if point}
        places |= {step.point: step.output for step in program.steps if step.point}
        seconds = {step.second: step for step in program.steps if step.second}
        stored = {f"{layer.name}.second": layer.second_input or "" for layer in captured.layers if layer.weight is None}
        return cls(program, steps, places, seconds, stored)

    def of_weight(self, position: int, weight: torch.Tensor) -> Iterator[_Change]:
        """Yield the changes of values that another ``weight`` or bias makes, directly or through views."""
        flow = self.program.captured.flow
        for user in flow.nodes[position].users:
            step = self.steps.get(user)
            if step is None:
                continue
            if user in flow.activations:
                yield _Change(step.output, partial(_response, self.program, step, position, weight))
            else:
                values = _with(self.program.constants, position, weight)
                _only(self.program, step).advance(values, {})
                yield from self.of_weight(step.output, values[step.output])

    def of_point(self, point: str, quantizer: Quantizer, earlier: Quantizer | None) -> Iterator[_Change]:
        """Yield the change that rounding the tensor at ``point`` makes.

        A second operand that is a view of a tensor that was rounded ``earlier`` changes only by its own rounding.
        """
        if point in self.seconds:
            step = self.seconds[point]
            rounded = quantizer if earlier is None else _Twice(earlier, quantizer)
            of = partial(_second_change, _only(self.program, step), step, earlier, rounded)
            yield _Change(step.output, of)
        else:
            yield _Change(self.places[point], partial(_rounding, self.places[point], quantizer))


@dataclass(frozen=True)
class _Twice:
    """One rounding after another."""

    first: Quantizer
    then: Quantizer

    is_unsigned = False

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self.then.apply_(self.first(x))

    apply_ = __call__


def _only(program: Program, step: Step) -> Program:
    """Return a program of one step on the values of ``program``."""
    return replace(program, steps=[step], inputs=[])


def _with(values: Environment, position: int, value: torch.Tensor) -> Environment:
    """Return ``values`` with one replaced."""
    return [*values[:position], value, *values[position + 1 :]]


def _rounding(position: int, quantizer: Quantizer, values: Environment) -> torch.Tensor:
    """Return what rounding changes of the value at ``position``."""
    return quantizer(values[position]).sub_(values[position])


def _second_change(
    only: Program, step: Step, earlier: Quantizer | None, rounded: Quantizer, values: Environment
) -> torch.Tensor:
    """Return what changes of a product where its second operand is rounded, after it was ``earlier``."""
    before, after = list(values), list(values)
    if earlier is not None:
        only.advance(before, {step.second: earlier})
    only.advance(after, {step.second: rounded})
    difference: torch.Tensor = after[step.output] - before[step.output]
    return difference


def _response(program: Program, step: Step, position: int, weight: torch.Tensor, values: Environment) -> torch.Tensor:
    """Return what changes of a step's result where it reads another ``weight`` or bias."""
    if operator_name(step.function) in CONVOLUTIONS | LINEARS and not reads(step.arguments[2:], position):
        # Linear in its weight: the result of the weight's change, without the bias.
        keywords = {name: value for name, value in step.keywords.items() if name != "bias"}
        bare = replace(step, arguments=(*step.arguments[:2], None, *step.arguments[3:]), keywords=keywords)
        after = _with(values, position, weight - values[position])
        _only(program, bare).advance(after, {})
        response: torch.Tensor = after[step.output]
        return response
    after = _with(values, position, weight)
    _only(program, step).advance(after, {})
    difference: torch.Tensor = after[step.output] - values[step.output]
    return difference


@dataclass(frozen=True)
class _Roundings:
    """What the candidates of one group round, each place and format once.

    Attributes
    ----------
    changes
        Changes by what is rounded.
    chosen
        For each candidate, what it rounds.
    """

    changes: Mapping[Hashable, Sequence[_Change]]
    chosen: Sequence[Sequence[Hashable]]

    @classmethod
    def of(
        cls, network: QuantizedNetwork, readers: _Readers, group: TiedGroup, candidates: Sequence[Precision]
    ) -> Self:
        """Return what ``candidates`` round in ``group``."""
        changes: dict[Hashable, Sequence[_Change]] = {}
        chosen = []
        for candidate in candidates:
            setting = network.setting(dict.fromkeys(group.layers, candidate))
            made: dict[Hashable, Callable[[], Iterator[_Change]]] = {
                (position, candidate.weights): partial(readers.of_weight, position, weight)
                for position, weight in setting.constants.items()
            }
            for point, quantizer in setting.quantizers.items():
                earlier = setting.quantizers.get(readers.stored.get(point, ""))
                number_format = candidate.weights if point in readers.stored else candidate.activations
                key = (point, number_format, earlier and candidate.activations)
                made[key] = partial(readers.of_point, point, quantizer, earlier)
            changes |= {key: tuple(make()) for key, make in made.items() if key not in changes}
            chosen.append(tuple(made))
        return cls(changes, chosen)


@dataclass(frozen=True)
class _Changes:
    """What every candidate does to a network, place by place.

    Attributes
    ----------
    program
        The network, differentiable.
    groups
        Of each group.
    axes
        For each place that changes, the axis of the samples; ``None`` where samples are mixed with something else.
    """

    program: Program
    groups: Sequence[_Roundings]
    axes: Mapping[int, int | None]

    @classmethod
    def of(cls, network: QuantizedNetwork, candidates: Sequence[Precision]) -> Self:
        """Return what ``candidates`` do to ``network``."""
        program = differentiable(network.program)
        readers = _Readers.of(program)
        groups = [_Roundings.of(network, readers, group, candidates) for group in network.captured.groups]
        places = sorted({change.position for g in groups for made in g.changes.values() for change in made})
        return cls(program, groups, {place: _sample_axis(network.captured, place) for place in places})

    def chunks(self, batch: Drawn, passes: int) -> Iterator[tuple[torch.Tensor, ...]]:
        """Yield the samples in portions whose tape fits into memory; one by one where a place mixes them."""
        values = sum(tensor.elements for tensor in self.program.captured.tensors)
        fitting = max(1, _TAPE_BYTES // (4 * values * (passes + 2)))
        size = 1 if None in self.axes.values() else fitting
        yield from zip(*(tensor.split(size) for tensor in batch.tensors), strict=True)

    def divergences(self, chunk: tuple[torch.Tensor, ...], passes: int, rng: np.random.Generator) -> Floats:
        """Return the predicted divergences of one portion of samples, ``(groups, candidates, samples)``."""
        values, logits = record(self.program, chunk, leaves=self.axes.keys())
        seeds, divergence = (_of_classes if logits.ndim == 2 else _of_tokens)(logits.detach(), passes, rng)
        gradients = self._gradients(values, logits, seeds)
        still = torch.zeros(len(seeds), len(logits))
        with torch.no_grad():
            found = []
            for group in self.groups:
                moved = {key: self._along(made, values, gradients, still) for key, made in group.changes.items()}
                sums = [sum((moved[key] for key in keys), still).double() for keys in group.chosen]
                found.append([divergence(moves).numpy() for moves in sums])
        return np.array(found)

    def _gradients(
        self, values: Environment, logits: torch.Tensor, seeds: Sequence[torch.Tensor]
    ) -> list[dict[int, torch.Tensor]]:
        """Return, for each seed ``v``, ``v' J`` by place; places without influence on the logits are left out."""
        places = [place for place in self.axes if values[place].requires_grad]
        found = []
        for seed in seeds:
            tracked = [values[place] for place in places]
            gradients = torch.autograd.grad(logits, tracked, seed, retain_graph=True, allow_unused=True)
            found.append({p: gradient for p, gradient in zip(places, gradients, strict=True) if gradient is not None})
        return found

    def _along(
        self,
        made: Sequence[_Change],
        values: Environment,
        gradients: Sequence[Mapping[int, torch.Tensor]],
        still: torch.Tensor,
    ) -> torch.Tensor:
        """Return ``v' dz`` for each seed and sample, ``(seeds, samples)``, summed over changes; ``still`` is none."""
        total = still.clone()
        for change in made:
            delta, axis = change.of(values), self.axes[change.position]
            rest = [a for a in range(delta.ndim) if a != axis]
            for row, gradient in zip(total, gradients, strict=True):
                if change.position in gradient:
                    row += (gradient[change.position] * delta).sum(rest)
        return total


def _sample_axis(captured: Capture, place: int) -> int | None:
    """Return the axis that holds the samples and nothing else."""
    node = captured.flow.nodes[place]
    axis = captured.flow.batch_axis(node)
    return axis if axis is not None and node.meta["val"].shape[axis].node.expr.is_Symbol else None


def _of_classes(logits: torch.Tensor, passes: int, rng: np.random.Generator) -> tuple[list[torch.Tensor], Divergence]:
    """Return the seeds for logits ``(samples, classes)``, and the divergence by what they give.

    ``(e_c - p)' dz`` is the change of a class's logit less their mean. As the changes weighted by ``p`` add up to 0,
    the sum under the logarithm is ``1 + sum_c p_c (exp(d_c) - 1 - d_c)``, and the terms of all classes without a seed
    of their own are together half the square of what the seed with random signs gives, on average.
    """
    p = logits.double().softmax(-1)
    classes = p.shape[-1]
    own = classes if passes >= classes else passes - 1
    likeliest = p.argsort(dim=-1, descending=True, stable=True)[:, :own]
    seeds = [torch.nn.functional.one_hot(c, classes) - p for c in likeliest.T]
    if own < classes:
        signs = torch.from_numpy(rng.integers(2, size=tuple(p.shape)) * 2.0 - 1.0)
        mixed = (signs * p.sqrt()).scatter(-1, likeliest, 0.0)
        seeds.append(mixed - p * mixed.sum(-1, keepdim=True))
    weights = p.gather(-1, likeliest).T

    def divergence(given: torch.Tensor) -> torch.Tensor:
        moved = given[:own].clamp(max=_SATURATED)
        grown = (weights * (moved.expm1() - moved)).sum(0) + given[own:].square().sum(0) / 2.0
        return grown.log1p()

    return [seed.to(logits.dtype) for seed in seeds], divergence


def _of_tokens(logits: torch.Tensor, passes: int, rng: np.random.Generator) -> tuple[list[torch.Tensor], Divergence]:
    """Return the seeds for logits ``(samples, ..., classes)``, and the divergence by what they give.

    What a seed gives squares to ``dz' F dz`` on average, summed over tokens.
    """
    tokens = logits[0, ..., 0].numel()
    return sign_seeds(logits, passes, rng), lambda given: given.square().mean(0) / (2.0 * tokens)
