"""Numbers that were fitted to one configuration are those of the file, of its encodings, and of what is measured."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from hwdse.deploy.encodings import encodings
from hwdse.deploy.onnx import explicit_model
from hwdse.deploy.run import DeployedNetwork, compare
from hwdse.deploy.translate import Translation
from hwdse.evaluate import Evaluator, evaluation_of
from hwdse.formats import Granularity, Scheme, Symmetry
from hwdse.quantize.finetune import finetune
from hwdse.quantize.student import Learning
from hwdse.quantize.trainer import Settings
from tests.deploy.cases import CPU, inputs, network_of, uniform

TENSOR = replace(CPU, weight_granularity=Granularity.PER_TENSOR)
SYMMETRIC = Scheme(quantized_outputs=True)
FAST = Learning(weight_rate=0.05, step_rate=0.01, bias_rate=0.01, activation_rate=0.01, reach=0.9)


@pytest.mark.parametrize(
    ("name", "scheme", "bits", "manner"),
    [
        ("residual", CPU, "W4A8", "learned"),
        ("residual", TENSOR, "W2A8", "learned"),
        ("residual", SYMMETRIC, "W2A8", "ema"),
        ("dscnn", CPU, "W4A8", "ema"),
        ("mlp", CPU, "W4A8", "learned"),
    ],
)
def test_a_tuned_network_runs_as_it_was_tuned(name, scheme, bits, manner):
    assert scheme.activations is Symmetry.AFFINE or scheme is SYMMETRIC
    network = network_of(name, scheme)
    config = uniform(network.captured, bits)
    batches = [inputs(name, 16, seed) for seed in (1, 2, 3)]
    settings = Settings(learning=replace(FAST, activations=manner), passes=2, batch=8, warm_up=1, temperature=1.0)
    fitted = finetune(network, config, batches, settings).fitted
    assert fitted is not None
    tuned = network.fitted(fitted)
    translation = Translation.of(tuned.program.with_constants(tuned.configure(config).biases))
    model = explicit_model(translation, tuned, config).SerializeToString()
    fresh = [inputs(name, 16, seed) for seed in (7, 8)]
    found = compare(tuned, config, model, fresh)
    assert found.largest_lsb <= 1
    assert found.equal > 0.99
    # Compared with the network before, the same file is another one.
    before = compare(network, config, model, fresh)
    assert before.relative > 3 * found.relative

    constants = {t.name: numpy_helper.to_array(t) for t in onnx.load_from_string(model).graph.initializer}
    said = encodings(tuned, config)
    for point, quantizer in fitted.quantizers.items():
        entry = said["activation_encodings"][point]
        assert (entry["scale"], entry["zero_point"]) == (quantizer.scale, quantizer.zero_point)
        if f"{point}:scale" in constants:
            assert constants[f"{point}:scale"] == np.float32(quantizer.scale)
    for weight, one in fitted.weights.items():
        assert np.ravel(said["param_encodings"][weight]["scale"]) == pytest.approx(one.scale.numpy(), rel=0, abs=0)
    # And it scores as the simulation does.
    pairs = [(batch, tuned.forward(batch, tuned.configure(config)).argmax(-1)) for batch in fresh]
    scores = Evaluator(evaluation_of(pairs, "top1")).score(DeployedNetwork(tuned, model), config).per_sample
    assert scores.mean() > 0.95
    assert torch.equal(tuned.forward(fresh[0], tuned.configure(config)).argmax(-1), pairs[0][1])
