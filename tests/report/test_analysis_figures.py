import re
import shutil

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

from hwdse.formats import parse
from hwdse.report.analysis import AnalysisTables, TensorTables
from hwdse.report.correlation_figure import draw_correlation
from hwdse.report.drawing import style
from hwdse.report.heat_map import CAP_DB, difficulty_matrix, draw_heat_map
from hwdse.report.layer_figure import draw_layer, grid_values, view_of
from hwdse.report.write_analysis import count_analysis_figures, file_names, write_analysis_report
from tests.report.analysis_tables import (
    ACTIVATION_FORMATS,
    CALIBRATORS,
    SCHEME,
    WEIGHT_FORMATS,
    quantized,
    weight_values,
    write_analysis,
)

LAYERS = ("conv1", "layer1.0.conv1", "layer1.0.conv2", "linear")
MANY = ("int2", "int3", "int4", "int8", "nf4", "posit4_0", "posit8_0", "fp8_e4m3", "fp4_e2m1", "apot4", "pot4",
        "ternary", "codebook4", "fp6_e2m3")  # fmt: skip


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return write_analysis(tmp_path_factory.mktemp("original"), product=True)


@pytest.fixture
def folder(original, tmp_path):
    return shutil.copytree(original, tmp_path / "analysis")


def edit(path, change):
    """Rewrite a table as text, so that what is not changed stays as it was written."""
    change(pd.read_csv(path, dtype=str, keep_default_na=False)).to_csv(path, index=False)


def layer_drawing(folder, layer):
    with style():
        return draw_layer(AnalysisTables.load(folder), SCHEME, layer, name="layer")


def heat_map(folder):
    with style():
        return draw_heat_map(AnalysisTables.load(folder), SCHEME, name="difficulty")


def correlation(folder):
    with style():
        return draw_correlation(AnalysisTables.load(folder), SCHEME, name="correlation")


def text_boxes(figure):
    """Return the boxes ``(n, 4)`` in pixels of all texts that are seen."""
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    texts = [text for text in figure.findobj(Text) if text.get_text().strip()]
    ticks = [t for axes in figure.axes for axis in (axes.xaxis, axes.yaxis) for t in axis.get_major_ticks()]
    shown = [t for axes in figure.axes for axis in (axes.xaxis, axes.yaxis) for t in axis._update_ticks()]
    hidden = {label for tick in ticks if tick not in shown for label in (tick.label1, tick.label2)}
    seen = [t for t in texts if t.get_visible() and t not in hidden and (t.axes is None or t.axes.axison)]
    return np.array([Text.get_window_extent(text, renderer).extents for text in seen])


def assert_readable(figure):
    """Check that no text leaves the figure or covers another."""
    boxes = text_boxes(figure)
    assert len(boxes) > 3
    width, height = figure.bbox.size
    assert boxes[:, :2].min() >= 0
    assert boxes[:, 2].max() <= width
    assert boxes[:, 3].max() <= height
    low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    shared = np.clip(high - low - 0.5, 0, None).prod(axis=2)
    assert not np.triu(shared, 1).any()


def test_every_figure_has_its_numbers_and_captions(folder):
    calls = []
    paths = write_analysis_report(folder, on_figure=lambda: calls.append(1))
    stems = ["difficulty", "correlation", *(f"layer_{layer}" for layer in LAYERS)]
    expected = [f"{stem}.{suffix}" for stem in stems for suffix in ("pdf", "png", "csv")]
    assert [path.name for path in paths] == [*expected, "captions.md"]
    assert sorted(path.name for path in (folder / "figures").iterdir()) == sorted([*expected, "captions.md"])
    assert len(calls) == count_analysis_figures(folder) == len(stems)
    captions = paths[-1].read_text(encoding="utf-8")
    assert all(f"**{stem}.** " in captions for stem in stems)
    assert captions.count("not measured") == len(stems) - 1  # sensitivities are measured
    assert "/Type3" not in paths[0].read_bytes().decode("latin1")


def test_the_same_tables_give_the_same_bytes(tmp_path):
    folder = write_analysis(tmp_path, layers=2, samples=256, calibrators=("minmax", "mse"))
    first = {path.name: path.read_bytes() for path in write_analysis_report(folder)}
    with mpl.rc_context({"font.size": 20}):
        second = {path.name: path.read_bytes() for path in write_analysis_report(folder)}
        assert mpl.rcParams["font.size"] == 20
    assert first == second


