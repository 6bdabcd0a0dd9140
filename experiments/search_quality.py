"""How much of a true front a search finds with how many measurements: all searches on a space that is known whole.

The truth are all 59,049 configurations of the DS-CNN (``kws_truth.py``). Every search sees the same predictions and the
same measured harm, and is judged by the hypervolume of all that it measured, as a share of the true one.
Run it with ``python experiments/search_quality.py``; it needs neither network nor data.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from kws_truth import Truth  # noqa: E402 (a neighbour, found through its folder)

from hwdse.files import write_csv  # noqa: E402
from hwdse.pareto import select_spread  # noqa: E402
from hwdse.report.drawing import new_figure, style  # noqa: E402
from hwdse.search import adaptive, annealing, greedy, nsga2, random_search, tpe  # noqa: E402
from hwdse.space import DesignSpace  # noqa: E402
from hwdse.study.device import LOSS  # noqa: E402

EVALUATIONS = 100
SEEDS = 5
COSTS = ("size_kib", "bops_g")
REPORTED = (20, 40, 60, 100)

Genes = NDArray[np.uint8]


def measured_by(search: Callable[..., object], *, blind: bool) -> Callable[[Truth, str, int], Genes]:
    """Return a function from truth, cost and seed to what ``search`` measured, in order."""

    def run(truth: Truth, cost: str, seed: int) -> Genes:
        asked: list[Genes] = []

        def measure(genes: Genes) -> NDArray[np.float64]:
            asked.append(np.array(genes))
            return truth.drop(genes)

        space, rng = _blind(truth.space) if blind else truth.space, np.random.default_rng(seed)
        # One random configuration first, or a search that draws nothing would do the same for every seed.
        initial = space.random(1, rng)
        search(space, (LOSS.name, cost), evaluations=EVALUATIONS, rng=rng, initial=initial, measure=measure)
        return np.concatenate(asked)

    return run


def greedy_walk(truth: Truth, cost: str, seed: int) -> Genes:
    """Return the points of the greedy walk by predicted harm per cost, those farthest from the others first."""
    del seed
    genes, _ = greedy.walk(truth.space, (LOSS.name, cost), order="harm_per_cost")
    points = truth.space.evaluate(genes)[:, [truth.space.column(c) for c in (LOSS.name, cost)]]
    order: list[int] = []
    for k in range(1, min(EVALUATIONS, len(genes)) + 1):
        order += [i for i in select_spread(points, k).tolist() if i not in order]
    return genes[order]


def _blind(space: DesignSpace) -> DesignSpace:
    """Return the space of somebody who has no predictions."""
    unary = space.unary.copy()
    unary[..., space.column(LOSS.name)] = 0.0
    return replace(space, unary=unary)


METHODS: dict[str, Callable[[Truth, str, int], Genes]] = {
    "adaptive": measured_by(adaptive.search, blind=False),
    "NSGA-II, seeded": measured_by(nsga2.search, blind=False),
    "greedy": greedy_walk,
    "TPE": measured_by(tpe.search, blind=True),
    "annealing": measured_by(annealing.search, blind=True),
    "NSGA-II, plain": measured_by(nsga2.search, blind=True),
    "random": measured_by(random_search.search, blind=True),
}


def curves(truth: Truth) -> pd.DataFrame:
    """Return the share of the true hypervolume by method, cost, seed and number of measurements."""
    rows = []
    jobs = [(name, cost, seed) for name in METHODS for cost in COSTS for seed in range(SEEDS)]
    for name, cost, seed in track(jobs, "searching", console=Console(stderr=True)):
        whole = truth.volume(truth.genes, cost)
        genes = METHODS[name](truth, cost, seed)
        rows += [(name, cost, seed, n, truth.volume(genes[:n], cost) / whole) for n in range(1, EVALUATIONS + 1)]
    return pd.DataFrame(rows, columns=["method", "cost", "seed", "evaluations", "share_of_true_hypervolume"])


def table(found: pd.DataFrame) -> pd.DataFrame:
    """Return mean, smallest and largest share over the seeds at a few numbers of measurements."""
    kept = found[found["evaluations"].isin(REPORTED)]
    spread = kept.groupby(["cost", "method", "evaluations"], sort=False)["share_of_true_hypervolume"]
    return spread.agg(["mean", "min", "max"]).reset_index()


def draw(found: pd.DataFrame) -> Figure:
    """Return the figure: share of the true hypervolume over measurements, mean and range over the seeds."""
    figure = new_figure(7.2, 3.4)
    panels = figure.subplots(1, len(COSTS), sharey=True)
    titles = {"size_kib": "Accuracy and size", "bops_g": "Accuracy and bit operations"}
    colours = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#888888")
    for axes, cost in zip(panels, COSTS, strict=True):
        for name, colour in zip(METHODS, colours, strict=True):
            rows = found[(found["cost"] == cost) & (found["method"] == name)]
            runs = rows.pivot_table(index="evaluations", columns="seed", values="share_of_true_hypervolume")
            axes.plot(runs.index, runs.mean(axis=1), color=colour, label=name, linewidth=1.3)
            axes.fill_between(runs.index, runs.min(axis=1), runs.max(axis=1), color=colour, alpha=0.15, linewidth=0)
        axes.axhline(1.0, color="black", linewidth=0.6, linestyle=":")
        axes.set(title=titles[cost], xlabel="Configurations measured", ylim=(0.4, 1.02), xlim=(0, EVALUATIONS))
    panels[0].set_ylabel("Share of the true hypervolume")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def main() -> None:
    """Search, print the table, and write table and figure beside the experiments."""
    found = curves(Truth.load())
    console = Console()
    text = table(found).to_string(index=False, float_format="{:.4f}".format)
    console.print(text, markup=False, soft_wrap=True)
    path = write_csv(HERE / "results" / "search_quality.csv", table(found))
    figure = HERE / "results" / "search_quality.png"
    with style():
        draw(found).savefig(figure, dpi=200)
    for written in (path, figure):
        console.print(str(written), markup=False, soft_wrap=True)


if __name__ == "__main__":
    main()
