"""The table of pairs, on harm with one pair that is worse together."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from hwdse.formats import Precision
from hwdse.search.surrogate import HarmModel
from hwdse.study.tables import interactions_table

GROUPS, CANDIDATES = 6, 3


def state(genes, harms, losses):
    sensitivity = SimpleNamespace(
        groups=tuple(f"g{i}" for i in range(GROUPS)),
        candidates=tuple(Precision.parse(text) for text in ("W8A8", "W4A8", "W2A8")),
    )
    return SimpleNamespace(sensitivity=sensitivity, measured=dict.fromkeys(range(len(harms))),
                           model=HarmModel(losses, genes, harms))  # fmt: skip


def test_a_pair_is_named_and_none_is_before_anything_is_measured():
    rng = np.random.default_rng(0)
    losses = np.sort(rng.lognormal(-3.5, 1.0, (GROUPS, CANDIDATES)), axis=1)
    genes = rng.integers(0, CANDIDATES, (120, GROUPS)).astype(np.uint8)
    loss = losses[np.arange(GROUPS), genes].sum(1)
    both = (genes[:, 1] == 2) & (genes[:, 4] == 2)
    harms = 0.5 * (loss + 2.0 * np.sqrt(losses[1, 2] * losses[4, 2]) * both)
    table = interactions_table({"one": state(genes, harms, losses), "none": state(genes[:0], harms[:0], losses)})
    first = table.iloc[0]
    assert (first["first_group"], first["first_candidate"]) == ("g1", "W2A8")
    assert (first["second_group"], first["second_candidate"]) == ("g4", "W2A8")
    assert first["strength"] > 3.0 * first["sd"] > 0.0
    assert set(table["scheme"]) == {"one"}
    assert (table["strength"].abs() > 3.0 * table["sd"]).all()
    empty = interactions_table({"none": state(genes[:0], harms[:0], losses)})
    assert len(empty) == 0
    assert list(empty.columns) == list(table.columns)
