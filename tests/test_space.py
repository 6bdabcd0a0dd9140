from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwdse.cost.table import CostTable, Metric, Reduction, SumOverSets
from hwdse.errors import InputError
from hwdse.formats import Precision
from hwdse.graph import Layer, LayerGraph, tie
from hwdse.space import DesignSpace

NAMES = ("W2A8", "W4A4", "W4A8", "W8A8", "W2A4", "W3A8", "W5A8", "W6A8", "W7A8", "W16A16")
W4A8, W8A8 = Precision.parse("W4A8"), Precision.parse("W8A8")
SIZE = Metric("size_kib", Reduction.SUM, "size (KiB)")
LATENCY = Metric("latency_ms_predicted", Reduction.SUM, "latency (ms)")
PEAK = Metric("peak_kib", Reduction.MAX, "peak memory (KiB)")


def chain(count, *, inputs=None):
    """A graph of linear layers; `inputs` names the tensor that each reads."""
    inputs = inputs or [f"t{i}" for i in range(count)]
    layers = tuple(
        Layer(f"l{i}", "linear", inputs[i], f"t{i + 1}", (4,), (4,), 16, f"w{i}", (4, 4)) for i in range(count)
    )
    edges = tuple((i, i + 1) for i in range(count - 1))
    return LayerGraph(layers, (), tie(layers), edges)


def precisions(count):
    weights = [Precision.parse(f"W{w}A{a}") for w in (2, 3, 4, 5, 6, 7, 8, 16) for a in (2, 3, 4, 5, 6, 7, 8, 16)]
    return tuple(weights[:count])


def random_space(rng, groups, candidates, *, metrics=2, edges=0, sets=0, widest=3, masked=0.0):
    graph = chain(groups)
    names = tuple(Metric(f"m{i}_ms", Reduction.SUM, "") for i in range(metrics))
    allowed = rng.random((groups, candidates)) >= masked
    allowed[np.arange(groups), rng.integers(0, candidates, groups)] = True
    peaks = {}
    unary = rng.normal(size=(groups, candidates, metrics + bool(sets)))
    if sets:
        names += (PEAK,)
        unary[..., -1] = 0.0
        terms = np.zeros((sets, groups, candidates))
        for row in terms:
            chosen = rng.permutation(groups)[: rng.integers(1, widest + 1)]
            row[chosen] = rng.normal(size=(len(chosen), candidates))
        peaks = {PEAK.name: SumOverSets(terms, rng.normal(size=sets))}
    ends = np.array([rng.permutation(groups)[:2] for _ in range(edges)], dtype=np.int64).reshape(-1, 2)
    pairwise = rng.normal(size=(edges, candidates, candidates, unary.shape[2]))
    return DesignSpace(
        graph.groups,
        precisions(candidates),
        names,
        allowed,
        unary,
        rng.normal(size=unary.shape[2]),
        ends,
        pairwise,
        peaks,
    )


def naive(space, genes):
    """The definition, one configuration and one term at a time."""
    rows = []
    for x in genes.tolist():
        total = space.constant.copy()
        for g, c in enumerate(x):
            total += space.unary[g, c]
        for (a, b), costs in zip(space.edges, space.pairwise, strict=True):
            total += costs[x[a], x[b]]
        for name, sums in space.peaks.items():
            totals = [k + sum(t[g, c] for g, c in enumerate(x)) for t, k in zip(sums.terms, sums.constant, strict=True)]
            total[space.column(name)] += max(totals)
        rows.append(total)
    return np.array(rows).reshape(len(genes), len(space.metrics))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    groups=st.integers(2, 21),
    candidates=st.integers(1, 20),
    metrics=st.integers(1, 4),
    edges=st.integers(0, 25),
    sets=st.integers(0, 12),
    masked=st.sampled_from([0.0, 0.4]),
)
def test_evaluate_equals_the_definition(seed, groups, candidates, metrics, edges, sets, masked):
    rng = np.random.default_rng(seed)
    widest = min(groups, 12)  # wider than any table, so that some sets become columns of their own
    space = random_space(rng, groups, candidates, metrics=metrics, edges=edges, sets=sets, widest=widest, masked=masked)
    genes = space.random(17, rng)
    np.testing.assert_allclose(space.evaluate(genes), naive(space, genes), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.uint32, np.int64, np.uint64])
def test_evaluate_takes_every_integer_type_and_layout(dtype):
    rng = np.random.default_rng(0)
    space = random_space(rng, 11, 3)
    genes = space.random(40, rng)
    expected = naive(space, genes)
    given = genes.astype(dtype)
    for same in (
        given,
        np.asfortranarray(given),
        np.repeat(given, 2, axis=1)[:, ::2],
        given[::-1][::-1],
        given.tolist(),
    ):
        np.testing.assert_allclose(space.evaluate(same), expected, rtol=1e-12, atol=1e-12)


