"""What predicts harm: every loss by its name, on the embedded network."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from scipy.stats import kendalltau

from hwdse.analysis.sensitivity import measure_sensitivity
from hwdse.capture import capture
from hwdse.examples import digits, digits_calibration
from hwdse.experiment import SearchSection
from hwdse.formats import Precision, Scheme
from hwdse.progress import SILENT
from hwdse.quantize.network import QuantizedNetwork
from hwdse.quantize.observe import observe
from hwdse.quantize.program import Program
from hwdse.study.losses import LOSSES, find_losses

CANDIDATES = tuple(map(Precision.parse, ("W2A8", "W4A4", "W4A8", "W8A8")))


@pytest.fixture(scope="module")
def network():
    batches = digits_calibration()
    program = Program.of(capture(digits(), batches[0][:2]))
    return QuantizedNetwork(program, scheme=Scheme(), streams=observe(program, batches))


@pytest.fixture(scope="module")
def measured(network):
    return measure_sensitivity(network, digits_calibration(), candidates=CANDIDATES, methods=("kl", "jsd", "cosine"))


def test_an_experiment_may_name_every_loss():
    assert set(get_args(SearchSection.model_fields["loss"].annotation)) == set(LOSSES)


@pytest.mark.parametrize(
    ("loss", "like", "least"),
    [
        ("kl", "kl", 0.93),
        ("jsd", "jsd", 0.93),
        ("cosine", "cosine", 0.93),
        ("fisher", "kl", 0.85),
        ("difficulty", "kl", 0.4),
    ],
)
def test_a_loss_ranks_as_the_measurement_on_all_samples_does(network, measured, loss, like, least):
    found = find_losses(network, digits_calibration(), CANDIDATES, loss=loss, seed=0, progress=SILENT)
    assert list(found.scores) == [loss]
    values = found.scores[loss]
    assert values.shape == measured.scores[like].shape
    assert (values >= 0.0).all()
    assert kendalltau(values, measured.scores[like]).statistic > least


@pytest.mark.parametrize("loss", ["kl", "fisher"])
def test_the_seed_alone_decides_which_samples_are_drawn(network, loss):
    def scores(seed):
        found = find_losses(network, digits_calibration(), CANDIDATES, loss=loss, seed=seed, progress=SILENT)
        return found.scores[loss]

    np.testing.assert_array_equal(scores(1), scores(1))
    assert (scores(1) != scores(2)).any()
