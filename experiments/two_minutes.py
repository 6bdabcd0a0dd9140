"""What an exploration of ResNet-20 for four chips knows after two minutes, against what a long one finds.

``python experiments/two_minutes.py`` explores ``resnet20_cifar10.toml`` twice, its weights rounded to nearest, within
120 seconds and with 320 evaluations, and compares the hypervolume of accuracy, latency, energy and size with that of
both together. Runs that are there are not repeated; data and weights are found under $HWDSE_DATA.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.console import Console

from hwdse.commands.explore import Options, explore_experiment
from hwdse.files import write_csv
from hwdse.pareto import hypervolume
from hwdse.study import Budget

HERE = Path(__file__).parent
COSTS = ("latency_ms_predicted", "energy_mj_predicted", "size_kib")
DROP = "top1_drop_measured"
LARGEST_DROP = 0.2
"""Harm of the reference point of hypervolumes; that of a cost is 5 % above the largest measured."""

BUDGETS = {"two_minutes": Budget(evaluations=10_000, seconds=120.0), "long": Budget(evaluations=320, seconds=3600.0)}

Floats = NDArray[np.float64]


def explore(out: Path) -> dict[str, Path]:
    """Return the run folders by name, exploring where there is none yet."""
    runs = {name: out / name for name in BUDGETS}
    for name, folder in runs.items():
        if not (folder / "resolved.json").is_file():
            explore_experiment(HERE / "resnet20_cifar10.toml", _options(folder, BUDGETS[name]), as_json=False)
    return runs


def _options(out: Path, budget: Budget) -> Options:
    return Options(
        out=out,
        devices=(),
        seed=None,
        evaluations=budget.evaluations,
        seconds=budget.seconds,
        resume=False,
        recipe="nearest",
    )


def shares(runs: dict[str, Path], device: str) -> dict[str, float | int | str]:
    """Return each run's share of the hypervolume that all know together, and how many configurations it measured."""
    points = {name: _points(folder, device) for name, folder in runs.items()}
    everything = np.concatenate(list(points.values()))
    low, high = everything.min(0), 1.05 * everything.max(0)
    low[0], high[0] = min(low[0], 0.0), LARGEST_DROP

    def volume(of: Floats) -> float:
        return hypervolume((of - low) / (high - low), np.ones(of.shape[1]))

    known = volume(everything)
    row: dict[str, float | int | str] = {"device": device}
    for name, found in points.items():
        row |= {f"{name}_configurations": len(found), f"{name}_share_of_known_hypervolume": volume(found) / known}
    return row


def _points(folder: Path, device: str) -> Floats:
    """Return drop and costs of what a run measured, ``(n, 4)``."""
    return pd.read_csv(folder / device / "measured.csv")[[DROP, *COSTS]].to_numpy(np.float64)


def main() -> None:
    """Explore, print the table and write it beside the experiments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/two_minutes"), help="folder of the runs")
    runs = explore(parser.parse_args().out)
    devices = list(json.loads((runs["long"] / "resolved.json").read_text(encoding="utf-8"))["devices"])
    found = pd.DataFrame([shares(runs, device) for device in devices])
    console = Console()
    text = found.to_string(index=False, float_format="{:.4f}".format)
    console.print(text, markup=False, highlight=False, soft_wrap=True)
    path = write_csv(HERE / "results" / "two_minutes.csv", found)
    console.print(str(path), markup=False, soft_wrap=True)


if __name__ == "__main__":
    main()
