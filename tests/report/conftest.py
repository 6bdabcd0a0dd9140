"""A synthetic run folder with the shape of a ResNet-20 study: four devices, additive costs, a plausible loss."""

import json
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hwdse.pareto import non_dominated

DEVICES = ("nvidia_t4", "mpic", "stm32h7a3", "gap9_ne16")
PRECISIONS = ("W2A8", "W4A4", "W4A8", "W8A8")
RunWriter = Callable[..., Path]


def layer_table(count: int) -> pd.DataFrame:
    """Return ``count`` layers; 22 of them are those of ResNet-20 with projection shortcuts."""
    stages, rows = (16, 32, 64), [("conv1", "conv", 442368, 432)]
    blocks = max(1, (count - 4) // 6)
    for stage, channels in enumerate(stages):
        for block in range(blocks):
            macs = 9 * channels * channels * (32 >> stage) ** 2
            for half in (1, 2):
                rows.append((f"layer{stage + 1}.{block}.conv{half}", "conv", macs, 9 * channels**2))  # noqa: PERF401  (nested loops read better)
    rows += [(f"layer{stage}.0.shortcut", "pointwise", 131072, 512 * stage) for stage in (2, 3)]
    rows += [(f"neck.{i}", "pointwise", 262144, 4096) for i in range(count - 1 - len(rows))]
    rows.append(("linear", "linear", 640, 640))
    table = pd.DataFrame(rows, columns=["layer", "op_class", "macs", "weight_count"])
    assert len(table) == count
    return table.assign(group=table["layer"], input_shape="16 32 32", output_shape="16 32 32")


def interval(value: np.ndarray, samples: int) -> np.ndarray:
    return 1.96 * np.sqrt(np.clip(value * (1 - value), 1e-6, None) / samples)


def configurations(rng: np.random.Generator, layers: pd.DataFrame, *, count: int, speed: float, quality: str):
    """Return measured configurations with costs and quality, the uniform ones first."""
    macs, weights = layers["macs"].to_numpy(), layers["weight_count"].to_numpy()
    share = rng.dirichlet(np.full(len(layers), 1.5))
    lean = rng.dirichlet((0.6, 0.6, 1.2, 1.2), size=count)
    choice = np.array([rng.choice(4, size=len(layers), p=p) for p in lean])
    choice[: len(PRECISIONS)] = np.arange(len(PRECISIONS))[:, None]
    choice[:, [0, -1]] = 3
    bits_w, bits_a = np.array([2, 4, 4, 8])[choice], np.array([8, 4, 8, 8])[choice]
    loss = (share * np.array([0.45, 0.06, 0.02, 0.0005])[choice] * rng.uniform(0.85, 1.15, choice.shape)).sum(axis=1)
    table = pd.DataFrame({"config_id": [f"{value:016x}" for value in rng.integers(0, 2**63, count)]})
    table["bits"] = [" ".join(PRECISIONS[i] for i in row) for row in choice]
    table["size_kib"] = (weights * bits_w).sum(axis=1) / 8 / 1024 + 3.1
    table["bops_g"] = (macs * bits_w * bits_a).sum(axis=1) / 1e9
    table["latency_ms_predicted"] = (
        speed * (macs * np.maximum(bits_w, 3.0) * bits_a**0.5).sum(axis=1) / 1e9 + 0.1 * speed
    )
    table["energy_mj_predicted"] = 0.3 * table["latency_ms_predicted"] + (macs * bits_w * bits_a).sum(axis=1) / 4e9
    table["activation_kib"] = 32.0
    table["loss_predicted"] = loss
    table["uniform"] = [*PRECISIONS, *[""] * (count - len(PRECISIONS))]
    table["within_noise"] = ["yes" if i % 7 == 5 else "" for i in range(count)]
    noise = rng.normal(0, 0.002, count)
    if quality == "kl":
        value, full = 5 * loss**2 + 1e-4 * rng.uniform(1, 2, count), 0.0
        half, drop_half, drop = 0.08 * value, 0.08 * value, value
    else:
        full = 0.9174
        value = np.where(loss < 0.12, full - 0.5 * loss + noise, np.maximum(0.1, full - 5 * loss))
        half, drop, drop_half = interval(value, 1452), full - value, interval(np.abs(full - value) + 0.01, 1452) * 0.8
    for column, middle, wide in ((f"{quality}_measured", value, half), (f"{quality}_drop_measured", drop, drop_half)):
        table[column], table[f"{column}_low"], table[f"{column}_high"] = middle, middle - wide, middle + wide
    return table.assign(samples=1452), full


def write_device(
    folder: Path, measured: pd.DataFrame, *, costs: Sequence[str], quality: str, points: int | None, pick: bool
):
    sign = 1.0 if quality == "kl" else -1.0
    objectives = measured[list(costs)].assign(quality=sign * measured[f"{quality}_measured"]).to_numpy()
    front = (
        measured[non_dominated(objectives)]
        .sort_values(costs[0])
        .drop(columns=["uniform", "within_noise", "loss_predicted"])
    )
    folder.mkdir()
    front.head(len(front) if points is None else points).to_csv(folder / "front.csv", index=False)
    measured.to_csv(folder / "measured.csv", index=False)
    if pick and points is None:
        row = front[front[f"{quality}_drop_measured"] < 0.01].iloc[0]
        (folder / "pick.json").write_text(json.dumps({"config_id": row["config_id"], "bits": row["bits"]}))


def write_evidence(run: Path) -> Path:
    """Write what else a run leaves: sensitivities, what bounds every layer, and the time of every evaluation."""
    rng = np.random.default_rng(11)
    layers, resolved = pd.read_csv(run / "layers.csv"), json.loads((run / "resolved.json").read_text())
    schemes = {device: f"scheme{place % 2}" for place, device in enumerate(resolved["devices"])}
    identity = {"loss": "kl", "recipe": "plain"}
    (run / "resolved.json").write_text(json.dumps(resolved | {"schemes": schemes, "identity": identity}))
    pairs = [
        (layer, macs, precision) for layer, macs in layers[["layer", "macs"]].to_numpy() for precision in PRECISIONS
    ]
    rows = [(f"scheme{s}", layer, p, rng.lognormal(-8, 2), 64) for s in (0, 1) for layer, _, p in pairs]
    sensitivity = pd.DataFrame(rows, columns=["scheme", "group", "candidate", "kl", "samples"])
    sensitivity.to_csv(run / "sensitivity.csv", index=False)
    database = sqlite3.connect(run / "evaluations.db")
    database.execute("CREATE TABLE evaluations (scheme TEXT, recipe TEXT, bits TEXT, seconds REAL)")
    for place, device in enumerate(resolved["devices"]):
        if not (run / device / "measured.csv").exists():
            continue
        bits = pd.read_csv(run / device / "measured.csv")["bits"]
        rows = [(schemes[device], "plain", text, 0.25 + 0.01 * i) for i, text in enumerate(bits)]
        database.executemany("INSERT INTO evaluations VALUES (?, ?, ?, ?)", rows)
        peak, bandwidth = 10.0 * 4**place, 2.0 * 3**place
        bounds = []
        for layer, macs, precision in pairs:
            rate = peak * {"W2A8": 2.0, "W4A4": 2.0, "W4A8": 1.5, "W8A8": 1.0}[precision]
            moved = int(macs / rng.uniform(1, 60)) + 1
            bound = max(macs / (rate * rng.uniform(0.3, 1.0)), moved / bandwidth) * 1e-6
            bounds.append(
                (
                    layer,
                    precision,
                    macs,
                    "sram",
                    moved,
                    bandwidth,
                    rate,
                    bound,
                    bound + 1e-4 * macs / peak,
                    "closed form",
                )
            )
        names = ["layer", "candidate", "macs", "memory", "memory_bytes", "memory_gb_per_s", "compute_gmac_per_s"]
        names += ["bound_ms_predicted", "latency_ms_predicted", "latency_origin"]
        pd.DataFrame(bounds, columns=names).to_csv(run / device / "roofline.csv", index=False)
    database.commit()
    database.close()
    return run


@pytest.fixture
def write_run(tmp_path: Path) -> RunWriter:
    """Return a function that writes a run folder; ``points`` cuts every front to so many rows."""

    def write(
        name: str = "run",
        *,
        layers: int = 22,
        quality: str = "top1",
        devices: Sequence[str] = DEVICES,
        points: int | None = None,
        configs: int = 120,
        minimize: Sequence[str] = ("latency_ms", "energy_mj", "size_kib"),
        pick: bool = True,
        predicted_quality: bool = True,
        extra: dict[str, object] | None = None,
        evidence: bool = False,
    ) -> Path:
        run = write_synthetic_run(
            tmp_path / name, layers=layers, quality=quality, devices=devices, points=points, configs=configs,
            minimize=minimize, pick=pick, predicted_quality=predicted_quality, extra=extra or {},
        )  # fmt: skip
        return write_evidence(run) if evidence else run

    return write


def write_synthetic_run(
    run: Path, *, layers: int, quality: str, devices: Sequence[str], points: int | None, configs: int,
    minimize: Sequence[str], pick: bool, predicted_quality: bool, extra: dict[str, object],
) -> Path:  # fmt: skip
    run.mkdir(parents=True)
    rng = np.random.default_rng(7)
    table = layer_table(layers)
    table.to_csv(run / "layers.csv", index=False)
    columns = {"latency_ms": "latency_ms_predicted", "energy_mj": "energy_mj_predicted", "size_kib": "size_kib"}
    columns |= {"bops": "bops_g"}
    costs = [columns[name] for name in minimize]
    full = 0.0
    for place, device in enumerate(devices):
        speed = 0.12 * 6.0**place
        measured, full = configurations(rng, table, count=configs, speed=speed, quality=quality)
        write_device(run / device, measured, costs=costs, quality=quality, points=points, pick=pick)
        cloud = configurations(rng, table, count=1500, speed=speed, quality=quality)[0]
        known = cloud[f"{quality}_measured"] + rng.normal(0, 0.003, 1500) * (quality != "kl")
        cloud["quality_predicted"] = known if predicted_quality else np.nan
        keep = ["bits", *costs, "loss_predicted", "quality_predicted"]
        cloud[keep].to_csv(run / device / "predicted.csv", index=False)
    goal = {"maximize": ["accuracy"], "minimize": list(minimize)}
    if quality == "kl":
        goal = {"maximize": [], "minimize": ["kl", *minimize]}
    resolved = {
        "name": "resnet20-cifar10",
        "seed": 7,
        "devices": list(devices),
        "objectives": goal,
        "quality": quality,
        "columns": {("kl" if quality == "kl" else "accuracy"): f"{quality}_measured"} | columns,
        "full_precision": {"quality": full, "low": 0.9032, "high": 0.9316, "samples": 1452, "size_kib": 1055.0},
        "device_notes": {"mpic": "order of magnitude: rates from a datasheet, no table was measured"},
    }
    (run / "resolved.json").write_text(json.dumps(resolved | extra))
    return run
