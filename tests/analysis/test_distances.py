"""Output distances against closed forms, scipy and the framework."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from scipy.special import softmax
from scipy.stats import entropy

from hwdse.analysis.distances import cosine, first_tensor, jsd, kl, sqnr_db
from hwdse.errors import InputError


def test_kl_of_two_coins() -> None:
    p, q = 0.8, 0.3
    reference, other = (torch.tensor([[math.log(x), math.log(1 - x)]]) for x in (p, q))
    expected = p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
    assert kl(reference, other).item() == pytest.approx(expected, rel=1e-6)
    assert kl(other, reference).item() != pytest.approx(expected, rel=1e-2)


@given(st.integers(0, 2**31), st.integers(2, 9))
def test_kl_is_scipys(seed: int, classes: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    a, b = (torch.randn(5, classes, generator=generator, dtype=torch.float64) * 4 for _ in range(2))
    expected = entropy(softmax(a.numpy(), axis=1), softmax(b.numpy(), axis=1), axis=1)
    np.testing.assert_allclose(kl(a, b).numpy(), expected, rtol=1e-9, atol=1e-13)


def test_kl_ignores_a_constant_added_to_all_logits_and_averages_tokens() -> None:
    a, b = torch.randn(2, 3, 7), torch.randn(2, 3, 7)
    torch.testing.assert_close(kl(a, b), kl(a + 5.0, b - 3.0), rtol=1e-5, atol=1e-6)
    tokens = torch.stack([kl(a[:, i], b[:, i]) for i in range(3)], 1)
    torch.testing.assert_close(kl(a, b), tokens.mean(1))


def test_kl_of_nothing_is_zero_and_masked_classes_add_nothing() -> None:
    a = torch.randn(4, 6)
    assert kl(a, a).tolist() == [0.0] * 4
    masked, other = a.clone(), torch.randn(4, 6)
    masked[:, 2] = -torch.inf
    rest = [0, 1, 3, 4, 5]
    assert kl(masked, masked).tolist() == [0.0] * 4
    both = other.clone()
    both[:, 2] = -torch.inf
    torch.testing.assert_close(kl(masked, both), kl(a[:, rest], other[:, rest]))


def test_sqnr_of_known_noise() -> None:
    signal = torch.ones(1, 100)
    assert sqnr_db(signal, signal * 1.1).item() == pytest.approx(20.0, abs=1e-4)
    assert sqnr_db(signal, signal * 1.01).item() == pytest.approx(40.0, abs=1e-4)
    assert sqnr_db(signal, -signal).item() == pytest.approx(-20 * math.log10(2.0))
    assert sqnr_db(1e-6 * signal, 1.1e-6 * signal).item() == pytest.approx(20.0, abs=1e-3)  # small outputs count alike


def test_sqnr_is_numpys_per_sample_and_bounded() -> None:
    y, q = torch.randn(3, 4, 5), torch.randn(3, 4, 5)
    a, b = y.double().numpy().reshape(3, -1), q.double().numpy().reshape(3, -1)
    expected = 10 * np.log10((a**2).mean(1) / ((a - b) ** 2).mean(1))
    np.testing.assert_allclose(sqnr_db(y, q).numpy(), expected, rtol=1e-12)
    assert sqnr_db(y, y).tolist() == pytest.approx([120.0] * 3)
    zeros = torch.zeros(2, 4)
    assert torch.isfinite(sqnr_db(zeros, torch.ones(2, 4))).all()
    assert torch.isfinite(sqnr_db(zeros, zeros)).all()


@given(st.integers(0, 2**31), st.integers(2, 9))
def test_jsd_is_scipys_symmetric_and_bounded(seed: int, classes: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    a, b = (torch.randn(5, classes, generator=generator, dtype=torch.float64) * 4 for _ in range(2))
    expected = jensenshannon(softmax(a.numpy(), axis=1), softmax(b.numpy(), axis=1), axis=1) ** 2
    np.testing.assert_allclose(jsd(a, b).numpy(), expected, rtol=1e-7, atol=1e-13)
    np.testing.assert_allclose(jsd(a, b).numpy(), jsd(b, a).numpy(), rtol=1e-10, atol=1e-15)
    assert float(jsd(a, b).max()) <= math.log(2.0) + 1e-12


def test_jsd_of_answers_that_rule_each_other_out_is_ln_2_and_tokens_are_averaged() -> None:
    one, other = torch.tensor([[0.0, -torch.inf]]), torch.tensor([[-torch.inf, 0.0]])
    assert jsd(one, other).item() == pytest.approx(math.log(2.0), rel=1e-12)
    assert jsd(one, one).item() == 0.0
    a, b = torch.randn(2, 3, 7), torch.randn(2, 3, 7)
    tokens = torch.stack([jsd(a[:, i], b[:, i]) for i in range(3)], 1)
    torch.testing.assert_close(jsd(a, b), tokens.mean(1))


@given(st.integers(0, 2**31))
def test_cosine_is_the_frameworks(seed: int) -> None:
    a, b = torch.randn(2, 5, 3, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    expected = 1.0 - torch.cosine_similarity(a.flatten(1), b.flatten(1), dim=1)
    torch.testing.assert_close(cosine(a, b), expected, rtol=1e-9, atol=1e-12)
    assert cosine(a, -3.0 * a).tolist() == pytest.approx([2.0] * 5)


def test_cosine_of_a_small_angle_and_of_zeros() -> None:
    angle = 1e-9
    a, b = torch.tensor([[1.0, 0.0]]).double(), torch.tensor([[math.cos(angle), math.sin(angle)]]).double()
    assert cosine(a, b).item() == pytest.approx(angle**2 / 2, rel=1e-6)
    zero = torch.zeros(1, 2)
    assert (cosine(zero, zero).item(), cosine(zero, a).item(), cosine(a, zero).item()) == (0.0, 1.0, 1.0)


def test_the_first_tensor_of_an_output() -> None:
    with pytest.raises(InputError, match="expected a model that returns a tensor, got dict"):
        first_tensor({"a": None, "b": 3})
    assert first_tensor({"a": [None, torch.ones(2)]}).tolist() == [1.0, 1.0]
