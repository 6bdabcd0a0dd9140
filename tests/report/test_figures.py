"""Every figure for a paper: its numbers against the tables, its words in their places, and runs that are not whole."""

import shutil
import sqlite3
from collections.abc import Callable
from functools import partial
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from matplotlib import colormaps
from matplotlib.text import Annotation, Text
from scipy.stats import spearmanr

from hwdse.errors import RunFolderError
from hwdse.pareto import hypervolume
from hwdse.report.attainment import attained, draw_attainment
from hwdse.report.bits import draw_bits
from hwdse.report.devices import draw_devices
from hwdse.report.drawing import DOUBLE_INCHES, SINGLE_INCHES, Drawing, look_of, style
from hwdse.report.guide import READING
from hwdse.report.parallel import COLOURS, DARK, LIGHT, draw_parallel, heights
from hwdse.report.pareto import draw_pareto
from hwdse.report.pgf import find_latex
from hwdse.report.predicted import draw_predicted, rank_correlation
from hwdse.report.roofline import draw_roofline
from hwdse.report.scatter import draw_scatter
from hwdse.report.summary import front_hypervolume
from hwdse.report.tables import RunTables
from hwdse.report.words import number
from hwdse.report.write import write_report

MPIC = ("mpic",)
FIVE = ("latency_ms", "energy_mj", "size_kib", "bops")
PER_DEVICE = (draw_pareto, draw_bits, draw_parallel, draw_predicted, draw_roofline)
STEMS = ["pareto", "bits", "parallel", "predicted", "roofline", "scatter"]


class Listener:
    """Collects warnings."""

    def __init__(self) -> None:
        self.sentences: list[str] = []
        self.steps = 0
        self.started: list[tuple[str, int | None]] = []

    def start(self, stage: str, total: int | None) -> None:
        self.started.append((stage, total))

    def advance(self) -> None:
        self.steps += 1

    def warn(self, sentence: str) -> None:
        self.sentences.append(sentence)


def figures_of(tables: RunTables, width: float) -> list[Callable[[], Drawing]]:
    """Return what draws each figure of a run's first device and those of the whole run."""
    name = next(iter(tables.results))
    drawn = [partial(draw, tables, name, width=width) for draw in (*PER_DEVICE, draw_scatter)]
    return [*drawn, *(partial(draw, tables, width=width) for draw in (draw_devices, draw_attainment))]


def test_every_figure_is_written_with_numbers_and_caption(write_run):
    run, listener = write_run(devices=MPIC, evidence=True), Listener()
    paths = write_report(run, every=True, progress=listener)
    stems = [*(f"{stem}-mpic" for stem in STEMS), "devices", "attainment"]
    expected = [f"{stem}.{suffix}" for stem in stems for suffix in ("pdf", "png", "csv")]
    assert sorted(path.name for path in paths) == sorted([*expected, "README.txt", "captions.md"])
    assert listener.started == [("figures", len(stems))]
    assert listener.steps == len(stems)
    captions = paths[-1].read_text()
    for stem in stems:
        caption = captions.split(f"**{stem}.** ")[1].split("\n\n")[0]
        assert "seed 7" in caption, stem
        assert len(caption.split()) <= 75, stem
        assert stem.split("-")[0] in READING
        assert "n = " in caption or "of 120 measured" in caption, stem
        assert len(pd.read_csv(run / "figures" / f"{stem}.csv")), stem
        pdf = (run / "figures" / f"{stem}.pdf").read_bytes()
        assert b"/CIDFontType2" in pdf, stem  # embedded TrueType
        assert b"/FontFile2" in pdf, stem
        assert b"/Type3" not in pdf, stem
    before = {path.name: path.read_bytes() for path in paths}
    assert {path.name: path.read_bytes() for path in write_report(run, every=True)} == before


@pytest.mark.parametrize("devices", [MPIC, ("nvidia_t4", "mpic", "stm32h7a3")])
def test_a_single_column_is_3_5_inches_wide(write_run, devices):
    tables = RunTables.load(write_run(devices=devices, evidence=True))
    with style():
        for draw in figures_of(tables, SINGLE_INCHES):
            drawing = draw()
            assert drawing.figure.get_figwidth() == SINGLE_INCHES, drawing.name
            drawing.figure.draw_without_rendering()
            labels = [label for axes in drawing.figure.axes for label in (axes.xaxis.label, axes.yaxis.label)]
            for box in (label.get_window_extent() for label in labels if label.get_text()):
                assert box.x0 >= 0.0, drawing.name
                assert box.x1 <= drawing.figure.bbox.x1, drawing.name


