"""The page in a browser: choosing, limiting, switching, downloading, by mouse and by keyboard."""

import json
import re
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from hwdse.infeasible import Infeasible
from hwdse.report.fronts import load_front
from hwdse.report.page.write import write_page
from hwdse.report.words import number, precision_counts
from tests.report.additive import CONSTANT_MS, LATENCY, make_additive
from tests.report.conftest import write_synthetic_run

COSTS = ("latency_ms_predicted", "energy_mj_predicted", "size_kib")
COLUMNS = (*COSTS, "top1_measured")


def front_of(run, device="quick"):
    return pd.read_csv(run / device / "front.csv", dtype={"config_id": str})


def chosen(page):
    """Return the configuration that the page shows."""
    return page.text_content("#point-heading").removeprefix("Configuration ")


def settle(page):
    """Wait until what was asked for is drawn."""
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def place_of(page, config):
    """Return the pixel of a configuration's mark in the chart."""
    return page.evaluate(
        """(id) => {
            const chart = document.getElementById("front-chart"), {xaxis, yaxis} = chart._fullLayout;
            const row = STATE.device.measured.config_id.indexOf(id), box = chart.getBoundingClientRect();
            const pixel = (axis, o) => axis._offset + axis.d2p(o.factor * value(STATE.device, o, row));
            return [box.x + pixel(xaxis, STATE.x), box.y + pixel(yaxis, STATE.y)];
        }""",
        config,
    )


def set_slider(page, place, position):
    page.locator(f"#limit-{place}").evaluate(
        "(slider, to) => { slider.value = to; slider.dispatchEvent(new Event('input', {bubbles: true})); }", position
    )
    settle(page)


def test_it_starts_with_the_pick(still, run):
    pick = json.loads((run / "quick" / "pick.json").read_text())
    assert chosen(still) == pick["config_id"]
    counts = precision_counts(pick["bits"]).replace(" x ", " \N{MULTIPLICATION SIGN} ")
    assert still.text_content("#point-words").startswith(f"{counts} on quick: the run's pick")
    numbers = still.inner_text("#numbers")
    assert f"{100 * pick['top1_measured']:.2f} %" in numbers
    assert f"95 %: {100 * pick['top1_measured_low']:.2f} to {100 * pick['top1_measured_high']:.2f}" in numbers
    assert f"{number(pick[LATENCY])}\xa0ms" in numbers
    assert f"90 %: {number(pick[LATENCY] / 1.5)} to {number(pick[LATENCY] * 1.5)}" in numbers
    assert "50 % full" in numbers  # 32 of 64 KiB


def test_a_click_on_a_mark_chooses_it(page, run):
    front = front_of(run).sort_values("top1_measured")
    best = front.iloc[-1]
    assert best["config_id"] != chosen(page)
    x, y = place_of(page, best["config_id"])
    page.locator("#front-chart").scroll_into_view_if_needed()
    x, y = place_of(page, best["config_id"])
    page.mouse.move(x - 3, y)
    page.mouse.click(x, y)
    page.wait_for_function(
        "(id) => document.getElementById('point-heading').textContent.endsWith(id)", arg=best["config_id"]
    )
    assert f"{100 * best['top1_measured']:.2f} %" in page.inner_text("#numbers")
    assert best["config_id"] in page.text_content("#export")


def test_arrow_keys_go_along_the_front_and_enter_chooses(page, run):
    order = front_of(run).sort_values([LATENCY, "top1_measured"])["config_id"].tolist()
    page.focus("#front-chart")
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    assert page.text_content("#reading").startswith(order[1])
    assert chosen(page) != order[1]
    page.keyboard.press("Enter")
    settle(page)
    assert chosen(page) == order[1]
    page.keyboard.press("End")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    settle(page)
    assert chosen(page) == order[-1]


def test_the_bars_are_the_bits_of_the_configuration(still, run):
    bits = json.loads((run / "quick" / "pick.json").read_text())["bits"].split()
    drawn = still.evaluate("document.getElementById('bits-chart').data.map((trace) => Array.from(trace.y))")
    assert drawn[0] == [int(text[1]) for text in bits]
    assert drawn[1] == [int(text[3]) for text in bits]
    macs = pd.read_csv(run / "layers.csv")["macs"]
    np.testing.assert_allclose(drawn[2], 100 * macs / macs.sum())


