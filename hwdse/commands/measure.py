"""``hwdse measure``: what this processor's runtimes do with layers, as a hardware profile."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.table import Table
from torch import nn

from hwdse.capture import Capture, capture
from hwdse.commands.inputs import silenced
from hwdse.commands.screen import CONSOLE, print_json, watched
from hwdse.commands.whole import Network, fit_whole
from hwdse.cost import unpriced
from hwdse.cost.calibrate import FEWEST, LatencyFit
from hwdse.deploy.holds import BLOCK_SIZES
from hwdse.errors import InputError
from hwdse.experiment import load_experiment
from hwdse.factories import call_factory
from hwdse.files import check_folder
from hwdse.formats import Precision
from hwdse.graph import LayerGraph
from hwdse.hardware import HardwareProfile, load_profile
from hwdse.hardware.measure.energy import PowercapMeter
from hwdse.hardware.measure.grid import standard_grid
from hwdse.hardware.measure.machine import Machine, this_machine
from hwdse.hardware.measure.profile import NAME, Content, Factors, is_container, latencies_us, write_profile
from hwdse.hardware.measure.runtime import Runtime, find_runtime
from hwdse.hardware.measure.series import NO_INT8_PRODUCTS
from hwdse.hardware.measure.series import measure as measure_series
from hwdse.hardware.measure.subject import LayerShape, Subject
from hwdse.hardware.measure.table import Measurement, Record, locked
from hwdse.hardware.measure.timing import Harness, pinned
from hwdse.progress import Progress

__all__ = ["DEFAULT_PRECISIONS", "Options", "measure"]

DEFAULT_PRECISIONS = ("fp32", "W8A8", "W4A8", "W2A8")
EXPORTED = "onnxruntime"
"""The runtime that runs exported networks."""
WHOLE = 6
"""How many times longer a whole network is timed than an entry."""
FP32, W8A8 = Precision.parse("fp32"), Precision.parse("W8A8")


@dataclass(frozen=True)
class Options:
    """What the command line asks for.

    Attributes
    ----------
    model, example
        Factories of a network and of its example inputs; both or none.
    experiment
        Experiment file that names them.
    grid
        True for the standard grid of shapes.
    name, out
        Profile's name and the folder it is written to.
    threads, runtimes, precisions, block_size
        What to measure.
    seconds_per_entry
        Seconds of one entry in one pass.
    allow_other_machine
        Keep rows of another machine or version in the record.
    end_to_end
        Configurations of the whole network to calibrate with; 0: none.
    """

    model: str | None
    example: str | None
    experiment: Path | None
    grid: bool
    name: str
    out: Path
    threads: int
    runtimes: tuple[str, ...]
    precisions: tuple[str, ...]
    block_size: int
    seconds_per_entry: float
    allow_other_machine: bool
    end_to_end: int = 0


@dataclass
class _Outcome:
    """What was measured, for the screen."""

    profiles: list[Path] = field(default_factory=list)
    rows: list[Measurement] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    fits: dict[str, LatencyFit] = field(default_factory=dict)


def measure(options: Options, *, as_json: bool) -> None:
    """Measure layers, write the record and the profiles made of it, and show the times.

    Raises
    ------
    InputError
        If something asked for cannot be measured; see the sentence.
    """
    started = time.perf_counter()
    _check(options)
    runtimes = [find_runtime(name) for name in options.runtimes]
    versions = {runtime.name: runtime.version() for runtime in runtimes}
    precisions = [Precision.parse(text) for text in dict.fromkeys(options.precisions)]
    machine = this_machine()
    outcome = _Outcome()
    with watched() as progress:
        network = _network(options)
        shapes = list(standard_grid()) if network is None else _shapes(network.graph)
        plans = {runtime.name: _plan(runtime, shapes, precisions, options.block_size) for runtime in runtimes}
        path = options.out / f"{options.name}_measurements.csv"
        with locked(options.out / f".{options.name}_measurements.lock"), pinned(options.threads):
            record, meter = Record(path), _meter(progress)
            if not options.allow_other_machine:
                record.check(machine, versions)
            _check_own(options, record)
            for runtime in runtimes:
                session = _Session(runtime, options, machine, record, progress, meter, network)
                session.measure(plans[runtime.name], outcome)
                name = options.name if runtime is runtimes[0] else f"{options.name}_{runtime.name}"
                session.write(name, precisions, outcome)
    seconds = time.perf_counter() - started
    if as_json:
        print_json(_facts(outcome, path, seconds))
    else:
        _show(outcome, path, seconds)


def _check(options: Options) -> None:
    """Refuse options that go together with nothing."""
    given = [options.model is not None, options.experiment is not None, options.grid]
    if sum(given) != 1 or (options.model is None) != (options.example is None):
        raise InputError(
            "expected either --model with --example, or --experiment, or --grid, got "
            f"{'none' if not any(given) else 'another combination'}; name one source of layers"
        )
    if not NAME.match(options.name):
        raise InputError(f"expected a profile name of a-z, 0-9, _, . and -, got {options.name!r}; change --name")
    if options.block_size not in BLOCK_SIZES:
        raise InputError(f"expected blocks of {', '.join(map(str, BLOCK_SIZES))}, got {options.block_size}")
    if not 0 < options.seconds_per_entry <= 10:
        raise InputError(f"expected up to 10 seconds per entry, got {options.seconds_per_entry:g}; 0.05 to 0.1 is good")
    if options.end_to_end:
        _check_end_to_end(options)
    check_folder(options.out)


def _check_end_to_end(options: Options) -> None:
    """Refuse whole networks where there is none, or where nothing runs one."""
    if options.grid:
        raise InputError("expected a network to run end to end, got --grid; name one with --experiment or --model")
    if EXPORTED not in options.runtimes:
        raise InputError(
            f"expected {EXPORTED} among the runtimes, which runs networks end to end, got "
            f"{', '.join(options.runtimes)}; leave --end-to-end out"
        )
    if options.end_to_end < FEWEST:
        raise InputError(
            f"expected at least {FEWEST} whole networks to calibrate with, got {options.end_to_end}; 6 is good"
        )


def _check_own(options: Options, record: Record) -> None:
    """Refuse to write over a profile that was not measured here."""
    profile = options.out / f"{options.name}.toml"
    if profile.exists() and not record.path.exists():
        raise InputError(
            f"expected a new profile or one that hwdse measured, got {profile} without {record.path.name} beside it; "
            "name another one with --name"
        )


@dataclass(frozen=True)
class _Source:
    """The network whose layers are measured."""

    graph: Capture
    example: Any


def _network(options: Options) -> _Source | None:
    """Return the network that the options name; ``None`` for the standard grid."""
    if options.grid:
        return None
    if options.experiment is not None:
        experiment = load_experiment(options.experiment)
        folder, dynamic = options.experiment.parent, experiment.model.dynamic_dims
        names = experiment.model.factory, experiment.model.example
    else:
        assert options.model is not None
        assert options.example is not None
        folder, dynamic, names = Path.cwd(), [0], (options.model, options.example)
    model, example = (call_factory(name, folder) for name in names)
    if not isinstance(model, nn.Module):
        raise InputError(f"expected a torch.nn.Module from {names[0]}, got {type(model).__name__}; return the model")
    with silenced():
        graph = capture(model, example, dynamic_dims=dynamic)
    if not graph.layers:
        raise InputError(f"expected a network with layers from {names[0]}, got none; nothing is there to measure")
    return _Source(graph, example)


def _shapes(graph: LayerGraph) -> list[LayerShape]:
    """Return the layers to measure, each shape once."""
    by_key = {shape.key: shape for shape in map(LayerShape.of, reversed(graph.layers))}
    return list(reversed(by_key.values()))


def _plan(
    runtime: Runtime, shapes: Sequence[LayerShape], precisions: Sequence[Precision], block_size: int
) -> list[Subject]:
    """Return the layers at every precision that runs: what is emulated runs as its container."""

    def offered(precision: Precision) -> list[Subject]:
        found = (runtime.offers(shape, precision, block_size=block_size) for shape in shapes)
        return [subject for subject in found if subject is not None]

    subjects: list[Subject] = []
    for precision in precisions:
        own = offered(precision)
        held = offered(W8A8) if is_container(precision) and len(own) < len(shapes) else []
        if not own and not held:
            raise InputError(
                f"expected a precision that {runtime.name} {runtime.version()} runs some of these layers at, got "
                f"{precision}; leave it out"
            )
        subjects += [*own, *held]
    return list(dict.fromkeys(subjects))


def _meter(progress: Progress) -> PowercapMeter | None:
    """Return the meter of the processor's energy; where there is none, say what energy then is."""
    try:
        return PowercapMeter()
    except InputError as error:
        progress.warn(str(error))
        return None


