"""``hwdse export``: a configuration of a run as ONNX, with its encodings beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hwdse.commands.deployed import choose, deploy
from hwdse.commands.screen import CONSOLE, print_json, watched
from hwdse.deploy.onnx import write_onnx
from hwdse.errors import InputError
from hwdse.files import check_file, write_json

__all__ = ["export"]

KIB = 1024


def export(
    run: Path,
    device: str | None,
    out: Path,
    *,
    config_id: str | None,
    maximum: Sequence[str],
    experiment: Path | None,
    use_tuned: bool,
    as_json: bool,
) -> None:
    """Write a configuration as ``out``, and its encodings as ``<out>.encodings.json``."""
    if out.is_dir() or out.suffix != ".onnx":
        raise InputError(f"expected a file to write that ends in .onnx, got {out}; correct --out")
    check_file(out)
    chosen = choose(run, device, config_id=config_id, maximum=maximum, as_json=as_json)
    with watched() as progress:
        deployment, _, is_tuned = deploy(chosen, experiment, progress, use_tuned=use_tuned)
    write_onnx(out, deployment.model)
    encodings = write_json(out.with_suffix(".encodings.json"), deployment.encodings)
    size_kib = out.stat().st_size / KIB
    if as_json:
        print_json(
            {
                "device": chosen.device,
                "config_id": chosen.config_id,
                "bits": chosen.bits,
                "tuned": is_tuned,
                "onnx": str(out),
                "encodings": str(encodings),
                "file_kib": size_kib,
                "stored_kib": deployment.stored_kib,
                "predicted": deployment.predicted,
            }
        )
        return
    predicted, stored = deployment.predicted["size_kib"], deployment.stored_kib
    tuned = " (tuned weights)" if is_tuned else ""
    CONSOLE.print(
        f"{chosen.device} {chosen.config_id}{tuned}: {size_kib:.1f} KiB, of which numbers {stored:.1f} KiB "
        f"(predicted {predicted:.1f} KiB)",
        markup=False,
    )
    for path in (out, encodings):
        CONSOLE.print(str(path), markup=False, soft_wrap=True)
