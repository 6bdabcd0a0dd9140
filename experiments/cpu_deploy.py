"""Do chosen configurations of ResNet-20 run on this processor as predicted: accuracy, size, latency of a whole front.

``python experiments/cpu_deploy.py`` measures this processor (`hwdse measure`), explores ``resnet20_cpu.toml`` with the
profile, and puts the measured front and the uniform precisions through the runtime itself, smallest first (`hwdse
verify`). What is in the output folder is not done again; data and weights are found under $HWDSE_DATA.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
from rich.console import Console

from hwdse.commands.deployed import Chosen, deploy
from hwdse.commands.screen import watched
from hwdse.deploy.verify import verify
from hwdse.files import write_csv

HERE = Path(__file__).parent
EXPERIMENT = HERE / "resnet20_cpu.toml"
DEVICE = "this_cpu"


def prepare(out: Path) -> Path:
    """Return the run folder, after measuring and exploring where that was not done."""
    profiles, run = out / "profiles", out / "run"
    os.environ["HWDSE_PROFILES"] = str(profiles)
    hwdse = str(Path(sys.executable).with_name("hwdse"))
    commands = {
        profiles / f"{DEVICE}.toml": [
            "measure",
            "--experiment",
            str(EXPERIMENT),
            "--name",
            DEVICE,
            "--out",
            str(profiles),
        ],
        run / "resolved.json": ["explore", str(EXPERIMENT), "--out", str(run), "--recipe", "nearest"],
    }
    for result, command in commands.items():
        if not result.is_file():
            subprocess.run([hwdse, *command], check=True)  # noqa: S603 (ours)
    return run


def chosen(run: Path) -> pd.DataFrame:
    """Return the measured front and the uniform precisions, smallest first, each configuration once."""
    measured = pd.read_csv(
        run / DEVICE / "measured.csv", dtype={"config_id": str, "uniform": str}, keep_default_na=False
    )
    front = pd.read_csv(run / DEVICE / "front.csv", dtype={"config_id": str})
    kept = measured[measured["config_id"].isin(front["config_id"]) | (measured["uniform"] != "")]
    return kept.assign(is_on_front=kept["config_id"].isin(front["config_id"])).sort_values("size_kib")


def verified(run: Path) -> pd.DataFrame:
    """Return what the runtime made of each chosen configuration, a row each."""
    rows = []
    for _, row in chosen(run).iterrows():
        with watched() as progress:
            picked = Chosen(run, DEVICE, row.to_dict())
            deployment, inputs, _ = deploy(picked, EXPERIMENT, progress, use_tuned=False)
            found = verify(deployment, inputs.evaluation, progress)
        kept = {"config_id": row["config_id"], "uniform": row["uniform"], "is_on_front": row["is_on_front"]}
        rows.append(kept | {"integer_layers": row["bits"].split().count("W8A8")} | found.record())
    table = pd.DataFrame(rows)
    agreement, audit = (pd.json_normalize(table.pop(name).tolist()) for name in ("agreement", "audit"))
    table["same_top1"], table["largest_lsb"] = agreement["top1"], agreement["largest_lsb"]
    table["mismatches"], table["failures"] = audit["mismatches"].map(len), table["failures"].map(len)
    return table.drop(columns=["note"])


def main() -> None:
    """Do everything, print the table and write it beside the experiments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/cpu_deploy"), help="folder of profile and run")
    table = verified(prepare(parser.parse_args().out))
    shown = ["config_id", "uniform", "size_kib", "stored_kib", "latency_ms_predicted", "latency_ms_measured"]
    shown += ["top1_simulated", "top1_measured", "top1_difference_low", "top1_difference_high", "same_top1", "failures"]
    console = Console()
    text = table[shown].to_string(index=False, float_format="{:.4f}".format)
    console.print(text, markup=False, highlight=False, soft_wrap=True)
    console.print(str(write_csv(HERE / "results" / "cpu_deploy.csv", table)), markup=False, soft_wrap=True)


if __name__ == "__main__":
    main()
