"""The page as a file: everything in it, nothing from elsewhere, and what it says where there is little to say."""

import base64
import gzip
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from hwdse.errors import RunFolderError
from hwdse.report.page.payload import page_payload
from hwdse.report.page.write import write_page
from hwdse.report.tables import RunTables


class Elements(HTMLParser):
    """The elements of a page with their attributes, and the text of its scripts and paragraphs."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self._in_script = False
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._in_script = tag in ("script", "style")
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):  # noqa: ARG002  (what ends does not matter)
        self._in_script = False

    def handle_data(self, data):
        if self._in_script and self.elements[-1][0] == "script":
            self.scripts[-1] += data
        elif not self._in_script:
            self.words += data


def parsed(path: Path) -> Elements:
    return Elements(path.read_text(encoding="utf-8"))


def unpacked(text: str) -> str:
    return gzip.decompress(base64.b64decode(text)).decode()


def data_of(page: Elements):
    """Return what the page's script works with."""
    return json.loads(unpacked(page.scripts[0]))


def edit_resolved(run, **changes):
    path = run / "resolved.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_the_page_holds_everything_and_asks_for_nothing(write_run):
    run = write_run()
    path, state = write_page(run)
    assert (path, state.sentences) == (run / "report.html", [])
    page = parsed(path)
    asked = [
        value for _, attributes in page.elements for name, value in attributes.items() if name in ("src", "srcset")
    ]
    assert asked == []
    assert not [tag for tag, _ in page.elements if tag in ("link", "iframe", "object", "base")]
    _, packed, script = page.scripts
    assert data_of(page) == json.loads(json.dumps(page_payload(RunTables.load(run))))
    policy = next(a["content"] for tag, a in page.elements if tag == "meta" and "http-equiv" in a)
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    library = unpacked(packed)
    for text in (script, library):
        assert f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" in policy
    assert "plotly.js v" in path.read_text()[:-1]  # its licence stands in plain text
    assert [path.name for path in run.glob(".*")] == []


def test_the_same_tables_give_the_same_page(write_run):
    run = write_run(devices=["chip"])
    assert write_page(run)[0].read_bytes() == write_page(run, run / "again.html")[0].read_bytes()


def test_the_picks_are_there_without_a_script(write_run):
    run = write_run()
    words = parsed(write_page(run)[0]).words
    for device in RunTables.load(run).results.values():
        row = device.picked.iloc[0]
        assert f"{100 * row['top1_measured']:.2f}" in words
        assert f"{100 * row['top1_drop_measured_low']:.2f}".replace("-", "\N{MINUS SIGN}") in words


def test_a_pick_under_limits_of_its_own_says_which(write_run):
    run = write_run()
    path = run / "mpic" / "pick.json"
    pick = json.loads(path.read_text())
    asked = {"maximum": {"latency_ms": 0.25}, "minimum": {"accuracy": 0.9}, "minimize": "<b>"}
    path.write_text(json.dumps(pick | {"asked": asked}))
    page = write_page(run)[0].read_text()
    assert page.count("asked for: ") == 1
    assert "asked for: latency_ms at most 0.25, accuracy at least 0.9, lowest &lt;b&gt;" in page
    path.write_text(json.dumps(pick | {"asked": {"maximum": {}, "minimum": {}, "minimize": None}}))
    assert "asked for: the knee of the front" in write_page(run)[0].read_text()
    for damaged in ([1], {"maximum": {"latency_ms": "much"}}, {"maximum": 3}):
        path.write_text(json.dumps(pick | {"asked": damaged}))
        with pytest.raises(RunFolderError, match=r"expected limits under asked in .*pick\.json, got a fault"):
            write_page(run)