def test_evaluate_in_parallel_blocks_equals_one_block():
    rng = np.random.default_rng(1)
    space = random_space(rng, 20, 3, metrics=3, edges=12, sets=9)
    genes = space.random(150_000, rng)
    values = space.evaluate(genes)
    rows = rng.integers(0, len(genes), 300)
    np.testing.assert_allclose(values[rows], naive(space, genes[rows]), rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(values[-5:], space.evaluate(genes[-5:]))


def test_evaluate_of_nothing_is_empty():
    space = random_space(np.random.default_rng(0), 4, 3, metrics=2)
    assert space.evaluate(np.empty((0, 4), dtype=np.uint8)).shape == (0, 2)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int64])
@pytest.mark.parametrize("gene", [3, -1, 127, 120])
def test_evaluate_refuses_genes_out_of_range(dtype, gene):
    if dtype is np.uint8 and gene < 0:
        gene = 255
    space = random_space(np.random.default_rng(0), 9, 3)
    genes = np.zeros((5, 9), dtype=dtype)
    genes[3, 7] = gene
    with pytest.raises(
        InputError, match=rf"from 0 to 2 \(candidates - 1\), got {gene} for group l7 of configuration 3"
    ):
        space.evaluate(genes)


def test_evaluate_refuses_genes_that_are_not_allowed():
    rng = np.random.default_rng(0)
    space = random_space(rng, 9, 3, masked=0.5)
    group, candidate = np.argwhere(~space.allowed)[0]
    genes = space.random(6, rng)
    genes[4, group] = candidate
    with pytest.raises(InputError, match=f"for group l{group}, got {space.candidates[candidate]}"):
        space.evaluate(genes)


@pytest.mark.parametrize(
    "genes", [np.zeros((2, 4)), np.zeros(5, dtype=int), np.zeros((2, 5), dtype=bool), np.zeros((2, 6), int)]
)
def test_evaluate_refuses_other_shapes_and_types(genes):
    space = random_space(np.random.default_rng(0), 5, 3)
    with pytest.raises(InputError, match=r"integer genes of shape \(n, 5\) \(i\.e\. \(n, groups\)\), got"):
        space.evaluate(genes)


def table_for(graph, candidates, *, supported=None, switches=None, peaks=None):
    rng = np.random.default_rng(5)
    layers, c = len(graph.layers), len(candidates)
    metrics = (SIZE, LATENCY, PEAK) if peaks else (SIZE, LATENCY)
    values = rng.integers(1, 100, (layers, c, len(metrics))).astype(float)
    if peaks:
        values[..., 2] = 0.0
    supported = np.ones((layers, c), dtype=bool) if supported is None else supported
    values[~supported] = np.nan  # must not be read
    edges = np.array(graph.edges, dtype=np.int64).reshape(-1, 2)
    if switches is None:
        switches = rng.integers(0, 9, (len(edges), c, c, len(metrics))).astype(float)
    return CostTable(
        metrics, candidates, values, supported, np.zeros_like(supported), np.full(len(metrics), 7.0), edges, switches,
        {PEAK.name: peaks} if peaks else {},
    )  # fmt: skip


def costs_by_layer(table, choice):
    """The cost of a choice per layer, straight from the cost table."""
    total = table.constant.copy()
    for layer, c in enumerate(choice):
        total = total + table.values[layer, c]
    for (a, b), costs in zip(table.edges, table.switches, strict=True):
        total = total + costs[choice[a], choice[b]]
    for name, sums in table.peaks.items():
        column = [metric.name for metric in table.metrics].index(name)
        total[column] += max(
            k + sum(t[layer, c] for layer, c in enumerate(choice))
            for t, k in zip(sums.terms, sums.constant, strict=True)
        )
    return total


def test_from_costs_equals_the_sum_over_layers_on_every_configuration():
    # l1 and l2 read one tensor (a group with an edge inside), l0 -> l3 and l3 -> l0 are parallel, in both directions.
    graph = chain(5, inputs=["a", "b", "b", "c", "d"])
    graph = LayerGraph(graph.layers, (), graph.groups, ((0, 1), (1, 2), (0, 3), (3, 0), (3, 4), (0, 2)))
    rng = np.random.default_rng(3)
    candidates = tuple(map(Precision.parse, NAMES[:3]))
    peaks = SumOverSets(rng.integers(0, 50, (4, 5, 3)).astype(float), rng.integers(0, 9, 4).astype(float))
    supported = np.ones((5, 3), dtype=bool)
    supported[2, 0] = False
    table = table_for(graph, candidates, supported=supported, peaks=peaks)
    space = DesignSpace.from_costs(graph, table)
    assert [group.layers for group in space.groups] == [("l0",), ("l1", "l2"), ("l3",), ("l4",)]
    assert space.edges.tolist() == [[0, 1], [0, 2], [2, 3]]
    assert space.size == 3 * 2 * 3 * 3
    genes = np.array([x for x in product(range(3), repeat=4) if x[1] != 0], dtype=np.uint8)
    expected = [costs_by_layer(table, [x[g] for g in graph.group_of]) for x in genes]
    np.testing.assert_array_equal(space.evaluate(genes), expected)


