"""Sums over groups as table look-ups: several groups share one table, so a configuration costs a few reads.

The genes of up to eight groups are the digits of one number, the row of a table that holds all their terms already
added up. Sets of groups that interact (an edge, the tensors alive at one operator) are added to a table that has all
of them among its digits. One byte per gene makes eight genes one 64-bit word, whose digits three multiplications
gather into the row number.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

__all__ = ["Lookup", "PairTerm", "SetTerm", "width_for"]

ROWS = 8192  # of one table: with four metrics 256 KiB, so that it stays in a core's second-level cache
WORD = 8  # genes in a 64-bit word
BLOCK_WORDS = 65536  # words of one block of configurations: 512 KiB
LARGEST_BASE = 16  # above it, two digits overflow the byte that the first multiplication collects them in
PAIRS = np.uint64(0x00FF00FF00FF00FF)
QUADS = np.uint64(0x0000FFFF0000FFFF)


@dataclass(frozen=True, eq=False)
class PairTerm:
    """What two groups add together: ``values`` is ``(candidates, candidates, columns)``."""

    groups: tuple[int, int]
    values: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class SetTerm:
    """One sum of a metric that is the largest of several.

    Attributes
    ----------
    metric
        Column that takes the maximum.
    groups
        Groups whose choice changes the sum.
    terms
        ``(len(groups), candidates)``.
    constant
        The rest of the sum.
    """

    metric: int
    groups: tuple[int, ...]
    terms: NDArray[np.float64]
    constant: float


@dataclass(eq=False)
class _Word:
    """A table under construction: its genes, and what is added to it beyond the genes' own terms."""

    genes: list[int]
    pairs: list[PairTerm] = field(default_factory=list)
    sets: list[SetTerm] = field(default_factory=list)


def width_for(candidates: int) -> int:
    """Return how many genes share one table.

    >>> [width_for(c) for c in (1, 2, 3, 4, 8, 16, 17)]
    [8, 8, 8, 6, 4, 3, 2]
    """
    if candidates > LARGEST_BASE:
        return 2
    return max(k for k in range(1, WORD + 1) if candidates**k <= ROWS)


