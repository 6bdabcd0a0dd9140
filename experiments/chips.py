"""The catalogue of chips held against published latencies and energies, each network left out in turn.

Run it with ``python experiments/chips.py``; it needs no data, a few seconds, and writes ``results/chips.csv``,
``results/chips_rows.csv``, ``results/chips_mixed.csv`` and the figures ``results/chips_latency.png`` and
``results/chips_energy.png``. With ``--write`` it also writes the fitted sections into the profiles.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.console import Console
from scipy.stats import kendalltau

from hwdse.commands.published import panels
from hwdse.files import write_csv
from hwdse.graph import LayerGraph
from hwdse.hardware import HardwareProfile, load_profile, profile_paths
from hwdse.networks import layer_graph
from hwdse.published import PublishedRow, published_path, read_rows
from hwdse.published.result import Validation, fitted_profile, hold_against, with_claim
from hwdse.published.score import COVERAGE, score
from hwdse.published.write import write_profile
from hwdse.report.drawing import save, style
from hwdse.report.validation import draw_validation

HERE = Path(__file__).parent
RESULTS = HERE / "results"
CONSOLE = Console(highlight=False, soft_wrap=True)

FEWEST_NETWORKS = 3
MICROCONTROLLER = ("W8A8",)
"""What is published is int8 alone; the rates of narrower and of floating-point layers have sources of their own, which
a factor of all rates would move too."""

COEFFICIENTS: dict[str, tuple[str, ...]] = {
    "stm32l4r5": MICROCONTROLLER,
    "stm32u575": MICROCONTROLLER,
    "stm32h7a3": MICROCONTROLLER,
    "ra8d1": MICROCONTROLLER,
    "stm32h747": ("W8A8", "depthwise", "us_per_layer", "us_per_inference"),
    # Peak and link have sources; what a launch takes has none.
    "google_edge_tpu": ("us_per_layer",),
    "stm32n6": ("compute", "depthwise"),
    # Three precisions, of which floating point is published for every network.
    **dict.fromkeys(
        ("snapdragon_8gen3", "snapdragon_8elite", "snapdragon_8elite_gen5"),
        ("compute", "traffic", "us_per_layer", "Wfp16Afp16", "W8A16"),
    ),
}
"""Coefficients where the default is not what the chip suggests."""


FITTED = ("nvidia_t4",)
"""Profiles whose own figures were derived from their published rows."""


@dataclass(frozen=True, eq=False)
class Chip:
    """A profile with its published rows, and what became of it.

    Attributes
    ----------
    before
        Held against its rows without calibration.
    after
        Fitted and held against them, or as before where there are too few networks to fit.
    """

    profile: HardwareProfile
    before: Validation
    after: Validation


def chip(name: str) -> Chip:
    """Return a profile, held against its published rows and fitted to them."""
    path = published_path(name)
    assert path is not None
    rows = read_rows(path)
    given = load_profile(name)
    bare = HardwareProfile(given.spec.model_copy(update={"calibration": None}), given.table)
    before = hold_against(bare, rows, layer_graph)
    if before.networks < FEWEST_NETWORKS:
        claimed = with_claim(given, rows, layer_graph, basis="fitted" if name in FITTED else "unfitted")
        return Chip(claimed, before, hold_against(claimed, rows, layer_graph))
    fitted = fitted_profile(bare, rows, layer_graph, names=COEFFICIENTS.get(name))
    return Chip(fitted.profile, before, fitted.validation)


def summary(chips: Sequence[Chip]) -> pd.DataFrame:
    """Return one row per chip: errors without a fit, and of networks left out."""
    rows = []
    for one in chips:
        left, energy = one.after.left_out, one.after.energy
        rows.append(
            {
                "profile": one.profile.name,
                "rows": one.before.shipped.rows,
                "networks": one.before.networks,
                "coefficients": " ".join(sorted(_coefficients(one.profile))),
                "median_error_unfitted": one.before.shipped.median_error,
                "spearman_unfitted": one.before.shipped.spearman,
                "median_error_left_out": left.median_error if left else np.nan,
                "mean_error_left_out": left.mean_error if left else np.nan,
                "spearman_left_out": left.spearman if left else np.nan,
                "latency_factor": one.profile.uncertainty("latency_ms_predicted"),
                "inside": one.after.inside,
                "energy_median_error": energy.median_error if energy else np.nan,
                "energy_rows": energy.rows if energy else 0,
                "unpriceable_rows": len(one.after.unpriceable),
            }
        )
    return pd.DataFrame(rows)


def _coefficients(profile: HardwareProfile) -> list[str]:
    calibration = profile.spec.calibration
    if calibration is None:
        return []
    stated = calibration.model_dump(exclude_none=True)
    return [*(key for key in stated if key not in ("precisions", "energy")), *stated.get("precisions", {})]


def unfitted_factor(chips: Sequence[Chip]) -> tuple[float, int]:
    """Return the factor that 90 % of unfitted predictions are off by at most, and of how many.

    It is what a profile without published figures may claim, by analogy. Microcontrollers' priors are the achieved
    rates of their cores, so they are left out; every chip has the same weight.
    """
    errors, weights = [], []
    for one in chips:
        if one.profile.spec.kind == "mcu":
            continue
        own = np.abs(np.log(one.before.shipped_ms / one.before.terms.latencies_ms))
        errors.append(own)
        weights.append(np.full(len(own), 1.0 / len(own)))
    values, shares = np.concatenate(errors), np.concatenate(weights)
    order = np.argsort(values)
    cumulated = np.cumsum(shares[order]) / shares.sum()
    return float(np.exp(values[order][np.searchsorted(cumulated, COVERAGE)])), len(values)


def mixed(graph_of: Callable[[str], LayerGraph]) -> pd.DataFrame:
    """Return the published mixed-precision configurations of the T4, predicted by a fit to the uniform ones."""
    path = published_path("nvidia_t4")
    assert path is not None
    rows = read_rows(path)
    uniform = [row for row in rows if row.is_uniform]
    rest: list[PublishedRow] = [row for row in rows if not row.is_uniform]
    fitted = fitted_profile(load_profile("nvidia_t4"), uniform, graph_of, names=("us_per_layer", "fp32"))
    held = hold_against(fitted.profile, rest, graph_of)
    CONSOLE.print("T4, fitted to 6 uniform rows:", {key: round(value, 3) for key, value in dict(fitted.values).items()})
    for network in np.unique(held.terms.networks):
        own = held.terms.networks == network
        predicted, published = held.shipped_ms[own], held.terms.latencies_ms[own]
        found = score(predicted, published)
        CONSOLE.print(
            f"  {network}: n = {own.sum()}, MAPE {found.mean_error:.1%}, worst {found.worst_error:.1%}, Spearman "
            f"{found.spearman:.3f}, Kendall {kendalltau(predicted, published).statistic:.3f}, wrong pairs "
            f"{_wrong_pairs(predicted, published)}"
        )
    CONSOLE.print(f"  both: MAPE {held.shipped.mean_error:.1%}")
    configurations = [row.note.split(" of the range")[0] for row in held.terms.rows]
    return held.table[["network", "latency_ms_published", "latency_ms_predicted"]].assign(configuration=configurations)


def _wrong_pairs(predicted: NDArray[np.float64], published: NDArray[np.float64]) -> int:
    """Return how many pairs that differ in the published latency are predicted the other way round."""
    first, second = np.triu_indices(len(predicted), 1)
    return int(
        (np.sign(predicted[first] - predicted[second]) * np.sign(published[first] - published[second]) < 0).sum()
    )


def main() -> None:
    """Fit, hold against, print and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write the fitted sections into the profiles")
    write = parser.parse_args().write
    chips = [chip(name) for name in profile_paths() if published_path(name) is not None]
    table = summary(chips)
    shown = ["profile", "rows", "networks", "median_error_unfitted", "median_error_left_out", "spearman_left_out"]
    shown += ["latency_factor", "inside", "energy_median_error"]
    CONSOLE.print(table[shown].to_string(index=False, float_format="%.3f"), soft_wrap=True)
    factor, count = unfitted_factor(chips)
    CONSOLE.print(f"90 % of {count} unfitted predictions are within a factor of {factor:.2f} (equal weight per chip)")
    write_csv(RESULTS / "chips.csv", table)
    write_csv(RESULTS / "chips_rows.csv", pd.concat([one.after.table for one in chips], ignore_index=True))
    write_csv(RESULTS / "chips_mixed.csv", mixed(layer_graph))
    method = "Networks left out: predicted by a fit that saw nothing of them; as it is: by the profile."
    with style():
        for quantity, unit in (("latency", "ms"), ("energy", "mJ")):
            drawn = panels([one.after for one in chips], f"{quantity}_{unit.lower()}")
            name = f"chips_{quantity}"
            drawing = draw_validation(drawn, name=name, quantity=quantity, unit=unit, method=method)
            for path in save(drawing, RESULTS):
                if path.suffix != ".png":
                    path.unlink()
    if write:
        for one in chips:
            path = profile_paths()[one.profile.name]
            write_profile(path, one.profile, path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
