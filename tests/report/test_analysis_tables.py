import re
import shutil

import numpy as np
import pandas as pd
import pytest

from hwdse.errors import RunFolderError
from hwdse.report.analysis import AnalysisTables, TensorTables
from tests.report.analysis_tables import SCHEME, activation_values, bins, write_analysis


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("original")
    return write_analysis(folder, samples=512, calibrators=("minmax", "mse", "aciq_gauss"), product=True)


@pytest.fixture
def folder(original, tmp_path):
    return shutil.copytree(original, tmp_path / "analysis")


def edit(path, change):
    """Rewrite a table as text, so that what is not changed stays as it was written."""
    change(pd.read_csv(path, dtype=str, keep_default_na=False)).to_csv(path, index=False)


def set_cell(row, column, text):
    def change(table):
        table.loc[row, column] = text
        return table

    return change


def set_column(column, text):
    return lambda table: table.assign(**{column: text})


def twice(table):
    return pd.concat([table, table.tail(1)])


def tensor(histogram, difficulty=None):
    columns = ["format", "bits", "calibrator", "sqnr_db_predicted"]
    return TensorTables("t", "activation", histogram, pd.DataFrame(difficulty or [], columns=columns))


def test_tables_hold_what_the_files_say(folder):
    tables = AnalysisTables.load(folder)
    assert tables.schemes == [SCHEME]
    assert tables.layers["layer"].tolist() == ["conv1", "layer1.0.conv1", "layer1.0.conv2", "linear"]
    written = pd.read_csv(folder / "difficulty.csv")
    for column in ("low", "high", "scale", "sqnr_db_predicted"):
        np.testing.assert_allclose(tables.difficulty[column], written[column], rtol=1e-15)


def test_numbers_come_back_exactly_and_names_stay_text(folder):
    edit(folder / "difficulty.csv", set_cell(0, "scale", "0.30000000000000004"))
    for name in ("layers.csv", "histograms.csv", "difficulty.csv"):
        edit(folder / name, lambda table: table.replace({"linear": "NA", "linear.weight": "1e3"}))
    tables = AnalysisTables.load(folder)
    assert tables.difficulty["scale"][0] == 0.1 + 0.2
    weight, _ = tables.operands(SCHEME, "NA")
    assert weight.name == "1e3"


def test_operands_are_the_weight_or_the_second_operand_and_the_input(folder):
    tables = AnalysisTables.load(folder)
    named = {layer: [(t.kind, t.name) for t in tables.operands(SCHEME, layer)] for layer in tables.layers["layer"]}
    assert named == {
        "conv1": [("weight", "conv1.weight"), ("activation", "relu_0")],
        "layer1.0.conv1": [("weight", "layer1.0.conv1.weight"), ("activation", "relu_1")],
        "layer1.0.conv2": [("activation", "layer1.0.conv2.second"), ("activation", "relu_2")],
        "linear": [("weight", "linear.weight"), ("activation", "relu_3")],
    }


def test_an_input_that_two_layers_read_is_shown_for_both(folder):
    edit(folder / "layers.csv", set_cell(3, "input", "relu_0"))
    tables = AnalysisTables.load(folder)
    assert tables.operands(SCHEME, "linear")[1].name == tables.operands(SCHEME, "conv1")[1].name == "relu_0"


def test_bins_are_those_of_numpy_with_the_empty_ones_filled_in():
    values = activation_values(np.random.default_rng(0), 3, 400)
    shown = tensor(bins(values).assign(unit="value").sample(frac=1.0, random_state=0))
    counts, edges = np.histogram(values[values > 0], 254)
    assert (counts == 0).any()
    assert shown.zeros == (values == 0).sum() > 0
    assert shown.count == 400
    found_edges, found = shown.bins
    # Runs of empty bins are one wide bin: the same counts over the same line.
    middles = (edges[:-1] + edges[1:]) / 2
    np.testing.assert_array_equal(found[np.searchsorted(found_edges, middles) - 1], counts)
    assert set(found_edges) <= set(edges)
    assert found.sum() == counts.sum()


def test_a_tensor_of_zeros_has_no_bins():
    shown = tensor(pd.DataFrame({"left": [0.0], "right": [0.0], "count": [8.0], "unit": ["value"]}))
    assert shown.zeros == shown.count == 8
    assert shown.bins[1].size == 0
    assert shown.reference is None


def test_the_best_calibrator_and_the_reference_format_against_a_loop():
    rng = np.random.default_rng(2)
    rows = [
        (name, bits, calibrator, float(rng.normal()))
        for calibrator in ("minmax", "mse", "ema")  # formats alternate: their order must not follow the winners
        for name, bits in (("int8", 8), ("ternary", 2), ("int4", 4), ("nf4", 4))
    ]
    best = tensor(pd.DataFrame(), rows).best
    assert best["format"].tolist() == ["ternary", "int4", "nf4", "int8"]
    for name, calibrator, sqnr in zip(best["format"], best["calibrator"], best["sqnr_db_predicted"], strict=True):
        of_format = [row for row in rows if row[0] == name]
        assert (calibrator, sqnr) == max(of_format, key=lambda row: row[3])[2:]
    assert tensor(pd.DataFrame(), rows).reference == "int4"
    assert tensor(pd.DataFrame(), [row for row in rows if "int" not in row[0]]).reference == "ternary"


