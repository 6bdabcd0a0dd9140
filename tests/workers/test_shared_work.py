"""Passes over calibration data, shared among processes: the same numbers to the last bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hwdse.analysis.draws import draw
from hwdse.analysis.fisher import predict_sensitivity
from hwdse.analysis.sensitivity import measure_sensitivity
from hwdse.capture import capture
from hwdse.evaluate.remote import HELD
from hwdse.examples import digits, digits_calibration, digits_example
from hwdse.formats import Precision, Scheme, parse
from hwdse.quantize.adaround_settings import AdaRoundSettings
from hwdse.quantize.network import QuantizedNetwork
from hwdse.quantize.observe import observe
from hwdse.quantize.program import Program
from hwdse.quantize.recipe import Recipe
from hwdse.quantize.store import Store
from hwdse.workers import Crew
from hwdse.workers.processes import Processes

CANDIDATES = tuple(map(Precision.parse, ("W2A8", "W4A4", "W8A8")))


@pytest.fixture(scope="module")
def program() -> Program:
    return Program.of(capture(digits(), digits_example()))


@pytest.fixture(scope="module")
def crew():
    with Crew(Processes(), 2, held=HELD) as made:
        yield made


@pytest.mark.parametrize("channels", [False, True])
def test_statistics_of_tensors(channels, program, crew) -> None:
    batches = [batch[first : first + 30] for batch in digits_calibration() for first in (0, 30)]
    here, there = (observe(program, batches, channels=channels, crew=who) for who in (None, crew))
    assert here.keys() == there.keys()
    for point, stream in here.items():
        other = there[point]
        assert stream.ema == other.ema
        for ours, theirs in ((stream.moments, other.moments), (stream.channel_moments, other.channel_moments)):
            if ours is not None:
                assert all(np.array_equal(value, vars(theirs)[name]) for name, value in vars(ours).items())
        for ours, theirs in ((stream.tensor, other.tensor), (stream.channels, other.channels)):
            if ours is not None:
                assert np.array_equal(ours.counts, theirs.counts)
                assert np.array_equal(ours.edges, theirs.edges)


def test_sensitivities(program, crew) -> None:
    scheme = Scheme()
    batches = digits_calibration()
    network = QuantizedNetwork(program, scheme=scheme, streams=observe(program, batches))
    drawn = draw(network, batches, draws=48, rng=np.random.default_rng(0))
    for samples in (batches, drawn):
        here, there = (
            measure_sensitivity(network, samples, candidates=CANDIDATES, methods=("kl", "cosine"), crew=who)
            for who in (None, crew)
        )
        for method, values in here.per_sample.items():
            assert np.array_equal(values, there.per_sample[method])
    here, there = (
        predict_sensitivity(
            network, drawn, candidates=CANDIDATES, rng=np.random.default_rng(0), measured_share=0.3, crew=who
        )
        for who in (None, crew)
    )
    assert np.array_equal(here.per_sample["kl_predicted"], there.per_sample["kl_predicted"])


@pytest.mark.parametrize("rounding", ["gram", "adaround"])
def test_weights_of_a_recipe(rounding, program, crew, tmp_path) -> None:
    recipe = Recipe(weight_rounding=rounding, adaround=AdaRoundSettings(iterations=30))
    batches, formats = digits_calibration(), [parse("int2"), parse("int4"), parse("posit4_0")]
    streams = observe(program, batches)
    store = Store(tmp_path, {"network": "digits"})
    here, there, again = (
        QuantizedNetwork(program, scheme=Scheme(), streams=streams, recipe=recipe, batches=batches, store=kept)
        for kept in (None, store, store)
    )
    here.reconstruct(formats)
    there.reconstruct(formats, crew=crew)
    again.reconstruct(formats)  # from the disk
    for layer in program.captured.layers:
        for number_format in formats:
            ours = here.quantized_weight(layer, number_format)
            for other in (there, again):
                assert torch.equal(ours.values, other.quantized_weight(layer, number_format).values)
                biases = here.bias(layer, number_format), other.bias(layer, number_format)
                assert (biases[0] is None) == (biases[1] is None)
                assert biases[0] is None or torch.equal(*biases)
