"""What a user can get wrong costs one sentence, exit code 2, and nothing that was there."""

from __future__ import annotations

import re
from importlib.metadata import version

import pytest

FACTORY = 'factory = "parts.py:model"'
EXAMPLE = 'example = "parts.py:example"'
CALIBRATION = 'calibration = "parts.py:calibration"'
EVALUATION = 'evaluation = "parts.py:evaluation"'
PRECISIONS = 'precisions = ["W2A8", "W4A4", "W8A8"]'
DEVICES = 'devices = ["mpic", "stm32h7a3"]'
MINIMIZE = 'minimize = ["latency_ms", "size_kib"]'


def metric(name: str) -> tuple[str, str]:
    return (EVALUATION, f'{EVALUATION}\nmetric = "{name}"')


FILE = {
    "broken": ([("[model]", "[model")], r"expected TOML in .*tiny\.toml, got a fault: .*line 5"),
    "version": ([("schema_version = 1", "schema_version = 2")], r"expected schema_version = 1 in .*, got 2; change"),
    "no version": ([("schema_version = 1\n", "")], r"schema_version: expected 1, got nothing; add it"),
    "true version": ([("schema_version = 1", "schema_version = true")], r"expected schema_version = 1 in .*, got True"),
    "unknown key": ([("[budget]", "[budget]\nevaluation = 3")], r"budget\.evaluation: .* did you mean evaluations\?"),
    "unknown section": ([("[budget]", "[bugdet]")], r"bugdet: expected no such key; did you mean budget\?"),
    "no version, and more": (
        [("schema_version = 1\n", ""), ("[objectives]\n" + MINIMIZE, "")],
        r"2 faults:.*schema_version: expected 1, .*objectives: expected a table",
    ),
    "drop in points": (
        [("[budget]", "[pick]\nmax_drop = 1\n[budget]")],
        r"pick\.max_drop: expected a share below 1, where 0\.01 is a point, got 1; did you mean 0\.01\?",
    ),
    "precisions without a list": (
        [('precisions = ["W2A8", "W4A4", "W8A8"]', 'precisions = "W8A8"')],
        r"space\.precisions: expected a list, got 'W8A8'",
    ),
    "missing section": (
        [("[objectives]\n" + MINIMIZE, "")],
        r"objectives: expected a table \[objectives\] with minimize, got nothing; add it",
    ),
    "wrong type": (
        [("evaluations = 16", 'evaluations = "16"')],
        r"budget\.evaluations: expected a whole number, got '16'",
    ),
    "no budget": ([("evaluations = 16", "evaluations = 0")], r"budget\.evaluations: .*at least 1, got 0"),
    "seconds": ([("evaluations = 16", "seconds = -1")], r"budget\.seconds: expected a positive number, got -1"),
    "endless": ([("evaluations = 16", "seconds = inf")], r"budget\.seconds: expected a finite number, got inf"),
    "no device": ([(DEVICES, "devices = []")], r"devices: expected at least 1"),
    "same device": ([(DEVICES, 'devices = ["mpic", "mpic"]')], r"expected each device once, got mpic, mpic"),
    "device": (
        [(DEVICES, 'devices = ["mpci"]')],
        r"expected the name of a hardware profile, got 'mpci', which is unknown; did you mean mpic\?",
    ),
    "device file": (
        [(DEVICES, 'devices = ["my.toml"]')],
        r"experiment.my\.toml has 1 fault:\s+expected a readable file",
    ),
    "objective": ([(MINIMIZE, 'minimize = ["latency"]')], r"objectives\.minimize: .*latency_ms.*, got 'latency'"),
    "accuracy": ([(MINIMIZE, 'minimize = ["accuracy"]')], r"objectives\.minimize: .*costs to minimise, got accuracy"),
    "same objective": ([(MINIMIZE, 'minimize = ["size_kib", "size_kib"]')], r"expected every objective once"),
    "metric": ([metric("top-1")], r"data\.metric: expected top1, .*, got 'top-1'"),
    "precision": ([(PRECISIONS, 'precisions = ["W8A8", "W9"]')], r"space\.precisions: expected .*, got 'W9'"),
    "no precision": ([(PRECISIONS, "precisions = []")], r"space\.precisions: expected at least 1"),
    "fixed to what": ([(PRECISIONS, PRECISIONS + '\nfixed = { stem = "8" }')], r"space\.fixed: expected .*, got '8'"),
    "fixed layer": ([(PRECISIONS, PRECISIONS + '\nfixed = { stm = "W8A8" }')], r"got 'stm'; did you mean stem\?"),
    "fixed unsupported": (
        [(PRECISIONS, PRECISIONS + '\nfixed = { stem = "W8A4" }')],
        r"expected stem fixed to a precision that stm32h7a3 supports \(W8A8.*\), got W8A4; fix it to another",
    ),
    "unsupported": (
        [(DEVICES, 'devices = ["gap9_ne16"]'), (PRECISIONS, 'precisions = ["W4A4"]')],
        r"expected precisions that gap9_ne16 supports \(W8A8.*\), got W4A4; add one",
    ),
    "ranges": (
        [('activation_ranges = "mse"', 'activation_ranges = "mse2"')],
        r"activation_ranges: .*minmax.*'mse2'",
    ),
    "rounding": (
        [('weight_rounding = "nearest"', 'weight_rounding = "up"')],
        r"weight_rounding: expected .*nearest.*gram.*'up'",
    ),
    "drop": ([("[budget]", "[pick]\nmax_drop = inf\n[budget]")], r"pick\.max_drop: expected a finite number"),
    "name": ([('name = "tiny"', 'name = "../tiny"')], r"name: expected text that matches"),
}

