"""Measured configurations of one scheme, shared by all devices that have it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from math import inf

import numpy as np
from numpy.typing import NDArray

from hwdse.analysis.sensitivity import Sensitivity
from hwdse.errors import InputError
from hwdse.evaluate import Evaluations, Interval, Key, QualityMetric, Scores, mean_interval, paired_interval
from hwdse.evaluate.executor import Enough, Executor, Request
from hwdse.evaluate.interval import mean_intervals, paired_intervals
from hwdse.formats import Precision
from hwdse.graph import BitConfig
from hwdse.quantize.network import QuantizedNetwork
from hwdse.search.surrogate import HarmModel, Learner

__all__ = ["FULL_PRECISION", "Identity", "Laboratory", "Measured", "SchemeState"]

FULL_PRECISION = "fp32"
_MOST_AT_ONCE, _MOST_SCORES = 1000, 4_000_000
"""Evaluations, and scores, that are held at once when many are taken over."""


@dataclass(frozen=True)
class Identity:
    """What all evaluations of a study have in common.

    Attributes
    ----------
    network, data
        Fingerprints.
    metric, recipe
        Their keys.
    """

    network: str
    data: str
    metric: str
    recipe: str

    def key(self, scheme: str, bits: str) -> Key:
        """Return the address of one evaluation; full precision has no scheme and no recipe."""
        if bits == FULL_PRECISION:
            return Key(self.network, self.data, FULL_PRECISION, FULL_PRECISION, self.metric, bits)
        return Key(self.network, self.data, scheme, self.recipe, self.metric, bits)


@dataclass(frozen=True)
class Measured:
    """One measured configuration.

    Attributes
    ----------
    quality
        Mean score with its interval.
    drop
        Full precision minus quality, paired over the samples, with its interval.
    """

    quality: Interval
    drop: Interval


@dataclass
class SchemeState:
    """A network under one scheme with all that is known of it.

    Attributes
    ----------
    network
        The quantized network.
    sensitivity
        Harm of every (group, candidate).
    loss
        The score whose sum over the groups predicts harm.
    measured
        Results by the configuration's bits, in the order of measuring.
    under_way
        Bits of what is being measured, in the order of beginning.
    """

    network: QuantizedNetwork
    sensitivity: Sensitivity
    loss: str = "kl"
    measured: dict[str, Measured] = field(default_factory=dict)
    under_way: dict[str, None] = field(default_factory=dict)
    _learner: Learner = field(init=False, repr=False)
    _model: HarmModel | None = field(default=None, init=False, repr=False)
    _modelled: int = field(default=0, init=False, repr=False)
    _read: tuple[NDArray[np.uint8], NDArray[np.float64], NDArray[np.float64]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._learner = Learner(self.sensitivity.scores[self.loss])
        self._read = self._genes(()), np.zeros(0), np.zeros(0)

    @property
    def key(self) -> str:
        """The scheme's key."""
        return self.network.scheme.key

    @property
    def model(self) -> HarmModel:
        """What all measurements under this scheme say about harm; genes index the sensitivity's candidates."""
        if self._model is None or self._modelled != len(self.measured):
            self._modelled = len(self.measured)
            self._model = self._learner.model(*self._results())
        return self._model

    def has(self, bits: str) -> bool:
        """Return True if ``bits`` give every layer one of the candidates."""
        texts = bits.split()
        return len(texts) == len(self.network.captured.layers) and self._names.issuperset(texts)

    @cached_property
    def _names(self) -> frozenset[str]:
        return frozenset(map(str, self.sensitivity.candidates))

    def expected(self) -> tuple[HarmModel, dict[str, float]]:
        """Return a model, and harms by bits, in which what is under way has the harm that is expected of it.

        So nothing near it is asked for as if nothing were known there [Desautels2014]_.
        """
        model = self.model
        harms = {bits: result.drop.mean for bits, result in self.measured.items()}
        if not self.under_way:
            return model, harms
        asked = self._genes(self.under_way)
        supposed = model(asked).median
        error = model.errors.mean() if len(model.errors) else 0.0
        together = HarmModel(
            self._learner.losses,
            np.concatenate([model.genes, asked]),
            np.concatenate([model.harms, supposed]),
            errors=np.append(model.errors, np.full(len(supposed), error)),
            widths=model.widths,
        )
        return together, harms | dict(zip(self.under_way, supposed.tolist(), strict=True))

    @property
    def drops(self) -> NDArray[np.float64]:
        """Measured harms, ``(measured,)``."""
        return self._results()[1]

    def _results(self) -> tuple[NDArray[np.uint8], NDArray[np.float64], NDArray[np.float64]]:
        """Return genes, harms and their standard errors of what was measured; only what is new is read."""
        genes, harms, errors = self._read
        if new := dict(islice(self.measured.items(), len(harms), None)):
            drops = [result.drop for result in new.values()]
            genes = np.concatenate([genes, self._genes(new)])
            harms = np.append(harms, [drop.mean for drop in drops])
            errors = np.append(errors, [drop.standard_error for drop in drops])
            self._read = genes, harms, errors
        return self._read

    def past(self, measured: int, under_way: Iterable[str]) -> SchemeState:
        """Return what was known when only so much was measured, and ``under_way`` was."""
        state = SchemeState(self.network, self.sensitivity, self.loss, dict(islice(self.measured.items(), measured)))
        state.under_way = dict.fromkeys(under_way)
        state._learner = self._learner
        return state

    def _genes(self, configurations: Iterable[str]) -> NDArray[np.uint8]:
        """Return configurations, given by their bits, as indices of the sensitivity's candidates, ``(n, groups)``."""
        index = {str(candidate): i for i, candidate in enumerate(self.sensitivity.candidates)}
        layers = self.network.captured.layer_index
        first = [layers[group.layers[0]] for group in self.network.captured.groups]
        genes = [index[texts[i]] for texts in map(str.split, configurations) for i in first]
        return np.array(genes, dtype=np.uint8).reshape(-1, len(first))