def test_costs_by_layer_and_kind_add_up_to_the_cost(still, run):
    found = still.evaluate(
        "DATA.devices[0].measured.config_id.map((_, row) => breakdownOf(DATA.devices[0], row, 'latency_ms_predicted'))"
    )
    measured = pd.read_csv(run / "quick" / "measured.csv", dtype={"config_id": str}, keep_default_na=False)
    for cost, bits, latency in zip(found, measured["bits"], measured[LATENCY], strict=True):
        words = bits.split()
        changes = sum(a != b for a, b in pairwise(words))
        beside = {part["kind"]: part["value"] for part in cost["beside"]}
        assert beside.pop("fixed") == CONSTANT_MS
        assert beside.pop("switches", 0.0) == pytest.approx(0.05 * changes, abs=1e-9)
        assert beside == {}
        assert {part["kind"] for part in cost["groups"]} == {"compute", "overhead", "between"}
        inside = sum(sum(part["values"]) for part in cost["groups"])
        assert inside + CONSTANT_MS + 0.05 * changes == pytest.approx(latency)
    drawn = still.evaluate("document.getElementById('cost-chart').data.flatMap((trace) => Array.from(trace.x))")
    assert sum(drawn) == pytest.approx(json.loads((run / "quick" / "pick.json").read_text())[LATENCY])