@pytest.mark.parametrize("objectives", [2, 3, 4])
def test_attainment_is_the_hypervolume_of_what_was_measured_so_far(objectives):
    points = np.random.default_rng(5).uniform(0, 1, (25, objectives)).round(1)
    expected = [hypervolume(points[: k + 1], np.ones(objectives)) for k in range(len(points))]
    np.testing.assert_allclose(attained(points), expected, rtol=1e-12, atol=1e-15)


def test_attainment_ends_at_the_hypervolume_of_the_front(write_run):
    run = write_run(devices=("mpic", "gap9_ne16"), evidence=True)
    tables = RunTables.load(run)
    drawing = draw_attainment(tables)
    for name, rows in drawing.points.groupby("device"):
        device = tables.results[name]
        assert rows["evaluation"].tolist() == list(range(1, len(device.measured) + 1))
        assert (rows["hypervolume"].diff().dropna() >= 0).all()
        assert rows["hypervolume"].iloc[-1] == pytest.approx(front_hypervolume(tables, device), rel=1e-12)
        own = 0.25 + 0.01 * np.arange(len(rows))  # what the fixture wrote
        np.testing.assert_allclose(rows["seconds"], own.cumsum(), rtol=1e-12)
    assert len(drawing.figure.axes) == 2


def test_attainment_without_seconds_says_so(write_run):
    run = write_run(devices=MPIC, evidence=True)
    (run / "evaluations.db").unlink()
    drawing = draw_attainment(RunTables.load(run))
    assert len(drawing.figure.axes) == 1
    assert "The seconds of evaluations are not known for mpic." in drawing.caption
    (run / "evaluations.db").write_bytes(b"no database at all, but long enough to be looked at " * 20)
    with pytest.raises(RunFolderError, match=r"expected a database of evaluations in .*evaluations.db, got: "):
        draw_attainment(RunTables.load(run))


def test_seconds_are_those_of_the_devices_scheme(write_run):
    run = write_run(devices=("mpic", "gap9_ne16"), evidence=True)
    database = sqlite3.connect(run / "evaluations.db")
    database.execute("DELETE FROM evaluations WHERE scheme = 'scheme1'")
    database.commit()
    database.close()
    drawing = draw_attainment(RunTables.load(run))
    known = drawing.points.groupby("device")["seconds"].apply(lambda column: column.notna().all())
    assert known.to_dict() == {"mpic": True, "gap9_ne16": False}


def test_no_layer_lies_above_the_roof(write_run):
    tables = RunTables.load(write_run(devices=MPIC, evidence=True))
    drawing = draw_roofline(tables, "mpic")
    points = drawing.points
    assert points["layer"].tolist() == tables.layers["layer"].tolist()
    assert points["precision"].tolist() == tables.results["mpic"].picked["bits"].iloc[0].split()
    assert (points["attained_gmac_per_s_predicted"] <= points["bound_gmac_per_s_predicted"]).all()
    assert (points["bound_gmac_per_s_predicted"] <= points["roof_gmac_per_s"] * (1 + 1e-9)).all()
    slope = points["intensity_macs_per_byte"] * 2.0  # GB/s of the fixture's memory
    peak = points["precision"].map({"W2A8": 20.0, "W4A4": 20.0, "W4A8": 15.0, "W8A8": 10.0})
    np.testing.assert_allclose(points["roof_gmac_per_s"], np.minimum(slope, peak), rtol=1e-12)
    assert points["mac_share"].sum() == pytest.approx(1.0)
    np.testing.assert_allclose(points["mac_share"], tables.layers["macs"] / tables.layers["macs"].sum(), rtol=1e-12)
    ridges = {number(rate / 2.0) for rate in peak}
    assert ridges <= {text.get_text() for text in drawing.figure.axes[0].texts}
    assert "predicted and not measured" in drawing.caption


def test_a_roofline_that_lacks_a_choice_is_refused(write_run):
    run = write_run(devices=MPIC, evidence=True)
    table = pd.read_csv(run / "mpic" / "roofline.csv")
    table[table["layer"] != "conv1"].to_csv(run / "mpic" / "roofline.csv", index=False)
    with pytest.raises(RunFolderError, match=r"expected every choice .*roofline.csv, got none for conv1 at W8A8"):
        draw_roofline(RunTables.load(run), "mpic")


