"""An exploration says which times its device lacks."""

from __future__ import annotations

from hwdse.hardware import load_profile, parse_profile
from hwdse.study import Budget, explore


def test_changes_of_format_without_a_time_are_a_warning(tiny, captured) -> None:
    figure = {"value": 5, "kind": "measured", "source": "Lab2024"}
    given = load_profile("mpic").spec.model_dump(mode="json", exclude_none=True, by_alias=True)
    given["sources"]["Lab2024"] = "measured in the lab, 2024"
    given["conversions"] = [{"from": "int8", "to": "int4", "us": figure}]
    given.pop("switch", None)
    study = explore(
        tiny.model,
        captured,
        calibration=tiny.calibration,
        evaluation=tiny.evaluation,
        devices=[parse_profile(given)],
        objectives=("accuracy", "latency_ms"),
        precisions=["W8A8", "W4A4"],
        budget=Budget(evaluations=1),
    )
    (problem,) = study.problems.values()
    (sentence,) = problem.warnings
    assert sentence.startswith("expected times of all changes of format, got none of int4 to int8 for conv")
    assert "int8 to int4" not in sentence
