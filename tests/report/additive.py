"""Makes the latency of a synthetic run what its tables of costs say: parts per group, switches, and a constant."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd

PRECISIONS = ("W2A8", "W4A4", "W4A8", "W8A8")
CONSTANT_MS, SWITCH_MS = 2.5, 0.05
LATENCY = "latency_ms_predicted"


def make_additive(run: Path, device: str, *, constants: bool = True, tie: bool = True) -> dict[str, float]:
    """Rewrite the tables of ``device`` and return the time of the switches by ``config_id``.

    Latency is compute, overhead and something around the layers per group, a constant, and a time for each change of
    precision from one layer to the next; size is per group. With ``tie`` the second layer belongs to the first's group.
    """
    rng = np.random.default_rng(3)
    layers = pd.read_csv(run / "layers.csv")
    groups = layers["layer"].tolist()
    if tie:
        groups[1] = groups[0]
    layers.assign(group=groups).to_csv(run / "layers.csv", index=False)
    parts = {
        (group, name): dict(zip(("compute", "overhead", "around"), rng.uniform(0.1, 1, 3), strict=True))
        for group in dict.fromkeys(groups)
        for name in PRECISIONS
    }
    _write_costs(run / device, parts)
    switches: dict[str, float] = {}
    for table in ("measured", "front"):
        path = run / device / f"{table}.csv"
        rows = pd.read_csv(path, dtype={"config_id": str}, keep_default_na=False)
        for i, bits in rows["bits"].items():
            words = bits.split()
            words[1] = words[0] if tie else words[1]
            chosen = dict(zip(groups, words, strict=True))
            changes = sum(a != b for a, b in pairwise(words))
            switches[rows.loc[i, "config_id"]] = SWITCH_MS * changes
            rows.loc[i, "bits"] = " ".join(words)
            rows.loc[i, LATENCY] = (
                CONSTANT_MS + SWITCH_MS * changes + sum(sum(parts[at].values()) for at in chosen.items())
            )
            rows.loc[i, "size_kib"] = sum(len(group) / 7 for group in chosen)
        rows.to_csv(path, index=False)
    if constants:
        path = run / "resolved.json"
        resolved = json.loads(path.read_text())
        known = resolved.get("constants", {}) | {device: {LATENCY: CONSTANT_MS, "size_kib": 0.0}}
        path.write_text(json.dumps(resolved | {"constants": known}))
    return switches


def _write_costs(folder: Path, parts: dict[tuple[str, str], dict[str, float]]) -> None:
    spent = [[*at, name, kinds[name]] for at, kinds in parts.items() for name in ("compute", "overhead")]
    columns = ["group", "candidate", "resource", "latency_ms"]
    pd.DataFrame(spent, columns=columns).to_csv(folder / "resources.csv", index=False)
    costs = [[*at, sum(kinds.values()), len(at[0]) / 7, "closed form"] for at, kinds in parts.items()]
    columns = ["group", "candidate", LATENCY, "size_kib", "latency_origin"]
    pd.DataFrame(costs, columns=columns).to_csv(folder / "costs.csv", index=False)