def test_every_scheme_has_figures_of_its_own(tmp_path):
    schemes = [SCHEME, SCHEME.replace("restricted", "full")]
    folder = write_analysis(tmp_path, layers=2, samples=256, calibrators=("minmax",), schemes=schemes)
    names = [path.stem for path in write_analysis_report(folder) if path.suffix == ".pdf"]
    stems = ["difficulty", "correlation", "layer_conv1", "layer_linear"]
    assert names == [f"{stem}-scheme{place}" for place in (1, 2) for stem in stems]
    assert count_analysis_figures(folder) == 8
    captions = (folder / "figures" / "captions.md").read_text(encoding="utf-8")
    assert all(captions.count(f"under scheme {scheme}") == 4 for scheme in schemes)


def test_file_names_are_safe_and_differ_where_case_is_ignored():
    names = file_names(["a/b:c", "a b c", "A-B-C", "x" * 300 + "1", "x" * 300 + "2", "…"])
    assert names[:3] == ["a-b-c", "a-b-c-2", "A-B-C-3"]
    assert len({name.lower() for name in names}) == 6
    assert all(re.fullmatch(r"[A-Za-z0-9._-]{1,110}", name) for name in names)


@pytest.mark.parametrize("name", [name for name in WEIGHT_FORMATS if not parse(name).is_learned])
def test_the_drawn_values_are_those_that_quantization_gives(name):
    codes = parse(name).values  # noqa: PD011  (a number format's, not a table's)
    codes = codes[np.abs(codes) <= codes[-1]]  # without -128: the restricted grid of weights
    end = 0.7
    scale = end if name.startswith("posit") else end / codes[-1]
    dense = np.concatenate([weight_values(np.random.default_rng(1), 1, 2**17), codes * scale])
    expected = np.unique(quantized(dense, codes * scale))
    row = {"format": name, "levels": "", "scale": scale, "zero_point": 0.0, "low": -end, "high": end}
    np.testing.assert_allclose(grid_values(pd.Series(row), "weight"), expected, rtol=1e-15)


def test_an_affine_grid_starts_and_ends_at_its_clip_points():
    row = pd.Series({"format": "uint4", "levels": "", "scale": 0.2, "zero_point": 5, "low": -1.0, "high": 2.0})
    for kind in ("weight", "activation"):
        np.testing.assert_allclose(grid_values(row, kind), np.linspace(-1.0, 2.0, 16), rtol=1e-12, atol=1e-12)


def test_learned_levels_are_drawn_as_they_stand():
    row = pd.Series({"format": "codebook2", "levels": "3 -1.5 0.25 -0.5", "scale": 9.0, "zero_point": 4})
    assert grid_values(row, "weight").tolist() == [-1.5, -0.5, 0.25, 3.0]


def scored(values):
    """Return a tensor with these SQNRs by format."""
    rows = [(name, parse(name).bits, "mse", value) for name, value in values.items()]
    columns = ["format", "bits", "calibrator", "sqnr_db_predicted"]
    return TensorTables("t", "weight", pd.DataFrame(), pd.DataFrame(rows, columns=columns))


def tick_places(axes):
    """Return the x of every tick by row."""
    paths = [patch.get_path().vertices for patch in axes.patches] + [
        artist.get_path().vertices for artist in axes.artists
    ]
    return {round(float(path[:, 1].mean())): path[::2, 0] for path in paths if len(path)}


@pytest.mark.parametrize("layer", LAYERS)
def test_rows_and_lanes_show_the_tables(folder, layer):
    tables = AnalysisTables.load(folder)
    figure = layer_drawing(folder, layer).figure
    for place, tensor in enumerate(tables.operands(SCHEME, layer)):
        bins, lanes, grids = figure.axes[3 * place : 3 * place + 3]
        rows = pd.read_csv(folder / "difficulty.csv").query(f"tensor == '{tensor.name}'")
        reference = "int4" if tensor.kind == "weight" else "uint4"

        of_reference = rows[rows["format"] == reference]
        assert [text.get_text() for text in lanes.get_yticklabels()] == list(CALIBRATORS)
        shown = [text.get_text() for text in lanes.texts if "SQNR" not in text.get_text()][-len(CALIBRATORS) - 1 :]
        assert [t for t in shown if t[0].isdigit()] == [f"{v:.1f}" for v in of_reference["sqnr_db_predicted"]]
        segments = {round(line[0, 1]): line[:, 0] for line in lanes.collections[0].get_segments()}
        for lane, (low, high) in enumerate(zip(of_reference["low"], of_reference["high"], strict=True)):
            np.testing.assert_allclose(segments[lane], [low, high], rtol=1e-12)
        best = of_reference.loc[of_reference["sqnr_db_predicted"].idxmax()]
        dashed = {line.get_xdata()[0] for line in bins.lines if line.get_linestyle() == "--"}
        assert dashed == {best["low"], best["high"]} - {0.0}

        formats = [text.get_text() for text in grids.get_yticklabels()]
        assert sorted(formats) == sorted(WEIGHT_FORMATS if tensor.kind == "weight" else ACTIVATION_FORMATS)
        widths = [parse(name).bits for name in formats]
        assert widths == sorted(widths)
        numbers = [text.get_text() for text in grids.texts if text.get_text()[0].isdigit()]
        assert numbers == [f"{rows[rows['format'] == name]['sqnr_db_predicted'].max():.1f}" for name in formats]
        winner = rows.loc[rows[rows["format"] == reference]["sqnr_db_predicted"].idxmax()]
        codes = np.arange(-7, 8) if tensor.kind == "weight" else np.arange(16)
        drawn = tick_places(grids)[formats.index(reference)]
        low, high = grids.get_xlim()
        expected = codes * winner["scale"]
        np.testing.assert_allclose(drawn, expected[(expected >= low) & (expected <= high)], rtol=1e-12, atol=1e-15)


