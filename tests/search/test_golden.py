"""Published optima and policies: HAWQ-V3 (arXiv:2011.10680, ILP.ipynb and bit_config.py) and HAQ (arXiv:1811.08886)."""

import os
from pathlib import Path

import numpy as np
import pytest

from hwdse.infeasible import Limit
from hwdse.pareto import hypervolume
from hwdse.search import exact, greedy, hull, milp, nsga2, random_search, two_phase
from hwdse.search.integer_program import cheapest

# Nineteen layers in the notebook's order; a budget of f allows the cost C4 + f (C8 - C4).
RESNET18 = {
    ("size", 0.25): ("8888888888888844444", 0.118300),
    ("size", 0.50): ("8888888888888884844", 0.074506),
    ("size", 0.75): ("8888888888888488884", 0.033441),
    ("bops", 0.25): ("8884848444444444444", 0.460424),
    ("bops", 0.50): ("8884888848884444444", 0.215689),
    ("bops", 0.75): ("8888888848888484884", 0.079965),
    ("latency", 0.25): ("8884848444444444444", 0.460424),
    ("latency", 0.50): ("8888848848884484844", 0.202674),
    ("latency", 0.75): ("8888888848888484884", 0.079965),
}
RESNET50 = {
    ("size", 0.25): 0.074949,
    ("size", 0.50): 0.031024,
    ("size", 0.75): 0.012215,
    ("bops", 0.25): 0.148948,
    ("bops", 0.50): 0.056440,
    ("bops", 0.75): 0.024105,
    ("latency", 0.25): 0.137505,
    ("latency", 0.50): 0.054861,
    ("latency", 0.75): 0.022658,
}
# The policy that the README of mit-han-lab/haq lists for a preserve ratio of 0.6: weight and activation bits of the 53
# layers. The first layer's input is not quantized (-1), which indexes the table's last column but one.
HAQ_POLICY = (
    "8- 77 56 46 56 57 56 74 46 46 77 56 46 73 57 47 73 57 47 77 47 47 64 67 47 74 67 57 74 67 57 74 67 67 64 57 67 "
    "64 57 67 77 47 77 77 47 77 77 47 77 77 47 77 88"
)


def budget(space, metric, share):
    """The cost `C4 + f (C8 - C4)`."""
    low, high = space.unary[:, :, space.column(metric)].sum(axis=0)
    return low + share * (high - low)


@pytest.mark.parametrize(("metric", "share"), RESNET18)
def test_hawq_resnet18_optima_are_the_published_ones(hawq, metric, share):
    space, owner = hawq("resnet18")
    bits, omega = RESNET18[metric, share]
    limit = budget(space, metric, share)
    by_program = cheapest(space, "omega", [Limit(metric, metric, 1, limit)])
    assert "".join("48"[gene] for gene in by_program[owner]) == bits
    by_lists = exact.search(space, ("omega", metric), limits={metric: limit})
    assert "".join("48"[gene] for gene in by_lists.genes[-1][owner]) == bits
    assert by_lists.values[-1, 0] == pytest.approx(omega, abs=5e-7)


@pytest.mark.parametrize(("metric", "share"), RESNET50)
def test_hawq_resnet50_optima(hawq, metric, share):
    space, _ = hawq("resnet50")
    limits = {metric: budget(space, metric, share)}
    for searcher in (milp.search, exact.search):
        result = searcher(space, ("omega",), limits=limits)
        assert result.values[0, 0] == pytest.approx(RESNET50[metric, share], abs=5e-7)


def test_hawq_resnet50_published_quarter_size_is_not_the_optimum(hawq):
    # The one published configuration of eighteen that an exact solver improves on: Omega 0.083110 at 14.467 MB.
    space, _ = hawq("resnet50")
    limit = budget(space, "size", 0.25)
    assert limit == pytest.approx(14.653, abs=5e-4)
    best = exact.search(space, ("omega", "size"), limits={"size": limit})
    assert best.values[-1] == pytest.approx([0.074949, 14.598], abs=5e-4)
    smaller = exact.search(space, ("omega", "size"), limits={"size": 14.4675})
    assert smaller.values[-1, 0] < 0.083110


@pytest.mark.parametrize(("metric", "points"), [("size", 29), ("bops", 24), ("latency", 41)])
def test_hawq_resnet18_front_sizes(hawq, enumerate_space, metric, points):
    # BOPs are whole multiples of one number, and many sums are equal: rounded floating-point sums split them into up to
    # 38 points, depending on the order of addition. Counted in integers the front has 24.
    space, _ = hawq("resnet18")
    result = exact.search(space, ("omega", metric))
    assert result.exact
    assert len(result.genes) == points
    _, values = enumerate_space(space)
    rounded = np.round(values[:, [space.column("omega"), space.column(metric)]], 9)
    order = np.lexsort((rounded[:, 0], rounded[:, 1]))
    harms = rounded[order, 0]
    assert (np.diff(np.minimum.accumulate(harms)) < 0).sum() + 1 == points