def test_limits_find_what_the_command_line_finds(still, run):
    """Random limits: the best pick is that of ``hwdse pick`` with the same limits, or there is none in both."""
    front = load_front(run, "quick")
    measured = pd.read_csv(run / "quick" / "measured.csv", dtype={"config_id": str})
    columns = ("top1_drop_measured", *COSTS)
    stops = [sorted(set(measured[column])) for column in columns]
    rng = np.random.default_rng(0)
    outcomes = set()
    for _ in range(60):
        places = [int(rng.integers(len(s) // 4, len(s))) for s in stops]
        target = ("latency_ms", "energy_mj", "size_kib")[rng.integers(3)]
        limits = {c: s[p] for c, s, p in zip(columns, stops, places, strict=True) if p < len(s) - 1}
        row = front.pick_row(maximum=limits, minimize=target)
        expected = None if isinstance(row, Infeasible) else front.table["config_id"].iloc[row]
        found = still.evaluate(
            """([places, target]) => {
                const device = DATA.devices[0], limits = limitsOf(device);
                limits.forEach((limit, i) => { limit.place = places[i]; });
                const row = bestWithin(device, limits, COSTS.find((o) => o.name === target));
                return row === null ? null : device.measured.config_id[row];
            }""",
            [places, target],
        )
        assert found == expected
        outcomes.add(expected)
    assert None in outcomes
    assert len(outcomes) > 3


def test_a_slider_greys_out_what_does_not_fit_and_names_the_best(page, run):
    front = front_of(run)
    measured = pd.read_csv(run / "quick" / "measured.csv", dtype={"config_id": str}, keep_default_na=False)
    page.click("#reset")
    settle(page)
    assert f"{len(measured)} of {len(measured)} measured configurations fit" in page.inner_text("#best")
    stops = sorted(set(measured["energy_mj_predicted"]))
    bound = sorted(front["energy_mj_predicted"])[len(front) // 2]
    set_slider(page, 2, stops.index(bound))
    fits = measured["energy_mj_predicted"] <= bound
    on_front = front[front["energy_mj_predicted"] <= bound]
    words = page.inner_text("#best")
    assert f"{fits.sum()} of {len(measured)} measured configurations fit, {len(on_front)} of them on the front" in words
    cheapest = on_front.sort_values([LATENCY, "top1_measured"], ascending=[True, False])["config_id"].iloc[0]
    assert words.startswith(cheapest)
    start = re.escape(f"hwdse pick '{run.name}' --device quick --max energy_mj=")
    said = re.fullmatch(rf"{start}(\S+) --minimize latency_ms", page.text_content("#command"))
    assert bound <= float(said[1]) < min(stop for stop in stops if stop > bound)
    assert len(said[1]) < len(repr(bound))
    faint = page.evaluate("palette(STATE.device).faint")
    colours = page.evaluate("document.getElementById('front-chart').data[4].marker.color")
    grey = front["energy_mj_predicted"] > bound
    assert [colour == faint for colour in colours] == grey.tolist()
    page.click("#show-best")
    settle(page)
    assert chosen(page) == cheapest


def test_a_slider_works_with_the_keyboard(page):
    page.focus("#limit-1")
    before = page.text_content("#limit-1-value")
    page.keyboard.press("ArrowLeft")
    settle(page)
    after = page.text_content("#limit-1-value")
    assert (before, after[:8]) == ("no limit", "at most ")
    assert page.get_attribute("#limit-1", "aria-valuetext") == after


def test_limits_that_exclude_each_other_say_what_to_change(page, run):
    front = front_of(run)
    for place in (0, 1):
        set_slider(page, place, 0)
    words = page.inner_text("#best")
    assert words.startswith("Nothing on the front fits.")
    best = front[front["top1_drop_measured"] == front["top1_drop_measured"].min()]
    assert f"latency at most {number(best[LATENCY].min())}\xa0ms" in words
    assert page.is_disabled("#show-best")


def test_the_first_limit_is_the_drop_of_the_run(still, run):
    pick = json.loads((run / "quick" / "pick.json").read_text())
    assert still.inner_text("#best").startswith(pick["config_id"])
    measured = pd.read_csv(run / "quick" / "measured.csv")["top1_drop_measured"]
    assert still.input_value("#limit-0") == str(len(set(measured[measured <= 0.01])) - 1)


def test_neighbours_gain_something_and_give_up_what_the_tables_say(page, run):
    front = front_of(run).set_index("config_id")
    here = front.loc[chosen(page)]
    found = page.evaluate(
        """() => neighbours(STATE.device, STATE.selected).map(({row, better, gains, losses}) => ({
            id: STATE.device.measured.config_id[row], better: better.map((o) => o.column),
            gains: gains.map(([o, v]) => [o.column, v]), losses: losses.map(([o, v]) => [o.column, v]) }))"""
    )
    spans = front[list(COLUMNS)].max() - front[list(COLUMNS)].min()
    distance = ((front[list(COLUMNS)] - here[list(COLUMNS)]).abs() / spans.replace(0, 1)).sum(axis=1)
    sign = {column: -1.0 if column == "top1_measured" else 1.0 for column in COLUMNS}
    nearest = {}
    for column in COLUMNS:
        better = front[sign[column] * (front[column] - here[column]) < -1e-9 * abs(here[column])]
        if len(better):
            nearest[column] = distance.loc[better.index].idxmin()
    assert {column: each["id"] for each in found for column in each["better"]} == nearest
    for each in found:
        changes = dict(each["gains"] + each["losses"])
        for column, change in changes.items():
            assert change == pytest.approx(sign[column] * (front.loc[each["id"], column] - here[column]))
        assert all(change < 0 for _, change in each["gains"])
        assert all(change > 0 for _, change in each["losses"])
        assert each["losses"]  # else the chosen one would not be on the front
    page.click("#neighbours button")
    settle(page)
    assert chosen(page) == found[0]["id"]


def test_switching_chips_keeps_what_was_chosen_on_each(page, run):
    first = page.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--accent')")
    page.click("#neighbours button")
    settle(page)
    kept = chosen(page)
    page.focus("#chips input")
    page.keyboard.press("ArrowRight")
    settle(page)
    assert page.is_checked("#chips input >> nth=1")
    assert chosen(page) == json.loads((run / "slow" / "pick.json").read_text())["config_id"]
    assert page.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--accent')") != first
    assert page.is_hidden("#cost-chart")  # its table was not written
    assert "did not record" in page.text_content("#cost-words")
    page.click("#chips label >> nth=0")
    settle(page)
    assert chosen(page) == kept


def test_a_chip_that_nothing_fits_says_why(page):
    page.click("#chips label >> nth=2")
    settle(page)
    assert page.text_content("#chip-empty") == "No feasible configuration on tight: 512 KiB of 448 KiB"
    assert page.is_hidden("#chip-front")
    assert page.is_hidden("#point")
    page.click("#chips label >> nth=1")
    assert page.is_visible("#chip-front")


def test_axes_can_be_chosen(page, run):
    page.select_option("#x-axis", "size_kib")
    page.select_option("#y-axis", "energy_mj_predicted")
    settle(page)
    chart = page.evaluate(
        "(({data, layout}) => ({x: Array.from(data[4].x), y: Array.from(data[4].y), title: layout.xaxis.title.text}))"
        "(document.getElementById('front-chart'))"
    )
    front = front_of(run)
    assert chart["title"] == "Size (KiB)"
    assert chart["x"] == front["size_kib"].tolist()
    assert chart["y"] == front["energy_mj_predicted"].tolist()


def test_intervals_of_the_front_are_those_of_the_table(still, run):
    bars = still.evaluate(
        "(({error_y}) => [error_y.arrayminus, error_y.array])(document.getElementById('front-chart').data[4])"
    )
    front = front_of(run)
    fits = front["top1_drop_measured"] <= 0.01  # what is grey has no bar
    assert 0 < fits.sum() < len(front)
    np.testing.assert_allclose(bars[0], 100 * fits * (front["top1_measured"] - front["top1_measured_low"]))
    np.testing.assert_allclose(bars[1], 100 * fits * (front["top1_measured_high"] - front["top1_measured"]))


def test_the_download_is_a_pick_as_the_command_line_writes_it(still, run):
    with still.expect_download() as waiting:
        still.click("#download")
    written = json.loads(waiting.value.path().read_text())
    pick = json.loads((run / "quick" / "pick.json").read_text())
    assert written == pick
    assert list(written) == list(pick)
    assert waiting.value.suggested_filename == f"quick-{pick['config_id']}.json"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark_follow_the_reader_and_the_button(open_page, run, scheme):
    page = open_page(run / "report.html", scheme=scheme)
    background = "getComputedStyle(document.body).backgroundColor"
    ink = "document.getElementById('front-chart').layout.font.color"
    shades = {"light": "rgb(255, 255, 255)", "dark": "rgb(21, 24, 28)"}
    other = {"light": "dark", "dark": "light"}[scheme]
    assert page.evaluate(background) == shades[scheme]
    first = page.evaluate(ink)
    assert page.text_content("#theme").lower() == other
    page.click("#theme")
    settle(page)
    assert page.evaluate(background) == shades[other]
    assert page.evaluate(ink) != first


@pytest.mark.parametrize("width", [360, 390, 768])
def test_a_narrow_page_does_not_scroll_sideways(open_page, run, width):
    page = open_page(run / "report.html", width=width)
    settle(page)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    wide = page.evaluate(
        "[...document.body.querySelectorAll('*')].filter((e) => !e.closest('svg, .hidden, .skip, thead, .chart')"
        " && e.getBoundingClientRect().right > innerWidth + 1).map((e) => e.outerHTML.slice(0, 80))"
    )
    assert wide == []


def test_everything_that_can_be_used_has_a_name_and_a_focus_ring(page):
    nameless = page.evaluate(
        "[...document.querySelectorAll('button, input, select, [tabindex]')].filter((e) => !(e.textContent.trim()"
        " && e.tagName === 'BUTTON') && !e.labels?.length && !e.ariaLabel && !e.getAttribute('aria-labelledby'))"
        ".map((e) => e.outerHTML)"
    )
    assert nameless == []
    page.focus("#x-axis")
    page.keyboard.press("Tab")
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"


def test_names_with_markup_stay_text(open_page, tmp_path):
    evil = "<img src=x onerror=alert(1)><a href='javascript:alert(2)'>b"
    device = "<b onclick=alert(3)>chip"
    run = write_synthetic_run(
        tmp_path / "run", layers=10, quality="top1", devices=(device,), points=None, configs=20,
        minimize=("latency_ms", "energy_mj", "size_kib"), pick=True, predicted_quality=True,
        extra={"name": evil, "device_notes": {device: evil}, "worth": {device: [evil]}, "warnings": [evil]},
    )  # fmt: skip
    make_additive(run, device)
    for table in (run / "layers.csv", run / device / "costs.csv", run / device / "resources.csv"):
        table.write_text(table.read_text().replace("conv1,", f"{evil},".replace("=", "")).replace("compute", "<i>x"))
    write_page(run)
    page = open_page(run / "report.html")
    page.hover("#bits-chart .draglayer >> nth=0")
    settle(page)
    assert (
        page.evaluate("document.querySelectorAll('main img, a[href^=javascript], main b, main i, .chart a').length")
        == 0
    )
    assert page.text_content("h1") == evil
    assert page.text_content("#chip-worth li") == evil
    assert "alert(2)'>blayer" in page.text_content("#cost-chart")
    assert "traffic of <i>x" in page.text_content("#cost-legend")


def test_a_run_without_results_opens_too(open_page, run, tmp_path):
    resolved = json.loads((run / "resolved.json").read_text())
    del resolved["full_precision"]
    (tmp_path / "resolved.json").write_text(json.dumps(resolved | {"infeasible": {}}))
    page = open_page(write_page(tmp_path)[0], ready=False)
    assert page.inner_text(".banner").startswith("This run is unfinished")
    assert page.is_visible("footer dl")


@pytest.mark.parametrize("quality", ["kl", "top1"])
def test_one_point_and_divergences_have_a_page(open_page, tmp_path, quality):
    run = write_synthetic_run(
        tmp_path / "run", layers=10, quality=quality, devices=("chip",), points=1, configs=20,
        minimize=("latency_ms",), pick=False, predicted_quality=False, extra={},
    )  # fmt: skip
    page = open_page(write_page(run)[0])
    assert chosen(page) == front_of(run, "chip")["config_id"].iloc[0]
    page.focus("#front-chart")
    for key in ("ArrowRight", "End", "Enter", "Escape"):
        page.keyboard.press(key)
    page.click("#show-all")
    settle(page)
    assert page.is_visible("#bits-chart .main-svg >> nth=0")


def test_numbers_are_rounded_as_in_the_terminal(still):
    """Halves that are exact go to the even digit, as in Python."""
    values = [86.625, 86.375, -0.625, 0.125, 2.5, 1.005, 0.5, 1e-3, 4.0450000000000001]
    for digits in (0, 2, 3):
        found = still.evaluate("([values, digits]) => values.map((v) => fixed(v, digits))", [values, digits])
        assert found == [f"{value:.{digits}f}" for value in values]