def test_bold_marks_the_best_calibrator_and_the_best_format_of_each_width(folder):
    figure = layer_drawing(folder, "conv1").figure
    rows = pd.read_csv(folder / "difficulty.csv").query("tensor == 'conv1.weight'")
    _, lanes, grids = figure.axes[:3]
    bold = [text.get_text() for text in grids.texts if text.get_fontweight() == "bold"]
    tops = rows.groupby("bits")["sqnr_db_predicted"].max()
    assert bold == [f"{value:.1f}" for value in tops]
    bold = [text.get_text() for text in lanes.texts if text.get_fontweight() == "bold"]
    assert bold == [f"{rows[rows['format'] == 'int4']['sqnr_db_predicted'].max():.1f}"]


def test_the_histogram_is_drawn_as_it_stands_and_zeros_as_a_stem(folder):
    tables = AnalysisTables.load(folder)
    tensor = tables.operands(SCHEME, "conv1")[1]
    drawing = layer_drawing(folder, "conv1")
    axes = drawing.figure.axes[3]
    data = next(patch.get_data() for patch in axes.patches if hasattr(patch, "get_data"))
    edges, counts = tensor.bins
    np.testing.assert_array_equal(data.edges, edges)
    np.testing.assert_array_equal(data.values[counts > 0], counts[counts > 0])  # noqa: PD011  (a drawn histogram's)
    assert axes.get_yscale() == "log"
    low, high = axes.get_ylim()
    assert low < counts[counts > 0].min()
    assert high > tensor.zeros
    stem = next(line for line in axes.lines if line.get_marker() == "None" and set(line.get_xdata()) == {0})
    assert stem.get_ydata()[1] == tensor.zeros
    share = f"{100 * tensor.zeros / tensor.count:.1f} % exactly 0"
    assert share in axes.get_title(loc="left")
    assert share in drawing.caption
    written = drawing.points.query("series == 'histogram' and kind == 'activation'")
    assert written["count"].sum() == 2048


def test_clip_points_far_away_become_triangles():
    histogram = pd.DataFrame({"left": [-2.0], "right": [1.0], "count": [9.0], "unit": ["value"]})
    rows = {"format": ["int4"] * 2, "bits": [4] * 2, "calibrator": ["mse", "minmax"], "low": [-2.2, -99.0],
            "high": [2.2, 99.0], "sqnr_db_predicted": [9.0, 1.0]}  # fmt: skip
    view = view_of(TensorTables("t", "activation", histogram, pd.DataFrame(rows)))
    assert -2.6 < view.low < -2.4 < 2.4 < view.high < 2.6
    assert view.beyond(np.array([-99.0, 99.0])) == (True, True)
    assert view.beyond(np.array([-2.2, 2.2])) == (False, False)


def test_a_weight_that_is_not_in_the_tables_is_said_in_words(folder):
    for name in ("histograms.csv", "difficulty.csv"):
        edit(folder / name, lambda table: table[table["tensor"] != "linear.weight"])
    drawing = layer_drawing(folder, "linear")
    assert [text.get_text() for text in drawing.figure.axes[0].texts] == [
        "The tables hold no weight\nof this layer alone."
    ]
    assert "Left: not in the tables." in drawing.caption
    assert set(drawing.points["tensor"]) == {"relu_3"}
    drawing = heat_map(folder)
    assert "Hatched cells have no entry in the tables." in drawing.caption
    assert_readable(drawing.figure)


