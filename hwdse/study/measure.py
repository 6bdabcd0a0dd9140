"""Measured configurations of one scheme, shared by all devices that have it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from math import inf

import numpy as np
from numpy.typing import NDArray

from hwdse.analysis.sensitivity import Sensitivity
from hwdse.evaluate import Evaluator, Interval, Key, Pool, Scores, mean_interval, paired_interval
from hwdse.formats import Precision
from hwdse.graph import BitConfig
from hwdse.quantize.network import QuantizedNetwork
from hwdse.search.surrogate import HarmModel, Learner

__all__ = ["FULL_PRECISION", "Identity", "Measured", "SchemeState"]

FULL_PRECISION = "fp32"
_FEWEST_SAMPLES = 64
_NO_DOUBT = 4.0
"""Standard errors: a configuration is looked at after every batch, and is hardly ever given up by mistake."""


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
    """

    network: QuantizedNetwork
    sensitivity: Sensitivity
    loss: str = "kl"
    measured: dict[str, Measured] = field(default_factory=dict)
    _learner: Learner = field(init=False, repr=False)
    _model: HarmModel | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        self._learner = Learner(self.sensitivity.scores[self.loss])

    @property
    def key(self) -> str:
        """The scheme's key."""
        return self.network.scheme.key

    @property
    def model(self) -> HarmModel:
        """What all measurements under this scheme say about harm; genes index the sensitivity's candidates."""
        if self._model is None or len(self._model.harms) != len(self.measured):
            index = {str(candidate): i for i, candidate in enumerate(self.sensitivity.candidates)}
            layers = self.network.captured.layer_index
            first = [layers[group.layers[0]] for group in self.network.captured.groups]
            texts = [bits.split() for bits in self.measured]
            genes = np.array([[index[text[i]] for i in first] for text in texts], dtype=np.uint8)
            drops = [result.drop for result in self.measured.values()]
            self._model = self._learner.model(
                genes.reshape(-1, len(first)),
                np.array([drop.mean for drop in drops]),
                np.array([drop.standard_error for drop in drops]),
            )
        return self._model


def parse_bits(layers: Mapping[str, int], bits: str) -> BitConfig:
    """Return the configuration whose precisions are ``bits``, in the order of ``layers``."""
    return BitConfig(dict(zip(layers, map(Precision.parse, bits.split()), strict=True)))


@dataclass
class Laboratory:
    """Measures configurations, asking the pool first.

    Attributes
    ----------
    evaluator
        Scores a configuration.
    pool
        Finished evaluations.
    identity
        What they have in common.
    reference
        Scores of full precision, once measured.
    """

    evaluator: Evaluator
    pool: Pool
    identity: Identity
    reference: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, dtype=np.float32))

    def measure_reference(self, network: QuantizedNetwork, scores: Scores | None = None) -> Interval:
        """Measure full precision, unless ``scores`` hold that already, and return its quality."""
        if scores is not None:
            self.pool.put(self.identity.key(network.scheme.key, FULL_PRECISION), scores)
        self.reference = self._scores(network, FULL_PRECISION)[0].per_sample
        return mean_interval(self.reference, may_count=self.evaluator.evaluation.metric.may_count)

    def knows(self, state: SchemeState, bits: str, *, ceiling: float = inf) -> bool:
        """Return True if measuring a configuration would cost nothing."""
        kept = self.pool.get(self.identity.key(state.key, bits))
        return kept is not None and self._is_enough(kept.per_sample, ceiling)

    def measure(self, state: SchemeState, bits: str, *, ceiling: float = inf) -> tuple[float, bool]:
        """Measure a configuration under a scheme and add it to ``state``.

        Returns the seconds that the evaluation took, and whether it was in the pool already.

        Parameters
        ----------
        state, bits
            The scheme and the configuration.
        ceiling
            Harm from which on it is hopeless: once the samples seen so far leave no doubt of that, the rest is spared.
        """
        scores, was_there = self._scores(state.network, bits, ceiling)
        may_count = self.evaluator.evaluation.metric.may_count
        state.measured[bits] = Measured(
            mean_interval(scores.per_sample, may_count=may_count), self._drop(scores.per_sample)
        )
        return scores.seconds, was_there

    def _drop(self, per_sample: NDArray[np.float32]) -> Interval:
        """Return full precision minus scores of the first samples, paired."""
        may_count = self.evaluator.evaluation.metric.may_count
        return paired_interval(per_sample, self.reference[: per_sample.size], may_count=may_count)

    def _is_enough(self, per_sample: NDArray[np.float32], ceiling: float) -> bool:
        """Return True if all samples were seen, or enough to know that the harm is above the ceiling."""
        if per_sample.size >= self.reference.size:
            return True
        if per_sample.size < _FEWEST_SAMPLES or ceiling == inf:
            return False
        drop = self._drop(per_sample)
        return drop.mean - _NO_DOUBT * drop.standard_error > ceiling

    def scores(self, state: SchemeState, bits: str) -> NDArray[np.float32]:
        """Return the scores of the samples that a configuration was measured on under a scheme, ``(samples,)``."""
        kept = self.pool.get(self.identity.key(state.key, bits))
        assert kept is not None
        return kept.per_sample

    def _scores(self, network: QuantizedNetwork, bits: str, ceiling: float = inf) -> tuple[Scores, bool]:
        """Return the scores of all samples, or of enough."""
        key = self.identity.key(network.scheme.key, bits)
        kept = self.pool.get(key)
        if kept is not None and self._is_enough(kept.per_sample, ceiling):
            return kept, True
        config = None if bits == FULL_PRECISION else parse_bits(network.captured.layer_index, bits)
        is_enough = None if ceiling == inf else partial(self._is_enough, ceiling=ceiling)
        scores = self.evaluator.score(network, config, is_enough=is_enough)
        self.pool.put(key, scores)
        return scores, False