def test_from_costs_drops_edges_that_cost_nothing():
    graph = chain(3)
    candidates = (W4A8, W8A8)
    switches = np.zeros((2, 2, 2, 2))
    switches[1, 0, 1, 1] = 3.0
    assert DesignSpace.from_costs(graph, table_for(graph, candidates, switches=switches)).edges.tolist() == [[1, 2]]
    fixed = DesignSpace.from_costs(graph, table_for(graph, candidates, switches=switches), fixed={"l1": W8A8})
    assert fixed.edges.tolist() == []  # the only entry that costs is not allowed any more


def test_from_costs_names_the_group_that_has_nothing_to_choose():
    graph = chain(3, inputs=["a", "b", "b"])
    supported = np.array([[True, True], [True, False], [False, True]])
    with pytest.raises(InputError, match=r"group l1 support, got none \(l1 supports W4A8; l2 supports W8A8\)"):
        DesignSpace.from_costs(graph, table_for(graph, (W4A8, W8A8), supported=supported))


def test_fixed_takes_layer_and_group_names():
    graph = chain(4, inputs=["a", "b", "b", "c"])
    space = DesignSpace.from_costs(graph, table_for(graph, (W4A8, W8A8)), fixed={"l2": W8A8, "l0": W4A8})
    assert space.allowed.tolist() == [[True, False], [False, True], [True, True]]
    assert space.size == 2


@pytest.mark.parametrize(
    ("fixed", "match"),
    [
        ({"l33": W8A8}, "expected a layer or group to fix, got 'l33'; did you mean l3"),
        ({"l0": Precision.parse("W2A8")}, "fixed to one of the candidates W4A8, W8A8, got W2A8"),
        ({"l1": W4A8}, r"that its group l1 can have \(W8A8\), got W4A8; of its layers l1 supports W8A8"),
        ({"l2": W4A8, "l3": W8A8}, r"expected l3 fixed to a precision that its group l2 can have \(W4A8\), got W8A8"),
    ],
)
def test_fixed_refuses_what_cannot_be(fixed, match):
    graph = chain(4, inputs=["a", "b", "c", "c"])
    supported = np.array([[True, True], [False, True], [True, True], [True, True]])
    with pytest.raises(InputError, match=match):
        DesignSpace.from_costs(graph, table_for(graph, (W4A8, W8A8), supported=supported), fixed=fixed)


def test_with_metric_adds_a_column_and_leaves_the_others():
    rng = np.random.default_rng(2)
    space = random_space(rng, 6, 3, edges=4, sets=3, masked=0.3)
    harm = np.where(space.allowed, rng.random((6, 3)), np.nan)
    wider = space.with_metric(Metric("loss_predicted", Reduction.SUM, "loss"), harm, constant=0.5)
    genes = space.random(20, rng)
    expected = 0.5 + harm[np.arange(6), genes].sum(axis=1)
    np.testing.assert_allclose(wider.evaluate(genes)[:, -1], expected, rtol=1e-13)
    np.testing.assert_allclose(wider.evaluate(genes)[:, :-1], space.evaluate(genes), rtol=1e-12, atol=1e-12)
    assert wider.is_additive("loss_predicted")
    assert not wider.is_additive("peak_kib")
    assert not wider.is_additive("m0_ms")


@pytest.mark.parametrize(
    ("metric", "shape", "match"),
    [
        (Metric("m0_ms", Reduction.SUM, ""), (5, 3), "expected a new metric that reduces by sum, got m0_ms"),
        (PEAK, (5, 3), "expected a new metric that reduces by sum, got peak_kib"),
        (SIZE, (3, 5), r"values of shape \(5, 3\) \(groups, candidates\), got \(3, 5\)"),
    ],
)
def test_with_metric_refuses(metric, shape, match):
    space = random_space(np.random.default_rng(0), 5, 3)
    with pytest.raises(InputError, match=match):
        space.with_metric(metric, np.zeros(shape))


def test_with_metric_refuses_an_allowed_entry_that_is_not_finite():
    space = random_space(np.random.default_rng(0), 5, 3)
    values = np.zeros((5, 3))
    values[2, 1] = np.nan
    with pytest.raises(InputError, match="finite costs for every allowed candidate"):
        space.with_metric(SIZE, values)


