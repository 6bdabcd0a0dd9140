"""Rows of published figures: what is read, and the sentence that names what is wrong with which line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from hwdse.errors import InputError
from hwdse.formats import Precision
from hwdse.hardware import Kind, profile_paths
from hwdse.hardware.load import VARIABLE
from hwdse.networks import layer_graph, reference_networks
from hwdse.published import PublishedRow, published_path, read_rows

HEADER = "network,precision,latency_ms,energy_mj,kind,source,note\n"
SHIPPED = sorted(name for name in profile_paths() if published_path(name) is not None)
Writer = Callable[..., Path]


@pytest.fixture
def table(tmp_path: Path) -> Writer:
    """Return a function that writes a CSV file of these lines below the header."""

    def write(*lines: str, header: str = HEADER) -> Path:
        path = tmp_path / "chip_published.csv"
        path.write_text(header + "".join(f"{line}\n" for line in lines))
        return path

    return write


def test_every_column_is_read(table: Writer) -> None:
    first, second = read_rows(
        table('resnet8,W8A8,1.5,0.25,derived,Lab2024,"a note, with a comma"', "ds_cnn,fp32,3,,,Lab2024,")
    )
    assert first == PublishedRow(
        network="resnet8", precision="W8A8", latency_ms=1.5, energy_mj=0.25, kind=Kind.DERIVED, source="Lab2024",
        note="a note, with a comma",
    )  # fmt: skip
    assert (second.network, second.precision, second.latency_ms, second.source) == ("ds_cnn", "fp32", 3.0, "Lab2024")
    assert (second.energy_mj, second.kind, second.note) == (None, Kind.MEASURED, "")


def test_columns_may_be_in_any_order_and_those_with_defaults_be_absent(table: Writer) -> None:
    (row,) = read_rows(table("Lab2024,2.5,W4A8,resnet8", header="source,latency_ms,precision,network\n"))
    assert row == PublishedRow(network="resnet8", precision="W4A8", latency_ms=2.5, source="Lab2024")


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_rows_are_as_in_their_file_and_fit_their_networks(name: str) -> None:
    path = published_path(name)
    assert path is not None
    rows, plain = read_rows(path), pd.read_csv(path)
    assert [row.latency_ms for row in rows] == plain["latency_ms"].tolist()
    assert [row.network for row in rows] == plain["network"].tolist()
    for row in rows:
        assert row.network in reference_networks()
        graph = layer_graph(row.network)
        precisions = row.precisions(graph)
        assert len(precisions) == len(graph.layers)
        assert " ".join(map(str, precisions)) in (row.precision, " ".join([row.precision] * len(graph.layers)))


# Precisions.


def row_of(precision: str, network: str = "resnet8") -> PublishedRow:
    return PublishedRow(network=network, precision=precision, latency_ms=1.0, source="Lab2024")


@pytest.mark.parametrize(
    ("precision", "label"),
    [
        ("W8A8", "W8A8"),
        ("W8A8 W8A8", "W8A8"),
        ("W8A8 W4A4", "mixed"),
        ("W8A8 W4A4 W8A8", "W4A4"),  # the first and the last layer often stay at 8 bits
        ("W8A8 W4A4 W4A4 fp32", "W4A4"),
        ("W8A8 W4A4 W4A8 W8A8", "mixed"),
    ],
)
def test_labels(precision: str, label: str) -> None:
    assert row_of(precision).label == label
    assert row_of(precision).is_uniform == (label != "mixed")


def test_one_precision_is_that_of_every_layer_and_several_are_in_order() -> None:
    graph = layer_graph("resnet8")
    count = len(graph.layers)
    assert row_of("W4A8").precisions(graph) == (Precision.parse("W4A8"),) * count
    parts = ["W8A8", *["W4A4"] * (count - 2), "fp32"]
    assert row_of("  ".join(parts)).precision == " ".join(parts)
    assert [str(p) for p in row_of(" ".join(parts)).precisions(graph)] == parts


@pytest.mark.parametrize("count", [2, 9, 11])
def test_another_number_of_precisions_than_layers_is_an_error(count: int) -> None:
    graph = layer_graph("resnet8")
    assert len(graph.layers) == 10
    sentence = f"expected one precision, or one for each of the 10 layers of resnet8, got {count}; correct the row"
    with pytest.raises(InputError, match=sentence):
        row_of(" ".join(["W8A8"] * count)).precisions(graph)


@pytest.mark.parametrize("text", ["Wfp32Afp32", "Wint8Aint8", "Wuint8A8", "W8", "int8", "W8A8,W8A8"])
def test_spellings_that_are_not_canonical_are_refused(text: str, table: Writer) -> None:
    with pytest.raises(InputError, match=r"^line 3 of .*chip_published\.csv: precision: expected [^\n]*$"):
        read_rows(table("resnet8,W8A8,1,,,Lab2024,", f'resnet8,"{text}",1,,,Lab2024,'))


# Faults.


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("resnet8,W8A8,-1,,,Lab2024,", "latency_ms: expected a positive number, got '-1'"),
        ("resnet8,W8A8,0,,,Lab2024,", "latency_ms: expected a positive number, got '0'"),
        ("resnet8,W8A8,inf,,,Lab2024,", "latency_ms: expected a finite number, got 'inf'"),
        ("resnet8,W8A8,fast,,,Lab2024,", "latency_ms: expected "),
        ("resnet8,W8A8,,,,Lab2024,", "latency_ms: expected a value, got nothing; add it"),
        ("resnet8,W8A8,1,-2,,Lab2024,", "energy_mj: expected a positive number, got '-2'"),
        ("resnet8,W8A8,1,,guessed,Lab2024,", "kind: expected 'measured', 'derived', "),
        ("resnet8,W8A8,1,,,,", "source: expected a value, got nothing; add it"),
        (",W8A8,1,,,Lab2024,", "network: expected a value, got nothing; add it"),
        ("a b c,W8A8,1,,,Lab2024,", "expected a network, or two factories separated by a space, got 'a b c'"),
        ('resnet8," ",1,,,Lab2024,', "precision: expected a precision, or one per layer, got none"),
    ],
)
def test_the_first_fault_is_named_with_its_line(line: str, sentence: str, table: Writer) -> None:
    path = table("ds_cnn,fp32,3,,,Lab2024,", line, "resnet8,W8A8,-7,,,Lab2024,")
    with pytest.raises(InputError, match=r"^line 3 of .*chip_published\.csv: [^\n]*$") as error:
        read_rows(path)
    assert sentence in str(error.value)


@pytest.mark.parametrize("column", ["network", "precision", "latency_ms", "source"])
def test_a_missing_column_is_named(column: str, table: Writer) -> None:
    kept = [name for name in ("network", "precision", "latency_ms", "source") if name != column]
    path = table("a,b,c", header=",".join(kept) + "\n")
    with pytest.raises(InputError, match=f"missing {column}; the file has {', '.join(kept)}$"):
        read_rows(path)


def test_an_unknown_column_is_named(table: Writer) -> None:
    path = table("resnet8,W8A8,1,Lab2024,red", header="network,precision,latency_ms,source,colour\n")
    with pytest.raises(InputError, match=r"line 2 of .*: colour: expected no such key; known: network, precision"):
        read_rows(path)


def test_files_without_rows(table: Writer, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected at least 1 row in .*chip_published\.csv, got none; add one"):
        read_rows(table())
    with pytest.raises(
        InputError, match=r"expected the columns network, precision, latency_ms and source in .*; the file has none"
    ):
        read_rows(table(header=""))
    with pytest.raises(InputError, match=r"expected a CSV table of published rows in .*, got FileNotFoundError"):
        read_rows(tmp_path / "absent.csv")
    with pytest.raises(InputError, match=r"expected a CSV table of published rows in .*, got IsADirectoryError"):
        read_rows(tmp_path)
    with pytest.raises(InputError, match=r"line 3 of .*: expected 7 cells, got 9; quote commas"):
        read_rows(table("resnet8,W8A8,1,,,Lab2024,", "resnet8,W8A8,1,,,Lab2024,a,b,c"))


# Where they lie.


def test_rows_lie_beside_their_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert published_path("stm32h7a3") == profile_paths()["stm32h7a3"].with_name("stm32h7a3_published.csv")
    assert published_path("mpic") is None
    assert published_path("toaster") is None
    (tmp_path / "toaster.toml").write_text("name = ")
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    assert published_path("toaster") is None
    (tmp_path / "toaster_published.csv").write_text(HEADER)
    assert published_path("toaster") == tmp_path / "toaster_published.csv"
