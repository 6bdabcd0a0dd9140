"""Which mixtures beat each uniform precision of ResNet-20, in accuracy, latency and size at once, on two chips.

``python experiments/uniform_precisions.py`` explores ``resnet20_cifar10.toml`` and ``resnet20_ne16.toml``, weights
rounded to nearest, unless the runs are there, and puts beside every uniform precision the most accurate measured
mixture that costs no more. Data and weights are found under $HWDSE_DATA.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Console

from hwdse.commands.explore import Options, explore_experiment
from hwdse.files import write_csv
from hwdse.pareto import non_dominated
from hwdse.report.drawing import new_figure, style

HERE = Path(__file__).parent
CASES = {"nvidia_t4": "resnet20_cifar10.toml", "gap9_ne16": "resnet20_ne16.toml"}
"""Chips, each with its experiment."""

EVALUATIONS, SECONDS = 320, 3600.0
QUALITY = "top1_measured"
COSTS = ("latency_ms_predicted", "size_kib")
LEAST_SHOWN = 70.0
LABELS = {"latency_ms_predicted": "Latency (ms), predicted", "size_kib": "Size (KiB)"}


def measured(folder: Path, device: str) -> pd.DataFrame:
    """Return what a run measured, the uniform precisions by their name in ``uniform``, mixtures with an empty one."""
    table = pd.read_csv(folder / device / "measured.csv", dtype={"uniform": str}, keep_default_na=False)
    numbers = [c for c in map(str, table) if c.startswith("top1") or c in COSTS]
    return table.astype(dict.fromkeys(numbers, float))


def dominance(device: str, table: pd.DataFrame) -> pd.DataFrame:
    """Return every uniform precision with the most accurate mixture that costs no more in anything."""
    mixtures = table[table["uniform"] == ""]
    rows = []
    for _, uniform in table[table["uniform"] != ""].iterrows():
        no_dearer = (mixtures[list(COSTS)] <= uniform[list(COSTS)].astype(float)).all(axis=1)
        best = mixtures[no_dearer].sort_values([QUALITY, *COSTS], ascending=[False, True, True]).head(1)
        row = {"device": device, "uniform": uniform["uniform"]}
        for column in (QUALITY, f"{QUALITY}_low", f"{QUALITY}_high", *COSTS, "samples"):
            row[column] = uniform[column]
            row[f"mixture_{column}"] = best[column].iloc[0] if len(best) else None
        row["is_dominated"] = bool(len(best)) and float(best[QUALITY].iloc[0]) >= float(uniform[QUALITY])
        rows.append(row)
    return pd.DataFrame(rows)


def draw(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Return the figure: accuracy over each cost, front of the mixtures and uniform precisions, 95 % intervals."""
    figure = new_figure(7.2, 2.6 * len(tables) + 0.3)
    panels = figure.subplots(len(tables), len(COSTS), sharey="row", squeeze=False)
    for row, (device, table) in zip(panels, tables.items(), strict=True):
        for axes, cost in zip(row, COSTS, strict=True):
            _panel(axes, table, cost)
        row[0].set(ylabel=f"{device}\nTop-1 (%), measured")
    for axes, cost in zip(panels[-1], COSTS, strict=True):
        axes.set_xlabel(LABELS[cost])
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def _panel(axes: Axes, table: pd.DataFrame, cost: str) -> None:
    """Draw one chip and cost: what keeps more than seven of ten right."""
    percent = table.assign(**{c: 100 * table[c] for c in (QUALITY, f"{QUALITY}_low", f"{QUALITY}_high")})
    percent = percent[percent[QUALITY] > LEAST_SHOWN]
    uniform, mixtures = percent[percent["uniform"] != ""], percent[percent["uniform"] == ""]
    front = mixtures[non_dominated(mixtures[[cost, QUALITY]].to_numpy(float) * [1.0, -1.0])]
    parts = ((front, "#0072B2", "o", "mixtures, measured front"), (uniform, "#D55E00", "s", "uniform"))
    for rows, colour, marker, label in parts:
        ends = [rows[QUALITY] - rows[f"{QUALITY}_low"], rows[f"{QUALITY}_high"] - rows[QUALITY]]
        axes.errorbar(
            rows[cost], rows[QUALITY], yerr=ends, label=label, fmt=marker, color=colour, ms=3.5, elinewidth=0.6
        )
    for i, (_, row) in enumerate(uniform.sort_values([cost, QUALITY]).iterrows()):
        place, below = (row[cost], row[QUALITY]), (4, -10 - 9 * (i % 2))
        axes.annotate(row["uniform"], place, xytext=below, textcoords="offset points", fontsize=7)


def main() -> None:
    """Explore, print the table, and write table and figure beside the experiments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/uniform_precisions"), help="folder of the runs")
    out = parser.parse_args().out
    tables = {}
    for device, experiment in CASES.items():
        folder = out / device
        if not (folder / "resolved.json").is_file():
            options = Options(
                folder, (), seed=None, evaluations=EVALUATIONS, seconds=SECONDS, resume=False, recipe="nearest"
            )
            explore_experiment(HERE / experiment, options, as_json=False)
        tables[device] = measured(folder, device)
    found = pd.concat([dominance(device, table) for device, table in tables.items()], ignore_index=True)
    console = Console()
    text = found.to_string(index=False, float_format="{:.4f}".format)
    console.print(text, markup=False, highlight=False, soft_wrap=True)
    figure = HERE / "results" / "uniform_precisions.png"
    with style():
        draw(tables).savefig(figure, dpi=200)
    for written in (write_csv(HERE / "results" / "uniform_precisions.csv", found), figure):
        console.print(str(written), markup=False, soft_wrap=True)


if __name__ == "__main__":
    main()
