import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Annotation, Text

from hwdse.report.drawing import LOG_RATIO, look_of, spans_decade, style
from hwdse.report.pareto import Window, draw_pareto, staircase, window_of
from hwdse.report.tables import RunTables
from hwdse.report.write import write_report
from tests.listener import Listener

FOUR = ("nvidia_t4", "mpic", "stm32h7a3", "gap9_ne16")


def test_every_figure_has_its_numbers_and_captions(write_run):
    run = write_run(devices=FOUR[:2])
    paths = write_report(run)
    stems = ["pareto-nvidia_t4", "bits-nvidia_t4", "pareto-mpic", "bits-mpic", "devices"]
    expected = [f"{stem}.{suffix}" for stem in stems for suffix in ("pdf", "png", "csv")]
    assert [path.name for path in paths] == [*expected, "README.txt", "captions.md"]
    assert sorted(path.name for path in (run / "figures").iterdir()) == sorted([*expected, "README.txt", "captions.md"])
    captions = paths[-1].read_text()
    assert all(f"**{stem}.**" in captions for stem in stems)
    for words in ("seed 7", "n = 1452 samples", "mpic: order of magnitude."):
        assert words in captions
    guide = (run / "figures" / "README.txt").read_text()
    assert "mpic: order of magnitude: rates from a datasheet" in " ".join(guide.split())
    assert max(map(len, guide.splitlines())) <= 100
    pdf = paths[0].read_bytes()
    assert b"/CIDFontType2" in pdf  # embedded TrueType, which editors and publishers accept; Type 3 they do not
    assert b"/Type3" not in pdf
    assert b"/CreationDate" not in pdf
    assert int.from_bytes(paths[1].read_bytes()[16:20]) == round(7.2 * 300)  # width in the header of a PNG


def test_the_same_tables_give_the_same_bytes(write_run):
    run = write_run(devices=FOUR[:1])
    first = {path.name: path.read_bytes() for path in write_report(run)}
    with mpl.rc_context({"font.size": 20}):
        second = {path.name: path.read_bytes() for path in write_report(run)}
        assert mpl.rcParams["font.size"] == 20
    assert first == second


def test_the_numbers_beside_the_figures_are_those_of_the_tables(write_run):
    run = write_run(devices=FOUR[:2])
    write_report(run)
    tables = RunTables.load(run)
    drawn = pd.read_csv(run / "figures" / "pareto-mpic.csv", dtype={"config_id": str, "uniform": str})
    device = tables.results["mpic"]
    front = drawn[drawn["series"] == "front"].set_index("config_id")
    for column in (*tables.costs.values(), *tables.quality.columns):
        expected = device.front.set_index("config_id")[column]
        np.testing.assert_allclose(front.loc[expected.index, column], expected, rtol=1e-15)
    assert (drawn["series"] != "predicted").sum() == len(device.measured)
    cloud = drawn[drawn["series"] == "predicted"]
    np.testing.assert_allclose(cloud["quality_predicted"], device.predicted["quality_predicted"], rtol=1e-15)
    assert drawn.loc[drawn["picked"].astype(str) == "True", "config_id"].tolist() == [device.pick]

    fronts = pd.read_csv(run / "figures" / "devices.csv", dtype={"config_id": str})
    assert fronts.groupby("device", sort=False).size().tolist() == [len(d.front) for d in tables.results.values()]
    w8a8 = device.measured.set_index("uniform").loc["W8A8", "latency_ms_predicted"]
    relative = fronts[fronts["device"] == "mpic"]["latency_ms_predicted_relative"]
    np.testing.assert_allclose(relative, device.front["latency_ms_predicted"] / w8a8, rtol=1e-15)

    bits = pd.read_csv(run / "figures" / "bits-mpic.csv")
    assert bits["precision"].tolist() == device.picked["bits"].iloc[0].split()
    assert (bits["weight_bits"].astype(str) == bits["precision"].str[1]).all()
    assert (bits["activation_bits"].astype(str) == bits["precision"].str[3]).all()
    np.testing.assert_allclose(bits[["mac_share", "weight_share"]].sum(), 1.0)


@pytest.mark.parametrize(
    "case",
    [
        {"points": 1, "pick": False},
        {"layers": 60},
        {"quality": "kl"},
        {"pick": False, "predicted_quality": False, "minimize": ("latency_ms",)},
        {"configs": 4, "minimize": ("size_kib", "energy_mj")},
    ],
)
def test_unusual_runs_give_figures(write_run, case):
    run = write_run(devices=FOUR[1:2], **case)
    assert len(write_report(run)) == 11


def test_an_empty_front_is_said_in_words(write_run):
    run = write_run(devices=FOUR[:2], points=0, pick=False)
    captions = write_report(run)[-1].read_text()
    assert "**pareto-mpic.** None of the 120 measured configurations is on the front of mpic." in captions
    assert "**bits-mpic.** None of" in captions
    assert "**devices.** None of the 120" in captions