def test_no_error_at_all_beats_every_number_and_no_number_loses():
    rows = [("int8", 8, "mse", 40.0), ("int8", 8, "minmax", np.inf), ("int8", 8, "ema", np.nan)]
    assert tensor(pd.DataFrame(), rows).best["calibrator"].tolist() == ["minmax"]
    assert tensor(pd.DataFrame(), rows[::2]).best["calibrator"].tolist() == ["mse"]


@pytest.mark.parametrize("name", ["layers", "histograms", "difficulty", "correlation"])
def test_a_missing_table_is_named(folder, name):
    path = folder / f"{name}.csv"
    path.unlink()
    with pytest.raises(RunFolderError, match=rf"expected the file {re.escape(str(path))}, got none; is"):
        AnalysisTables.load(folder)


@pytest.mark.parametrize("name", ["layers", "histograms", "difficulty"])
def test_a_table_without_rows_is_named(folder, name):
    edit(folder / f"{name}.csv", lambda table: table.iloc[:0])
    with pytest.raises(RunFolderError, match=rf"expected rows in .*{name}.csv, got none; analyze again"):
        AnalysisTables.load(folder)


def test_an_empty_file_is_no_table(folder):
    (folder / "difficulty.csv").write_text("")
    with pytest.raises(RunFolderError, match=r"expected a CSV table in .*difficulty.csv, got No columns"):
        AnalysisTables.load(folder)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("layers", lambda t: t.drop(columns="macs"), r"expected the columns .* got none called macs"),
        ("layers", set_cell(1, "macs", "many"), r"finite numbers in column macs of .*, got 'many' in line 3"),
        ("layers", set_cell(1, "macs", "inf"), r"finite numbers in column macs of .*, got 'inf' in line 3"),
        ("layers", twice, r"expected every layer once in .*, got 'linear' in line 6"),
        ("histograms", set_cell(0, "kind", "bias"), r"kinds weight and activation in .*, got 'bias' in line 2"),
        ("histograms", set_cell(0, "unit", "volt"), r"units value and share of channel maximum .*, got 'volt'"),
        ("histograms", set_cell(0, "unit", "value"), r"one unit for every tensor in .*, got 'conv1.weight'"),
        ("histograms", set_cell(0, "layer", "conv9"), r"layers of layers.csv in .*, got 'conv9' in line 2"),
        ("histograms", set_cell(0, "left", "9"), r"left < right, or both 0 for exact zeros in .*, got 9.0 in line 2"),
        ("histograms", set_cell(0, "count", "-1"), r"counts of at least 0 in .*, got -1.0 in line 2"),
        ("histograms", set_column("count", "0"), r"values in every tensor in .*, got 'conv1.weight'"),
        ("histograms", set_cell(2, "left", "-0.999"), r"bins that do not overlap in .*, got .* in line 3"),
        ("difficulty", set_cell(3, "tensor", "bias"), r"tensors of histograms.csv in .*, got 'bias' in line 5"),
        ("difficulty", set_cell(0, "low", "7"), r"low <= high in .*, got 7.0 in line 2"),
        ("difficulty", set_cell(0, "high", ""), r"low <= high in .*, got -1.0 in line 2"),
        ("difficulty", set_cell(0, "high", "inf"), r"finite ranges and scales in .*, got 'conv1.weight' in line 2"),
        ("difficulty", set_cell(0, "scale", "0"), r"positive scales in .*, got 0.0 in line 2"),
        ("difficulty", set_cell(0, "zero_point", ""), r"zero points in .*, got 'conv1.weight' in line 2"),
        ("difficulty", set_cell(0, "levels", "1 two"), r"levels as finite numbers .*, got '1 two' in line 2"),
        ("difficulty", set_cell(0, "levels", "1 inf"), r"levels as finite numbers .*, got '1 inf' in line 2"),
        ("difficulty", set_cell(0, "sqnr_db_predicted", "good"), r"numbers in column sqnr_db_predicted .*, got 'good'"),
        (
            "difficulty",
            set_cell(0, "format", "int99"),
            r"names of number formats in .*, got 'int99': expected a number",
        ),
        ("difficulty", twice, r"one row per scheme, tensor, format and calibrator in .*, got 'relu_3'"),
        ("correlation", set_cell(0, "pool", "some"), r"pools all and within in .*, got 'some' in line 2"),
        ("correlation", set_cell(0, "scheme", "mine"), r"schemes of difficulty.csv in .*, got 'mine' in line 2"),
        (
            "correlation",
            set_cell(0, "kendall_high", "1.5"),
            r"correlations in \[-1, 1\] in .*, got 'sqnr_db' in line 2",
        ),
        ("correlation", twice, r"one row per score, scheme and pool in .*, got 'channel_spread'"),
    ],
)
def test_a_damaged_table_gives_one_sentence(folder, name, change, message):
    edit(folder / f"{name}.csv", change)
    with pytest.raises(RunFolderError, match=message):
        AnalysisTables.load(folder)


def test_a_learned_format_needs_its_levels_alone(folder):
    def change(table):
        table.loc[table["levels"] != "", ["low", "high", "scale", "zero_point"]] = ""
        return table

    edit(folder / "difficulty.csv", change)
    difficulty = AnalysisTables.load(folder).difficulty
    assert difficulty.loc[difficulty["format"] == "codebook4", "scale"].isna().all()


def test_bins_may_touch_up_to_rounding(folder):
    def change(table):
        left = table["left"].astype(float)
        return table.assign(left=(left - np.abs(left) * 1e-15).map(repr))

    edit(folder / "histograms.csv", change)
    assert len(AnalysisTables.load(folder).histograms)