@pytest.fixture(scope="module")
def resnet50_seven_bits(hawq):
    """ResNet-50 at 2 to 8 bits: the space, and a function that gives a front's share of the exact hypervolume."""
    space, _ = hawq("resnet50", bits=range(2, 9))
    uniform = np.repeat(np.arange(7, dtype=np.uint8)[:, None], len(space.groups), axis=1)

    def share(result, metric):
        columns = [space.column("omega"), space.column(metric)]

        def scaled(values):
            logs = np.stack([np.log10(values[:, 0]), values[:, 1]], axis=1)
            corners = space.evaluate(uniform)[:, columns]
            corners = np.stack([np.log10(corners[:, 0]), corners[:, 1]], axis=1)
            return (logs - corners.min(axis=0)) / np.ptp(corners, axis=0)

        whole = exact.search(space, ("omega", metric))
        reference = (1.05, 1.05)
        return hypervolume(scaled(result.values), reference) / hypervolume(scaled(whole.values), reference)

    return space, share


@pytest.mark.parametrize(
    ("metric", "hull_share", "list_share", "random_share"),
    [("size", 0.9968, 0.926, 0.557), ("bops", 0.9996, 0.990, 0.557)],
)
def test_shares_of_the_exact_hypervolume(resnet50_seven_bits, metric, hull_share, list_share, random_share):
    space, share = resnet50_seven_bits
    assert len(space.groups) == 48
    corners = hull.search(space, ("omega", metric))
    assert share(corners, metric) == pytest.approx(hull_share, abs=1.5e-3)
    steps = greedy.search(space, ("omega", metric))
    np.testing.assert_allclose(steps.values, corners.values, rtol=1e-9)  # where everything adds up, they are one walk
    published = greedy.search_by_sensitivity(space, ("omega", metric))
    assert share(published, metric) == pytest.approx(list_share, abs=1.5e-3)
    drawn = random_search.search(space, ("omega", metric), evaluations=20_000, rng=np.random.default_rng(0))
    assert share(drawn, metric) == pytest.approx(random_share, abs=0.03)


@pytest.mark.parametrize("metric", ["size", "bops"])
def test_nsga2_seeded_from_the_hull_reaches_the_exact_front(resnet50_seven_bits, metric):
    space, share = resnet50_seven_bits
    shares = []
    for seed in range(3):
        result = nsga2.search(space, ("omega", metric), evaluations=20_000, rng=np.random.default_rng(seed))
        assert result.evaluations <= 20_000
        shares.append(share(result, metric))
    assert np.mean(shares) >= 0.998
    assert max(shares) <= 1 + 1e-12


def test_two_phases_walk_the_published_list(resnet50_seven_bits):
    # With the predicted harm for a score, phase 2 walks the points whose hypervolume is tested above.
    space, _ = resnet50_seven_bits
    harms = space.unary[..., space.column("omega")]
    target = -0.05
    walk, _ = greedy.walk(space, ("omega", "bops"), order="sensitivity")
    omega = space.evaluate(walk)[:, space.column("omega")]
    for method in ("brute_force", "binary", "interpolation"):
        result = two_phase.search(
            space,
            -harms,
            baseline=space.candidates[-1],
            measure=lambda genes: -space.evaluate(genes)[:, space.column("omega")],
            target=target,
            method=method,
            bit_operations="bops",
        )
        np.testing.assert_array_equal(result.path, walk)
        assert omega[result.chosen] <= -target < omega[result.chosen + 1]
        assert len(result.entries) == 48 * 6


def test_haq_policy_takes_the_published_share_of_the_8_bit_latency(make_space):
    folder = Path(os.environ.get("HWDSE_DATA", Path(__file__).parents[2].parent / "shared" / "data"))
    name = "qmobilenetv2_imagenet100_batch16_latency_table.npy"
    path = folder.parent / "hardware" / "data" / "haq" / name
    if not path.exists():
        pytest.skip(f"needs HAQ's latency table {name} in {path.parent}")
    table = np.load(path)  # cycles by (layer, weight bits - 1, activation bits - 1)
    policy = [(int(w), -1 if a == "-" else int(a)) for w, a in HAQ_POLICY.split()]
    assert table.shape == (53, 8, 8)
    assert len(policy) == 53
    pairs = sorted({*policy, (8, 8)})
    space = make_space(np.stack([table[:, w - 1, a - 1] for w, a in pairs], axis=1)[..., None])
    genes = np.array([[pairs.index(pair) for pair in policy], [pairs.index((8, 8))] * 53])
    cycles, uniform = space.evaluate(genes)[:, 0]
    assert uniform == 39_624_933
    assert cycles / uniform == pytest.approx(0.59138, abs=5e-6)
