"""From a front to a file in one call, and by hand."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
import torch

import hwdse
from hwdse.deploy.deployment import Deployment, predicted_metrics
from hwdse.deploy.run import run
from hwdse.errors import InputError
from hwdse.examples import digits, digits_calibration, digits_evaluation, digits_example
from hwdse.formats import Precision
from hwdse.graph import BitConfig
from hwdse.hardware.measure.session import open_session
from hwdse.quantize.network import QuantizedNetwork
from hwdse.quantize.observe import observe
from hwdse.quantize.program import Program
from tests import networks
from tests.deploy.cases import MINMAX, profile_text, uniform


@pytest.fixture(scope="module")
def desk(tmp_path_factory) -> hwdse.HardwareProfile:
    path = tmp_path_factory.mktemp("profiles") / "desk.toml"
    path.write_text(profile_text("fp32 fp32", "int8 int8", contained=["int4 int8"]))
    return hwdse.load_profile(path)


@pytest.fixture(scope="module")
def model():
    return digits()


@pytest.fixture(scope="module")
def graph(model):
    return hwdse.capture(model, digits_example())


def test_a_picked_configuration_knows_where_it_comes_from(model, graph, desk, tmp_path):
    study = hwdse.explore(
        model,
        graph,
        calibration=digits_calibration(),
        evaluation=hwdse.top1_on(digits_evaluation()),
        devices=[desk],
        objectives=("accuracy", "size_kib"),
        precisions=("fp32", "W8A8", "W4A8"),
        budget=hwdse.Budget(evaluations=6),
    )
    front = study.front(desk)
    config = front.pick(minimize="size_kib")
    path = hwdse.export(model, graph, config, tmp_path / "digits.onnx")
    whole = onnx.load(path)
    properties = {p.key: p.value for p in whole.metadata_props}
    assert json.loads(properties["configuration"]) == {name: str(p) for name, p in config.precisions.items()}
    assert properties["device"] == "desk"
    assert properties["scheme"] == desk.scheme.key
    row = front.table[front.table["bits"] == config.bits].iloc[0]
    for column, value in json.loads(properties["predicted"]).items():
        if column in row:
            assert value == pytest.approx(row[column])
    images, labels = digits_evaluation()[0]
    right = run(open_session(path), images)[0].argmax(1) == labels.numpy()
    assert right.mean() > 0.95


def test_a_configuration_made_by_hand_needs_device_and_data(model, graph, desk, tmp_path):
    config = uniform(graph, "W8A8")
    with pytest.raises(
        InputError, match=r"which knows its device .*, got one made by hand; give device and calibration"
    ):
        hwdse.export(model, graph, config, tmp_path / "a.onnx")
    with pytest.raises(InputError, match="give device and calibration"):
        hwdse.export(model, graph, config, tmp_path / "a.onnx", device=desk)
    path = hwdse.export(model, graph, config, tmp_path / "a.onnx", device=desk, calibration=digits_calibration())
    assert onnx.load(path).graph.node
    with pytest.raises(InputError, match=r"expected the name of a hardware profile, got 'mpci'"):
        hwdse.export(model, graph, config, tmp_path / "b.onnx", device="mpci", calibration=digits_calibration())
    with pytest.raises(InputError, match="expected the graph of this model, got another one"):
        hwdse.export(digits(1), graph, config, tmp_path / "b.onnx", device=desk, calibration=digits_calibration())
    with pytest.raises(InputError, match=r"precision that desk supports for stem \(fp32, W8A8, W4A8\), got W2A8"):
        hwdse.export(
            model, graph, uniform(graph, "W2A8"), tmp_path / "b.onnx", device=desk, calibration=digits_calibration()
        )
    part = BitConfig({"stem": Precision.parse("W8A8")})
    with pytest.raises(InputError, match=r"a precision for every layer of the network, got none for blocks\.0\.conv1"):
        hwdse.export(model, graph, part, tmp_path / "b.onnx", device=desk, calibration=digits_calibration())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.onnx"]


@pytest.mark.parametrize(
    ("device", "text"),
    [("desk", "W8A8"), ("desk", "W4A8"), ("mpic", "W4A8"), ("mpic", "W2A8"), ("gap9_ne16", "W4A8"), ("desk", "fp32")],
)
def test_the_numbers_in_the_file_take_the_predicted_size(device, text, desk):
    """What the cost model counts from shapes alone is what is in the file of ResNet-20, to 2 %."""
    program = Program.of(networks.captured("resnet20"), written=True)
    streams = observe(program, [networks.CASES["resnet20"].inputs(4)])
    profile = desk if device == "desk" else hwdse.load_profile(device)
    network = QuantizedNetwork(program, scheme=profile.scheme, streams=streams, recipe=MINMAX)
    config = uniform(program.captured, text)
    deployment = Deployment.of(network, profile, config)
    predicted = predicted_metrics(program.captured, profile, config)["size_kib"]
    assert deployment.stored_kib == pytest.approx(predicted, rel=0.02)
    assert deployment.runs_as_deployed == (device == "desk")
    assert len(deployment.content) / 1024 - deployment.stored_kib < 16  # operators and names


def test_resnet20_on_its_own_data(desk):
    """The trained network: every code within 1, and the same answers."""
    from hwdse.deploy.audit import audit
    from hwdse.deploy.run import compare
    from hwdse.factories import load_factory

    folder = Path(__file__).parents[2] / "experiments"
    try:
        trained = load_factory("models.py:resnet20", folder=folder)()
        calibration = load_factory("data.py:cifar10_calibration", folder=folder)()
        evaluation = load_factory("data.py:cifar10_evaluation", folder=folder)()
    except InputError as error:
        pytest.skip(str(error))
    captured = hwdse.capture(trained, torch.zeros(2, 3, 32, 32))
    program = Program.of(captured, written=True)
    network = QuantizedNetwork(program, scheme=desk.scheme, streams=observe(program, calibration[:4]))
    texts = ("fp32", "W8A8", "W4A8")
    mixed = captured.config([Precision.parse(texts[g % 3]) for g in range(len(captured.groups))])
    for config in (uniform(captured, "W8A8"), mixed):
        deployment = Deployment.of(network, desk, config)
        found = compare(network, config, deployment.content, [images for images, _ in evaluation[:4]])
        assert found.holds
        assert found.equal > 0.999
        assert all(one.is_as_requested for one in audit(deployment.content, config.precisions))