def test_damaged_evidence_is_refused(write_run):
    run = write_run(devices=MPIC, evidence=True)
    (run / "mpic" / "verify.json").write_text('{"latency_ms_measured": "soon"}')
    with pytest.raises(RunFolderError, match=r"expected a time above 0 as latency_ms_measured .* got 'soon'"):
        RunTables.load(run)
    (run / "mpic" / "verify.json").unlink()
    table = pd.read_csv(run / "mpic" / "roofline.csv")
    table.assign(memory_bytes=0).to_csv(run / "mpic" / "roofline.csv", index=False)
    with pytest.raises(RunFolderError, match=r"expected numbers above 0 in column memory_bytes .* in line 2"):
        RunTables.load(run)


def test_a_run_without_bounds_has_no_roofline(write_run):
    drawing = draw_roofline(RunTables.load(write_run(devices=MPIC)), "mpic")
    assert "no roofline.csv" in drawing.caption
    assert drawing.points.empty


def test_parallel_coordinates_put_the_best_above(write_run):
    tables = RunTables.load(write_run(devices=MPIC, evidence=True))
    device, points = tables.results["mpic"], draw_parallel(tables, "mpic").points
    assert points["config_id"].tolist() == device.front["config_id"].tolist()
    assert points.loc[points["emphasised"], "config_id"].tolist() == [device.pick]
    drawn = points.dropna(subset=["top1_measured_height"])
    assert 0 < len(drawn) < len(points)  # the fixture's cheapest configurations collapse
    assert drawn["top1_measured"].min() > 0.8
    best = drawn.loc[drawn["top1_measured"].idxmax()]
    assert best["top1_measured_height"] == 1
    for column in tables.costs.values():
        assert drawn.loc[drawn[column].idxmin(), f"{column}_height"] == 1
        assert drawn.loc[drawn[column].idxmax(), f"{column}_height"] == 0
        assert spearmanr(drawn[column], drawn[f"{column}_height"]).statistic == pytest.approx(-1)
    assert heights(np.array([3.0, 3.0]), maximise=True).tolist() == [0.5, 0.5]


def test_a_scatter_matrix_has_a_panel_for_every_pair(write_run):
    tables = RunTables.load(write_run(devices=MPIC, minimize=FIVE, evidence=True))
    drawing = draw_scatter(tables, "mpic")
    assert len(drawing.figure.axes) == 10
    device = tables.results["mpic"]
    assert (drawing.points["series"] == "front").sum() == len(device.front)
    np.testing.assert_array_equal(drawing.points[tables.objectives], device.measured[tables.objectives])
    drawing.figure.draw_without_rendering()
    legend = drawing.figure.legends[0].get_window_extent()
    assert not any(legend.overlaps(axes.get_tightbbox()) for axes in drawing.figure.axes)


def test_two_objectives_need_no_scatter_matrix(write_run):
    run = write_run(devices=MPIC, minimize=("latency_ms",), evidence=True)
    assert not [path for path in write_report(run, every=True) if path.name.startswith("scatter")]


def test_predicted_stands_beside_what_was_measured_of_the_same_configuration(write_run):
    run = write_run(devices=MPIC, evidence=True)
    tables = RunTables.load(run)
    measured = tables.results["mpic"].measured
    predicted = pd.read_csv(run / "mpic" / "predicted.csv")
    chosen = predicted.head(30).assign(bits=measured["bits"].head(30), quality_predicted_low=0.1,
                                       quality_predicted_high=0.95)  # fmt: skip
    pd.concat([chosen, predicted.tail(50)]).to_csv(run / "mpic" / "predicted.csv", index=False)
    tables = RunTables.load(run)
    drawing = draw_predicted(tables, "mpic")
    joined = drawing.points.head(30)
    np.testing.assert_allclose(joined["quality_predicted"], chosen["quality_predicted"], rtol=1e-15)
    both = drawing.points.dropna(subset=["quality_predicted"])
    before = spearmanr(measured["loss_predicted"], measured["top1_drop_measured"]).statistic
    after = spearmanr(both["quality_predicted"], both["top1_measured"]).statistic
    assert f"n = 120 configurations (rho = {before:.3f})" in drawing.caption
    assert f"rho = {after:.3f}; the line is equality" in drawing.caption
    assert len(drawing.figure.axes) == 2


def test_rank_correlation_against_scipy():
    rng = np.random.default_rng(2)
    first, second = rng.integers(0, 6, 40).astype(float), rng.integers(0, 6, 40).astype(float)
    assert rank_correlation(first, second) == pytest.approx(spearmanr(first, second).statistic, rel=1e-12)
    assert np.isnan(rank_correlation(first, np.zeros(40)))