def test_a_tensor_of_zeros_without_formats_is_drawn(folder):
    def zeros(table):
        first = table.index[table["tensor"] == "relu_0"][0]
        table.loc[first, ["left", "right", "count"]] = ["0", "0", "64"]
        return table.drop(table.index[(table["tensor"] == "relu_0") & (table.index != first)])

    edit(folder / "histograms.csv", zeros)
    edit(folder / "difficulty.csv", lambda table: table[table["tensor"] != "relu_0"])
    drawing = layer_drawing(folder, "conv1")
    assert "activation relu_0 (n = 64, 100.0 % exactly 0), reference format none." in drawing.caption
    assert_readable(drawing.figure)


def test_formats_without_a_list_of_values_and_numbers_that_are_missing_are_said(folder):
    def change(table):
        table.loc[table["format"] == "apot4", "format"] = "fp32"
        table.loc[table["format"] == "pot4", "sqnr_db_predicted"] = ""
        table.loc[table["format"] == "nf4", "sqnr_db_predicted"] = "inf"
        return table

    edit(folder / "difficulty.csv", change)
    figure = layer_drawing(folder, "conv1").figure
    texts = [text.get_text() for text in figure.axes[2].texts]
    assert "too many values to draw" in texts
    assert "?" in texts
    assert "∞" in texts
    assert_readable(figure)


def test_sixteen_bits_are_drawn_as_a_band_of_few_lines(folder):
    edit(folder / "difficulty.csv", lambda table: table.replace({"format": {"posit8_0": "fp16"}}))
    figure = layer_drawing(folder, "conv1").figure
    row = [text.get_text() for text in figure.axes[2].get_yticklabels()].index("fp16")
    places = tick_places(figure.axes[2])[row]
    assert 50 < len(places) <= 1001


@pytest.mark.parametrize("layer", LAYERS)
def test_no_text_of_a_layer_covers_another(folder, layer):
    assert_readable(layer_drawing(folder, layer).figure)


def test_long_names_stay_inside(folder):
    long = "model.transformer.encoder.layers.11.attention.self_attention.query_key_value.projection_of_all_heads.linear"
    for name in ("layers.csv", "histograms.csv", "difficulty.csv"):
        renamed = {"linear": long, "linear.weight": f"{long}.weight", "relu_3": f"{long}.very_long_input_name"}
        edit(folder / name, lambda table, renamed=renamed: table.replace(renamed))
    edit(folder / "difficulty.csv", lambda table: table.replace({"calibrator": {"mse": "mean_squared_error_search"}}))
    assert_readable(layer_drawing(folder, long).figure)
    assert_readable(heat_map(folder).figure)


@pytest.mark.parametrize(("layers", "formats"), [(10, MANY[:3]), (60, MANY)])
def test_the_heat_map_is_readable_for_small_and_large_networks(tmp_path, layers, formats):
    unsigned = [name.replace("int", "uint") for name in formats]
    folder = write_analysis(
        tmp_path, layers=layers, samples=64, calibrators=("minmax",), weight_formats=formats,
        activation_formats=unsigned,
    )  # fmt: skip
    figure = heat_map(folder).figure
    assert_readable(figure)
    assert figure.get_figwidth() <= 7.2 + 1e-9
    assert figure.get_figheight() <= 9.5
    numbers = [text for axes in figure.axes for text in axes.texts]
    assert len(numbers) == layers * 2 * len(formats)
    assert {"." in text.get_text() for text in numbers} == {layers == 10}  # wide cells have room for a decimal


def test_formats_are_ordered_by_bits_before_their_median():
    table = {"a": {"int8": 9.0, "int4": 30.0, "nf4": 20.0}, "b": {"int8": 1.0, "int4": 50.0, "nf4": np.nan}, "c": None}
    tensors = {layer: values and scored(values) for layer, values in table.items()}
    matrix = difficulty_matrix(tensors)
    assert matrix.columns.tolist() == ["nf4", "int4", "int8"]
    expected = [[20.0, 30.0, 9.0], [np.nan, 50.0, 1.0], [np.nan] * 3]
    np.testing.assert_array_equal(matrix.to_numpy(float), expected)
    assert matrix.index.tolist() == ["a", "b", "c"]


