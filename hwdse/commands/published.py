"""``hwdse profiles fit`` and ``validate``: cost models held against published figures of whole networks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from hwdse.commands.screen import CONSOLE, Watcher, print_json, watched
from hwdse.errors import InputError
from hwdse.files import check_file, check_folder, write_csv, write_text
from hwdse.graph import LayerGraph
from hwdse.hardware import HardwareProfile, load_profile, profile_paths
from hwdse.networks import layer_graph
from hwdse.published import PublishedRow, published_path, read_rows
from hwdse.published.result import Fitted, Validation, fitted_profile, hold_against
from hwdse.published.write import write_profile
from hwdse.report.drawing import save, style
from hwdse.report.validation import Panel, draw_validation

__all__ = ["FitOptions", "fit", "graphs_beside", "panels", "validate"]


@dataclass(frozen=True)
class FitOptions:
    """What ``hwdse profiles fit`` was asked for.

    Attributes
    ----------
    name
        Profile name or file.
    rows
        CSV file of published figures; by default the one beside the profile.
    coefficients
        Names; empty for those that the rows say most about.
    uniform_only
        Fit to rows in which all layers have one precision, and hold the result against the others too.
    out
        File to write the profile to.
    """

    name: str
    rows: Path | None
    coefficients: tuple[str, ...]
    uniform_only: bool
    out: Path | None


def fit(options: FitOptions, *, as_json: bool) -> None:
    """Fit a profile's coefficients to published figures, show how well it does, and write it if asked to.

    Raises
    ------
    InputError
        If there are no rows, or one has a fault.
    """
    if options.out is not None:
        check_file(options.out)
    profile = load_profile(options.name)
    rows, folder = _rows(options.name, options.rows)
    kept = [row for row in rows if row.is_uniform or not options.uniform_only]
    rest = [row for row in rows if row not in kept]
    with watched() as progress:
        graph_of = graphs_beside(folder, progress, rows)
        progress.start("fit", 1)
        fitted = fitted_profile(profile, kept, graph_of, names=options.coefficients or None, claim_rows=rest)
        progress.advance()
    if options.out is not None:
        _write(options.out, options.name, fitted.profile)
    if as_json:
        print_json(_facts(fitted.validation) | {"coefficients": dict(fitted.values)})
        return
    _show_fit(fitted)
    if options.out is not None:
        CONSOLE.print(str(options.out), markup=False, soft_wrap=True)


def validate(names: Sequence[str], *, rows: Path | None, out: Path | None, as_json: bool) -> None:
    """Hold profiles against published figures; with ``out`` write the table and the figures there.

    Raises
    ------
    InputError
        If a profile that was named has no rows, or rows are given for more than one profile.
    """
    if rows is not None and len(names) != 1:
        raise InputError(f"expected one profile with --rows, got {len(names)}; name the one that the rows are of")
    if out is not None:
        check_folder(out)
    wanted = list(names) or [name for name in profile_paths() if published_path(name) is not None]
    given = [(load_profile(name), *_rows(name, rows)) for name in wanted]
    found = []
    with watched() as progress:
        graphs = [graphs_beside(folder, progress, own) for _, own, folder in given]
        progress.start("validate", len(given))
        for (profile, own, _), graph_of in zip(given, graphs, strict=True):
            found.append(hold_against(profile, own, graph_of))
            progress.advance()
    if out is not None:
        _write_validation(found, out)
    if as_json:
        print_json({"profiles": [_facts(one) for one in found]})
        return
    _show(found)


def _show(found: Sequence[Validation]) -> None:
    """Print the errors of profiles, and which rows they do not predict."""
    CONSOLE.print(_table(found))
    for one in found:
        for failed in one.unpriceable:
            CONSOLE.print(f"{one.profile.name}: not predicted: {failed.reason}", markup=False, soft_wrap=True)


def _rows(name: str, path: Path | None) -> tuple[tuple[PublishedRow, ...], Path]:
    """Return the rows of a profile and the folder that factories in them are relative to."""
    found = path or published_path(name)
    if found is None:
        raise InputError(
            f"expected published rows of {name}, got none beside its profile; give a CSV file with --rows, columns "
            "network, precision, latency_ms, energy_mj, kind, source, note"
        )
    return read_rows(found), found.parent


def graphs_beside(folder: Path, progress: Watcher, rows: Sequence[PublishedRow] = ()) -> Callable[[str], LayerGraph]:
    """Return a function that gives the layers of a network: a reference network, or one made by two factories.

    Networks of ``rows`` that are made by factories are captured here.
    """
    own = list(dict.fromkeys(row.network for row in rows if " " in row.network))
    captured: dict[str, LayerGraph] = {}
    if own:
        from hwdse.capture import capture
        from hwdse.factories import call_factory

        progress.start("capture", len(own))
        for name in own:
            model, example = (call_factory(part, folder) for part in name.split())
            captured[name] = capture(model, example)
            progress.advance()
    return lambda name: captured[name] if name in captured else layer_graph(name)


def _write(out: Path, name: str, profile: HardwareProfile) -> None:
    """Write a fitted profile as ``out``; its name is the file's."""
    if out.suffix != ".toml":
        raise InputError(f"expected a file that ends in .toml, got {out}; rename it")
    original = (profile_paths().get(name) or Path(name)).read_text(encoding="utf-8")
    named = HardwareProfile(profile.spec.model_copy(update={"name": out.stem}), profile.table)
    write_profile(out, named, original)


