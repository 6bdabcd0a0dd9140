from itertools import product
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwdse.cost import SumOverSets, cost_table, memory_fit, memory_limits, network_totals
from hwdse.cost.memory import live_sums, prune
from hwdse.errors import InputError
from hwdse.formats import Precision
from hwdse.graph import Layer, LayerGraph, LiveSet, Tensor, tie
from hwdse.hardware import load_profile

P = Precision.parse
MPIC, STM32, GAP9, T4 = (load_profile(name) for name in ("mpic", "stm32h7a3", "gap9_ne16", "nvidia_t4"))
KIB = 1024


def linear(name: str, inputs: int, outputs: int, reads: str) -> Layer:
    return Layer(
        name, "linear", reads, f"{name}_out", (inputs,), (outputs,), inputs * outputs, f"{name}.w", (outputs, inputs)
    )


def residual() -> LayerGraph:
    """Return x -> a -> b, with x kept for an addition after b that writes the network's output."""
    layers = (linear("a", 4096, 2048, "x"), linear("b", 2048, 4096, "a_out"))
    tensors = (
        Tensor("x", (4096,), "a"),
        Tensor("a_out", (2048,), "b"),
        Tensor("b_out", (4096,), None),
    )
    live = (LiveSet("a", ("x", "a_out")), LiveSet("b", ("x", "a_out", "b_out")), LiveSet("add", ("x", "b_out")))
    return LayerGraph(layers, tensors, tie(layers), ((0, 1),), live)


def test_live_tensors_count_at_their_owners_width() -> None:
    sums = live_sums(residual(), MPIC, [P("W8A8"), P("W4A4")])
    assert sums.constant * KIB == pytest.approx([0, 4096 * 4, 4096 * 4])  # outputs stay in fp32
    assert sums.terms[:, 0] * KIB == pytest.approx(np.array([[4096, 2048]] * 3))
    assert sums.terms[:, 1] * KIB == pytest.approx(np.array([[2048, 1024], [2048, 1024], [0, 0]]))


def test_only_sets_that_can_be_the_largest_are_kept() -> None:
    table = cost_table(residual(), MPIC, [P("W8A8"), P("W4A4")], metrics=["activation_kib"])
    assert table.peaks["activation_kib"].terms.shape == (1, 2, 2)
    assert not table.values.any()
    totals = network_totals(table, np.array([[0, 0], [1, 0], [1, 1]]))[:, 0] * KIB
    assert totals == pytest.approx([4096 + 2048 + 16384, 2048 + 2048 + 16384, 2048 + 1024 + 16384])


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 6), st.integers(1, 3), st.integers(1, 3), st.randoms(use_true_random=False))
def test_pruning_never_changes_the_peak(sets: int, layers: int, candidates: int, random: Random) -> None:
    draw = np.array([random.randint(0, 3) for _ in range(sets * layers * candidates + sets)], dtype=float)
    sums = SumOverSets(draw[sets:].reshape(sets, layers, candidates), draw[:sets])
    pruned = prune(sums)
    assert 1 <= len(pruned.constant) <= sets
    for choice in product(range(candidates), repeat=layers):
        values = [(part.constant + part.terms[:, range(layers), choice].sum(axis=1)).max() for part in (sums, pruned)]
        assert values[0] == values[1]


def test_a_batch_is_alive_at_once() -> None:
    one = live_sums(residual(), STM32, [P("W8A8")])
    eight = live_sums(residual(), T4, [P("W8A8")])
    assert eight.terms == pytest.approx(8 * one.terms)
    assert eight.constant == pytest.approx(8 * one.constant)


def test_emulated_activations_are_stored_in_the_container_and_unsupported_ones_are_zero() -> None:
    sums = live_sums(residual(), T4, [P("W8A8"), P("W4A8"), P("W2A2")])
    assert sums.terms[..., 1] == pytest.approx(sums.terms[..., 0])
    assert not sums.terms[..., 2].any()


