"""Where the values of a tensor lie, row by row, and what rounding them to a grid costs.

A row is what shares a scale: a whole tensor, an output channel, a block. Weights are points, activations are boxes of a
histogram; calibrators and difficulty scores see no difference.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property, lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from hwdse.calibrate.histogram import Histogram
from hwdse.calibrate.moments import Moments
from hwdse.calibrate.stream import Stream
from hwdse.errors import InputError
from hwdse.formats import Levels

__all__ = ["Boxes", "Distribution", "Points", "nearest", "places_of"]

Rows = NDArray[np.float64]

SEARCH_BINS = 2048
PIECE = 2**15
"""Values that are rounded at once: few enough for a cache and for one thread, enough for what a call costs."""

KEYS = 2**16
"""Upper halves of a float32: sign, exponent, 7 bits of the mantissa."""

MOST_COMPARISONS = 4


class Distribution(ABC):
    """Values of several rows.

    Attributes
    ----------
    minimum, maximum
        Extremes of each row, ``(rows,)``.
    """

    minimum: Rows
    maximum: Rows

    @property
    @abstractmethod
    def moments(self) -> Moments:
        """Counts and moments of the rows."""

    @property
    @abstractmethod
    def mean_deviation(self) -> Rows:
        """Mean of ``|x - mean|`` of each row, ``(rows,)``."""

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.minimum.size

    @property
    def count(self) -> Rows:
        """Values of each row, ``(rows,)``."""
        return self.moments.count.astype(np.float64)

    @property
    def zeros(self) -> Rows:
        """Exact zeros of each row, ``(rows,)``."""
        return self.moments.zeros.astype(np.float64)

    @property
    def mean(self) -> Rows:
        """Mean of each row, ``(rows,)``."""
        return self.moments.mean

    @property
    def mean_square(self) -> Rows:
        """Mean of ``x^2`` of each row, ``(rows,)``."""
        return self.moments.mean_square

    @property
    def mean_magnitude(self) -> Rows:
        """Mean of ``|x|`` of each row, ``(rows,)``."""
        return self.moments.mean_magnitude

    @property
    def is_nonnegative(self) -> bool:
        """True if no value is negative."""
        return bool((self.minimum >= 0.0).all())

    @property
    def is_one_sided(self) -> NDArray[np.bool_]:
        """True for each row whose values do not have both signs, ``(rows,)``."""
        return (self.minimum >= 0.0) | (self.maximum <= 0.0)

    @cached_property
    def largest(self) -> Rows:
        """Largest magnitude of each row, ``(rows,)``."""
        return np.maximum(-self.minimum, self.maximum)

    @property
    def ema(self) -> tuple[Rows, Rows]:
        """Moving averages of the extremes of the batches, ``(rows,)`` each."""
        return self.minimum, self.maximum

    def limited(self, low: Rows, high: Rows) -> tuple[Rows, Rows]:
        """Return the ranges ``(..., rows)`` without what lies beyond the values; they hold 0."""
        return (
            np.clip(low, np.minimum(self.minimum, 0.0), 0.0),
            np.clip(high, 0.0, np.maximum(self.maximum, 0.0)),
        )

    @abstractmethod
    def error(self, levels: Levels, scale: Rows, zero_point: Rows, *, power: float = 2.0) -> Rows:
        """Return the sum over a row's values of ``|x - q(x)|^power``, shaped as ``scale``.

        Parameters
        ----------
        levels
            What is rounded to.
        scale, zero_point
            ``(..., rows)``.
        power
            2 for squared errors.
        """

    @abstractmethod
    def inner_range(self, left_out: float) -> tuple[Rows, Rows]:
        """Return the range of each row without a share ``left_out`` of its values at either end, ``(rows,)`` each."""

    @abstractmethod
    def magnitudes(self, bins: int) -> Rows:
        """Return counts of ``|x|`` in equal bins up to the largest, ``(bins,)``, each row divided by its own."""

    @abstractmethod
    def atoms(self) -> tuple[Rows, Rows]:
        """Return all rows' values, each row divided by its largest magnitude, ascending, with their masses."""

    @abstractmethod
    def rough_error(self, levels: Levels, scale: Rows, zero_point: Rows, *, power: float = 2.0) -> Rows:
        """Return :meth:`error` at a resolution that is enough to compare grids; faster."""

    @property
    def _unit(self) -> Rows:
        """What a row is divided by to end at one, ``(rows,)``."""
        return np.where(self.largest > 0.0, self.largest, 1.0)