def _show_fit(fitted: Fitted) -> None:
    """Print the coefficients and the errors."""
    table = Table(box=SIMPLE_HEAD, title=f"{fitted.profile.name}: coefficients", min_width=60)
    table.add_column(Text("[calibration]"))
    table.add_column("Value", justify="right")
    for key, value in fitted.values.items():
        table.add_row(key, f"{value:.4g}" + (" us" if key.startswith("us_") else ""))
    CONSOLE.print(table)
    _show([fitted.validation])


def _table(found: Sequence[Validation]) -> Table:
    """Return the errors of profiles, one row each."""
    table = Table(box=SIMPLE_HEAD, title="Predicted against published latencies", padding=(0, 1, 0, 0))
    table.add_column("Profile", overflow="fold", min_width=22)
    for heading in ("Rows", "Nets", "Error\nas is", "Left\nout", "Rank", "90 %\nfactor", "Inside", "Energy"):
        table.add_column(heading, justify="right", no_wrap=True)
    for one in found:
        left, energy = one.left_out, one.energy
        factor = one.profile.uncertainty("latency_ms_predicted")
        table.add_row(
            one.profile.name,
            str(one.shipped.rows),
            str(one.networks),
            _percent(one.shipped.median_error),
            _percent(left.median_error) if left else "",
            _number((left or one.shipped).spearman),
            f"{factor:.2f}" if factor is not None else "none",
            _percent(one.inside),
            _percent(energy.median_error) if energy else "",
        )
    table.caption = (
        "Errors are medians. Left out: each network predicted by a fit that saw nothing of it; rank correlation, "
        "inside (published latencies in the profile's 90 % interval) and energy are those too where there are any."
    )
    return table


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if math.isfinite(share) else ""


def _number(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else ""


def _facts(one: Validation) -> dict[str, Any]:
    """Return the errors of a profile as plain data; what is not known is ``None``."""
    left, energy = one.left_out, one.energy
    facts: dict[str, float | None] = {
        "median_error": one.shipped.median_error,
        "spearman": one.shipped.spearman,
        "left_out_median_error": left.median_error if left else None,
        "left_out_spearman": left.spearman if left else None,
        "latency_factor": one.profile.uncertainty("latency_ms_predicted"),
        "inside": one.inside,
        "energy_median_error": energy.median_error if energy else None,
    }
    plain = {key: value if value is not None and math.isfinite(value) else None for key, value in facts.items()}
    unpriceable = [{"network": u.row.network, "precision": u.row.label, "reason": u.reason} for u in one.unpriceable]
    counts = {"profile": one.profile.name, "rows": one.shipped.rows, "networks": one.networks}
    return {**counts, **plain, "not_predicted": unpriceable}


def panels(found: Sequence[Validation], quantity: str) -> list[Panel]:
    """Return one panel per profile that predicts ``latency_ms`` or ``energy_mj`` of at least one row."""
    made = []
    for one in found:
        table = one.table
        left = f"{quantity}_left_out_predicted"
        predicted = table[left].where(table[left].notna(), table[f"{quantity}_predicted"])
        rows = table[["network", "precision"]].assign(published=table[f"{quantity}_published"], predicted=predicted)
        rows = rows[rows["published"].notna() & (rows["predicted"] > 0)]
        if rows.empty:
            continue
        error = (rows["predicted"] / rows["published"] - 1.0).abs().median()
        held = "left out" if table[left].notna().any() else "as it is"
        words = f"{100 * error:.0f} % median\n{held}, n = {len(rows)}"
        made.append(Panel(one.profile.name, rows, one.profile.uncertainty(f"{quantity}_predicted"), words))
    return made


def _write_validation(found: Sequence[Validation], out: Path) -> None:
    """Write the rows and the figures to a folder."""
    import pandas as pd

    write_csv(out / "validation.csv", pd.concat([one.table for one in found], ignore_index=True))
    method = (
        "Left out: predicted by a fit of the profile's coefficients that saw nothing of the network; as it is: by the "
        "profile, of fewer than 3 networks or without a fit."
    )
    captions = ["# Predicted against published"]
    with style():
        for quantity, unit in (("latency", "ms"), ("energy", "mJ")):
            drawn = panels(found, f"{quantity}_{unit.lower()}")
            if drawn:
                name = f"validation_{quantity}"
                drawing = draw_validation(drawn, name=name, quantity=quantity, unit=unit, method=method)
                save(drawing, out)
                captions.append(f"**{drawing.name}.** {drawing.caption}")
    write_text(out / "captions.md", "\n\n".join([*captions, ""]))
