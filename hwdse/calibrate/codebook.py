"""Codebooks learned from a tensor's values: Lloyd-Max, and quantiles of either sign."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hwdse.calibrate.distribution import Distribution
from hwdse.formats import Levels

__all__ = ["lloyd_max", "sign_split_quantiles", "taught"]

Values = NDArray[np.float64]

_ROUNDS = 1000
_SETTLED = 1e-7
_FACTORS = np.exp2(np.arange(-16, 65) / 16)  # of the quantiles: from a half to 16


class _Atoms(NamedTuple):
    """Distinct values, ascending, with the mass and the first moment of all that lie below each, and of all."""

    values: Values
    mass: Values
    moment: Values

    @classmethod
    def of(cls, values: Values, masses: Values) -> _Atoms:
        """Return ascending ``values``, each once, with their ``masses``."""
        first = np.flatnonzero(np.diff(values, prepend=-np.inf))
        values, masses = values[first], np.add.reduceat(masses, first)
        return cls(values, *(np.concatenate([[0.0], np.cumsum(m)]) for m in (masses, masses * values)))

    def ends(self, levels: Values) -> NDArray[np.intp]:
        """Return the places between which the atoms nearest to each level lie, ``(levels + 1,)``."""
        inner = np.searchsorted(self.values, (levels[:-1] + levels[1:]) / 2)
        return np.concatenate([[0], inner, [self.values.size]])

    def centroids(self, levels: Values) -> Values:
        """Return the mean of the atoms nearest to each level; a level without any stays where it is."""
        ends = self.ends(levels)
        mass, moment = np.diff(self.mass[ends]), np.diff(self.moment[ends])
        first, last = self.values[np.minimum(ends[:-1], self.values.size - 1)], self.values[ends[1:] - 1]
        # Differences of sums are rounded: where masses differ much, the quotient may lie outside of its cell.
        mean = np.clip(moment / np.where(mass > 0.0, mass, 1.0), first, last)
        return np.where(mass > 0.0, mean, levels)

    def fit(self, levels: Values) -> tuple[float, float]:
        """Return the product of the atoms with the levels nearest to them, and of those levels with themselves."""
        ends = self.ends(levels)
        return float(np.diff(self.moment[ends]) @ levels), float(np.diff(self.mass[ends]) @ levels**2)


def taught(levels: Levels, distribution: Distribution) -> Levels:
    """Return ``levels``, learned from ``distribution`` if their format is a learned one.

    All rows share the values, in units of each row's largest magnitude.
    """
    if levels.is_known:
        return levels
    family = re.sub(r"\d+$", "", levels.number_format.name)
    return levels.taught(LEARNERS[family](*distribution.atoms(), 2**levels.number_format.bits))


def lloyd_max(values: Values, masses: Values, count: int) -> Values:
    """Return the ``count`` levels with a least sum of squared distances, ascending ([Lloyd1982]_, [Max1960]_).

    Levels and the cells that are nearest to them take turns until nothing moves. They start where the cube root of the
    density puts them, which is the optimum for many levels ([Panter1951]_); from quantiles many would take very long.
    What is found is a local optimum.

    Parameters
    ----------
    values, masses
        Atoms ``(n,)``, ascending values.
    count
        Number of levels; fewer are returned if there are fewer distinct values.
    """
    atoms = _Atoms.of(values, masses)
    if atoms.values.size <= count:
        return atoms.values
    levels = atoms.values[_companded(atoms, count)]
    for _ in range(_ROUNDS):
        moved = atoms.centroids(levels)
        shift = np.abs(moved - levels).max()
        levels = moved
        if shift <= _SETTLED * (atoms.values[-1] - atoms.values[0]):
            break
    return levels


def _companded(atoms: _Atoms, count: int) -> NDArray[np.intp]:
    """Return the places of ``count`` atoms, ascending, as dense as the cube root of the atoms' density.

    The density in the gap between two atoms is half the mass of both by its width. The bins of a histogram would miss
    either the centre or the tails of what has heavy ones.
    """
    masses = np.diff(atoms.mass)
    share = np.cbrt((masses[:-1] + masses[1:]) / 2 * np.diff(atoms.values) ** 2)
    below = np.concatenate([[0.0], np.cumsum(share)])
    order = np.arange(count)
    places = np.rint(np.interp((order + 0.5) / count * below[-1], below, np.arange(below.size))).astype(np.intp)
    # Every level gets an atom of its own: a level that begins without one would keep none.
    apart: NDArray[np.intp] = np.minimum(np.maximum.accumulate(places - order), below.size - count) + order
    return apart


def sign_split_quantiles(values: Values, masses: Values, count: int) -> Values:
    """Return quantiles of the negative and of the positive values with zero between them, rescaled as a whole.

    ``count - 1`` levels, half of what is not zero on either side, or all of it on the only side with values: the start
    of adaptive distribution-aware quantization ([Jia2025]_), as reconstructed from its description. Quantiles alone
    have no level in the tails; one factor, with the least squared error, mends most of that.
    """
    sides = [np.flatnonzero(values < 0.0), np.flatnonzero(values > 0.0)]
    share = count - 2 if not all(side.size for side in sides) else (count - 2) // 2
    quantiles = [_quantiles(values[side], masses[side], share) for side in sides if side.size]
    unscaled = np.unique(np.concatenate([*quantiles, [0.0]]))
    atoms = _Atoms.of(values, masses)
    fits = np.array([atoms.fit(factor * unscaled) for factor in _FACTORS])
    codebook: Values = unscaled * _FACTORS[np.argmax(2.0 * fits[:, 0] - fits[:, 1])]  # the least squared error
    for _ in range(_ROUNDS):
        product, square = atoms.fit(codebook)
        factor = product / square if square > 0.0 else 1.0
        codebook = codebook * factor
        if abs(factor - 1.0) <= _SETTLED:
            break
    return codebook


def _quantiles(values: Values, masses: Values, count: int) -> Values:
    """Return the quantiles at the middles of ``count`` equal shares of the mass."""
    below = np.cumsum(masses) - masses / 2
    quantiles: Values = np.interp((np.arange(count) + 0.5) / count * masses.sum(), below, values)
    return quantiles


LEARNERS: dict[str, Callable[[Values, Values, int], Values]] = {
    "codebook": lloyd_max,
    "quantile": sign_split_quantiles,
}
