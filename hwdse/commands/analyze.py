"""``hwdse analyze``: tables and figures that need no budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from rich.table import Table

from hwdse.analysis.difficulty import Predictor
from hwdse.analysis.operands import Operand
from hwdse.analysis.sensitivity import Sensitivity
from hwdse.capture import Capture
from hwdse.commands.inputs import load, profile_files, question_of
from hwdse.commands.screen import CONSOLE, print_json, watched
from hwdse.errors import InputError
from hwdse.evaluate.batches import check_batch
from hwdse.experiment import load_experiment
from hwdse.files import check_folder, is_left_over, write_csv
from hwdse.formats import Precision, Scheme
from hwdse.hardware import HardwareProfile, load_profile
from hwdse.progress import Progress
from hwdse.quantize.network import QuantizedNetwork, program_of
from hwdse.quantize.observe import observe
from hwdse.report.write_analysis import count_analysis_figures, write_analysis_report
from hwdse.study.analysis import (
    bits_needed_table,
    channel_statistics_table,
    difficulty_table,
    histograms_table,
    operand_formats,
    sampled_sensitivity,
    score_correlations,
    statistics_table,
)
from hwdse.study.prepare import Question
from hwdse.study.tables import layers_table, sensitivity_table

__all__ = ["analyze"]

TABLES = (
    "layers.csv",
    "statistics.csv",
    "channel_statistics.csv",
    "histograms.csv",
    "difficulty.csv",
    "bits_needed.csv",
    "sensitivity.csv",
    "correlation.csv",
)
FIGURES = "figures"


def analyze(path: Path, out: Path, *, as_json: bool) -> None:
    """Write what distributions and single groups say about a network: tables, then figures.

    Raises
    ------
    InputError
        If ``out`` is a file, or a folder with anything else than an earlier analysis.
    """
    experiment = load_experiment(path)
    known = {*TABLES, FIGURES}
    if out.exists() and not (out.is_dir() and all(p.name in known or is_left_over(p) for p in out.iterdir())):
        raise InputError(f"expected an empty folder or an analysis, got other files in {out}; name another one")
    check_folder(out)
    profiles = list(map(load_profile, profile_files(experiment, path.parent)))
    question = question_of(experiment)
    with watched() as progress:
        inputs, captured = load(experiment, path.parent, progress)
        for batch in inputs.calibration:
            check_batch(captured, batch, "calibration")
        written = any(profile.scheme.quantized_outputs for profile in profiles)
        program = program_of(captured, question.recipe, inputs.calibration, written=written)
        progress.start("calibrate", len(inputs.calibration))
        streams = observe(program, inputs.calibration, channels=True, on_batch=progress.advance)
        analyses: list[_SchemeAnalysis] = []
        for scheme, candidates in _schemes(profiles, question).items():
            analyses.append(
                _SchemeAnalysis.of(
                    QuantizedNetwork(
                        program, scheme=scheme, streams=streams, recipe=question.recipe, batches=inputs.calibration
                    ),
                    inputs.calibration,
                    candidates,
                    units=analyses[0].predictor.operands if analyses else None,
                    seed=question.seed,
                    progress=progress,
                )
            )
        _write(out, captured, analyses, progress)
    figures = sorted(p for p in (out / FIGURES).iterdir() if p.suffix == ".png")
    if as_json:
        print_json({**{name: str(out / name) for name in TABLES}, "figures": [str(p) for p in figures]})
        return
    for analysis in analyses:
        CONSOLE.print(_ranking(analysis.correlation, analysis.network.scheme.key))
    CONSOLE.print(f"tables: {out}", markup=False, soft_wrap=True)
    CONSOLE.print(f"{len(figures)} figures: {out / FIGURES}", markup=False, soft_wrap=True)


def _schemes(profiles: Sequence[HardwareProfile], question: Question) -> dict[Scheme, tuple[Precision, ...]]:
    """Return the schemes of the devices with the candidates that one of them supports.

    Raises
    ------
    InputError
        If a device supports none.
    """
    found: dict[Scheme, tuple[Precision, ...]] = {}
    for profile in profiles:
        candidates = profile.candidates(question.candidates)
        if not candidates:
            offered, given = (", ".join(map(str, p)) for p in (profile.precisions, question.candidates))
            raise InputError(f"expected precisions that {profile.name} supports ({offered}), got {given}; add one")
        found[profile.scheme] = tuple(dict.fromkeys([*found.get(profile.scheme, ()), *candidates]))
    return found


@dataclass(frozen=True)
class _SchemeAnalysis:
    """What is known under one scheme."""

    network: QuantizedNetwork
    predictor: Predictor
    sensitivity: Sensitivity
    difficulty: pd.DataFrame
    bits_needed: pd.DataFrame
    correlation: pd.DataFrame

    @classmethod
    def of(
        cls,
        network: QuantizedNetwork,
        batches: Sequence[Any],
        candidates: tuple[Precision, ...],
        *,
        units: Mapping[str, Operand] | None,
        seed: int,
        progress: Progress,
    ) -> _SchemeAnalysis:
        predictor = Predictor.of(network)
        formats = operand_formats(network, candidates)
        progress.start("difficulty", len(formats))
        difficulty = difficulty_table(predictor, formats, units=units, on_operand=progress.advance)
        bits_needed = bits_needed_table(predictor, formats)
        network.find(candidates, progress=progress)
        sensitivity = sampled_sensitivity(network, batches, candidates, progress=progress)
        correlation = score_correlations(network, predictor, sensitivity, seed=seed)
        return cls(network, predictor, sensitivity, difficulty, bits_needed, correlation)


def _write(out: Path, captured: Capture, analyses: Sequence[_SchemeAnalysis], progress: Progress) -> None:
    """Write the tables, then the figures, which see nothing else."""
    first = analyses[0]
    tables = (
        layers_table(captured),
        statistics_table(first.network),
        channel_statistics_table(first.network),
        histograms_table(first.network, first.predictor.operands),
        pd.concat([a.difficulty for a in analyses], ignore_index=True),
        pd.concat([a.bits_needed for a in analyses], ignore_index=True),
        sensitivity_table({a.network.scheme.key: a.sensitivity for a in analyses}),
        pd.concat([a.correlation for a in analyses], ignore_index=True),
    )
    for name, table in zip(TABLES, tables, strict=True):
        write_csv(out / name, table)
    progress.start("figures", count_analysis_figures(out))
    write_analysis_report(out, on_figure=progress.advance)


def _ranking(correlation: pd.DataFrame, scheme: str) -> Table:
    """Return the scores by how well they rank, over all pairs and within one candidate."""
    table = Table(
        title=f"Kendall's rank correlation with the measured KL divergence\n{scheme}",
        box=None,
        padding=(0, 2, 0, 0),
        title_justify="left",
    )
    table.add_column("score", no_wrap=True)
    for heading in ("tau, all pairs (95 %)", "tau, one candidate (95 %)"):
        table.add_column(heading, justify="right", no_wrap=True)
    pools = {pool: rows.set_index("score") for pool, rows in correlation.groupby("pool")}
    for score in correlation.loc[correlation["pool"] == "all", "score"]:
        cells = [str(score)]
        for pool in ("all", "within"):
            row = pools[pool].loc[score]
            if pd.isna(row["kendall"]):
                cells.append("none")
            else:
                cells.append(f"{row['kendall']:.2f} ({row['kendall_low']:.2f} to {row['kendall_high']:.2f})")
        table.add_row(*cells)
    return table
