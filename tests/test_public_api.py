"""The first block of Python that a user sees, whatever was imported before."""

import subprocess
import sys

import pytest

import hwdse
from hwdse import infeasible
from hwdse.errors import InputError
from hwdse.examples import digits, digits_calibration, digits_evaluation, digits_example


@pytest.fixture(scope="module")
def model():
    return digits()


def test_a_front_in_seven_lines(model):
    calib, val, example_inputs = digits_calibration(), digits_evaluation(), digits_example()

    graph = hwdse.capture(model, example_inputs)
    device = hwdse.load_profile("mpic")
    study = hwdse.explore(
        model,
        graph,
        calibration=calib,
        evaluation=hwdse.top1_on(val),
        devices=[device],
        objectives=("accuracy", "latency_ms", "energy_mj"),
        budget=hwdse.Budget(evaluations=60),
    )
    front = study.front(device)
    config = front.pick(latency_ms=33.0)

    assert isinstance(front, hwdse.Front)
    assert isinstance(config, hwdse.BitConfig)
    assert list(config.precisions) == [layer.name for layer in graph.layers]
    row = front.table[front.table["bits"] == config.bits].iloc[0]
    assert row["latency_ms_predicted"] <= 33.0
    assert row["top1_measured"] == front.table["top1_measured"].max() > 0.97
    assert study.meter.evaluations == 60
    assert study.full_precision.mean > 0.97
    infeasible = front.pick(latency_ms=1e-6)
    assert isinstance(infeasible, hwdse.Infeasible)
    assert infeasible.limit == "latency_ms"
    assert infeasible.best == pytest.approx(front.table["latency_ms_predicted"].min())


ORDERS = [
    "import hwdse; hwdse.capture(*wrong)",
    "import hwdse; import hwdse.capture; hwdse.capture(*wrong)",
    "import hwdse.capture.flow; import hwdse; hwdse.capture(*wrong)",
    "import hwdse.study; import hwdse; hwdse.capture(*wrong)",
    "from hwdse import capture; capture(*wrong)",
    "import hwdse.quantize.network; from hwdse import capture; capture(*wrong)",
    "from hwdse.capture import capture; import hwdse; hwdse.explore; hwdse.capture(*wrong)",
    "import hwdse; f = hwdse.capture; import hwdse.capture; hwdse.top1_on; f(*wrong)",
]


def test_capture_is_a_function_whatever_was_imported_first():
    """In forked children of one process, so that torch is loaded once; an example of nothing is refused at once."""
    code = (
        "import os, sys, torch\nwrong = torch.nn.Linear(4, 3), ()\n"
        "for order in sys.argv[1:]:\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        try:\n"
        "            exec(order)\n"
        "        except Exception as error:\n"
        "            os._exit(0 if 'expected example inputs' in str(error) else 1)\n"
        "        os._exit(2)\n"
        "    if os.waitpid(child, 0)[1] != 0:\n"
        "        sys.exit(order)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *ORDERS], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr


def test_every_public_name_is_there():
    assert sorted(hwdse.__all__) == hwdse.__all__
    for name in hwdse.__all__:
        assert getattr(hwdse, name).__doc__
    with pytest.raises(AttributeError, match="module 'hwdse' has no attribute 'exploer'"):
        hwdse.exploer  # noqa: B018  # reading it is the point


def test_profiles_are_read_without_torch():
    code = "import sys, hwdse; hwdse.load_profile('mpic'); hwdse.list_profiles(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "False"


def test_the_public_names_are_listed():
    assert dir(hwdse) == sorted(hwdse.__all__)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"evaluation": []}, r"expected an evaluation such as hwdse\.top1_on\(batches\), got list"),
        ({"devices": "mpic"}, r"expected a list of devices, got str; write devices=\[device\]"),
        ({"budget": 60}, r"expected a hwdse\.Budget, got int"),
        ({"workers": 2}, r"expected hwdse\.Workers, got int; write workers=hwdse\.Workers"),
    ],
)
def test_what_is_easily_given_as_something_else(changes, sentence, model):
    graph = hwdse.capture(model, digits_example())
    given = {"calibration": digits_calibration(), "evaluation": hwdse.top1_on(digits_evaluation()), "devices": ["mpic"]}
    with pytest.raises(InputError, match=sentence):
        hwdse.explore(model, graph, **(given | changes))


def test_evaluation_data_that_are_no_numbers_are_refused(model):
    graph = hwdse.capture(model, digits_example())
    batches = [(x.clone(), y) for x, y in digits_evaluation()]
    batches[1][0][3] = float("nan")
    with pytest.raises(InputError, match=r"expected finite outputs .* evaluation data, got NaN .*batch 1"):
        hwdse.explore(
            model, graph, calibration=digits_calibration(), evaluation=hwdse.top1_on(batches), devices=["mpic"]
        )


def test_what_does_not_fit_is_not_exported(model, tmp_path):
    graph = hwdse.capture(model, digits_example())
    found = hwdse.Infeasible(infeasible.Reason.EMPTY)
    with pytest.raises(InputError, match=r"expected a configuration to export, got Infeasible: infeasible"):
        hwdse.export(model, graph, found, tmp_path / "no.onnx")
    assert not (tmp_path / "no.onnx").exists()
