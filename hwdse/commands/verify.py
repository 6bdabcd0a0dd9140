"""``hwdse verify``: a configuration of a run through the runtime itself, prediction beside measurement."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from hwdse.commands.deployed import Chosen, choose, deploy
from hwdse.commands.screen import CONSOLE, fail, print_json, watched
from hwdse.deploy.verify import Verification
from hwdse.deploy.verify import verify as verify_deployment
from hwdse.errors import InputError
from hwdse.files import check_folder, inside, write_json

__all__ = ["VERIFICATION_FAILED", "verify"]

VERIFICATION_FAILED = 4


def verify(
    run: Path,
    device: str | None,
    *,
    config_id: str | None,
    threads: int,
    experiment: Path | None,
    use_tuned: bool,
    as_json: bool,
) -> None:
    """Verify a configuration, write ``<run>/<device>/verify.json`` and show it; exit 4 if something does not hold.

    The network and its data come from the factories of ``experiment``: what a run folder names is never called.

    Raises
    ------
    InputError
        If no experiment is named.
    """
    chosen = choose(run, device, config_id=config_id, as_json=as_json)
    if experiment is None:
        raise InputError(
            "expected the experiment file whose factories make the network and its data, got none, and verify calls no "
            "code that a run folder names; add --experiment and the file"
        )
    check_folder(inside(run, chosen.device))
    with watched() as progress:
        deployment, inputs, is_tuned = deploy(chosen, experiment, progress, use_tuned=use_tuned)
        found = verify_deployment(deployment, inputs.evaluation, progress, threads=threads)
    if not is_tuned:
        found = replace(found, recorded=_recorded(chosen, found))
    record = {"device": chosen.device, "config_id": chosen.config_id, "bits": chosen.bits, "tuned": is_tuned}
    record |= {"threads": threads, **found.record()}
    write_json(inside(run, chosen.device, "verify.json"), record)
    if as_json:
        print_json(record)
    else:
        CONSOLE.print(f"{chosen.device} {chosen.config_id}: {found.verdict}", markup=False, soft_wrap=True)
        CONSOLE.print(_table(chosen, found, record))
        if found.note:
            CONSOLE.print(found.note, markup=False)
    for sentence in [] if as_json else found.failures:
        fail(sentence)
    if found.failures:
        raise typer.Exit(VERIFICATION_FAILED)


def _recorded(chosen: Chosen, found: Verification) -> float | None:
    """Return the quality that the run measured, if it was on the same samples."""
    row = chosen.measured
    return float(row[f"{found.metric}_measured"]) if int(row["samples"]) == found.measured.samples else None


def _table(chosen: Chosen, found: Verification, record: dict[str, Any]) -> Table:
    """Return expectation beside measurement, a row each."""
    tuned = ", tuned weights," if record["tuned"] else ""
    table = Table(title=f"{chosen.device} {chosen.config_id}{tuned} in {record['runtime']}", box=SIMPLE_HEAD)
    for heading in ("", "predicted", "measured"):
        table.add_column(heading, justify="left" if not heading else "right")
    agreement, quality = found.agreement, found.metric
    table.add_row(f"codes, {agreement.codes} compared", "within 1", f"within {agreement.largest_lsb}")
    table.add_row("equal codes", "", f"{agreement.equal:.4%}")
    table.add_row(f"same top-1, {agreement.rows} rows", "", f"{agreement.top1:.2%}")
    table.add_row("output, largest difference", "", f"{agreement.relative:.2e}")
    if found.executed is not None:
        right = sum(one.is_as_requested for one in found.executed)
        table.add_row("layers as requested", str(len(found.executed)), str(right))
    latency = "not comparable" if found.latency_ms is None else f"{found.latency_ms:.4g}"
    table.add_row(f"latency (ms), batch of {found.batch}", f"{found.latency_ms_predicted:.4g}", latency)
    table.add_row("size (KiB), numbers", f"{found.size_kib:.1f}", f"{found.stored_kib:.1f}")
    table.add_row("size (KiB), file", "", f"{found.file_kib:.1f}")
    measured = found.measured
    if found.recorded is not None:
        table.add_row(f"{quality}, recorded and simulated", f"{found.recorded:.4f}", f"{found.simulated.mean:.4f}")
    table.add_row(
        quality, f"{found.simulated.mean:.4f}", f"{measured.mean:.4f} ({measured.low:.4f} to {measured.high:.4f})"
    )
    drop = found.drop
    table.add_row(f"{quality}, simulated - measured", "0", f"{drop.mean:.4f} ({drop.low:.4f} to {drop.high:.4f})")
    return table