def test_unknown_metric_names_the_closest():
    space = random_space(np.random.default_rng(0), 5, 3)
    with pytest.raises(InputError, match=r"\(m0_ms, m1_ms\), got 'm0_m'; did you mean m0_ms\?"):
        space.column("m0_m")


def test_random_is_allowed_uniform_and_reproducible():
    space = random_space(np.random.default_rng(4), 7, 4, masked=0.5)
    genes = space.random(4000, np.random.default_rng(9))
    assert space.allowed[np.arange(7), genes].all()
    for g in range(7):
        share = np.bincount(genes[:, g], minlength=4)[space.allowed[g]] / 4000
        np.testing.assert_allclose(share, 1 / space.allowed[g].sum(), atol=0.04)
    np.testing.assert_array_equal(genes, space.random(4000, np.random.default_rng(9)))


def test_uniform_keeps_what_is_fixed():
    graph = chain(3)
    space = DesignSpace.from_costs(graph, table_for(graph, (W4A8, W8A8)), fixed={"l0": W8A8})
    assert space.uniform(W4A8).tolist() == [1, 0, 0]
    assert space.uniform(W8A8).tolist() == [1, 1, 1]
    every = DesignSpace.from_costs(graph, table_for(graph, (W4A8, W8A8)), fixed=dict.fromkeys(("l0", "l1", "l2"), W8A8))
    assert every.uniform(W4A8) is None
    assert space.uniforms.tolist() == [[1, 0, 0], [1, 1, 1]]
    assert every.uniforms.tolist() == [[1, 1, 1]]
    with pytest.raises(InputError, match="one of the candidates W4A8, W8A8, got W2A8"):
        space.uniform(Precision.parse("W2A8"))


def test_uniform_is_none_where_a_group_with_a_choice_cannot():
    graph = chain(2)
    supported = np.array([[True, True, True], [True, True, False]])
    space = DesignSpace.from_costs(graph, table_for(graph, tuple(map(Precision.parse, NAMES[:3])), supported=supported))
    assert space.uniform(space.candidates[2]) is None


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), edges=st.integers(0, 5), sets=st.integers(0, 4))
def test_reach_bounds_every_configuration_and_is_exact_for_sums(seed, edges, sets):
    rng = np.random.default_rng(seed)
    space = random_space(rng, 5, 3, edges=edges, sets=sets, masked=0.3)
    genes = np.array([x for x in product(range(3), repeat=5) if space.allowed[np.arange(5), x].all()], dtype=np.uint8)
    assert len(genes) == space.size
    lowest = space.evaluate(genes).min(axis=0)
    for name, bound in space.reach().items():
        assert bound <= lowest[space.column(name)] + 1e-12
        if space.is_additive(name):
            assert bound == pytest.approx(lowest[space.column(name)], abs=1e-12)


def test_config_and_genes_are_inverse():
    graph = chain(4, inputs=["a", "b", "b", "c"])
    space = DesignSpace.from_costs(graph, table_for(graph, (W4A8, W8A8)), fixed={"l3": W8A8})
    genes = np.array([0, 1, 1], dtype=np.uint8)
    config = space.config(genes, graph)
    assert config.bits == "W4A8 W8A8 W8A8 W8A8"
    assert space.genes(config).tolist() == genes.tolist()
    with pytest.raises(InputError, match="expected one of W8A8 for group l3, got W4A8"):
        space.config([0, 1, 0], graph)
    with pytest.raises(InputError, match="from 0 to 1"):
        space.config([0, 2, 1], graph)
    with pytest.raises(InputError, match="one with other groups"):
        space.config(genes, chain(3))
    with pytest.raises(InputError, match="one precision for the layers l1, l2"):
        space.genes(type(config)({**config.precisions, "l2": W4A8}))


def test_space_checks_its_shapes():
    space = random_space(np.random.default_rng(0), 5, 3)
    fields = {name: getattr(space, name) for name in space.__dataclass_fields__}
    with pytest.raises(InputError, match=r"expected unary of shape \(5, 3, 2\), got \(5, 3, 1\)"):
        DesignSpace(**fields | {"unary": space.unary[..., :1]})
    with pytest.raises(InputError, match="edges between two of the 5 groups"):
        DesignSpace(**fields | {"edges": np.array([[1, 1]]), "pairwise": np.zeros((1, 3, 3, 2))})
    with pytest.raises(InputError, match=r"sums \(peaks\) for the metrics \['peak_kib'\], got \[\]"):
        DesignSpace(**fields | {"metrics": (SIZE, PEAK)})
    with pytest.raises(InputError, match="allowed candidate for every group, got none for l0"):
        DesignSpace(**fields | {"allowed": np.arange(15).reshape(5, 3) > 2})
