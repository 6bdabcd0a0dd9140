"""What a recipe makes of the front: ResNet-20 and the DS-CNN, rounded to nearest and with weights from Gram matrices.

``python experiments/recipe_fronts.py`` explores ``resnet20_widths.toml`` and ``kws_widths.toml`` with either recipe,
unless the runs are there, draws the four fronts, and puts side by side the most accurate configurations within the
size of weights of so many bits on average. Data and weights are found under $HWDSE_DATA.
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
from hwdse.report.tables import RunTables

HERE = Path(__file__).parent
DEVICE = "gap9_ne16"
NETWORKS = {"ResNet-20": "resnet20_widths.toml", "DS-CNN": "kws_widths.toml"}
RECIPES = {"nearest": "rounded to nearest", "gram": "Gram reconstruction (default)"}
EVALUATIONS, SECONDS = 200, 1800.0
QUALITY, SIZE = "top1_measured", "size_kib"
COSTS = {SIZE: "Size (KiB)", "latency_ms_predicted": "Latency (ms), predicted"}
LOOKS = {"nearest": ("#D55E00", "s"), "gram": ("#0072B2", "o")}
AVERAGE_BITS = (2.0, 2.5, 3.0, 4.0, 6.0)

Table = dict[str, pd.DataFrame]


def explored(out: Path) -> dict[str, Table]:
    """Return what was measured by network and recipe, exploring where there is no run yet."""
    tables: dict[str, Table] = {}
    for network, experiment in NETWORKS.items():
        for recipe in RECIPES:
            folder = out / f"{Path(experiment).stem}-{recipe}"
            if not (folder / "resolved.json").is_file():
                options = Options(
                    folder, (), seed=None, evaluations=EVALUATIONS, seconds=SECONDS, resume=False, recipe=recipe
                )
                explore_experiment(HERE / experiment, options, as_json=False)
            run = RunTables.load(folder)
            tables.setdefault(network, {})[recipe] = run.results[DEVICE].measured.assign(full_precision=run.reference)
    return tables


def front(table: pd.DataFrame, cost: str) -> pd.DataFrame:
    """Return the configurations that nothing measured beats in ``cost`` and accuracy, cheapest first."""
    kept = non_dominated(table[[cost, QUALITY]].to_numpy(float) * [1.0, -1.0])
    return table[kept].sort_values(cost)


def side_by_side(tables: Mapping[str, Table]) -> pd.DataFrame:
    """Return the most accurate configuration of each recipe within every size."""
    rows = []
    for network, by_recipe in tables.items():
        uniform = by_recipe["nearest"].set_index("uniform")[SIZE]
        narrow, wide = uniform["W2A8"], uniform["W8A8"]
        for bits in AVERAGE_BITS:
            size = narrow + (wide - narrow) * (bits - 2.0) / 6.0
            row = {"network": network, "average_bits": bits, SIZE: size}
            for recipe, table in by_recipe.items():
                best = table[table[SIZE] <= size * (1.0 + 1e-9)].nlargest(1, QUALITY).iloc[0]
                row |= {f"{recipe}_{c}": best[c] for c in (QUALITY, f"{QUALITY}_low", f"{QUALITY}_high", "config_id")}
            rows.append(row)
    return pd.DataFrame(rows)


def draw(tables: Mapping[str, Table]) -> Figure:
    """Return the figure: accuracy over each cost, both fronts and the uniform precisions."""
    figure = new_figure(7.2, 2.7 * len(tables) + 0.3)
    panels = figure.subplots(len(tables), len(COSTS), sharey="row", squeeze=False)
    for row, (network, by_recipe) in zip(panels, tables.items(), strict=True):
        for axes, (cost, label) in zip(row, COSTS.items(), strict=True):
            _panel(axes, by_recipe, cost)
            axes.set_xlabel(label)
        samples = int(by_recipe["gram"]["samples"].iloc[0])
        row[0].set(ylabel=f"{network}\nTop-1 (%), measured, n = {samples:,}")
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def _panel(axes: Axes, by_recipe: Table, cost: str) -> None:
    """Draw one network and cost, from chance to full precision."""
    for recipe, table in by_recipe.items():
        colour, marker = LOOKS[recipe]
        best = front(table, cost)
        low, high = (100.0 * best[f"{QUALITY}_{end}"] for end in ("low", "high"))
        axes.fill_between(best[cost], low, high, step="post", color=colour, alpha=0.15, linewidth=0)
        axes.step(best[cost], 100.0 * best[QUALITY], where="post", color=colour, linewidth=1.0)
        axes.plot(best[cost], 100.0 * best[QUALITY], marker, color=colour, ms=3.2, label=f"front, {RECIPES[recipe]}")
        uniform = table[table["uniform"] != ""]
        axes.plot(
            uniform[cost], 100.0 * uniform[QUALITY], marker, mfc="none", mec=colour, ms=6.0,
            label=f"uniform, {RECIPES[recipe]}",
        )  # fmt: skip
    axes.axhline(
        100.0 * by_recipe["gram"]["full_precision"].iloc[0], color="0.4", ls="--", lw=0.8, label="full precision"
    )
    for _, row in by_recipe["gram"][by_recipe["gram"]["uniform"] != ""].iterrows():
        place = (row[cost], 100.0 * row[QUALITY])
        axes.annotate(row["uniform"].removesuffix("A8"), place, (0, 6), textcoords="offset points", ha="center")


def main() -> None:
    """Explore, print the table, and write table and figure beside the experiments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/recipe_fronts"), help="folder of the runs")
    tables = explored(parser.parse_args().out)
    found = side_by_side(tables)
    console = Console()
    text = found.to_string(index=False, float_format="{:.4f}".format)
    console.print(text, markup=False, highlight=False, soft_wrap=True)
    figure = HERE / "results" / "recipe_fronts.png"
    with style():
        draw(tables).savefig(figure, dpi=200)
    for written in (write_csv(HERE / "results" / "recipe_fronts.csv", found), figure):
        console.print(str(written), markup=False, soft_wrap=True)


if __name__ == "__main__":
    main()