def test_an_infeasible_device_stands_beside_the_others(write_run):
    run = write_run(devices=FOUR[:2], extra={"infeasible": {"mpic": "512 KiB of 448 KiB"}})
    (run / "mpic" / "front.csv").unlink()
    captions = write_report(run)[-1].read_text()
    assert "**pareto-mpic.** No feasible configuration on mpic: 512 KiB of 448 KiB" in captions
    assert "(nvidia_t4 n = " in captions


def test_one_device_alone_keeps_its_look(write_run):
    run = write_run()
    paths = write_report(run, devices=["gap9_ne16"])
    assert len(paths) == 11
    assert look_of("gap9_ne16", RunTables.load(run, devices=["gap9_ne16"]).devices).colour == "#CC79A7"


def test_collapsed_points_do_not_flatten_the_front(write_run):
    tables = RunTables.load(write_run(devices=FOUR[1:2]))
    device = tables.results["mpic"]
    quality = device.front["top1_measured"].to_numpy()
    assert quality.min() < 0.2  # the fixture's cheapest configurations collapse
    window = window_of(tables, device.front, device.measured)
    assert window.worst > 0.8
    assert window.best > device.front["top1_measured_high"].max()
    caption = draw_pareto(tables, "mpic").caption
    hidden_front = int((quality < window.worst).sum())
    hidden = int((device.measured["top1_measured"] < window.worst).sum())
    assert 0 < hidden_front < hidden
    assert (
        f"{hidden} of 120 measured configurations ({hidden_front} of {len(quality)} on the front) lie below" in caption
    )


def test_a_divergence_over_decades_is_drawn_on_a_logarithmic_axis(write_run):
    tables = RunTables.load(write_run(devices=FOUR[1:2], quality="kl"))
    device = tables.results["mpic"]
    window = window_of(tables, device.front, device.measured)
    assert window.log
    assert window.worst > device.measured["kl_measured"].max() > device.measured["kl_measured"].min() > window.best > 0
    drawing = draw_pareto(tables, "mpic")
    assert {axes.get_yscale() for axes in drawing.figure.axes} == {"log"}
    assert "Full precision is 0, which a logarithmic axis cannot show." in drawing.caption


def test_costs_over_decades_are_drawn_on_a_logarithmic_axis(write_run):
    run = write_run(devices=FOUR[1:2])
    for name in ("front.csv", "measured.csv"):
        table = pd.read_csv(run / "mpic" / name, dtype={"config_id": str}).fillna({"uniform": ""})
        table.assign(energy_mj_predicted=table["energy_mj_predicted"] ** 4).to_csv(run / "mpic" / name, index=False)
    drawing = draw_pareto(RunTables.load(run), "mpic")
    assert [axes.get_xscale() for axes in drawing.figure.axes] == ["linear", "log", "linear"]
    labels = [axes.get_xlabel() for axes in drawing.figure.axes]
    assert labels == ["Latency (ms, predicted)", "Energy (mJ, predicted)", "Size (KiB)"]


@pytest.mark.parametrize("place", range(4))
def test_labels_do_not_cover_each_other(write_run, place):
    tables = RunTables.load(write_run(), devices=[FOUR[place]])
    with style():
        figure = draw_pareto(tables, FOUR[place]).figure
    renderer = figure.canvas.get_renderer()
    device = tables.results[FOUR[place]]
    marked = {*device.measured.loc[device.measured["uniform"] != "", "config_id"], device.pick}
    for axes in figure.axes:
        labels = [text for text in axes.texts if isinstance(text, Annotation)]
        assert len(labels) == len(marked)
        boxes = [Text.get_window_extent(label, renderer) for label in labels]
        for i, box in enumerate(boxes):
            assert not any(box.overlaps(other) for other in boxes[:i])


def test_staircase_against_all_pairs():
    rng = np.random.default_rng(3)
    cost, quality = rng.integers(0, 12, 60).astype(float), rng.integers(0, 12, 60).astype(float)
    kept = {(cost[i], quality[i]) for i in staircase(cost, quality, maximise=True)}
    points = list(zip(cost, quality, strict=True))
    expected = {p for p in points if not any(q != p and q[0] <= p[0] and q[1] >= p[1] for q in points)}
    assert kept == expected
    mirrored = {(cost[i], quality[i]) for i in staircase(cost, -quality, maximise=False)}
    assert mirrored == expected


def test_hidden_looks_to_the_worse_side():
    assert Window(0.8, 0.9).hidden(np.array([0.79, 0.81])).tolist() == [True, False]
    assert Window(0.3, 0.1).hidden(np.array([0.29, 0.31])).tolist() == [False, True]


def test_a_decade_is_ten():
    assert LOG_RATIO == 10
    assert spans_decade(np.array([0.5, 5.0, np.nan]))
    assert not spans_decade(np.array([0.5, 4.99]))


def test_every_figure_is_a_step_of_the_progress(write_run):
    listener = Listener()
    paths = write_report(write_run(devices=FOUR[:1]), progress=listener)
    figures = sum(path.suffix == ".pdf" for path in paths)
    assert listener.stages == [("figures", figures)]
    assert listener.steps == figures == 3
