"""The audit against what the runtime's own passes do to a network."""

from __future__ import annotations

import numpy as np
import pytest

from hwdse.deploy.audit import audit
from hwdse.formats import Precision
from hwdse.graph import BitConfig
from tests.deploy.cases import content, cycled, network_of, uniform


@pytest.mark.parametrize("name", ["mobile", "residual", "dscnn", "vit"])
def test_every_layer_is_found_and_as_requested(name):
    network = network_of(name)
    generator = np.random.default_rng(0)
    precisions = [Precision.parse(text) for text in ("fp32", "W8A8", "W4A8")]
    for _ in range(6):
        config = network.captured.config(
            [precisions[i] for i in generator.integers(3, size=len(network.captured.groups))]
        )
        found = audit(content(name, network, config), config.precisions)
        assert [one.layer for one in found] == list(config.precisions)
        assert [one.layer for one in found if not one.is_as_requested] == []


def test_graph_passes_that_change_precisions_are_caught():
    """One layer in fp32 among integers: with all passes on, ONNX Runtime makes it an integer one."""
    network = network_of("mobile")
    eight, full = Precision.parse("W8A8"), Precision.parse("fp32")
    config = BitConfig({name: full if name == "depth.1.0" else eight for name in network.captured.layer_index})
    model = content("mobile", network, config)
    assert [one for one in audit(model, config.precisions) if not one.is_as_requested] == []
    wrong = [one for one in audit(model, config.precisions, disabled=()) if not one.is_as_requested]
    assert [(one.layer, one.operator, one.executed) for one in wrong] == [("depth.1.0", "QLinearConv", "int8")]


def test_what_was_not_requested_is_named(tmp_path):
    network = network_of("mlp")
    config = uniform(network.captured, "W8A8")
    path = tmp_path / "mlp.onnx"
    path.write_bytes(content("mlp", network, config))
    asked = {"first": Precision.parse("fp32"), "second": Precision.parse("W4Afp32"), "third": Precision.parse("W8A8")}
    found = {one.layer: (one.operator, one.executed, one.is_as_requested) for one in audit(path, asked)}
    assert found == {
        "first": ("QGemm", "int8", False),
        "second": ("QGemm", "int8", False),
        "third": ("no operator of its own", "unknown", False),
    }


def test_packed_integers_that_no_kernel_multiplies_are_caught():
    network = network_of("residual")
    config = cycled(network.captured, "W4A8")
    model = content("residual", network, config, stored_bits=dict.fromkeys(network.captured.layer_index, 4))
    assert all(one.executed == "fp32" for one in audit(model, config.precisions))