def test_names_are_text_and_never_markup(write_run):
    evil = "<img src=x onerror=alert(1)>"
    run = write_run(devices=["chip", evil.replace("/", "")], extra={"name": f"{evil}</script><script>alert(2)"})
    edit_resolved(run, device_notes={"chip": evil}, worth={"chip": [evil]}, titles={"chip": evil}, warnings=[evil])
    layers = pd.read_csv(run / "layers.csv")
    layers.loc[0, ["layer", "group"]] = f"</script>{evil}"
    layers.to_csv(run / "layers.csv", index=False)
    page = parsed(write_page(run)[0])
    assert "img" not in {tag for tag, _ in page.elements}
    assert len(page.scripts) == 3
    assert evil in page.words
    assert data_of(page)["layers"]["name"][0] == f"</script>{evil}"


def test_a_run_without_results_says_so(write_run):
    run = write_run()
    resolved = json.loads((run / "resolved.json").read_text())
    del resolved["full_precision"]
    (run / "resolved.json").write_text(json.dumps(resolved))
    path, state = write_page(run)
    sentence = "This run is unfinished: it was stopped before it had results; go on with hwdse explore and --resume."
    assert state.unfinished == sentence
    page = parsed(path)
    assert sentence in page.words
    assert page.scripts == []


def test_an_empty_run_says_so(write_run):
    run = write_run(devices=["chip"], pick=False)
    for name in ("front.csv", "measured.csv"):
        pd.read_csv(run / "chip" / name).iloc[:0].to_csv(run / "chip" / name, index=False)
    path, state = write_page(run)
    assert state.unfinished.startswith("This run is empty: no configuration was measured; raise the budget")
    assert state.unfinished in parsed(path).words
    assert "No configuration was measured for chip." in parsed(path).words


def test_a_run_of_one_point_says_so(write_run):
    run = write_run(devices=["chip"], pick=False)
    front = pd.read_csv(run / "chip" / "front.csv", dtype=str).iloc[:1]
    front.to_csv(run / "chip" / "front.csv", index=False)
    measured = pd.read_csv(run / "chip" / "measured.csv", dtype=str, keep_default_na=False)
    measured[measured["config_id"] == front["config_id"].iloc[0]].to_csv(run / "chip" / "measured.csv", index=False)
    path, state = write_page(run)
    assert state.unfinished == ""
    words = parsed(path).words
    assert "Only one configuration was measured for chip: there is nothing to choose from." in words
    assert "Nothing was picked for chip: the run was stopped early" in words


@pytest.mark.parametrize(("devices", "all_of_them"), [(["mpic"], True), (["mpic", "chip"], False)])
def test_an_infeasible_device_says_why(write_run, devices, all_of_them):
    run = write_run(devices=devices, extra={"infeasible": {"mpic": "512 KiB of 448 KiB"}})
    for path in (run / "mpic").iterdir():
        path.unlink()
    path, state = write_page(run)
    assert state.is_infeasible is all_of_them
    assert "No feasible configuration on mpic: 512 KiB of 448 KiB" in parsed(path).words


@pytest.mark.parametrize("name", ["resolved.json", "layers.csv", "mpic/front.csv"])
def test_a_damaged_run_has_no_page(write_run, name):
    run = write_run()
    (run / name).write_text("{")
    with pytest.raises(RunFolderError, match=re.escape(name.rpartition("/")[2])):
        write_page(run)
    assert not (run / "report.html").exists()


@pytest.mark.parametrize("devices", ["chip", [], None])
def test_a_run_without_devices_is_refused(write_run, devices):
    run = write_run()
    edit_resolved(run, devices=devices)
    with pytest.raises(RunFolderError, match=r"expected a run's devices in .*resolved\.json, got none; restore"):
        write_page(run)


def test_a_network_that_guesses_is_said_first(write_run):
    full = {"quality": 0.1, "low": 0.08, "high": 0.12, "samples": 1452, "doubt": "in full precision it guesses"}
    path, state = write_page(write_run(extra={"full_precision": full}))
    assert state.sentences[0] == "In full precision it guesses."
    assert '<p class="banner" role="status">In full precision it guesses.</p>' in path.read_text()
