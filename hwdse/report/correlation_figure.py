"""How well each difficulty score ranks the tied groups by measured sensitivity: rank correlations with intervals."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from hwdse.report.analysis import RANKS, AnalysisTables
from hwdse.report.drawing import DOUBLE_INCHES, INK, Drawing, new_figure, sentence_figure

__all__ = ["draw_correlation"]

POOLS = {"all": "Over all groups and candidates", "within": "Within one candidate, mean over candidates"}
LOOKS = {"kendall": ("Kendall's tau", "#0072B2", "o", -0.15), "spearman": ("Spearman's rho", "#D55E00", "D", 0.15)}
PALE = "#6E6E6E"
ROW_INCHES = 0.2


def draw_correlation(tables: AnalysisTables, scheme: str, *, name: str) -> Drawing:
    """Return the figure of the rank correlation of every score with the sensitivity under ``scheme``.

    Parameters
    ----------
    tables
        Of the analysis.
    scheme
        Which one.
    name
        File name without its suffix.
    """
    rows = tables.correlation[tables.correlation["scheme"] == scheme]
    points = _sorted(rows)
    title = "Rank correlation of difficulty scores with the measured sensitivity"
    if points.empty:
        sentence = f"No correlation was computed under scheme {scheme}."
        return Drawing(name, sentence_figure(sentence, title), points, sentence)
    scores = list(dict.fromkeys(points["score"]))
    figure = new_figure(DOUBLE_INCHES, 1.0 + ROW_INCHES * len(scores))
    panels = figure.subplots(1, len(POOLS), sharex=True, sharey=True)
    for axes, (pool, words) in zip(panels, POOLS.items(), strict=True):
        _draw_panel(axes, points[points["pool"] == pool].set_index("score").reindex(scores))
        axes.set_title(words)
    shown = np.append(points[RANKS].fillna(0.0).to_numpy(float), 0.0)
    margin = 0.04 * max(float(np.ptp(shown)), 0.1)
    panels[0].set_xlim(float(shown.min()) - margin, float(shown.max()) + margin)
    panels[0].set_ylim(len(scores) - 0.5, -0.5)
    panels[0].set_yticks(range(len(scores)), scores)
    figure.supxlabel("Rank correlation, 95 % interval", fontsize=7)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper right", ncols=2)
    figure.suptitle(f"{title}\nscheme {scheme}", x=0.01, ha="left")
    return Drawing(name, figure, points, _caption(scheme, points, scores))


def _sorted(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with the highest Kendall correlation over all pairs first."""
    over_all = rows[rows["pool"] == "all"].set_index("score")["kendall"]
    key = rows["score"].map(over_all).fillna(-np.inf)
    return rows.assign(key=-key).sort_values(["pool", "key", "score"], kind="stable").drop(columns="key")


def _draw_panel(axes: Axes, rows: pd.DataFrame) -> None:
    """Draw a dot with its interval for every score and rank correlation."""
    places = np.arange(len(rows), dtype=np.float64)
    axes.axvline(0.0, color=INK, linewidth=0.7, zorder=1.5)
    for rank, (label, colour, marker, shift) in LOOKS.items():
        middle, low, high = (rows[f"{rank}{end}"].to_numpy(float) for end in ("", "_low", "_high"))
        axes.hlines(places + shift, low, high, color=colour, linewidth=1.1)
        axes.plot(middle, places + shift, marker, color=colour, label=label, linestyle="none", markersize=3.6,
                  markerfacecolor=colour if rank == "kendall" else "white", markeredgewidth=0.9)  # fmt: skip
    for place in np.flatnonzero(rows[list(LOOKS)].isna().all(axis=1)):
        axes.text(0.98, float(place), "undefined", transform=axes.get_yaxis_transform(), fontsize=6, color=PALE,
                  ha="right", va="center")  # fmt: skip
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))


def _caption(scheme: str, points: pd.DataFrame, scores: list[str]) -> str:
    counts = [_range(points[name]) for name in ("pairs", "groups")]
    return (
        f"Rank correlation (dots) with 95 % interval (whiskers) between each of {len(scores)} difficulty scores, "
        f"computed from the distributions alone, and the measured sensitivity under scheme {scheme}; "
        f"n = {counts[0]} pairs of a tied group with a candidate, {counts[1]} groups. Left: over all pairs at once. "
        "Right: the mean over candidates of the correlation within one candidate. Filled circles: Kendall's tau; open "
        "diamonds: Spearman's rho. Scores are sorted by Kendall's tau over all pairs."
    )


def _range(counts: pd.Series) -> str:
    low, high = int(counts.min()), int(counts.max())
    return f"{low}" if low == high else f"{low} to {high}"
