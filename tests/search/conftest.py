"""Spaces that the searchers are tested on: drawn ones small enough to enumerate, and the published HAWQ-V3 networks."""

from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import strategies as st

from hwdse.cost.table import Metric, Reduction, SumOverSets
from hwdse.formats import Precision
from hwdse.graph import TiedGroup
from hwdse.space import DesignSpace

WIDTHS = (2, 3, 4, 5, 6, 7, 8, 16)
PRECISIONS = tuple(Precision.parse(f"W{w}A{a}") for a in (8, 4, 6, 16) for w in WIDTHS)
GOLDEN = Path(__file__).parents[1] / "golden"


def build_space(unary, *, allowed=None, constant=None, names=None, pairwise=None, edges=None, peaks=None):
    """A space from its costs `(groups, candidates, metrics)`; `peaks` names the metrics that are a largest of sums."""
    unary = np.asarray(unary, dtype=float)
    g, c, m = unary.shape
    names = names or tuple(f"m{i}" for i in range(m))
    edges = np.empty((0, 2), dtype=np.int64) if edges is None else np.asarray(edges)
    peaks = peaks or {}
    return DesignSpace(
        groups=tuple(TiedGroup(f"g{i}", (f"g{i}",)) for i in range(g)),
        candidates=PRECISIONS[:c],
        metrics=tuple(Metric(name, Reduction.MAX if name in peaks else Reduction.SUM, name) for name in names),
        allowed=np.ones((g, c), dtype=bool) if allowed is None else np.asarray(allowed),
        unary=unary,
        constant=np.zeros(m) if constant is None else np.asarray(constant, dtype=float),
        edges=edges,
        pairwise=np.zeros((0, c, c, m)) if pairwise is None else np.asarray(pairwise, dtype=float),
        peaks=peaks,
    )


@pytest.fixture(scope="session")
def make_space():
    return build_space


@pytest.fixture(scope="session")
def draw_space():
    """A function that draws a space: masks, zeros, equal and negative costs, all exact in binary, so that sums are."""

    def draw(data, *, metrics=2, largest=9):
        g = data.draw(st.integers(1, largest), label="groups")
        c = data.draw(st.integers(2, 4 if g <= 6 else 3 if g <= 8 else 2), label="candidates")
        rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1), label="seed"))
        few = data.draw(st.sampled_from([2, 6, 4096]), label="distinct values")
        unary = rng.integers(-few // 2, few, (g, c, metrics)) / 8
        allowed = rng.random((g, c)) < data.draw(st.sampled_from([0.5, 0.8, 1.0]), label="allowed")
        allowed[np.arange(g), rng.integers(0, c, g)] = True
        return build_space(unary, allowed=allowed, constant=rng.integers(-9, 9, metrics) / 4)

    return draw


@pytest.fixture(scope="session")
def draw_coupled_space():
    """A function that draws a space of few groups whose metrics couple them: edges, masks, and perhaps a maximum.

    Every cost is exact in binary, so that sums are; of the metrics `m0` to `m3`, the last may be a largest of sums.
    """

    def draw(data):
        g, c = data.draw(st.integers(1, 4), label="groups"), data.draw(st.integers(1, 3), label="candidates")
        rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1), label="seed"))
        few = data.draw(st.sampled_from([2, 6, 4096]), label="distinct values")
        allowed = rng.random((g, c)) < data.draw(st.sampled_from([0.5, 0.8, 1.0]), label="allowed")
        allowed[np.arange(g), rng.integers(0, c, g)] = True
        every = [(a, b) for a in range(g) for b in range(g) if a != b]
        edges = data.draw(st.lists(st.sampled_from(every), max_size=4), label="edges") if every else []
        pairwise = rng.integers(-few, few, (len(edges), c, c, 4)) / 8
        pairwise[..., 0] *= data.draw(st.sampled_from([0, 1]), label="coupled harm")
        sets = data.draw(st.integers(0, 3), label="sets of the maximum")
        terms = rng.integers(-few, few, (sets, g, c)) / 8
        peaks = {"m3": SumOverSets(terms, rng.integers(-few, few, sets) / 8)} if sets else {}
        unary = rng.integers(-few, few, (g, c, 4)) / 8
        edges = np.array(edges, dtype=np.int64).reshape(-1, 2)
        constant = rng.integers(-9, 9, 4) / 4
        return build_space(unary, allowed=allowed, constant=constant, edges=edges, pairwise=pairwise, peaks=peaks)

    return draw


@pytest.fixture(scope="session")
def enumerate_space():
    """A function that lists every configuration of a space, and its metrics."""

    def enumerate_all(space):
        choices = [np.flatnonzero(row) for row in space.allowed]
        genes = np.array(list(product(*choices)), dtype=np.uint8)
        return genes, space.evaluate(genes)

    return enumerate_all


@pytest.fixture(scope="session")
def hawq():
    """A function: network, precisions -> space with Omega, size, BOPs and (for 4 and 8 bits) T4 latency.

    Beyond 4 and 8 bits the squared error is scaled from 4 bits by ``(15 / (2^b - 1))^2``.
    """

    def load(network, bits=(4, 8)):
        table = pd.read_csv(GOLDEN / f"hawq_v3_{network}.csv", comment="#")
        per_layer = []
        for b in bits:
            error = {4: table.error4, 8: table.error8}.get(b) if tuple(bits) == (4, 8) else None
            if error is None:
                error = table.error4 * (15 / (2**b - 1)) ** 2
            latency = {4: table.ms4, 8: table.ms8}.get(b, 0 * table.ms4)
            per_layer.append(
                np.stack([table.trace * error, table.size8 * b / 8, table.mmacs * (b / 32) ** 2, latency], 1)
            )
        groups = table.group.max() + 1
        unary = np.zeros((groups, len(bits), 4))
        np.add.at(unary, table.group.to_numpy(), np.stack(per_layer, 1))
        space = build_space(unary, names=("omega", "size", "bops", "latency"))
        return space, table.group.to_numpy()

    return load


@pytest.fixture
def rng():
    return np.random.default_rng(0)
