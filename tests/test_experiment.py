"""Experiment files: what is filled in, and that all faults are listed. The command line's tests hold one case each."""

from pathlib import Path

import pytest

from hwdse.errors import InputError
from hwdse.experiment import QuantizeSection, load_experiment, make_inputs
from hwdse.formats import Precision
from hwdse.hardware import load_profile
from hwdse.quantize.recipe import DEFAULT_RECIPE

ROOT = Path(__file__).parents[1]
TINY = Path(__file__).parent / "tiny"


def test_what_is_not_said_is_filled_in():
    experiment = load_experiment(TINY / "tiny.toml")
    assert experiment.seed == 0
    assert experiment.objectives.maximize == ["accuracy"]
    assert experiment.data.metric == "top1"
    assert experiment.budget.seconds is None
    assert experiment.pick.max_drop == 0.01
    assert experiment.quantize.weight_ranges == "minmax"
    assert QuantizeSection().recipe == DEFAULT_RECIPE


def test_all_faults_are_listed(tmp_path):
    text = (TINY / "tiny.toml").read_text()
    text = (
        text.replace("evaluations = 16", 'evaluations = "x"')
        .replace("W4A4", "W4")
        .replace("[data]", "[data]\nmetrc = 1")
    )
    (tmp_path / "e.toml").write_text(text)
    with pytest.raises(InputError, match=r"e\.toml has 3 faults:\n") as caught:
        load_experiment(tmp_path / "e.toml")
    faults = str(caught.value).splitlines()[1:]
    assert sorted(fault.strip().partition(":")[0] for fault in faults) == [
        "budget.evaluations",
        "data.metrc",
        "space.precisions",
    ]
    assert "did you mean metric?" in str(caught.value)


CHIPS = ["nvidia_t4", "mpic", "stm32h7a3", "gap9_ne16"]


@pytest.mark.parametrize(
    ("name", "devices"),
    [
        ("digits", CHIPS),
        ("kws_dscnn", CHIPS),
        ("resnet20_cifar10", CHIPS),
        ("stories260k", CHIPS[:3]),
        ("kws_formats", ["any_format.toml"]),
        ("resnet20_formats", ["any_format.toml"]),
        ("stories260k_formats", ["any_format.toml"]),
    ],
)
def test_the_experiments_of_the_repository_are_good(name, devices):
    path = ROOT / "experiments" / f"{name}.toml"
    assert path.is_file()
    assert load_experiment(path).devices == devices


def test_the_device_of_the_format_experiments_runs_all_their_precisions():
    device = load_profile(ROOT / "experiments" / "any_format.toml")
    for name in ("kws_formats", "resnet20_formats", "stories260k_formats"):
        precisions = load_experiment(ROOT / "experiments" / f"{name}.toml").space.precisions
        assert len(device.candidates(map(Precision.parse, precisions))) == len(precisions) == 12


@pytest.mark.parametrize("content", [b"\xff\xfe", b"a = " + b"[" * 100_000])
def test_bytes_that_are_no_toml(content, tmp_path):
    (tmp_path / "e.toml").write_bytes(content)
    with pytest.raises(InputError, match=r"expected TOML in .*e\.toml, got a fault"):
        load_experiment(tmp_path / "e.toml")


@pytest.mark.parametrize("place", ["none.toml", "."])
def test_no_file_is_named(place, tmp_path):
    with pytest.raises(InputError, match="expected an experiment file, got no file"):
        load_experiment(tmp_path / place)


def test_whole_numbers_are_seconds_too(tmp_path):
    text = (TINY / "tiny.toml").read_text()
    (tmp_path / "e.toml").write_text(f"{text}seconds = 60\n")
    assert load_experiment(tmp_path / "e.toml").budget.seconds == 60.0


def test_generators_are_kept(tmp_path):
    (tmp_path / "parts.py").write_text(
        (TINY / "parts.py").read_text() + "\ndef lazy():\n    yield from evaluation()\n\ndef images_alone():\n"
        "    yield from calibration()\n"
    )
    text = (TINY / "tiny.toml").read_text()
    text = text.replace("parts.py:evaluation", "parts.py:lazy").replace("parts.py:calibration", "parts.py:images_alone")
    (tmp_path / "e.toml").write_text(text)
    inputs = make_inputs(load_experiment(tmp_path / "e.toml"), tmp_path)
    assert len(inputs.calibration) == 2
    assert len(list(inputs.evaluation.batches)) == len(list(inputs.evaluation.batches)) == 2