@dataclass
class _Session:
    """Measuring with one runtime, and the profiles that come of it."""

    runtime: Runtime
    options: Options
    machine: Machine
    record: Record
    progress: Progress
    meter: PowercapMeter | None
    network: _Source | None
    active_mw: float | None = None

    def measure(self, layers: Sequence[Subject], outcome: _Outcome) -> None:
        """Measure boundaries and operators without MACs, then layers."""
        harness = Harness(seconds_per_pass=self.options.seconds_per_entry)
        around = [*self.runtime.boundaries(), *self.runtime.nodes()]
        self.progress.start(self.runtime.name, harness.passes * (len(around) + len(layers)))
        before_all = len(outcome.rows), len(outcome.left_out)
        self._series(around, harness, outcome)
        before = self.meter.read() if self.meter is not None else None
        self._series(layers, harness, outcome)
        if self.meter is not None and before is not None:
            try:
                self.active_mw = self.meter.power_mw(before, self.meter.read())
            except InputError as error:
                self.progress.warn(str(error))
        if any(row.note == NO_INT8_PRODUCTS for row in outcome.rows[before_all[0] :]):
            self.progress.warn(f"{self.machine.cpu} has no VNNI: int8 is slow here and may saturate; rows are marked")
        for sentence in outcome.left_out[before_all[1] :]:
            self.progress.warn(sentence)

    def _series(self, subjects: Sequence[Subject], harness: Harness, outcome: _Outcome) -> None:
        """Measure ``subjects`` and take what came of it into the outcome."""
        series = measure_series(
            self.runtime,
            subjects,
            self.record,
            threads=self.options.threads,
            harness=harness,
            machine=self.machine,
            progress=self.progress,
        )
        outcome.rows += series.rows
        outcome.left_out += series.left_out

    def write(self, name: str, precisions: Sequence[Precision], outcome: _Outcome) -> None:
        """Write the profile of weights with a scale per channel, and that of blocked weights, as far as asked for."""
        runtime, options = self.runtime, self.options
        rows = self.record.select(
            self.machine, runtime=runtime.name, version=runtime.version(), threads=options.threads
        )
        blocked = [row for row in rows if row.block_size == options.block_size]
        plain = [row for row in rows if row.block_size == 0 and row.op != "tensor"]
        if any(row.precision != FP32 for row in plain) or not blocked:
            emulated = [precision for precision in precisions if is_container(precision)]
            content = Content(name, rows, self.machine, runtime.scheme, emulated=emulated, active_mw=self.active_mw)
            self._write(content, precisions, outcome)
        if blocked:
            content = Content(
                f"{name}_blocked", rows, self.machine, runtime.scheme, block_size=options.block_size,
                active_mw=self.active_mw,
            )  # fmt: skip
            self._write(content, precisions, outcome)

    def _write(self, content: Content, precisions: Sequence[Precision], outcome: _Outcome) -> None:
        """Write a profile, calibrated if that was asked for, and say what it has no times for."""
        path = self.options.out / f"{content.name}.toml"
        was_calibrated = path.exists() and "\n[calibration]\n" in path.read_text(encoding="utf-8")
        profile = load_profile(write_profile(content, self.options.out))
        outcome.profiles.append(path)
        if self.network is not None:
            for sentence in unpriced(self.network.graph, profile, precisions):
                self.progress.warn(sentence)
        if self.options.end_to_end and self.network is not None and self.runtime.name == EXPORTED:
            fit = self._fit(self.network, profile, precisions)
            outcome.fits[content.name] = fit
            citation = f"hwdse measure --end-to-end {fit.runs} on {len(self.network.graph.layers)} layers"
            write_profile(replace(content, calibration=Factors(fit.values, fit.words, citation)), self.options.out)
        elif was_calibrated:
            self.progress.warn(
                f"the calibration that {path.name} had is dropped, since it was found with older measurements; "
                "calibrate again with --end-to-end"
            )

    def _fit(self, source: _Source, profile: HardwareProfile, precisions: Sequence[Precision]) -> LatencyFit:
        """Time configurations of the whole network; what is emulated runs as its container, and is left out."""
        own = [precision for precision in precisions if not is_container(precision)]
        harness = Harness(seconds_per_pass=WHOLE * self.options.seconds_per_entry)
        return fit_whole(
            Network(source.graph, source.example, profile),
            [one for one in own if any(profile.supports(layer, one) for layer in source.graph.layers)],
            self.options.end_to_end,
            threads=self.options.threads,
            harness=harness,
            progress=self.progress,
        )


