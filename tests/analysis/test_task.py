"""Labelled losses against the framework's, and their rise under quantization against two plain forward passes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hwdse.analysis.sensitivity import first_tensor
from hwdse.analysis.task import cross_entropy, measure_task_sensitivity, top1_error
from hwdse.errors import InputError
from hwdse.formats import Precision, Scheme
from hwdse.quantize.network import QuantizedNetwork, Setting
from hwdse.quantize.observe import observe
from tests import networks

CANDIDATES = tuple(map(Precision.parse, ("W2A8", "W8A8")))


def quantized(name: str) -> QuantizedNetwork:
    batches = [networks.CASES[name].inputs(8)]
    return QuantizedNetwork(networks.program(name), scheme=Scheme(), streams=observe(networks.program(name), batches))


def test_losses_are_the_frameworks() -> None:
    logits, labels = torch.randn(5, 3, 7), torch.randint(7, (5, 3))
    expected = torch.nn.functional.cross_entropy(logits.double().movedim(-1, 1), labels, reduction="none").mean(1)
    torch.testing.assert_close(cross_entropy(logits, labels), expected)
    wrong = (logits.numpy().argmax(-1) != labels.numpy()).mean(axis=1)
    assert top1_error(logits, labels).tolist() == pytest.approx(wrong.tolist())
    assert top1_error(torch.eye(3), [0, 1, 0]).tolist() == [0.0, 0.0, 1.0]


def test_harm_is_the_rise_of_the_loss_on_the_same_samples() -> None:
    network, (x,) = quantized("residual"), networks.CASES["residual"].inputs(12, seed=3)
    labels = torch.arange(12) % 10
    found = measure_task_sensitivity(network, zip(x.split(5), labels.split(5), strict=True), candidates=CANDIDATES)
    before = torch.nn.functional.cross_entropy(first_tensor(network.forward(x, Setting())), labels, reduction="none")
    for g, group in enumerate(network.captured.groups):
        for c, candidate in enumerate(CANDIDATES):
            setting = network.setting(dict.fromkeys(group.layers, candidate))
            logits = first_tensor(network.forward(x, setting))
            rise = torch.nn.functional.cross_entropy(logits, labels, reduction="none") - before
            np.testing.assert_allclose(found.per_sample["cross_entropy"][g, c], rise.numpy(), rtol=1e-3, atol=1e-5)
    assert found.samples == 12
    assert set(np.unique(found.per_sample["top1_error"])) <= {-1.0, 0.0, 1.0}
    assert found.scores["top1_error"] == pytest.approx(found.per_sample["top1_error"].mean(axis=-1))
    assert np.abs(found.scores["cross_entropy"][:, 0]).sum() > np.abs(found.scores["cross_entropy"][:, 1]).sum()


def test_bad_labels() -> None:
    network, (x,) = quantized("mlp"), networks.CASES["mlp"].inputs(4)
    with pytest.raises(InputError, match=r"expected pairs \(batch, labels\), got Tensor"):
        measure_task_sensitivity(network, [x], candidates=CANDIDATES)
    with pytest.raises(InputError, match=r"expected whole-numbered labels of shape \(4,\) for outputs of shape"):
        measure_task_sensitivity(network, [(x, torch.zeros(4))], candidates=CANDIDATES)
    with pytest.raises(InputError, match=r"got torch.int64 of shape \(3,\)"):
        measure_task_sensitivity(network, [(x, torch.zeros(3, dtype=torch.long))], candidates=CANDIDATES)
    with pytest.raises(InputError, match="expected at least one batch of calibration data, got none"):
        measure_task_sensitivity(network, [], candidates=CANDIDATES)
