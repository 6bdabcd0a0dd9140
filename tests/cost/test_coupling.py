"""Costs of several choices as terms of one and two: exact where they can be, and by how much they are off elsewhere."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from hwdse.cost.coupling import Couplings, decouple


@pytest.mark.parametrize("counts", [(), (3,), (2, 2), (3, 4)])
def test_up_to_two_choices_are_kept_as_they_are(counts: tuple[int, ...]) -> None:
    table = np.random.default_rng(1).uniform(size=counts)
    terms = decouple(lambda levels: float(table[levels]), counts)
    for levels in product(*map(range, counts)):
        assert terms(levels) == pytest.approx(float(table[levels]), abs=1e-12)
    assert all((part >= 0).all() for part in (*terms.single, *terms.pair.values()))


def test_a_switch_between_two_stays_a_pair_term() -> None:
    table = np.array([[0.0, 3.0], [5.0, 0.0]])
    terms = decouple(lambda levels: float(table[levels]), (2, 2))
    assert terms.constant == 0
    assert not any(single.any() for single in terms.single)
    assert terms.pair[0, 1] == pytest.approx(table)


def test_a_product_of_three_is_off_by_a_sixth_and_exact_where_all_are_alike() -> None:
    alike = [(0, 0, 0), (1, 1, 1)]
    terms = decouple(lambda levels: 12.0 * float(not all(levels)), (2, 2, 2), alike)
    errors = {levels: terms(levels) - 12.0 * (not all(levels)) for levels in product(range(2), repeat=3)}
    for levels, error in errors.items():
        assert abs(error) == pytest.approx(0 if levels in alike else 2, abs=1e-4)
    assert all((pair >= 0).all() for pair in terms.pair.values())


def test_without_such_places_it_is_off_by_an_eighth_everywhere() -> None:
    terms = decouple(lambda levels: 8.0 + 8.0 * float(not all(levels)), (2, 2, 2))
    for levels in product(range(2), repeat=3):
        assert abs(terms(levels) - 8.0 - 8.0 * (not all(levels))) == pytest.approx(1)


def test_sums_over_pairs_are_found_from_drawn_assignments() -> None:
    rng = np.random.default_rng(2)
    counts = (2,) * 15  # of more assignments than are asked for
    tables = {(i, j): rng.uniform(size=(2, 2)) for i in range(15) for j in range(i)}

    def cost(levels: tuple[int, ...]) -> float:
        return sum(float(table[levels[i], levels[j]]) for (i, j), table in tables.items())

    terms = decouple(cost, counts)
    for levels in map(tuple, rng.integers(0, 2, size=(50, 15)).tolist()):
        assert terms(levels) == pytest.approx(cost(levels), abs=1e-8)


def test_couplings_add_up_by_candidate() -> None:
    total = Couplings(np.zeros((3, 3)))
    level_of = [np.array([0, 1, 1]), np.array([1, 1, 0])]
    table = np.array([[0.0, 3.0], [5.0, 0.0]])
    for _ in range(2):
        total.add(decouple(lambda levels: float(table[levels]), (2, 2)), (0, 2), level_of)
    total.add(decouple(lambda _: 7.0, ()), (), [])
    assert total.constant == 7
    assert not total.single.any()
    assert total.pair[0, 2] == pytest.approx(2 * np.array([[3, 3, 0], [0, 0, 5], [0, 0, 5]]))