@pytest.mark.parametrize("measured", [4.0, None])
def test_a_verified_latency_has_a_panel(write_run, measured):
    run = write_run(devices=MPIC, evidence=True)
    name = RunTables.load(run).results["mpic"].pick
    record = pd.Series({"config_id": name, "latency_ms_predicted": 5.0, "latency_ms_measured": measured})
    record.to_json(run / "mpic" / "verify.json")
    tables = RunTables.load(run)
    drawing = draw_predicted(tables, "mpic")
    rows = drawing.points.dropna(subset=["latency_ms_measured"])
    assert rows["config_id"].tolist() == ([name] if measured else [])
    assert ("predicted 5.00 ms and measured 4.00 ms" in drawing.caption) == bool(measured)
    bare = len(tables.results["mpic"].predicted["bits"].isin(tables.results["mpic"].measured["bits"]).unique()) > 1
    assert len(drawing.figure.axes) == 1 + bare + bool(measured)


def test_bits_show_sensitivities_and_others_of_the_front(write_run):
    tables = RunTables.load(write_run(devices=MPIC, evidence=True))
    device, drawing = tables.results["mpic"], draw_bits(tables, "mpic")
    points = drawing.points
    harm = tables.sensitivity[tables.sensitivity["scheme"] == "scheme0"].set_index(["group", "candidate"])["kl"]
    expected = [harm[layer, precision] for layer, precision in zip(points["layer"], points["precision"], strict=True)]
    np.testing.assert_allclose(points["sensitivity_measured"], expected, rtol=1e-15)
    np.testing.assert_allclose(
        points["sensitivity_most_measured"], [harm[layer].max() for layer in points["layer"]], rtol=1e-15
    )
    assert points["mac_share"].sum() == pytest.approx(1.0)
    others = [column.removeprefix("precision_") for column in points if column.startswith("precision_")]
    assert len(others) == 4
    bits = device.front.set_index("config_id")["bits"]
    for name in others:
        assert points[f"precision_{name}"].tolist() == bits[name].split()
    assert device.pick not in others
    assert "measured on n = 64 samples" in drawing.caption


CASES = [
    {"points": 0, "pick": False},
    {"points": 1, "pick": False},
    {"points": 1, "pick": False, "configs": 4},
    {"layers": 64, "minimize": FIVE},
    {"quality": "kl"},
    {"predicted_quality": False, "minimize": ("latency_ms",), "evidence": False},
]


@pytest.mark.parametrize("case", CASES)
def test_unusual_runs_give_figures(write_run, case):
    tables = RunTables.load(write_run(devices=MPIC, **{"evidence": True, **case}))
    with style():
        for draw in figures_of(tables, DOUBLE_INCHES):
            drawing = draw()
            drawing.figure.draw_without_rendering()
            assert drawing.caption


def test_what_is_empty_is_said_in_words(write_run):
    run = write_run(devices=("mpic", "gap9_ne16"), evidence=True, extra={"infeasible": {"mpic": "512 KiB of 448 KiB"}})
    (run / "mpic" / "front.csv").unlink()
    *own, together, attainment = figures_of(RunTables.load(run), DOUBLE_INCHES)
    for draw in own:
        drawing = draw()
        assert drawing.caption.startswith("No feasible configuration on mpic: 512 KiB of 448 KiB"), drawing.name
        assert not drawing.figure.axes
        assert drawing.points.empty
    for draw in (together, attainment):
        caption = draw().caption
        assert "No feasible configuration on mpic" in caption
        assert "gap9_ne16 n = " in caption


def one_layer(run):
    """Cut a run to its first layer."""
    pd.read_csv(run / "layers.csv").head(1).to_csv(run / "layers.csv", index=False)
    for table in run.glob("mpic/*.csv"):
        rows = pd.read_csv(table, dtype={"config_id": str, "uniform": str}, keep_default_na=False)
        if "bits" in rows:
            rows.assign(bits=[text.split()[0] for text in rows["bits"]]).to_csv(table, index=False)
    return run


def test_one_layer_is_a_network(write_run):
    tables = RunTables.load(one_layer(write_run(devices=MPIC, evidence=True)))
    with style():
        for draw in figures_of(tables, DOUBLE_INCHES):
            draw().figure.draw_without_rendering()
    assert len(draw_roofline(tables, "mpic").points) == 1


def drawn_words(drawing: Drawing, monkeypatch: pytest.MonkeyPatch) -> list[Text]:
    """Return the texts that are really drawn: ticks outside of an axis are not."""
    seen: list[Text] = []
    plain = Text.draw

    def record(self: Text, renderer: object) -> None:
        if self.get_visible() and self.get_text().strip():
            seen.append(self)
        plain(self, renderer)

    with monkeypatch.context() as patch:
        patch.setattr(Text, "draw", record)
        drawing.figure.canvas.draw()
    return list(dict.fromkeys(seen))