PARTS = {
    "no separator": ([(FACTORY, 'factory = "parts.py"')], r"expected a factory as .*, got 'parts\.py'"),
    "no file": ([(FACTORY, 'factory = "part.py:model"')], r"expected a Python file .*, got no file .*part\.py"),
    "no module": (
        [(FACTORY, 'factory = "no.such.place:model"')],
        r"expected an installed module .*No module named 'no'",
    ),
    "misspelt": (
        [(FACTORY, 'factory = "parts.py:modle"')],
        r"function 'modle' in parts\.py, got none; did you mean model\?",
    ),
    "raises": ([(FACTORY, 'factory = "parts.py:raising"')], r"to run, got ValueError: no such weights; correct"),
    "leaves": ([(FACTORY, 'factory = "parts.py:leaving"')], r"factory 'parts\.py:leaving' to run, got SystemExit: 7"),
    "explains": (
        [(FACTORY, 'factory = "parts.py:explaining"')],
        r"error: expected the data file d\.npz, got none; fetch it",
    ),
    "arguments": ([(FACTORY, 'factory = "parts.py:needing"')], r"to run, got TypeError: .*missing 1 required"),
    "no model": ([(FACTORY, 'factory = "parts.py:number"')], r"expected a torch\.nn\.Module from .*:number, got int"),
    "class": ([(FACTORY, 'factory = "parts.py:Tiny.forward"')], r"expected a factory as"),
    "other weights": (
        [(FACTORY, 'factory = "parts.py:mismatched_weights"')],
        r"to run, got RuntimeError: .*size mismatch",
    ),
    "nan weights": (
        [(FACTORY, 'factory = "parts.py:nan_weights"')],
        r"expected finite parameters, got NaN or infinity in mix\.weight",
    ),
    "branches": ([(FACTORY, 'factory = "parts.py:branching_model"')], r"expected a model that torch\.export can trace"),
    "example": (
        [(EXAMPLE, 'example = "parts.py:number"')],
        r"expected a tensor or a tuple of tensors from .*, got int",
    ),
    "two examples": (
        [(EXAMPLE, 'example = "parts.py:two_examples"')],
        r"expected a model that torch\.export can trace",
    ),
    "empty example": ([(EXAMPLE, 'example = "parts.py:nothing"')], r"expected example inputs as a tensor or a tuple"),
    "no calibration": (
        [(CALIBRATION, 'calibration = "parts.py:nothing"')],
        r"expected calibration batches .*, got none",
    ),
    "no list": (
        [(CALIBRATION, 'calibration = "parts.py:number"')],
        r"to run, got TypeError: 'int' object is not iterable",
    ),
    "fails late": ([(CALIBRATION, 'calibration = "parts.py:late_failure"')], r"to run, got OSError: disk gone"),
    "nan": ([(CALIBRATION, 'calibration = "parts.py:nan_calibration"')], r"finite calibration data.* \(tensor 'x'\)"),
    "infinity": ([(CALIBRATION, 'calibration = "parts.py:infinite_calibration"')], r"NaN or infinity.* \(tensor 'x'\)"),
    "labels": (
        [(CALIBRATION, 'calibration = "parts.py:labelled_calibration"')],
        r"calibration batches of 1 input tensor\(s\) \(float32 of shape \(n, 1, 4, 4\)\), got 2 \(.*, int64 of",
    ),
    "shape": (
        [(CALIBRATION, 'calibration = "parts.py:wide_calibration"')],
        r"got 1 \(float32 of shape \(4, 1, 5, 5\)\)",
    ),
    "type": ([(CALIBRATION, 'calibration = "parts.py:double_calibration"')], r"got 1 \(float64 of shape"),
    "no evaluation": ([(EVALUATION, 'evaluation = "parts.py:nothing"')], r"at least one evaluation batch, got none"),
    "no batches": (
        [(EVALUATION, 'evaluation = "parts.py:number"')],
        r"expected evaluation batches as pairs .*, got int",
    ),
    "no pairs": (
        [(EVALUATION, 'evaluation = "parts.py:plain_evaluation"')],
        r"as pairs \(batch, target\), got Tensor;",
    ),
    "triples": (
        [(EVALUATION, 'evaluation = "parts.py:triple_evaluation"')],
        r"as pairs \(batch, target\), got tuple of 3",
    ),
    "wide": ([(EVALUATION, 'evaluation = "parts.py:wide_evaluation"')], r"expected evaluation batches of 1 input"),
    "one hot": (
        [(EVALUATION, 'evaluation = "parts.py:one_hot_evaluation"')],
        r"class labels of shape \(48,\).*\(48, 4\)",
    ),
    "shuffled": ([(EVALUATION, 'evaluation = "parts.py:shuffled_evaluation"')], r"same order every time"),
    "late evaluation": ([(EVALUATION, 'evaluation = "parts.py:late_failure"')], r"to run, got OSError: disk gone"),
    "nan metric": ([metric("parts.py:nan_metric")], r"finite scores from metric 'nan_metric', got NaN"),
    "scalar": ([metric("parts.py:scalar_metric")], r"one score per sample as a tensor of shape \(48,\).*got \(\)"),
    "short": ([metric("parts.py:short_metric")], r"one score per sample as a tensor of shape \(48,\).*got \(47,\)"),
    "list": ([metric("parts.py:list_metric")], r"one score per sample .*got list"),
    "metric fails": ([metric("parts.py:failing_metric")], r"'failing_metric' to score a batch, got IndexError"),
    "no such metric": ([metric("parts.py:margins")], r"did you mean margin\?"),
}


