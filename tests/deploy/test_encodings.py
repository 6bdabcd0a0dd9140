"""Encodings give back the simulation's values."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from hwdse.deploy.encodings import encodings
from hwdse.errors import InputError
from hwdse.formats import Granularity, Scheme, Symmetry
from tests.deploy.cases import BLOCKS, CPU, cycled, network_of, uniform

SCHEMES = [
    CPU,
    Scheme(),
    Scheme(Symmetry.AFFINE, Symmetry.AFFINE, Granularity.PER_TENSOR),
    Scheme(full_range=True, unsigned_activations=False),
    BLOCKS,
]


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.key)
@pytest.mark.parametrize("texts", [("W8A8", "W4A4"), ("W3A5", "W16A16", "W6A7")], ids=" ".join)
def test_values_and_grids_come_back(scheme, texts):
    network = network_of("residual", scheme)
    config = cycled(network.captured, *texts)
    found = json.loads(json.dumps(encodings(network, config)))
    assert found["scheme"] == scheme.key
    for layer in network.captured.layers:
        entry = found["param_encodings"][layer.weight]
        number_format = config.precisions[layer.name].weights
        values = network.quantized_weight(layer, number_format).values
        scale, zero = (np.array(entry[key]) for key in ("scale", "zero_point"))
        channels = values.flatten(1).double().numpy()
        if scale.size > len(channels):  # blocks
            scale, zero = (
                np.repeat(a.reshape(len(channels), -1), 32, 1)[:, : channels.shape[1]] for a in (scale, zero)
            )
        elif scale.ndim:
            scale, zero = scale[:, None], zero[:, None]
        codes = channels / scale + zero
        np.testing.assert_allclose(codes, codes.round(), atol=2e-3)
        assert entry["lowest"] <= codes.round().min()
        assert codes.round().max() <= entry["highest"]
        assert entry["bitwidth"] == number_format.bits
    quantizers = network.configure(config).quantizers
    assert set(found["activation_encodings"]) == set(quantizers)
    for point, quantizer in quantizers.items():
        entry = found["activation_encodings"][point]
        ends = quantizer(torch.tensor([-1e6, 1e6], dtype=torch.float64)).tolist()
        assert [entry["min"], entry["max"]] == pytest.approx(ends, rel=1e-6)
        assert entry["highest"] - entry["lowest"] == 2 ** entry["bitwidth"] - 1
        assert entry["scale"] * (entry["lowest"] - entry["zero_point"]) == pytest.approx(ends[0], rel=1e-6)


def test_other_formats_are_refused():
    network = network_of("residual")
    with pytest.raises(InputError, match=r"integer formats, which have encodings, got nf4 at stem; leave it in fp32"):
        encodings(network, uniform(network.captured, "Wnf4Afp32"))
    with pytest.raises(InputError, match=r"got another one for the tensor x; leave its layers in fp32"):
        encodings(network, uniform(network.captured, "W8Afp8_e4m3"))


def test_full_precision_has_none():
    network = network_of("residual")
    found = encodings(network, uniform(network.captured, "fp32"))
    assert found["activation_encodings"] == found["param_encodings"] == {}