class Points(Distribution):
    """The values themselves.

    Parameters
    ----------
    values
        ``(rows, n)``, finite.

    Raises
    ------
    InputError
        If there is no value, or one is NaN or infinite.
    """

    def __init__(self, values: torch.Tensor) -> None:
        if values.numel() == 0:
            raise InputError(f"expected a tensor with values, got one of shape {tuple(values.shape)}")
        self.values = values.float()
        low, high = torch.aminmax(self.values, dim=1)
        self.minimum, self.maximum = low.double().numpy(), high.double().numpy()
        if not (np.isfinite(self.minimum) & np.isfinite(self.maximum)).all():
            raise InputError("expected finite weights, got NaN or infinity; check the weight file")

    @cached_property
    def moments(self) -> Moments:
        """Counts and moments of the rows."""
        moments = Moments(self.rows)
        moments.add(self.values)
        return moments

    @property
    def mean_deviation(self) -> Rows:
        """Mean of ``|x - mean|`` of each row, ``(rows,)``."""
        deviations: Rows = np.abs(self._wide - self.mean[:, None]).mean(1)
        return deviations

    @property
    def _wide(self) -> Rows:
        return self.values.double().numpy()

    def error(self, levels: Levels, scale: Rows, zero_point: Rows, *, power: float = 2.0) -> Rows:
        """Return the sum over a row's values of ``|x - q(x)|^power``, shaped as ``scale``."""

        def errors(x: torch.Tensor, zero: torch.Tensor) -> torch.Tensor:
            return _power(x - nearest(x, levels, zero), power)

        return self._sums(errors, scale, zero_point, power)

    def rough_error(self, levels: Levels, scale: Rows, zero_point: Rows, *, power: float = 2.0) -> Rows:
        """Return :meth:`error`; for lists of values with 8 bits of each value's mantissa, four times as fast."""
        if levels.is_uniform:
            return self.error(levels, scale, zero_point, power=power)
        table = _mean_errors(levels, power)
        return self._sums(lambda x, _: _look_up(table, _keys(x)), scale, zero_point, power)

    def _sums(
        self,
        errors: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
        scale: Rows,
        zero_point: Rows,
        power: float,
    ) -> Rows:
        """Return the sums of the ``errors`` of values and zero points in units of the scale, shaped as ``scale``."""
        scales, zero_points = _candidates(scale, zero_point, self.rows)
        inverse = torch.from_numpy(scales).float().reciprocal()[..., None]
        zeros = torch.from_numpy(zero_points).float()[..., None]
        total = np.empty(scales.shape)
        for r in _slices(self.rows, PIECE // self.values.shape[1]):
            values = self.values[r]
            for c in _slices(len(scales), PIECE // values.numel()):
                total[c, r] = errors(values * inverse[c, r], zeros[c, r]).sum(-1).numpy()
        return (total * scales**power).reshape(np.shape(scale))

    def inner_range(self, left_out: float) -> tuple[Rows, Rows]:
        """Return the range without ``left_out`` of the values at either end; none is left out of a short row."""
        n = self.values.shape[1]
        cut = int(left_out * n)
        if cut == 0:
            return self.minimum, self.maximum
        ordered = np.partition(self.values.numpy(), (cut, n - 1 - cut), axis=1).astype(np.float64)
        return ordered[:, cut], ordered[:, n - 1 - cut]

    def magnitudes(self, bins: int) -> Rows:
        """Return counts of ``|x|`` in equal bins up to the largest, ``(bins,)``, each row divided by its own."""
        # Times the bins last: their inverse times a row's largest could be infinite.
        places = (np.abs(self._wide) / self._unit[:, None] * bins).astype(np.int64)
        return np.bincount(np.minimum(places, bins - 1).ravel(), minlength=bins).astype(np.float64)

    def atoms(self) -> tuple[Rows, Rows]:
        """Return all rows' values, each row divided by its largest magnitude, ascending, with their masses.

        A row weighs as much as its squared errors do: by its largest magnitude squared.
        """
        top = self._unit
        shares = (self._wide / top[:, None]).ravel()
        weight = np.repeat((top / top.max()) ** 2, self.values.shape[1])
        order = np.argsort(shares, kind="stable")
        return shares[order], weight[order]


class Boxes(Distribution):
    """Values spread evenly within the bins of a histogram, and exact zeros.

    Parameters
    ----------
    histogram
        Where the values lie.
    moments
        Moments of the same values.
    ema
        Moving averages of the extremes, ``(rows,)`` each.

    Raises
    ------
    InputError
        If a row has no value.
    """

    def __init__(self, histogram: Histogram, moments: Moments, ema: tuple[Rows, Rows]) -> None:
        if not histogram.count.all():
            raise InputError("expected values in every row, got an empty one; check the calibration set")
        self._histogram = histogram
        self.minimum, self.maximum = histogram.minimum, histogram.maximum
        self._moments, self._ema = moments, ema
        used = np.flatnonzero(histogram.counts.any(0))
        first, last = (int(used[0]), int(used[-1])) if used.size else (0, 0)
        # No value lies outside of the extremes: the outermost boxes end there.
        self._edges = np.clip(histogram.edges[:, first : last + 2], self.minimum[:, None], self.maximum[:, None])
        self._counts = histogram.counts[:, first : last + 1].astype(np.float64)
        width = np.diff(self._edges)
        # A box without a width holds values that equal the maximum.
        flat = width == 0.0
        self._at_maximum = (self._counts * flat).sum(1)
        self._spread = np.where(flat, 0.0, self._counts)
        density = self._spread / np.where(flat, 1.0, width)
        # The sum over boxes of density times the growth of an integral is one over edges of integral times this.
        self._drops = -np.diff(density, prepend=0.0, append=0.0)

    @classmethod
    def of_stream(cls, stream: Stream) -> Boxes:
        """Return the distribution of a whole tensor that was seen in batches."""
        low, high = stream.ema
        return cls(stream.tensor, stream.moments, (np.array([low]), np.array([high])))

    @property
    def moments(self) -> Moments:
        """Counts and moments of the rows."""
        return self._moments

    @property
    def ema(self) -> tuple[Rows, Rows]:
        """Moving averages of the extremes of the batches, ``(rows,)`` each."""
        return self._ema

    @property
    def mean_deviation(self) -> Rows:
        """Mean of ``|x - mean|`` of each row, ``(rows,)``."""
        beyond = self._edges - self.mean[:, None]
        boxes = (beyond * np.abs(beyond) / 2 * self._drops).sum(1)
        atoms = self.zeros * np.abs(self.mean) + self._at_maximum * np.abs(self.maximum - self.mean)
        deviations: Rows = (boxes + atoms) / self.count
        return deviations

    def rough_error(self, levels: Levels, scale: Rows, zero_point: Rows, *, power: float = 2.0) -> Rows:
        """Return :meth:`error` of the same values in at most 2,048 boxes."""
        return self._coarse.error(levels, scale, zero_point, power=power)

    @cached_property
    def _coarse(self) -> Boxes:
        return Boxes(self._histogram.coarse(SEARCH_BINS), self._moments, self._ema)

    def error(self, levels: Levels, scale: Rows, zero_point: Rows, *, power: float = 2.0) -> Rows:
        """Return the sum over a row's values of ``|x - q(x)|^power``, shaped as ``scale``.

        The error is integrated exactly over every box: with ``r`` the distance from the nearest level, in units of the
        scale, the integral grows by ``|r|^(power + 1) / (power + 1)`` on either side of each level.
        """
        scales, zero_points = _candidates(scale, zero_point, self.rows)
        s, z = torch.from_numpy(scales)[..., None], torch.from_numpy(zero_points)[..., None]
        edges, drops = torch.from_numpy(self._edges), torch.from_numpy(self._drops)
        # Zeros and the maximum, which boxes do not hold.
        atoms = torch.from_numpy(np.stack([np.zeros(self.rows), self.maximum], axis=1)) / s
        masses = torch.from_numpy(np.stack([self.zeros, self._at_maximum], axis=1))
        total = (_power(atoms - nearest(atoms, levels, z), power) * masses).sum(-1)
        for c in _slices(len(scales), PIECE // edges.numel()):
            total[c] += (_integral(edges / s[c], levels, z[c], power) * drops).sum(-1) * s[c, :, 0]
        return (total.numpy() * scales**power).reshape(np.shape(scale))

    def inner_range(self, left_out: float) -> tuple[Rows, Rows]:
        """Return the range without ``left_out`` of the values at either end, to the resolution of the histogram."""
        counts = self._histogram.counts.astype(np.float64)
        edges = np.clip(self._histogram.edges, self.minimum[:, None], self.maximum[:, None])
        place = np.argmax(self._histogram.edges >= 0.0, axis=1)
        counts[np.arange(self.rows), np.minimum(place, counts.shape[1] - 1)] += self.zeros
        ranges = np.empty((2, self.rows))
        for row in range(self.rows):
            cut = np.floor(left_out * self.count[row])
            below = int(np.searchsorted(np.cumsum(counts[row]), cut, side="right"))
            above = int(np.searchsorted(np.cumsum(counts[row, ::-1]), cut, side="right"))
            ranges[:, row] = edges[row, below], edges[row, counts.shape[1] - above]
        return ranges[0], ranges[1]

    def magnitudes(self, bins: int) -> Rows:
        """Return counts of ``|x|`` in equal bins up to the largest, ``(bins,)``, each row divided by its own.

        A box that lies in two bins is divided by its width.
        """
        counts = np.zeros(bins)
        counts[0] = self.zeros.sum()
        shares = np.linspace(0.0, 1.0, bins + 1)
        for row, top in enumerate(self._unit):
            below = np.concatenate([[0.0], np.cumsum(self._spread[row])])
            upper = np.interp(shares * top, self._edges[row], below)
            lower = np.interp(-shares * top, self._edges[row], below)
            counts += np.diff(upper) - np.diff(lower)
            counts[min(int(abs(self.maximum[row]) / top * bins), bins - 1)] += self._at_maximum[row]
        return counts

    def atoms(self) -> tuple[Rows, Rows]:
        """Return the middles of all rows' boxes, each row divided by its largest magnitude, with their masses."""
        top = self._unit[:, None]
        middles = (self._edges[:, :-1] + self._edges[:, 1:]) / 2 / top
        weight = (top / top.max()) ** 2
        places = np.concatenate([middles.ravel(), np.zeros(self.rows)])
        masses = np.concatenate([(self._counts * weight).ravel(), self.zeros * weight[:, 0]])
        kept = masses > 0.0
        order = np.argsort(places[kept], kind="stable")
        return places[kept][order], masses[kept][order]


def nearest(x: torch.Tensor, levels: Levels, zero_point: torch.Tensor | float = 0.0) -> torch.Tensor:
    """Return the level nearest to each ``x``, in units of the scale; ``zero_point`` is the code of 0."""
    if levels.lowest is None or levels.highest is None:
        return _look_up(torch.tensor(levels.values, dtype=x.dtype), places_of(x, levels))
    # torch's own uses threads, which small tensors wait for.
    codes = torch.from_numpy(np.rint(x.numpy()))
    if levels.is_affine:
        return codes.add_(zero_point).clamp_(levels.lowest, levels.highest).sub_(zero_point)
    return codes.clamp_(levels.lowest, levels.highest)


def places_of(x: torch.Tensor, levels: Levels) -> torch.Tensor:
    """Return the number of the level nearest to each float32 ``x``, int32.

    As a search among the thresholds, but the upper half of a number's bits tells its place but for the thresholds that
    begin with the same bits, mostly none or one; it is compared with those. About ten times as fast.
    """
    guide, thresholds, comparisons = _guide(levels)
    x = x.float()
    if comparisons > MOST_COMPARISONS:
        return torch.bucketize(x, thresholds[:-1], right=True, out_int32=True)
    found = _look_up(guide, _keys(x))
    for _ in range(comparisons):
        found += x >= _look_up(thresholds, found)
    return found


def _look_up(table: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    return table.index_select(0, places.reshape(-1)).view(places.shape)


def _keys(x: torch.Tensor) -> torch.Tensor:
    """Return the upper half of each float32 as a number from 0 on; negative ones come first, from zero down."""
    return x.view(torch.int32).bitwise_right_shift(16).add_(KEYS // 2)


@lru_cache(maxsize=32)
def _mean_errors(levels: Levels, power: float) -> torch.Tensor:
    """Return the mean of ``|x - q(x)|^power`` over the numbers of each key, at four of them."""
    halves = torch.arange(-2 * KEYS, 2 * KEYS, dtype=torch.int32)
    x = halves.bitwise_left_shift(14).add_(2**13).view(torch.float32).double()
    errors = _power(x - nearest(x, levels), power).view(KEYS, 4).mean(1)
    return errors.nan_to_num_(torch.inf).float()


@lru_cache(maxsize=32)
def _guide(levels: Levels) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Return how many thresholds lie below the numbers of each key, all thresholds, and the most that share a key."""
    # Minus zero is as large as zero, but has the key below.
    ends = np.where(levels.thresholds == 0.0, np.float32(-0.0), levels.thresholds)
    keys = ends.view(np.int32) >> 16
    half = KEYS // 2
    ascending = np.where(keys < 0, -1 - keys, keys + half)
    within = np.bincount(ascending, minlength=KEYS)
    below = (np.cumsum(within) - within).astype(np.int32)
    guide = np.concatenate([below[half - 1 :: -1], below[half:]])
    # Nothing is as large as NaN: what has passed all thresholds, be it infinite, stays where it is.
    thresholds = np.append(levels.thresholds, np.float32(np.nan))
    return torch.from_numpy(guide), torch.from_numpy(thresholds), int(within.max())


def _candidates(scale: Rows, zero_point: Rows, rows: int) -> tuple[Rows, Rows]:
    """Return both as ``(candidates, rows)``."""
    scale, zero_point = np.broadcast_arrays(np.asarray(scale, dtype=np.float64), zero_point)
    return np.array(scale).reshape(-1, rows), np.array(zero_point).reshape(-1, rows)


def _slices(count: int, length: int) -> list[slice]:
    length = max(1, length)
    return [slice(start, start + length) for start in range(0, count, length)]


def _power(x: torch.Tensor, power: float) -> torch.Tensor:
    if power == 2.0:
        return x.square()
    # Twice as fast as torch's own.
    return torch.from_numpy(np.power(x.abs().numpy(), np.asarray(power, dtype=x.numpy().dtype)))


def _integral(x: torch.Tensor, levels: Levels, zero_point: torch.Tensor, power: float) -> torch.Tensor:
    """Return the integral of ``|t - q(t)|^power`` over ``t`` from the level next to zero to each ``x``, in float64."""
    if levels.is_uniform:
        level = nearest(x, levels, zero_point)
        base = level * float(_cells(np.ones(()), power))
    else:
        values, bases = _bases(levels, power)
        place = places_of(x, levels)
        level, base = _look_up(values, place), _look_up(bases, place)
    rest = x - level
    return base.add_(_power(rest, power).mul_(rest), alpha=1.0 / (power + 1.0))


def _cells(gaps: Rows, power: float) -> Rows:
    """Return the integrals from levels to their neighbours at distances ``gaps``."""
    cells: Rows = 2.0 * (gaps / 2.0) ** (power + 1.0) / (power + 1.0)
    return cells


@lru_cache(maxsize=32)
def _bases(levels: Levels, power: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return all levels and the integrals up to them, from the level next to zero on, ``(levels,)`` each."""
    zero = int(np.abs(levels.values).argmin())
    cells = _cells(np.diff(levels.values), power)
    # Away from zero on either side: the far cells of a wide format would drown the near ones.
    bases = np.concatenate([-np.cumsum(cells[:zero][::-1])[::-1], [0.0], np.cumsum(cells[zero:])])
    return torch.tensor(levels.values), torch.from_numpy(bases)
