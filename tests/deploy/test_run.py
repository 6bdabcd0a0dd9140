"""Running a file: the same results as the simulation, and differences where there are some."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from hwdse.deploy.run import Agreement, DeployedNetwork, compare, measure_latency, run
from hwdse.errors import InputError
from hwdse.evaluate import Evaluator, evaluation_of
from hwdse.hardware.measure.session import open_session
from hwdse.hardware.measure.timing import Harness
from hwdse.quantize.network import Setting
from tests.deploy.cases import content, inputs, network_of, uniform


def changed(model: bytes, name: str, change) -> bytes:
    whole = onnx.load_from_string(model)
    (tensor,) = (t for t in whole.graph.initializer if t.name == name)
    tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor).copy()), name))
    return whole.SerializeToString()


def test_a_wrong_number_anywhere_shows():
    network = network_of("residual")
    config = uniform(network.captured, "W8A8")
    model = content("residual", network, config)
    batches = [inputs("residual", 16, 5)]
    assert compare(network, config, model, batches).holds

    def off(codes):
        codes[3] += 40
        return codes

    found = compare(network, config, changed(model, "a1.weight", off), batches)
    assert found.largest_lsb > 1
    assert not found.holds


def test_other_answers_do_not_hold():
    found = Agreement(samples=1000, rows=1000, other_top1=10, relative=0.1, codes=10, equal=1.0, largest_lsb=1)
    assert found.holds
    assert found.top1 == 0.99
    assert not replace(found, other_top1=11).holds
    assert not replace(found, largest_lsb=2).holds
    assert replace(found, rows=5, other_top1=1).holds  # one of a few
    assert not replace(found, rows=5, other_top1=2).holds


def test_a_deployed_network_scores_like_any_other():
    network = network_of("siamese")
    config = uniform(network.captured, "W8A8")
    deployed = DeployedNetwork(network, content("siamese", network, config))
    batch = inputs("siamese", 6, 5)
    found, expected = (
        deployed.forward(batch, deployed.configure(config)),
        network.forward(batch, network.configure(config)),
    )
    assert found.keys() == expected.keys()
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-2)
    assert not torch.equal(found["words"][0], network.forward(batch, Setting())["words"][0])
    torch.testing.assert_close(deployed.forward(batch, Setting()), network.forward(batch, Setting()))
    evaluation = evaluation_of([(batch, None)], "sqnr_db")
    assert Evaluator(evaluation).score(deployed, config).per_sample == pytest.approx(
        Evaluator(evaluation).score(network, config).per_sample, abs=2.0
    )


def test_latency_is_that_of_single_calls():
    network = network_of("mlp")
    model = content("mlp", network, uniform(network.captured, "W8A8"))
    harness = Harness(seconds_per_pass=0.005, most_passes=2)
    found = measure_latency(model, inputs("mlp", 1, 0), harness=harness)
    assert 0 < found.minimum_us <= found.p10_us < 1e5
    assert found.passes == 2


def test_what_does_not_fit_or_is_missing_is_one_sentence():
    network = network_of("mlp")
    config = uniform(network.captured, "W8A8")
    model = content("mlp", network, config)
    with pytest.raises(InputError, match=r"expected the exported network to run, got "):
        run(open_session(model), torch.zeros(2, 11))
    with pytest.raises(InputError, match="expected at least one batch to compare on, got none"):
        compare(network, config, model, [])
    assert np.isfinite(run(open_session(model), inputs("mlp", 3, 0))[0]).all()
