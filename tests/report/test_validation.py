"""The figure of predicted against published figures: what it shows is what it was given."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from numpy.testing import assert_allclose

from hwdse.report.drawing import Drawing, save, style
from hwdse.report.validation import Panel, draw_validation


def panel(
    title: str, *, rows: int = 6, precisions: Sequence[str] = ("W8A8",), factor: float | None = 1.5, scale: float = 1.0
) -> Panel:
    rng = np.random.default_rng(len(title) + rows)
    published = scale * np.geomspace(1, 30, rows)
    table = pd.DataFrame(
        {
            "network": [f"net{i}" for i in range(rows)],
            "precision": [precisions[i % len(precisions)] for i in range(rows)],
            "published": published,
            "predicted": published * np.exp(rng.normal(0, 0.2, rows)),
        }
    )
    return Panel(title, table, factor, "7 % median\nleft out")


def drawing(panels: Sequence[Panel]) -> Drawing:
    with style():
        return draw_validation(
            panels, name="held", quantity="latency", unit="ms", method="Each was predicted by a fit of the others."
        )


def shown(axes: Axes) -> list[tuple[float, float]]:
    """Return the points of an axes: what its lines with a marker show."""
    lines = [line for line in axes.get_lines() if line.get_marker() not in ("None", "none", "", None)]
    return sorted(
        (float(x), float(y)) for line in lines for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)
    )


def bands(axes: Axes) -> list[PolyCollection]:
    return [part for part in axes.collections if isinstance(part, PolyCollection)]


@pytest.mark.parametrize("count", [1, 2, 5, 6, 7, 13])
def test_every_panel_shows_its_rows(count: int) -> None:
    panels = [panel(f"chip{i}", rows=i + 1, precisions=("W8A8", "fp32"), scale=10.0**i) for i in range(count)]
    found = drawing(panels)
    assert [axes.get_title() for axes in found.figure.axes] == [one.title for one in panels]
    for axes, one in zip(found.figure.axes, panels, strict=True):
        points = sorted(map(tuple, one.table[["published", "predicted"]].to_numpy().tolist()))
        assert_allclose(shown(axes), points)
        assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
        assert one.words in [text.get_text() for text in axes.texts]


def test_every_point_is_inside_and_both_axes_are_alike() -> None:
    far = panel("far")
    far.table.loc[0, "predicted"] = 4000.0
    for axes in drawing([panel("near"), far, panel("one", rows=1)]).figure.axes:
        low, high = axes.get_xlim()
        assert axes.get_ylim() == (low, high)
        assert high / low >= 4
        for x, y in shown(axes):
            assert low < x < high
            assert low < y < high


def test_the_line_is_equality_and_the_band_the_interval() -> None:
    (axes,) = drawing([panel("chip", factor=2.5)]).figure.axes
    line = next(line for line in axes.get_lines() if line.get_marker() in ("None", "none", ""))
    assert_allclose(line.get_xdata(), line.get_ydata())
    assert_allclose(line.get_xdata(), axes.get_xlim())
    (band,) = bands(axes)
    corners = band.get_paths()[0].vertices
    ratios = corners[:, 1] / corners[:, 0]
    assert_allclose(np.unique(ratios.round(6)), [1 / 2.5, 2.5], rtol=1e-5)


def test_a_profile_without_an_interval_has_no_band() -> None:
    first, second = drawing([panel("stated"), panel("none", factor=None)]).figure.axes
    assert len(bands(first)) == 1
    assert bands(second) == []


def test_a_precision_looks_the_same_in_every_panel() -> None:
    """Panels of other precisions, in another order; the legend names each once, the commonest first."""
    panels = [panel("a", precisions=("W4A4", "W8A8")), panel("b", precisions=("mixed", "W8A8")), panel("c")]
    found = drawing(panels)
    (legend,) = found.figure.legends
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels == ["W8A8", "W4A4", "mixed", "90 % interval of the profile"]
    looks: dict[str, set[tuple[str, str]]] = {}
    for axes, one in zip(found.figure.axes, panels, strict=True):
        for line in axes.get_lines():
            points = list(zip(line.get_xdata(), line.get_ydata(), strict=True))
            for precision, own in one.table.groupby("precision"):
                if points and set(points) == set(zip(own["published"], own["predicted"], strict=True)):
                    looks.setdefault(str(precision), set()).add((str(line.get_color()), str(line.get_marker())))
    assert set(looks) == {"W8A8", "W4A4", "mixed"}
    assert all(len(own) == 1 for own in looks.values())
    assert len(set.union(*looks.values())) == 3
    handles = legend.legend_handles[:3]
    for label, handle in zip(labels, handles, strict=False):
        assert looks[label] == {(str(handle.get_color()), str(handle.get_marker()))}


@pytest.mark.parametrize(("count", "expected"), [(1, [0]), (3, [0, 1, 2]), (7, [2, 3, 4, 5, 6])])
def test_the_lowest_panel_of_each_column_names_its_axis(count: int, expected: list[int]) -> None:
    axes = drawing([panel(f"chip{i}") for i in range(count)]).figure.axes
    assert [i for i, one in enumerate(axes) if one.get_xlabel() == "Published (ms)"] == expected
    assert [i for i, one in enumerate(axes) if one.get_ylabel() == "Predicted (ms)"] == list(range(0, count, 5))


def test_the_caption_and_the_numbers_say_what_is_shown() -> None:
    panels = [panel("a", rows=3), panel("b", rows=4, precisions=("fp32", "W8A8"))]
    found = drawing(panels)
    assert found.name == "held"
    assert "published latency of whole networks, 7 published figures of 2 devices." in found.caption
    assert "Each was predicted by a fit of the others." in found.caption
    assert list(found.points.columns) == ["profile", "network", "precision", "published", "predicted"]
    assert found.points["profile"].tolist() == ["a"] * 3 + ["b"] * 4
    for one in panels:
        own = found.points[found.points["profile"] == one.title].reset_index(drop=True)
        pd.testing.assert_frame_equal(own.drop(columns="profile"), one.table)


def test_ticks_of_a_wide_panel_are_powers_of_ten() -> None:
    wide = panel("wide", rows=8)
    wide.table["published"] = wide.table["predicted"] = np.geomspace(1e-2, 1e3, 8)
    found = drawing([wide, panel("narrow", rows=2)])
    found.figure.draw_without_rendering()
    for axis in (found.figure.axes[0].xaxis, found.figure.axes[0].yaxis):
        low, high = axis.get_view_interval()
        ticks = [tick for tick in axis.get_majorticklocs() if low <= tick <= high]
        assert len(ticks) >= 2
        assert_allclose(np.log10(ticks), np.round(np.log10(ticks)), atol=1e-9)


def test_the_same_panels_give_the_same_files(tmp_path) -> None:
    panels = [panel("a", precisions=("W8A8", "W4A4")), panel("b", factor=None)]
    for folder in ("first", "second"):
        with style():
            found = draw_validation(panels, name="held", quantity="energy", unit="mJ", method="As it is.")
            paths = save(found, tmp_path / folder)
        assert [path.name for path in paths] == ["held.pdf", "held.png", "held.csv"]
    for name in ("held.pdf", "held.png", "held.csv"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()
    assert "energy" in found.caption


def test_the_users_settings_are_left_alone() -> None:
    with mpl.rc_context({"font.size": 23.0, "axes.grid": True}):
        drawing([panel("a")])
        assert (mpl.rcParams["font.size"], mpl.rcParams["axes.grid"]) == (23.0, True)
