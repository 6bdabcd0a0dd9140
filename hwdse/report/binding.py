"""What holds a device back: the share of the latency by resource, and how full each memory is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from rich.table import Table

from hwdse.errors import RunFolderError
from hwdse.report.drawing import DOUBLE_INCHES, Drawing, new_figure, sentence_figure
from hwdse.report.tables import DeviceTables, RunTables
from hwdse.report.terminal import new_table

__all__ = ["Binding", "binding_of", "binding_table", "draw_binding"]

FULL = 0.9
LATENCY = "latency_ms_predicted"
BESIDE = "beside"
LEAST_SHARE = 1e-6
NOT_RECORDED = "not recorded; explore again"
NAMES = {
    "compute": "compute",
    "overhead": "overhead per layer",
    "table": "measured table, not divided",
    "beside": "per inference and between layers",
}
MEMORIES = {"activation_kib": "activations", "memory_kib": "weights and activations", "size_kib": "weights"}
COLOURS = {"compute": "#0072B2", "overhead": "#BBBBBB", "table": "#000000", "beside": "#777777"}
LEVELS = ("#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F3C8D", "#8C6D31")


@dataclass(frozen=True)
class Binding:
    """What a configuration spends its time on, and what it fills.

    Attributes
    ----------
    device, config_id
        Whose.
    shares
        Resource to its share of the latency of all layers, largest first; ``None`` where the run did not record it.
    fullness
        Column of a memory limit to (value, limit); empty where the device has none.
    """

    device: str
    config_id: str
    shares: Mapping[str, float] | None
    fullness: Mapping[str, tuple[float, float]]

    @property
    def resource(self) -> str | None:
        """What binds: the fullest memory if more than 90 % of it is taken, else the largest share of the latency."""
        full = {column: value / limit for column, (value, limit) in self.fullness.items() if value > FULL * limit}
        if full:
            return max(full, key=lambda column: full[column])
        return next(iter(self.shares), None) if self.shares else None

    @property
    def facts(self) -> dict[str, Any]:
        """Everything as plain data."""
        return {
            "device": self.device,
            "config_id": self.config_id,
            "binding": self.resource,
            "latency_shares": None if self.shares is None else dict(self.shares),
            "memories": {
                column: {"used": value, "limit": limit, "share": value / limit}
                for column, (value, limit) in self.fullness.items()
            },
        }


def binding_of(tables: RunTables, device: DeviceTables, row: pd.Series) -> Binding:
    """Return what binds the configuration in ``row`` of a front with all of its columns.

    Raises
    ------
    RunFolderError
        If the table of resources lacks a choice of the configuration.
    """
    limits = {column: limit for column, limit in device.limits.items() if column in row.index}
    fullness = {column: (float(row[column]), float(limit)) for column, limit in limits.items()}
    latency = float(row[LATENCY]) if LATENCY in row.index else None
    return Binding(device.device, str(row["config_id"]), _shares(tables, device, str(row["bits"]), latency), fullness)


def _shares(tables: RunTables, device: DeviceTables, bits: str, latency_ms: float | None) -> dict[str, float] | None:
    """Return the share of the latency by resource, largest first; what no layer takes is a resource of its own."""
    if device.resources is None:
        return None
    chosen = dict(zip(tables.layers["group"], bits.split(), strict=True))
    keys = pd.MultiIndex.from_frame(device.resources[["group", "candidate"]])
    missing = [f"{group} at {candidate}" for group, candidate in chosen.items() if (group, candidate) not in keys]
    if missing:
        raise RunFolderError(
            f"expected every choice of a configuration in {tables.run / device.device / 'resources.csv'}, got none "
            f"for {missing[0]}; explore again"
        )
    sums = device.resources[keys.isin(list(chosen.items()))].groupby("resource")["latency_ms"].sum()
    beside = latency_ms - float(sums.sum()) if latency_ms is not None else 0.0
    if latency_ms is not None and beside > LEAST_SHARE * latency_ms:
        sums = pd.concat([sums, pd.Series({BESIDE: beside})])
    shares = (sums / sums.sum() if sums.sum() > 0 else sums).sort_values(ascending=False, kind="stable")
    return {str(name): float(share) for name, share in shares.items() if share > 0}


def binding_table(tables: RunTables, found: Sequence[Binding]) -> Table:
    """Return what binds on each device, for a terminal."""
    table = new_table(f"{tables.name}: what binds")
    table.add_column("Device", overflow="fold")
    table.add_column("Configuration", overflow="fold")
    table.add_column("Binding", overflow="fold")
    table.add_column("Latency by resource", overflow="fold")
    table.add_column("Memory", overflow="fold")
    for each in found:
        table.add_row(each.device, each.config_id, _binding_words(each), _share_words(each), _memory_words(each))
    table.caption = (
        "Shares of the predicted latency. A memory binds where it is more than 90 % full."
        if found
        else "No device has a configuration to look at."
    )
    return table


def _binding_words(each: Binding) -> str:
    resource = each.resource
    if resource is None:
        return "not known"
    return _memory_name(resource) if resource in each.fullness else NAMES.get(resource, resource)


def _memory_name(column: str) -> str:
    return f"memory for {MEMORIES.get(column, column)}"


def _capacity(kib: float) -> str:
    """Return a size in the unit that keeps it short.

    >>> _capacity(512.0), _capacity(16777216.0)
    ('512 KiB', '16 GiB')
    """
    units = ("KiB", "MiB", "GiB", "TiB")
    place = 0
    while kib >= 10240 and place < len(units) - 1:
        kib, place = kib / 1024, place + 1
    return f"{kib:.4g} {units[place]}"


def _share_words(each: Binding) -> str:
    if each.shares is None:
        return NOT_RECORDED
    return "\n".join(f"{100 * share:.0f} % {NAMES.get(name, name)}" for name, share in each.shares.items())


def _memory_words(each: Binding) -> str:
    lines = [
        f"{_percent(value / limit)} of {_capacity(limit)}, {MEMORIES.get(column, column)}"
        for column, (value, limit) in each.fullness.items()
    ]
    return "\n".join(lines) or "no limit"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.01 else "< 1 %"


def draw_binding(tables: RunTables, found: Sequence[Binding]) -> Drawing:
    """Return the figure of what binds: the latency by resource, and how full each memory is."""
    points = _points(found)
    known = [each for each in found if each.shares is not None]
    if not known:
        sentence = f"Latency by resource: {NOT_RECORDED}." if found else "No device has a configuration to look at."
        return Drawing("compare-binding", sentence_figure(sentence, tables.name), points, sentence)
    figure = new_figure(DOUBLE_INCHES, 1.15 + 0.24 * len(found))
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(1.5, 1))
    _draw_shares(left, found)
    _draw_fullness(right, found)
    left.set_yticks(range(len(found)), [each.device for each in found])
    left.set_ylim(len(found) - 0.4, -0.6)
    figure.suptitle(f"{tables.name}: what binds the cheapest configuration of each device")
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    caption = (
        f"Share of the predicted latency of {tables.name} by resource, and use of each memory limit, for the cheapest "
        "configuration within the limits of each device. Dashed: 90 % full."
    )
    return Drawing("compare-binding", figure, points, caption)


def _draw_shares(axes: Axes, found: Sequence[Binding]) -> None:
    names = list(dict.fromkeys(name for each in found for name in each.shares or ()))
    levels = [name for name in names if name not in COLOURS]
    order = [name for name in ("compute", *levels, "overhead", "table") if name in names]
    left = np.zeros(len(found))
    for name in order:
        width = np.array([100 * (each.shares or {}).get(name, 0.0) for each in found])
        colour = COLOURS.get(name) or LEVELS[levels.index(name) % len(LEVELS)]
        words = NAMES.get(name, f"bandwidth of {name}")
        axes.barh(range(len(found)), width, left=left, height=0.62, color=colour, label=words, zorder=2)
        left += width
    for place, each in enumerate(found):
        if each.shares is None:
            axes.text(1, place, NOT_RECORDED, va="center", fontsize=6)
    axes.set_xlim(0, 100)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("Share of the latency (%, predicted)")


def _draw_fullness(axes: Axes, found: Sequence[Binding]) -> None:
    for place, each in enumerate(found):
        count = max(len(each.fullness), 1)
        for i, (column, (value, limit)) in enumerate(each.fullness.items()):
            y = place + 0.62 * ((i + 0.5) / count - 0.5)
            axes.barh(y, 100 * value / limit, height=0.55 / count, color="#56B4E9", zorder=2)
            words = f"{MEMORIES.get(column, column)}: {_percent(value / limit)} of {_capacity(limit)}"
            start = 100 * value / limit if value < 0.4 * limit else 0.0  # in a long bar, or behind a short one
            axes.text(start + 1.5, y, words, va="center", fontsize=5, zorder=3)
    axes.axvline(100 * FULL, color="#222222", linewidth=0.8, linestyle=(0, (4, 2)), zorder=1)
    axes.set_xlim(0, 100)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("Memory in use (%)")


def _points(found: Sequence[Binding]) -> pd.DataFrame:
    """Return one row per device and resource or memory."""
    rows = [
        {"device": each.device, "config_id": each.config_id, "kind": "latency", "name": name, "share": share}
        for each in found
        for name, share in (each.shares or {}).items()
    ]
    rows += [
        {"device": each.device, "config_id": each.config_id, "kind": "memory", "name": name, "share": value / limit}
        for each in found
        for name, (value, limit) in each.fullness.items()
    ]
    return pd.DataFrame(rows, columns=["device", "config_id", "kind", "name", "share"])