class Lookup:
    """Tables that give the metrics of many configurations at once.

    Parameters
    ----------
    unary
        ``(groups, candidates, metrics)``; NaN poisons the result of configurations that choose it.
    constant
        ``(metrics,)``.
    pairs
        Terms of two groups.
    sets
        Sums of which the largest is added to their metric.
    """

    def __init__(
        self,
        unary: NDArray[np.float64],
        constant: NDArray[np.float64],
        *,
        pairs: Sequence[PairTerm] = (),
        sets: Sequence[SetTerm] = (),
    ) -> None:
        self.groups, self.candidates, self.metrics = unary.shape
        self.width = width_for(self.candidates)
        wide = [term for term in sets if len(term.groups) > self.width]
        narrow = [term for term in sets if len(term.groups) <= self.width]
        words = self._assign(pairs, narrow)
        # A set that no table can hold becomes a column of its own, added up like a metric.
        self._wide_metrics = [term.metric for term in wide]
        self._peak_metrics = sorted({term.metric for term in sets})
        columns = self.metrics + len(wide)
        padded = 4 if columns == 3 else columns  # reads of 8, 16 and 32 bytes have a faster path
        extended = np.zeros((self.groups, self.candidates, padded))
        extended[..., : self.metrics] = unary
        for k, term in enumerate(wide, self.metrics):
            extended[list(term.groups), :, k] = term.terms
        start = np.zeros(padded)
        start[: self.metrics] = constant
        start[self.metrics : columns] = [term.constant for term in wide]
        count = -(-self.groups // self.width)
        self._extra = [gene for word in words[count:] for gene in word.genes]
        self._columns = padded
        self._sums: list[NDArray[np.float64] | None] = []
        self._peaks: list[NDArray[np.float64] | None] = []
        for w, word in enumerate(words):
            digits = _digits(self.candidates, len(word.genes))
            table = _sum_table(word, digits, extended if w < count else None, padded)
            self._sums.append(table + start if w == 0 and table is not None else table)
            self._peaks.append(self._peak_table(word, digits))

    def _assign(self, pairs: Sequence[PairTerm], sets: Sequence[SetTerm]) -> list[_Word]:
        """Return the tables: one per ``width`` groups in order, and further ones for terms that cross those."""
        words = [
            _Word(list(range(start, min(start + self.width, self.groups))))
            for start in range(0, self.groups, self.width)
        ]
        count = len(words)

        def place(groups: Iterable[int]) -> _Word:
            needed = set(groups)
            for word in words:
                if needed <= set(word.genes):
                    return word
            for word in words[count:]:
                if len(needed | set(word.genes)) <= self.width:
                    word.genes += sorted(needed - set(word.genes))
                    return word
            words.append(_Word(sorted(needed)))
            return words[-1]

        for pair in sorted(pairs, key=lambda term: term.groups):
            place(pair.groups).pairs.append(pair)
        for term in sorted(sets, key=lambda term: term.groups):
            place(term.groups).sets.append(term)
        for word in words[count:]:
            word.genes += word.genes[:1] * (self.width - len(word.genes))  # digits that its table does not read
        return words

    def _peak_table(self, word: _Word, digits: NDArray[np.int64]) -> NDArray[np.float64] | None:
        """Return ``(rows, peak metrics)``, the largest of the word's sets; ``None`` without sets."""
        if not word.sets:
            return None
        table = np.full((len(digits), len(self._peak_metrics)), -np.inf)
        for term in word.sets:
            total = np.full(len(digits), term.constant)
            for group, terms in zip(term.groups, term.terms, strict=True):
                total += terms[digits[:, word.genes.index(group)]]
            column = table[:, self._peak_metrics.index(term.metric)]
            np.maximum(column, total, out=column)
        return table

    def evaluate(self, genes: NDArray[np.integer]) -> NDArray[np.float64]:
        """Return ``(n, metrics)`` of genes ``(n, groups)`` that all lie in ``0 .. candidates - 1``.

        Raises
        ------
        IndexError
            If a gene does not.
        """
        n = len(genes)
        out = np.empty((n, self.metrics))
        block = max(256, BLOCK_WORDS // len(self._sums))
        workers = min(os.cpu_count() or 1, n // (2 * block))
        if workers < 2:
            self._fill(genes, out, block)
            return out
        bounds = np.linspace(0, n, workers + 1).astype(int)
        slices = [slice(a, b) for a, b in pairwise(bounds)]
        with ThreadPoolExecutor(workers) as pool:  # numpy releases the interpreter lock in every step of a block
            list(pool.map(lambda part: self._fill(genes[part], out[part], block), slices))
        return out

    def _fill(self, genes: NDArray[np.integer], out: NDArray[np.float64], block: int) -> None:
        """Write the metrics of ``genes`` to ``out``, block by block with the same buffers."""
        block = max(1, min(block, len(genes)))
        words = len(self._sums)
        digits = np.zeros((block, words, WORD), dtype=np.uint8)
        rows = np.empty((words, block), dtype=np.int64)
        total, term = np.empty((2, block, self._columns))
        for start in range(0, len(genes), block):
            part = genes[start : start + block]
            n = len(part)
            self._spread(part, digits)
            rows[:] = self._row_numbers(digits)
            self._accumulate(rows[:, :n], total[:n], term[:n])
            out[start : start + n] = total[:n, : self.metrics]
            if self._peak_metrics:
                self._add_peaks(rows[:, :n], total[:n], out[start : start + n])

    def _spread(self, part: NDArray[np.integer], digits: NDArray[np.uint8]) -> None:
        """Write genes ``(n, groups)`` to the bytes ``(block, words, 8)`` of the words that read them."""
        if part.dtype == np.int8:
            part = part.view(np.uint8)  # negative genes become too large
        if part.max() >= self.candidates or (part.dtype.kind == "i" and part.min() < 0):
            raise IndexError("gene out of range")
        n = len(part)
        full, rest = divmod(self.groups, self.width)
        if self.width == WORD:
            digits.reshape(len(digits), -1)[:n, : self.groups] = part
        else:
            digits[:n, :full, : self.width] = part[:, : full * self.width].reshape(n, full, self.width)
            digits[:n, full : full + bool(rest), :rest] = part[:, None, full * self.width :]
        if self._extra:
            extra = part[:, self._extra].reshape(n, -1, self.width)
            digits[:n, -extra.shape[1] :, : self.width] = extra

    def _row_numbers(self, digits: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Return the table rows ``(words, block)``: the bytes of each word read as digits, the first one fastest."""
        c = self.candidates
        x = digits.view("<u8")[..., 0]
        if c > LARGEST_BASE:
            return np.asarray(((x & 0xFF) + c * (x >> 8)).T.view(np.int64))
        # In byte k of x * (c + 2**8) stands c * byte[k] + byte[k-1]: a pair of digits in every odd byte, no carry.
        x = x * np.uint64(c + (1 << 8)) >> np.uint64(8) & PAIRS
        x = x * np.uint64(c**2 + (1 << 16)) >> np.uint64(16) & QUADS
        x = x * np.uint64(c**4 + (1 << 32)) >> np.uint64(32)
        return x.T.view(np.int64)

    def _accumulate(self, rows: NDArray[np.int64], total: NDArray[np.float64], term: NDArray[np.float64]) -> None:
        """Write the sums over words to ``total`` ``(n, columns)``."""
        for w, table in enumerate(self._sums):
            if table is None:
                continue
            # Row numbers are in range by construction; "clip" spares numpy's buffered check.
            np.take(table, rows[w], axis=0, out=total if w == 0 else term, mode="clip")
            if w > 0:
                total += term

    def _add_peaks(self, rows: NDArray[np.int64], total: NDArray[np.float64], out: NDArray[np.float64]) -> None:
        """Add the largest set of every metric that has sets to ``out`` ``(n, metrics)``."""
        largest = np.full((len(out), len(self._peak_metrics)), -np.inf)
        for w, table in enumerate(self._peaks):
            if table is not None:
                np.maximum(largest, np.take(table, rows[w], axis=0), out=largest)
        for k, metric in enumerate(self._wide_metrics, self.metrics):
            column = largest[:, self._peak_metrics.index(metric)]
            np.maximum(column, total[:, k], out=column)
        out[:, self._peak_metrics] += largest


def _digits(base: int, count: int) -> NDArray[np.int64]:
    """Return the digits ``(base**count, count)`` of every number of ``count`` digits, the lowest first."""
    return np.asarray(np.arange(base**count)[:, None] // base ** np.arange(count) % base)


def _sum_table(
    word: _Word, digits: NDArray[np.int64], unary: NDArray[np.float64] | None, columns: int
) -> NDArray[np.float64] | None:
    """Return ``(rows, columns)``: the genes' own terms (if ``unary`` is given) and the word's pairs."""
    if unary is None and not word.pairs:
        return None
    table = np.zeros((len(digits), columns))
    if unary is not None:
        for position, gene in enumerate(word.genes):
            table += unary[gene, digits[:, position]]
    for pair in word.pairs:
        first, second = (digits[:, word.genes.index(group)] for group in pair.groups)
        table[:, : pair.values.shape[2]] += pair.values[first, second]
    return table