def parse_bits(layers: Mapping[str, int], bits: str) -> BitConfig:
    """Return the configuration whose precisions are ``bits``, in the order of ``layers``.

    Raises
    ------
    InputError
        If one is no precision, or there are not as many as layers.
    """
    parts = bits.split()
    if len(parts) != len(layers):
        raise InputError(f"expected the precision of {len(layers)} layers, got {len(parts)}; write one for each")
    return BitConfig(dict(zip(layers, map(Precision.parse, parts), strict=True)))


@dataclass
class _Begun:
    """A configuration under way."""

    state: SchemeState
    bits: str
    scores: Scores | None = None
    was_there: bool = False


class Laboratory:
    """Measures configurations, asking the pool first.

    What is begun is taken over into its scheme's state in the order of beginning, whatever is finished first; finished
    evaluations are in the pool at once.

    Parameters
    ----------
    executor
        Evaluates configurations.
    metric
        Says whether scores are wrong and right answers.
    pool
        Finished evaluations.
    identity
        What they have in common.

    Attributes
    ----------
    reference
        Scores of full precision, once measured.
    """

    def __init__(self, executor: Executor, metric: QualityMetric, pool: Evaluations, identity: Identity) -> None:
        self.executor, self.pool, self.identity = executor, pool, identity
        self.may_count = metric.may_count
        self.reference: NDArray[np.float32] = np.zeros(0, dtype=np.float32)
        self._line: deque[_Begun] = deque()
        self._numbers: dict[int, _Begun] = {}

    @property
    def under_way(self) -> int:
        """How many configurations were begun and not taken over."""
        return len(self._line)

    def measure_reference(self, network: QuantizedNetwork, scores: Scores | None = None) -> Interval:
        """Measure full precision, unless ``scores`` hold that already, and return its quality."""
        key = self.identity.key(network.scheme.key, FULL_PRECISION)
        there = self.pool.get(key)
        kept = scores or there
        if kept is None:
            self.executor.begin(Request(network, None))
            kept = self.executor.next_result()[1]
        if there is None:
            self.pool.put(key, kept)
        self.executor.expect(kept.seconds)
        self.reference = kept.per_sample
        return mean_interval(self.reference, may_count=self.may_count)

    def knows(self, state: SchemeState, bits: str, *, ceiling: float = inf) -> bool:
        """Return True if measuring a configuration would cost nothing."""
        return self._kept(state, bits, ceiling) is not None

    def begin(self, state: SchemeState, bits: str, *, ceiling: float = inf) -> None:
        """Have a configuration measured under a scheme.

        Parameters
        ----------
        state, bits
            The scheme and the configuration.
        ceiling
            Harm from which on it is hopeless: once the samples seen so far leave no doubt of that, the rest is spared.
        """
        kept = self._kept(state, bits, ceiling)
        begun = _Begun(state, bits, kept, was_there=kept is not None)
        self._line.append(begun)
        state.under_way[bits] = None
        if kept is None:
            config = parse_bits(state.network.captured.layer_index, bits)
            is_enough = None if ceiling == inf else Enough(self.reference, ceiling, self.may_count)
            self._numbers[self.executor.begin(Request(state.network, config, is_enough))] = begun

    @property
    def at_once(self) -> int:
        """How many evaluations of all samples may be held in memory."""
        return max(1, min(_MOST_AT_ONCE, _MOST_SCORES // max(1, self.reference.size)))

    def take_over(self, asked: Sequence[tuple[SchemeState, str, float]]) -> list[float]:
        """Take over what is in the pool, up to the first that is not; nothing may be under way.

        Parameters
        ----------
        asked
            Scheme, configuration and ceiling as for :meth:`begin`, at most :attr:`at_once`.

        Returns
        -------
        list[float]
            Seconds that each evaluation took.
        """
        assert not self._line, "others are under way"
        keys = [self.identity.key(state.key, bits) for state, bits, _ in asked]
        there = self.pool.get_many(keys)
        kept: list[Scores] = []
        for key, (_, _, ceiling) in zip(keys, asked, strict=True):
            scores = there.get(key)
            if scores is None or not Enough(self.reference, ceiling, self.may_count)(scores.per_sample):
                break
            kept.append(scores)
        found: dict[int, Measured] = {}
        for size in {scores.per_sample.size for scores in kept}:
            rows = [i for i, scores in enumerate(kept) if scores.per_sample.size == size]
            stacked = np.stack([kept[i].per_sample for i in rows])
            qualities = mean_intervals(stacked, may_count=self.may_count)
            drops = paired_intervals(stacked, self.reference[:size], may_count=self.may_count)
            found |= dict(zip(rows, map(Measured, qualities, drops), strict=True))
        for i, (state, bits, _) in enumerate(asked[: len(kept)]):
            state.measured[bits] = found[i]
        return [scores.seconds for scores in kept]

    def settle(self) -> tuple[float, bool]:
        """Take over what was begun first, once it is finished.

        Returns the seconds that the evaluation took, and whether it was in the pool already.
        """
        begun = self._line[0]
        while begun.scores is None:
            number, scores = self.executor.next_result()
            done = self._numbers.pop(number)
            self.pool.put(self.identity.key(done.state.key, done.bits), scores)
            done.scores = scores
        self._line.popleft()
        del begun.state.under_way[begun.bits]
        per_sample = begun.scores.per_sample
        begun.state.measured[begun.bits] = Measured(
            mean_interval(per_sample, may_count=self.may_count),
            paired_interval(per_sample, self.reference[: per_sample.size], may_count=self.may_count),
        )
        return begun.scores.seconds, begun.was_there

    def withdraw(self) -> None:
        """Give up whatever nobody has started to compute."""
        for number in self.executor.withdraw():
            begun = self._numbers.pop(number)
            self._line.remove(begun)
            del begun.state.under_way[begun.bits]

    def measure(self, state: SchemeState, bits: str, *, ceiling: float = inf) -> tuple[float, bool]:
        """Measure a configuration under a scheme now, and return what :meth:`settle` does."""
        assert not self._line, "others are under way"
        self.begin(state, bits, ceiling=ceiling)
        return self.settle()

    def scores(self, state: SchemeState, configurations: Sequence[str]) -> list[NDArray[np.float32]]:
        """Return the scores of the samples that each was measured on under a scheme, ``(samples,)``."""
        keys = [self.identity.key(state.key, bits) for bits in configurations]
        there = self.pool.get_many(keys)
        return [there[key].per_sample for key in keys]

    def _kept(self, state: SchemeState, bits: str, ceiling: float) -> Scores | None:
        """Return the scores in the pool, if they are of all samples, or of enough."""
        kept = self.pool.get(self.identity.key(state.key, bits))
        is_enough = Enough(self.reference, ceiling, self.may_count)
        return kept if kept is not None and is_enough(kept.per_sample) else None
