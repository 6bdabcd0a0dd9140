"""A real browser with pages of synthetic runs; without one the tests are skipped."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hwdse.commands.answer import default_picks
from hwdse.report.page.write import write_page
from tests.report.additive import make_additive
from tests.report.conftest import write_synthetic_run

NAMES = ("chromium", "chromium-browser", "google-chrome")
FITTING, TIGHT = ("quick", "slow"), "tight"


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Return a running Chromium."""
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip("needs a browser: apt-get install chromium")
    with api.sync_playwright() as player:
        # Without a sandbox, which a container's root may not have.
        running = player.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture(scope="session")
def run(tmp_path_factory) -> Path:
    """Return a run with two chips that differ, one that nothing fits, and a page."""
    folder = tmp_path_factory.mktemp("page") / "a run"
    write_synthetic_run(
        folder, layers=10, quality="top1", devices=(*FITTING, TIGHT), points=None, configs=60,
        minimize=("latency_ms", "energy_mj", "size_kib"), pick=False, predicted_quality=True,
        extra={
            "infeasible": {TIGHT: "512 KiB of 448 KiB"},
            "uncertainty": {"quick": {"latency_ms_predicted": 1.5}},
            "widening": {"quick": {"W2A8": 2.0}},
            "limits": {"quick": {"activation_kib": 64.0}},
            "titles": {"quick": "A quick chip"},
        },
    )  # fmt: skip
    for path in (folder / TIGHT).iterdir():
        path.unlink()
    make_additive(folder, "quick", tie=False)
    refront(folder / "quick")
    default_picks(folder)
    write_page(folder)
    return folder


def refront(folder: Path) -> None:
    """Write the front of a measured table once more, after its costs were changed."""
    import pandas as pd

    from hwdse.pareto import non_dominated

    measured = pd.read_csv(folder / "measured.csv", dtype={"config_id": str}, keep_default_na=False)
    losses = measured[["latency_ms_predicted", "energy_mj_predicted", "size_kib"]].assign(q=-measured["top1_measured"])
    front = measured[non_dominated(losses.to_numpy())].sort_values("latency_ms_predicted")
    front.drop(columns=["uniform", "within_noise", "loss_predicted"]).to_csv(folder / "front.csv", index=False)


@pytest.fixture(scope="session")
def still(browser, run) -> Any:
    """Return the run's page for tests that look and change nothing."""
    page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
    page.goto((run / "report.html").as_uri())
    page.wait_for_selector("html[data-ready] #front-chart .main-svg")
    return page


@pytest.fixture
def open_page(browser) -> Iterator[Callable[..., Any]]:
    """Return a function that opens a file; at the end nothing may have gone wrong or been asked of a network."""
    contexts, faults = [], []

    def open_file(path: Path, *, width: int = 1280, scheme: str = "light", ready: bool = True) -> Any:
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, accept_downloads=True
        )
        contexts.append(context)
        page = context.new_page()
        page.on(
            "console", lambda message: faults.append(message.text) if message.type in ("error", "warning") else None
        )
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("dialog", lambda dialog: (faults.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: _watch(request.url, path, faults))
        page.goto(path.as_uri())
        if ready:
            page.wait_for_selector("html[data-ready] #front-chart .main-svg")
        return page

    yield open_file
    for context in contexts:
        context.close()
    assert faults == []


def _watch(url: str, path: Path, faults: list[str]) -> None:
    if url != path.as_uri() and not url.startswith(("blob:", "data:")):
        faults.append(f"asked for {url}")


@pytest.fixture
def page(open_page, run) -> Any:
    """Return the run's page, opened on a desktop."""
    return open_page(run / "report.html")


@pytest.fixture(scope="session")
def resolved(run) -> dict[str, Any]:
    return json.loads((run / "resolved.json").read_text())
