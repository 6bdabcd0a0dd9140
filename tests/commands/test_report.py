"""``hwdse report``: where the page lies, and what the exit code says of the run."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from hwdse.report.page.payload import FIRST_LETTER, page_payload
from hwdse.report.tables import RunTables


def test_the_last_line_is_the_page(cli, run, finished):
    page = run / "report.html"
    assert cli("report", run).out.splitlines() == [str(page)]
    assert cli("report", run, "--out", run / "other.html").out.splitlines() == [str(run / "other.html")]
    drawn = cli("report", run, "--figures").out.splitlines()
    assert drawn[-1] == str(page)
    assert ["figures as PDF, PNG and CSV" in line for line in drawn] == [True, False]
    assert page.read_bytes() == (run / "other.html").read_bytes()
    explored, answer = finished
    assert answer.out.splitlines()[-1] == f"page: {explored / 'report.html'}"
    assert (explored / "report.html").is_file()


def test_exit_code_3_where_nothing_fits(cli, run):
    resolved = json.loads((run / "resolved.json").read_text())
    reasons = dict.fromkeys(resolved["devices"], "512 KiB of 448 KiB")
    (run / "resolved.json").write_text(json.dumps(resolved | {"infeasible": reasons}))
    for device in resolved["devices"]:
        for path in (run / device).iterdir():
            path.unlink()
    answer = cli("report", run)
    assert answer.code == 3
    assert answer.err.splitlines() == [f"error: {device}: 512 KiB of 448 KiB" for device in resolved["devices"]]
    assert answer.out.splitlines() == [str(run / "report.html")]


@pytest.mark.parametrize(("key", "words"), [("full_precision", "stopped before it had results"), (None, "is empty")])
def test_exit_code_2_where_there_is_no_result(cli, run, key, words):
    resolved = json.loads((run / "resolved.json").read_text())
    if key is not None:
        del resolved[key]
    (run / "resolved.json").write_text(json.dumps(resolved))
    for device in resolved["devices"] if key is None else ():
        (run / device / "pick.json").unlink()
        for table in ("measured.csv", "front.csv"):
            head = (run / device / table).read_text().splitlines()[0]
            (run / device / table).write_text(f"{head}\n")
    answer = cli("report", run)
    assert answer.code == 2
    assert words in answer.error
    assert answer.error.endswith(f"The page says so too: {run / 'report.html'}")
    assert words in (run / "report.html").read_text()


def test_a_real_run_records_what_its_costs_are_made_of(run):
    """Costs by group, what no choice changes and the switches add up to the cost of every measured configuration."""
    payload = page_payload(RunTables.load(run))
    assert len(payload["devices"]) == 2
    for device in payload["devices"]:
        assert set(device["breakdown"]) == {"latency_ms_predicted", "size_kib"}
        for column, table in device["breakdown"].items():
            rest = []
            for bits, total in zip(device["measured"]["bits"], device["measured"][column], strict=True):
                places = {g: ord(bits[i]) - ord(FIRST_LETTER) for i, g in enumerate(payload["layers"]["group"])}
                inside = math.fsum(costs[g][c] for costs in table["by_kind"].values() for g, c in places.items())
                rest.append(total - inside - table["fixed"])
            np.testing.assert_allclose(rest, 0.0, atol=1e-12)  # neither chip has a cost of switching


def test_sources_of_every_profile_are_on_the_page(cli, run):
    assert cli("report", run).code == 0
    sources = json.loads((run / "resolved.json").read_text())["sources"]
    page = (run / "report.html").read_text()
    assert sorted(sources) == ["mpic", "stm32h7a3"]
    assert all(key in page for cited in sources.values() for key in cited)