def test_the_second_operand_of_a_product_has_the_weight_format() -> None:
    layer = Layer("qk", "matmul", "q", "s", (4, 64), (4, 4), 1024, second_input="k", second_shape=(64, 4))
    tensors = (Tensor("q", (4, 64), "qk"), Tensor("k", (64, 4), "qk"))
    graph = LayerGraph((layer,), tensors, tie((layer,)), (), (LiveSet("qk", ("q", "k")),))
    assert live_sums(graph, MPIC, [P("W4A8")]).terms.item() * KIB == 256 + 128


def test_a_graph_without_live_sets_is_an_error() -> None:
    layers = (linear("a", 4, 4, "x"),)
    with pytest.raises(InputError, match="expected a graph with the tensors alive at each operator, got none"):
        cost_table(LayerGraph(layers, (), tie(layers)), MPIC, [P("W8A8")], metrics=["activation_kib"])


def test_limits_are_what_code_and_runtime_leave() -> None:
    assert memory_limits(STM32) == {"activation_kib": 1220 - 30, "size_kib": 2048 - 190}
    assert memory_limits(MPIC) == {"memory_kib": 512}
    assert memory_limits(GAP9) == {"memory_kib": 1638.4, "size_kib": 2048}
    assert memory_limits(T4) == {"memory_kib": 16 * KIB**2}


def test_memory_of_both_is_the_size_and_the_peak() -> None:
    graph = residual()
    table = cost_table(graph, MPIC, [P("W8A8"), P("W2A4")], metrics=["size_kib", "activation_kib", "memory_kib"])
    totals = network_totals(table, np.array(list(product(range(2), repeat=2))))
    assert totals[:, 2] == pytest.approx(totals[:, 0] + totals[:, 1])
    assert len(set(totals[:, 2])) == 4


def test_a_network_that_does_not_fit_names_bytes_and_operator() -> None:
    layers = (linear("wide", 1_500_000, 2, "x"), linear("narrow", 2, 4, "wide_out"))
    tensors = (Tensor("x", (1_500_000,), "wide"), Tensor("wide_out", (2,), "narrow"), Tensor("out", (4,), None))
    live = (LiveSet("wide", ("x", "wide_out")), LiveSet("narrow", ("wide_out", "out")))
    graph = LayerGraph(layers, tensors, tie(layers), ((0, 1),), live)
    w8a8 = graph.config([P("W8A8")] * 2)
    fit = memory_fit(graph, STM32, w8a8)
    assert not fit.fits
    size = 3_000_000 + 2 * 4 + 5 + 8 + 4 * 4 + 5
    over = 1_500_002 - 1_218_560
    assert fit.sentences == (
        f"SRAM has 1218560 bytes (measured) for activations, 1500002 needed at wide: {over} bytes too many",
        f"flash has 1902592 bytes (measured) for weights, {size} needed: {size - 1902592} bytes too many",
    )
    assert memory_fit(graph, T4, w8a8).fits
    assert memory_fit(graph, T4, w8a8).sentences == ()


def test_the_limit_itself_fits_and_one_byte_more_does_not() -> None:
    def fits(inputs: int) -> bool:
        layers = (linear("a", inputs, 1, "x"),)
        tensors = (Tensor("x", (inputs,), "a"), Tensor("a_out", (1,), None))
        graph = LayerGraph(layers, tensors, tie(layers), (), (LiveSet("a", ("x", "a_out")),))
        return memory_fit(graph, STM32, graph.config([P("W8A8")])).fits

    assert fits(1218560 - 4)
    assert not fits(1218560 - 3)


def test_a_configuration_that_the_device_cannot_run_is_an_error() -> None:
    graph = residual()
    with pytest.raises(InputError, match="expected a precision that mpic supports for a, got fp32"):
        memory_fit(graph, MPIC, graph.config([P("fp32")] * 2))
