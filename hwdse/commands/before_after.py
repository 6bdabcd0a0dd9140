"""What fitting a configuration changed: measured before and after, in pairs, beside full precision."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.table import Table

from hwdse.commands.deployed import Chosen, Restored
from hwdse.commands.screen import CONSOLE
from hwdse.evaluate import Evaluation, Evaluator, Interval, mean_interval, paired_interval
from hwdse.progress import Progress
from hwdse.quantize.fitted import Fitted
from hwdse.report.words import PERCENT, split_column

__all__ = ["before_and_after", "show_before_and_after"]

Scores = NDArray[np.float32]


def before_and_after(chosen: Chosen, restored: Restored, fitted: Fitted | None, progress: Progress) -> dict[str, Any]:
    """Return means and differences in pairs, with their 95 % intervals; without ``fitted`` nothing has changed."""
    network, config, evaluation = restored.network, restored.config, restored.inputs.evaluation
    progress.start("evaluate", 3)
    evaluator, scores = Evaluator(evaluation), []
    after = network if fitted is None else network.fitted(fitted)
    for subject, bits in ((network, None), (network, config), (after, config)):
        scores.append(evaluator.score(subject, bits).per_sample)
        progress.advance()
    return _record(chosen, evaluation, *scores)


def _record(chosen: Chosen, evaluation: Evaluation, full: Scores, before: Scores, after: Scores) -> dict[str, Any]:
    metric = evaluation.metric

    def mean(scores: Scores) -> dict[str, float]:
        return _bounds(mean_interval(scores, may_count=metric.may_count))

    def gain(scores: Scores, reference: Scores) -> dict[str, float]:
        return _bounds(paired_interval(reference, scores, may_count=metric.may_count))

    return {
        "device": chosen.device,
        "config_id": chosen.config_id,
        "bits": chosen.bits,
        "metric": metric.name,
        "samples": int(full.size),
        "full_precision": mean(full),
        "before": mean(before) | {"gain": gain(before, full)},
        "after": mean(after) | {"gain": gain(after, full)},
        "difference": gain(after, before),
    }


def _bounds(interval: Interval) -> dict[str, float]:
    return {name: value for name, value in asdict(interval).items() if name != "samples"}


def show_before_and_after(record: dict[str, Any], losses: tuple[float, float], *, of: str, how: str) -> None:
    """Print a record as a table, with the losses ``of`` some data that decided, and ``how`` it went."""
    scale = 100.0 if record["metric"] in PERCENT else 1.0
    words, _, _ = split_column(record["metric"])
    units = (", %", ", points") if scale > 1 else ("", "")
    table = Table(title=f"{record['device']} {record['config_id']}", box=SIMPLE_HEAD)
    for heading in ("", f"{words}{units[0]}", f"lost{units[1]}", f"{of} loss"):
        table.add_column(heading, justify="left" if not heading else "right")
    full, before, after = (record[name] for name in ("full_precision", "before", "after"))
    table.add_row("full precision", _words(full, scale), "", "")
    for name, row, loss in (("before", before, losses[0]), ("after", after, losses[1])):
        table.add_row(name, _words(row, scale), _number(-row["gain"]["mean"], scale), f"{loss:.4g}")
    CONSOLE.print(table)
    difference = record["difference"]
    CONSOLE.print(
        f"after - before: {_signed(difference['mean'], scale)} ({_signed(difference['low'], scale)} to "
        f"{_signed(difference['high'], scale)}){units[1].replace(',', '')} on {record['samples']} samples; {how}",
        markup=False,
        soft_wrap=True,
    )


def _words(row: dict[str, Any], scale: float) -> str:
    """Return a mean with its interval."""
    return f"{_number(row['mean'], scale)} ({_number(row['low'], scale)} to {_number(row['high'], scale)})"


def _number(value: float, scale: float) -> str:
    """Return a value as text, shares in percent; what rounds to zero has no sign."""
    return _signed(value, scale).removeprefix("+")


def _signed(value: float, scale: float) -> str:
    digits = 2 if scale > 1 else 4
    return f"{round(scale * value, digits) + 0.0:+.{digits}f}"