def long_names(run):
    """Give the layers and the device of a run long names."""
    table = pd.read_csv(run / "layers.csv")
    names = {name: f"model.encoder.stage_with_a_long_name.{name}_of_many" for name in table["layer"]}
    for path in (run / "layers.csv", *run.glob("*/roofline.csv")):
        pd.read_csv(path, keep_default_na=False).replace({"layer": names}).to_csv(path, index=False)
    return run


LONG = "a_device_with_a_very_long_name_and_an_accelerator_at_400_mhz"


@pytest.mark.parametrize("width", [SINGLE_INCHES, DOUBLE_INCHES])
@pytest.mark.parametrize(
    ("devices", "layers", "minimize"),
    [(("mpic", "gap9_ne16"), 22, FIVE[:3]), ((LONG, *(f"{LONG}_{i}" for i in range(11))), 64, FIVE)],
)
def test_words_are_whole_and_apart(write_run, monkeypatch, width, devices, layers, minimize):
    run = long_names(write_run(devices=devices, layers=layers, minimize=minimize, configs=60, evidence=True))
    tables = RunTables.load(run)
    with style():
        for draw in figures_of(tables, width):
            drawing = draw()
            words = drawn_words(drawing, monkeypatch)
            frame = drawing.figure.bbox.padded(1.0)
            boxes = [(Text.get_window_extent(text), text) for text in words]
            for box, text in boxes:
                assert frame.x0 <= box.x0 <= box.x1 <= frame.x1, (drawing.name, text.get_text())
                assert frame.y0 <= box.y0 <= box.y1 <= frame.y1, (drawing.name, text.get_text())
            fixed = [(box.padded(-1.0), text) for box, text in boxes if not isinstance(text, Annotation)]
            for (one, first), (other, second) in combinations(fixed, 2):
                assert not one.overlaps(other), (drawing.name, first.get_text(), second.get_text())


def test_devices_differ_in_grey():
    names = [f"chip{i}" for i in range(12)]
    looks = [look_of(name, names) for name in names]
    assert len({(look.marker, str(look.line)) for look in looks}) == len(names)


def test_qualities_differ_in_grey():
    colours = colormaps[COLOURS](np.linspace(DARK, LIGHT, 20))[:, :3]
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    luminance = linear @ (0.2126, 0.7152, 0.0722)
    assert (np.diff(luminance) > 0).all()
    assert luminance[-1] < 0.7  # white has 1


def test_without_latex_everything_else_is_written(write_run, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    run, listener = write_run(devices=MPIC), Listener()
    paths = write_report(run, pgf=True, progress=listener)
    assert len(paths) == 11
    assert len(listener.sentences) == 1
    assert listener.sentences[0].startswith("expected LaTeX (xelatex, lualatex or pdflatex) for PGF, got none;")


def test_words_that_latex_would_obey_are_not_given_to_it(write_run, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: "/bin/false" if name == "pdflatex" else None)
    monkeypatch.setenv("PATH", "/nowhere")
    run, listener = write_run(devices=MPIC, extra={"name": "\\input{/etc/passwd}"}), Listener()
    assert len(write_report(run, pgf=True, progress=listener)) == 11
    assert listener.sentences
    assert all("which LaTeX would obey; it is written without PGF" in sentence for sentence in listener.sentences)


def test_latex_that_fails_is_said_once(write_run, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: "/bin/false" if name == "pdflatex" else None)
    monkeypatch.setenv("PATH", "/nowhere")
    run, listener = write_run(devices=MPIC), Listener()
    assert len(write_report(run, pgf=True, progress=listener)) == 11
    assert len(listener.sentences) == 1
    assert "expected pdflatex to measure the words of pareto-mpic, got: " in listener.sentences[0]
    assert not list((run / "figures").glob("*.pgf"))


@pytest.mark.skipif(find_latex() is None, reason="no LaTeX is installed, which PGF takes")
def test_pgf_stands_beside_the_others(write_run):
    run, listener = write_run(devices=MPIC), Listener()
    paths = write_report(run, pgf=True, progress=listener)
    assert not listener.sentences
    for stem in ("pareto-mpic", "bits-mpic", "devices"):
        text = (run / "figures" / f"{stem}.pgf").read_text()
        assert text.startswith("%% Creator: Matplotlib, PGF backend")
        assert run / "figures" / f"{stem}.pgf" in paths