def _facts(outcome: _Outcome, path: Path, seconds: float) -> dict[str, Any]:
    """Return the outcome as plain data."""
    return {
        "profiles": [str(profile) for profile in outcome.profiles],
        "calibration": {name: asdict(fit) for name, fit in outcome.fits.items()},
        "record": str(path),
        "seconds": seconds,
        "measured": len(outcome.rows),
        "unstable": sum(not row.is_stable for row in outcome.rows),
        "left_out": outcome.left_out,
        "overhead_us": _overheads(outcome.rows),
        "layers": _layer_rows(outcome.rows),
    }


def _layer_rows(rows: Sequence[Measurement]) -> list[dict[str, Any]]:
    """Return one plain dictionary per runtime and layer shape: microseconds by precision."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for runtime in dict.fromkeys(row.runtime for row in rows):
        own = [row for row in rows if row.runtime == runtime]
        unstable = {(row.shape, row.precision) for row in own if not row.is_stable}
        for (shape, precision), time_us in latencies_us(own).items():
            words = _words(shape)
            entry = found.setdefault((runtime, words), {"runtime": runtime, "shape": words, "us": {}, "unstable": []})
            entry["us"][str(precision)] = time_us
            if (shape.key, precision) in unstable:
                entry["unstable"].append(str(precision))
    return list(found.values())


def _overheads(rows: Sequence[Measurement]) -> dict[str, float]:
    """Return the time of an empty call of each runtime in microseconds."""
    names = dict.fromkeys(row.runtime for row in rows)
    return {name: min(row.overhead_us for row in rows if row.runtime == name) for name in names}


def _words(shape: LayerShape) -> str:
    """Return a layer in a few words.

    >>> _words(LayerShape.conv((96, 96), 3, 2, 56, groups=96)), _words(LayerShape.linear((384, 1536), rows=128))
    ('conv 96 to 96, 3x3/2, 56x56, 96 groups', 'linear 384 to 1536, 128 rows')
    """
    key = shape.key
    words = [f"{key.op} {key.input_channels} to {key.output_channels}"]
    if key.op == "conv":
        stride = f"/{key.stride[0]}" if max(key.stride) > 1 else ""
        words += ["x".join(map(str, key.kernel)) + stride, "x".join(map(str, key.output_size))]
        words += [f"{key.groups} groups"] if key.groups > 1 else []
    elif key.output_size:
        words.append("x".join(map(str, key.output_size)) + " rows")
    return ", ".join(words)


def _show(outcome: _Outcome, path: Path, seconds: float) -> None:
    """Print the times, what did not settle, and how long it took."""
    rows = _layer_rows(outcome.rows)
    precisions = list(dict.fromkeys(name for row in rows for name in row["us"]))
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("layer")
    for name in precisions:
        table.add_column(f"{name}\nus", justify="right", no_wrap=True)
    if {"fp32", "W8A8"} <= set(precisions):
        table.add_column("fp32 /\nW8A8", justify="right", no_wrap=True)
    several = len({row["runtime"] for row in rows}) > 1
    for row in rows:
        cells = [_cell(row, name) for name in precisions]
        us = row["us"]
        if {"fp32", "W8A8"} <= set(precisions):
            cells.append(f"{us['fp32'] / us['W8A8']:.2f}" if {"fp32", "W8A8"} <= set(us) else "")
        table.add_row(f"{row['runtime']}: {row['shape']}" if several else row["shape"], *cells)
    CONSOLE.print(table)
    unstable = sum(not row.is_stable for row in outcome.rows)
    marked = sum(len(row["unstable"]) for row in rows)
    which = f"{marked} of them layers, marked with ~" if marked else "none of them a layer"
    note = f"{unstable} did not settle ({which}): measure again on a quieter machine" if unstable else ""
    empty = ", ".join(f"{us:.1f} us in {name}" for name, us in _overheads(outcome.rows).items())
    CONSOLE.print(f"\n{len(outcome.rows)} measurements in {seconds:.1f} s; {note or 'all settled'}", markup=False)
    CONSOLE.print(f"Subtracted: an empty call ({empty}) and changes of layout at a layer's ends", markup=False)
    for name, fit in outcome.fits.items():
        CONSOLE.print(f"{name}: {fit.words}", markup=False, soft_wrap=True)
    for written in (*outcome.profiles, path):
        CONSOLE.print(str(written), markup=False, soft_wrap=True)


def _cell(row: dict[str, Any], name: str) -> str:
    """Return a time as text; one that did not settle is marked."""
    if name not in row["us"]:
        return ""
    return f"{'~' if name in row['unstable'] else ''}{row['us'][name]:.1f}"
