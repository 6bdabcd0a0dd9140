"""One configuration for several devices, against enumeration."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwdse.errors import InputError
from hwdse.graph import TiedGroup
from hwdse.search.fleet import minimax
from hwdse.search.integer_program import cheapest
from hwdse.search.limits import as_limits


def like(space, rng, *, order):
    """A space of the same groups with other costs, other masks, and its candidates in another order."""
    g, c = space.allowed.shape
    allowed = space.allowed[:, order] & (rng.random((g, c)) < 0.8)
    allowed[np.arange(g), rng.integers(0, c, g)] = True
    return replace(
        space,
        candidates=tuple(space.candidates[i] for i in order),
        allowed=allowed,
        unary=rng.integers(-64, 64, space.unary.shape) / 8,
        pairwise=rng.integers(-64, 64, space.pairwise.shape) / 8,
        peaks={name: replace(sums, terms=sums.terms[:, :, order]) for name, sums in space.peaks.items()},
    )


def shared(spaces, enumerate_space):
    """Every configuration that all spaces allow: its genes in each, and its metrics in each."""
    genes, _ = enumerate_space(spaces[0])
    precisions = np.array([[spaces[0].candidates[i] for i in row] for row in genes], dtype=object)
    kept, values = [], []
    for row in precisions:
        ours = [np.array([space.candidates.index(p) for p in row], dtype=np.uint8) for space in spaces]
        if all(space.allowed[np.arange(len(row)), x].all() for space, x in zip(spaces, ours, strict=True)):
            kept.append(ours)
            values.append([space.evaluate(x[None])[0] for space, x in zip(spaces, ours, strict=True)])
    return np.array(kept), np.array(values)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_the_smallest_largest_regret_equals_enumeration(data, draw_coupled_space, enumerate_space):
    first = draw_coupled_space(data)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1), label="others"))
    orders = [rng.permutation(len(first.candidates)) for _ in range(data.draw(st.integers(0, 2), label="others"))]
    spaces = [first, *(like(first, rng, order=order) for order in orders)]
    best = [data.draw(st.sampled_from([0.25, 1.0, 7.0]), label="best") for _ in spaces]
    cost = data.draw(st.sampled_from(["m1", "m3"]), label="cost")
    genes, values = shared(spaces, enumerate_space)
    limits = []
    for d in range(len(spaces)):
        names = data.draw(st.lists(st.sampled_from(["m0", "m2", "m3"]), max_size=2, unique=True), label="limited")
        row = data.draw(st.integers(0, max(len(values) - 1, 0)), label="row")
        limits.append({n: float(values[row, d, int(n[1])]) if len(values) else 0.0 for n in names})
    found = minimax(spaces, cost=cost, best=best, limits=limits)
    meets = np.array(
        [all(v[d, int(n[1])] <= b for d, ours in enumerate(limits) for n, b in ours.items()) for v in values],
        dtype=bool,
    )
    if not meets.any():
        assert found is None
        return
    regrets = (values[:, :, int(cost[1])] / best).max(axis=1)
    place = int(np.flatnonzero((genes == found).all(axis=(1, 2)))[0])
    assert meets[place]
    assert regrets[place] == pytest.approx(regrets[meets].min(), rel=1e-9, abs=1e-9)


def test_one_device_alone_gets_its_own_optimum(make_space):
    rng = np.random.default_rng(2)
    space = make_space(rng.random((8, 3, 2)), edges=[[0, 1], [1, 2]], pairwise=rng.random((2, 3, 3, 2)))
    limits = {"m0": 3.0}
    found = minimax([space], cost="m1", best=[1.0], limits=[limits])
    best = cheapest(space, "m1", as_limits(space, limits))
    assert space.evaluate(found)[0, 1] == pytest.approx(space.evaluate(best[None])[0, 1], rel=1e-12)


def test_two_devices_that_want_opposites_meet_in_the_middle(make_space):
    # Ten groups: the first device pays 1 for each at the first candidate, the second pays 1 for each at the second.
    # By symmetry five of each is the best, 5 over a best of 1 apiece.
    unary = np.zeros((10, 2, 1))
    unary[:, 0, 0] = 1.0
    other = unary[:, ::-1].copy()
    spaces = [make_space(unary), make_space(other)]
    found = minimax(spaces, cost="m0", best=[1.0, 1.0], limits=[{}, {}])
    assert [float(space.evaluate(row[None])[0, 0]) for space, row in zip(spaces, found, strict=True)] == [5.0, 5.0]


def test_only_candidates_that_all_devices_know_are_shared(make_space):
    # W2A8, W3A8, W4A8 and W3A8, W4A8: the cheapest of the first is unknown to the second, whose two are in its order.
    first = make_space(np.array([[[1.0], [2.0], [5.0]]] * 2))
    second = make_space(np.array([[[9.0], [4.0]]] * 2))
    second = replace(second, candidates=first.candidates[1:])
    found = minimax([first, second], cost="m0", best=[2.0, 8.0], limits=[{}, {}])
    # Per group (2, 9), (5, 4): together 4/2, 18/8 or 7/2, 13/8 or 10/2, 8/8; the first is least.
    assert found.tolist() == [[1, 1], [0, 0]]
    disjoint = replace(second, candidates=make_space(np.ones((2, 5, 1))).candidates[3:])
    assert minimax([first, disjoint], cost="m0", best=[1, 1], limits=[{}, {}]) is None


def test_what_no_device_shares_is_none(make_space):
    space = make_space(np.ones((2, 2, 1)))
    other = replace(space, allowed=np.array([[True, False], [True, True]]))
    another = replace(space, allowed=np.array([[False, True], [True, True]]))
    assert minimax([other, another], cost="m0", best=[1, 1], limits=[{}, {}]) is None
    assert minimax([space, another], cost="m0", best=[1, 1], limits=[{}, {}]) is not None


def test_what_cannot_be_compared_is_named(make_space):
    space = make_space(np.ones((2, 2, 1)))
    tied = replace(space, groups=(TiedGroup("g0+g1", ("g0", "g1")), space.groups[1]))
    with pytest.raises(InputError, match=r"expected the same tied groups on every device, got g0 and g0\+g1; compare"):
        minimax([space, tied], cost="m0", best=[1, 1], limits=[{}, {}])
    with pytest.raises(InputError, match=r"expected the same tied groups on every device, got 2 and 1; compare"):
        minimax([space, make_space(np.ones((1, 2, 1)))], cost="m0", best=[1, 1], limits=[{}, {}])
    with pytest.raises(InputError, match=r"expected positive finite costs as best, got \[1, 0\]"):
        minimax([space, space], cost="m0", best=[1, 0], limits=[{}, {}])
    with pytest.raises(InputError, match=r"each with its best and its limits, got 2, 1 and 2"):
        minimax([space, space], cost="m0", best=[1], limits=[{}, {}])
    with pytest.raises(InputError, match=r"expected a metric of the space \(m0\), got 'm9'"):
        minimax([space], cost="m9", best=[1], limits=[{}])
