"""What a run will write, against what runs wrote, and a disk that is too small."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from hwdse.capture import capture
from hwdse.errors import InputError
from hwdse.evaluate.metrics import top1_on
from hwdse.hardware import load_profile
from hwdse.quantize.recipe import Recipe
from hwdse.study import Budget, explore
from hwdse.study.disk import DiskUse, check_disk
from hwdse.study.prepare import Question
from tests.tiny import parts

PRECISIONS = ("W2A8", "W4A8", "W8A8", "W8A16")
GRAM = Recipe(weight_rounding="gram")


def use_of(recipe=GRAM, *, evaluations=20, batches=None, devices=("mpic", "stm32h7a3")) -> DiskUse:
    question = Question.of(("accuracy", "size_kib"), precisions=PRECISIONS, fixed={}, recipe=recipe, seed=0, loss="kl")
    graph = capture(parts.model(), parts.example())
    data = top1_on(parts.evaluation() if batches is None else batches)
    return DiskUse.of(graph, data, [load_profile(name) for name in devices], question, Budget(evaluations=evaluations))


def test_weights_take_four_bytes_per_value_format_and_scheme():
    counts = [6 * 9, 8 * 6 * 9, 8 * 8, 32 * 4]
    expected = sum(4 * count + 4000 for count in counts)
    assert use_of(devices=("mpic",)).weights == 3 * expected  # int2, int4 and int8
    assert use_of(Recipe()).weights == 0


def test_every_evaluation_keeps_a_score_per_sample():
    few = [(torch.zeros(10, 1, 4, 4), torch.zeros(10))]
    many = [*few, (torch.zeros(1000, 1, 4, 4), torch.zeros(1000))]
    assert use_of(batches=many).evaluations - use_of(batches=few).evaluations == 21 * 4 * 1000
    assert use_of(evaluations=119).evaluations == 120 / 21 * use_of().evaluations
    loader = torch.utils.data.DataLoader(list(range(37)))
    assert use_of(batches=loader).evaluations - use_of(batches=[]).evaluations == 21 * 4 * 37


def test_a_run_writes_no_more_than_was_said(tmp_path):
    model = parts.model()
    explore(
        model,
        capture(model, parts.example()),
        calibration=parts.calibration(),
        evaluation=top1_on(parts.evaluation()),
        devices=["mpic", "stm32h7a3"],
        objectives=("accuracy", "size_kib"),
        precisions=PRECISIONS,
        budget=Budget(evaluations=20),
        recipe=GRAM,
        out=tmp_path,
    )
    said = use_of()
    written = {
        name: sum(p.stat().st_size for p in tmp_path.glob(pattern) if p.is_file())
        for name, pattern in (("weights", "weights/**/*"), ("evaluations", "*.db"), ("tables", "**/*.[cj]s*"))
    }
    assert 0.3 * said.weights < written["weights"] < said.weights
    assert 0.3 * said.evaluations < written["evaluations"] < 1.5 * said.evaluations
    assert 0 < written["tables"] < said.tables


def test_a_disk_that_is_too_small_is_refused_and_what_is_there_counts(tmp_path):
    use = DiskUse(weights=3e6, evaluations=2e6, tables=1e6)

    def usage(place: Path) -> SimpleNamespace:
        assert place == tmp_path
        return SimpleNamespace(free=5_500_000)

    with pytest.raises(
        InputError, match=r"expected room for about 6\.0 MB \(weights 3\.0 MB, .*got 5\.5 MB free; free"
    ):
        check_disk(use, tmp_path / "runs" / "a", usage=usage)
    (tmp_path / "weights").write_bytes(bytes(600_000))
    assert "at most about 6.0 MB" in check_disk(use, tmp_path, usage=usage)


def test_explore_says_what_it_will_take_and_starts_nothing_without_room(tmp_path, monkeypatch, capsys):
    from hwdse.cli import main

    experiment = Path(parts.__file__).with_name("tiny.toml")
    monkeypatch.setattr("sys.argv", ["hwdse", "explore", str(experiment), "--out", str(tmp_path / "run")])
    monkeypatch.setattr(check_disk, "__kwdefaults__", {"usage": lambda _: shutil._ntuple_diskusage(10, 9, 1000)})
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    assert "error: expected room for about" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    monkeypatch.undo()
    monkeypatch.setattr(
        "sys.argv",
        ["hwdse", "explore", str(experiment), "--out", str(tmp_path / "run"), "--budget-evaluations", "1"],
    )
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 0
    assert "note: the run will take at most about" in capsys.readouterr().err