def test_the_heat_map_holds_the_best_of_every_format_in_order(folder):
    drawing = heat_map(folder)
    written = pd.read_csv(folder / "difficulty.csv")
    weights = written[written["kind"] == "weight"]
    best = weights.pivot_table(index="layer", columns="format", values="sqnr_db_predicted", aggfunc="max")
    second = written[written["tensor"] == "layer1.0.conv2.second"].groupby("format")["sqnr_db_predicted"].max()
    left = drawing.figure.axes[0]
    names = [text.get_text() for text in left.get_xticklabels()]
    assert sorted(names) == sorted({*WEIGHT_FORMATS, *ACTIVATION_FORMATS})
    medians = pd.concat([best.T, second.rename("second")], axis=1).median(axis=1)
    keys = [(parse(name).bits, medians[name]) for name in names]
    assert keys == sorted(keys)
    shown = {(round(t.get_position()[1]), round(t.get_position()[0])): t.get_text() for t in left.texts}
    for row, layer in enumerate(LAYERS):
        for column, name in enumerate(names):
            value = second.get(name, np.nan) if layer == "layer1.0.conv2" else best.loc[layer].get(name, np.nan)
            assert shown.get((row, column)) == (None if np.isnan(value) else f"{value:.1f}")
    assert [text.get_text() for text in left.get_yticklabels()] == list(LAYERS)
    assert "In place of a weight stands the second operand of layer1.0.conv2." in drawing.caption
    top = drawing.points.query("layer == 'conv1' and format == 'int8'")["sqnr_db_predicted"]
    assert top.tolist() == [pytest.approx(best.loc["conv1", "int8"], rel=1e-15)]


def test_no_error_is_capped_and_said(folder):
    def change(table):
        table.loc[table["format"] == "int8", "sqnr_db_predicted"] = "inf"
        table.loc[table["format"] == "uint8", "sqnr_db_predicted"] = "96.5"
        return table

    edit(folder / "difficulty.csv", change)
    drawing = heat_map(folder)
    assert f"Values above {CAP_DB:.1f} dB, ∞ (no error) among them, have one colour." in drawing.caption
    mesh = drawing.figure.axes[0].collections[0]
    assert mesh.get_array().max() == mesh.norm.vmax == CAP_DB
    texts = {text.get_text() for axes in drawing.figure.axes for text in axes.texts}
    assert {"∞", "96.5"} <= texts


def test_a_table_without_a_finite_number_gives_a_sentence(folder):
    edit(folder / "difficulty.csv", lambda table: table.assign(sqnr_db_predicted="inf"))
    assert heat_map(folder).caption == f"No tensor has a finite predicted SQNR under scheme {SCHEME}."


def test_correlations_are_drawn_sorted_with_their_intervals(folder):
    drawing = correlation(folder)
    written = pd.read_csv(folder / "correlation.csv")
    order = written.query("pool == 'all'").sort_values("kendall", ascending=False)["score"].tolist()
    panels = drawing.figure.axes
    assert [text.get_text() for text in panels[0].get_yticklabels()] == order
    assert panels[0].get_ylim() == (len(order) - 0.5, -0.5)
    for axes, pool in zip(panels, ("all", "within"), strict=True):
        rows = written[written["pool"] == pool].set_index("score").loc[order]
        for place, rank in enumerate(("kendall", "spearman")):
            whiskers = axes.collections[place].get_segments()
            np.testing.assert_allclose([w[0, 0] for w in whiskers], rows[f"{rank}_low"], rtol=1e-12)
            np.testing.assert_allclose([w[1, 0] for w in whiskers], rows[f"{rank}_high"], rtol=1e-12)
            np.testing.assert_allclose(axes.lines[place + 1].get_xdata(), rows[rank], rtol=1e-12)
        low, high = axes.get_xlim()
        assert low < min(rows["spearman_low"].min(), 0) < max(rows["spearman_high"].max(), 0) < high
    assert "n = 88 pairs of a tied group with a candidate, 22 groups" in drawing.caption
    assert_readable(drawing.figure)


def test_a_correlation_that_is_not_defined_is_said(folder):
    def change(table):
        table.loc[(table["score"] == "mse") & (table["pool"] == "within"), table.columns[3:9]] = ""
        return table

    edit(folder / "correlation.csv", change)
    left, right = correlation(folder).figure.axes
    assert [text.get_text() for text in left.texts] == []
    assert [text.get_text() for text in right.texts] == ["undefined"]


def test_no_correlation_is_said_in_words(folder):
    edit(folder / "correlation.csv", lambda table: table.iloc[:0])
    assert correlation(folder).caption == f"No correlation was computed under scheme {SCHEME}."
    assert count_analysis_figures(folder) == 6