@pytest.mark.parametrize("name", [*FILE, *PARTS])
def test_explore_says_what_is_wrong_and_writes_nothing(name, cli, experiment, tmp_path):
    changes, sentence = (FILE | PARTS)[name]
    answer = cli("explore", experiment(*changes), "--out", tmp_path / "out")
    assert re.search(sentence, answer.error, re.DOTALL), answer.error
    assert answer.code == 2
    assert answer.out == ""
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (["explore"], "Missing argument 'experiment'; hwdse explore --help lists what there is"),
        (["pick", "run", "--foo"], "No such option: --foo; hwdse pick --help lists what there is"),
        (["nothing"], "No such command 'nothing'; hwdse --help lists what there is"),
    ],
)
def test_a_wrong_line_is_one_sentence(cli, line, sentence):
    answer = cli(*line)
    assert answer.code == 2
    assert answer.err.lower() == f"error: {sentence}\n".lower()  # spelt in capitals or not, by the library's version


def test_the_version_is_that_of_the_package(cli):
    assert cli("--version").out == f"hwdse {version('hwdse')}\n"
    assert cli().code == 2
    assert cli().out.startswith("Usage: hwdse")


def test_a_file_is_no_run_folder(cli, experiment):
    path = experiment()
    answer = cli("report", path)
    assert answer.code == 2
    assert f"expected a run folder with resolved.json, got the file {path}; name another folder" in answer.error
