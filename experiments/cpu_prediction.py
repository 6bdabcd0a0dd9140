"""How well tables of single layers predict the latency of whole mixed-precision networks on this processor.

For each network: the layers are measured one by one into a profile, random configurations are exported to ONNX and
timed whole, and the profile's predictions are held against the times, as they are and after a calibration with six runs
that are not among those held out. Run it with

    python experiments/cpu_prediction.py --out runs/cpu_prediction

on a quiet machine; what was timed is kept in that folder, and an interrupted run goes on where it was. ``--publish``
writes tables and figure to ``experiments/results``, too.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from scipy.stats import spearmanr

from hwdse.capture import capture
from hwdse.commands.whole import AT_ONCE, Network, configurations, options_of
from hwdse.cost import cost_table, network_totals
from hwdse.cost.calibrate import calibrate, calibrated
from hwdse.cost.terms import latency_terms
from hwdse.factories import load_factory
from hwdse.files import write_csv
from hwdse.formats import Precision
from hwdse.graph import LayerGraph
from hwdse.hardware import HardwareProfile, load_profile
from hwdse.hardware.measure.timing import Call, Harness, pinned
from hwdse.report.drawing import new_figure, style

HERE = Path(__file__).parent
CALIBRATION_RUNS = 6
HELD_OUT = 50
APART = 0.05
"""Pairs whose measured latencies differ by less are not asked for their order."""
SWEEPS = 2
"""Times that all configurations are timed, one sweep after the other; the fastest sample of all counts."""
FLOAT = "fp32"

Genes = NDArray[np.int64]
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Case:
    """A network and the precisions that its layers are given.

    Attributes
    ----------
    name, example
        Factories in ``cpu_networks.py``.
    precisions
        Of the random configurations; the first and the second are the uniform runs of the calibration.
    blocked
        True if the weights have a scale per block.
    """

    name: str
    example: str
    precisions: tuple[str, ...] = (FLOAT, "W8A8")
    blocked: bool = False


CASES = {
    case.name: case
    for case in (
        Case("mobilenet_v2", "image"),
        Case("resnet18", "image"),
        Case("resnet20", "small_image"),
        Case("encoder", "tokens", (FLOAT, "W8Afp32", "W4Afp32", "W2Afp32"), blocked=True),
    )
}


# Configurations.


def bits_of(graph: LayerGraph, precisions: Sequence[Precision], row: Sequence[int]) -> str:
    """Return the precision of every layer, separated by spaces."""
    return graph.config([precisions[gene] for gene in row]).bits


# Timing.


class Timings:
    """Finished timings in a CSV file, so that an interrupted run goes on.

    Parameters
    ----------
    path
        The file; made with the first timing.
    """

    KEY = ("network", "threads", "runtime", "bits", "sweep")
    COLUMNS = (*KEY, "minimum_us", "p10_us", "count", "is_stable")

    def __init__(self, path: Path) -> None:
        self.path = path
        given = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=list(self.COLUMNS))
        self.rows: dict[tuple[Any, ...], dict[str, Any]] = {
            row[: len(self.KEY)]: dict(zip(self.COLUMNS, row, strict=True))
            for row in given[list(self.COLUMNS)].itertuples(index=False, name=None)
        }

    def __contains__(self, key: tuple[Any, ...]) -> bool:
        return key in self.rows

    def add(self, key: tuple[Any, ...], **values: Any) -> None:
        """Keep a timing; it is in the file when this returns."""
        self.rows[key] = dict(zip(self.KEY, key, strict=True)) | values
        write_csv(self.path, pd.DataFrame(list(self.rows.values()), columns=list(self.COLUMNS)))

    def milliseconds(self, keys: Iterable[tuple[Any, ...]]) -> float:
        """Return the fastest sample of some timings."""
        return min(float(self.rows[key]["minimum_us"]) for key in keys) * 1e-3


def network_of(case: Case, profile: HardwareProfile) -> Network:
    """Make a case's network."""
    model, example = (load_factory(f"cpu_networks.py:{n}", folder=HERE)() for n in (case.name, case.example))
    return Network(capture(model, example), example, profile)


def time_all(
    keys: Sequence[tuple[Any, ...]],
    order: Iterable[int],
    call: Callable[[int], Call],
    timings: Timings,
    harness: Harness,
) -> Iterator[int]:
    """Time what is not yet known of ``keys``, a few at once, and yield how many were done.

    Parameters
    ----------
    keys
        Keys of the timings.
    order
        Positions of the keys in the order of timing.
    call
        Makes the call of the key at a position.
    timings, harness
        Where they are kept, and what takes them.
    """
    missing = [i for i in order if keys[i] not in timings]
    for start in range(0, len(missing), AT_ONCE):
        some = missing[start : start + AT_ONCE]
        for i, timing in zip(some, harness.time([call(i) for i in some]), strict=True):
            timings.add(
                keys[i],
                minimum_us=timing.minimum_us,
                p10_us=timing.p10_us,
                count=timing.count,
                is_stable=timing.is_stable,
            )
        yield len(some)


# Prediction.


def predictions(
    graph: LayerGraph, profile: HardwareProfile, precisions: Sequence[Precision], genes: Genes, measured_ms: Values
) -> pd.DataFrame:
    """Return one row per configuration: measured latency and what each predictor says, in ms.

    The first :data:`CALIBRATION_RUNS` are those that the calibration may see. ``layers`` is the sum of the layers
    alone, ``table`` the cost table that searches use, ``rules`` what lies between layers by the exact rules, and
    ``calibrated`` and ``calibrated_rules`` the same after calibration.
    """
    terms = [latency_terms(graph, profile, graph.config([precisions[g] for g in row])) for row in genes]
    fit = calibrate(terms[:CALIBRATION_RUNS], measured_ms[:CALIBRATION_RUNS].tolist())
    better = calibrated(profile, fit, source="whole_networks", citation="runs of whole networks")
    choices = genes[:, list(graph.group_of)]

    def by_table(device: HardwareProfile) -> Values:
        return network_totals(cost_table(graph, device, precisions, metrics=["latency_ms"]), choices)[:, 0]

    narrow = np.array([precision.weights.bits < 32 for precision in precisions])
    return pd.DataFrame(
        {
            "bits": [bits_of(graph, precisions, row) for row in genes],
            "is_held_out": np.arange(len(genes)) >= CALIBRATION_RUNS,
            "narrow_layers": narrow[choices].sum(axis=1),
            "latency_ms_measured": measured_ms,
            "layers_ms_predicted": [t.layers_ms for t in terms],
            "table_ms_predicted": by_table(profile),
            "rules_ms_predicted": [t.total_ms(profile) for t in terms],
            "calibrated_ms_predicted": by_table(better),
            "calibrated_rules_ms_predicted": [t.total_ms(better) for t in terms],
        }
    )


PREDICTORS = ("layers", "table", "rules", "calibrated", "calibrated_rules")
BASELINE = "number of int8 layers"


def scores(found: pd.DataFrame) -> pd.DataFrame:
    """Return errors and orders of each predictor over the configurations that are held out.

    The baseline says that more narrow layers are faster; it has an order and no error.
    """
    held = found[found["is_held_out"]]
    measured = held["latency_ms_measured"].to_numpy()
    rows = []
    for name in PREDICTORS:
        predicted = held[f"{name}_ms_predicted"].to_numpy()
        error = np.abs(predicted / measured - 1.0)
        rows.append({"predictor": name, "mape": error.mean(), "worst": error.max(), **_order(predicted, measured)})
    rows.append({"predictor": BASELINE, **_order(-held["narrow_layers"].to_numpy(float), measured)})
    return pd.DataFrame(rows, columns=["predictor", "mape", "worst", "spearman", "right_order", "pairs", "runs"])


def _order(predicted: Values, measured: Values) -> dict[str, float]:
    """Return the rank correlation, and the share of pairs that are apart whose order is right."""
    share, pairs = right_order(predicted, measured)
    rho = float(spearmanr(predicted, measured).statistic)
    return {"spearman": rho, "right_order": share, "pairs": pairs, "runs": len(measured)}


def right_order(predicted: Values, measured: Values) -> tuple[float, int]:
    """Return the share of pairs at least :data:`APART` apart that are predicted in the right order, and their number.

    Half of a pair that is predicted equal counts.
    """
    i, j = np.triu_indices(len(measured), 1)
    apart = np.maximum(measured[i], measured[j]) > (1 + APART) * np.minimum(measured[i], measured[j])
    i, j = i[apart], j[apart]
    if not len(i):
        return float("nan"), 0
    agree = np.sign(predicted[i] - predicted[j]) * np.sign(measured[i] - measured[j])
    return float((agree + 1).mean() / 2), len(i)


# The whole experiment.


def profile_of(case: Case, out: Path, *, threads: int) -> HardwareProfile:
    """Return the profile of the case's layers on this processor; it is measured if it is not there."""
    name = f"{case.name}_{threads}t"
    path = out / f"{name}{'_blocked' if case.blocked else ''}.toml"
    if not path.exists():
        factories = [
            f"--{key}={HERE / 'cpu_networks.py'}:{n}" for key, n in (("model", case.name), ("example", case.example))
        ]
        precisions = [f"--precision={text}" for text in case.precisions]
        command = [sys.executable, "-m", "hwdse", "measure", *factories, *precisions]
        command += [f"--name={name}", f"--out={out}", f"--threads={threads}", "--seconds-per-entry=0.1"]
        subprocess.run(command, check=True)  # noqa: S603 (this very interpreter)
    return load_profile(path)


def examine(case: Case, out: Path, *, threads: int, count: int, seconds: float, console: Console) -> pd.DataFrame:
    """Return measured and predicted latencies of a case's configurations."""
    import onnxruntime

    profile = profile_of(case, out, threads=threads)
    precisions = [Precision.parse(text) for text in case.precisions]
    network = network_of(case, profile)
    options = options_of(network.graph, profile, precisions)
    extra = CALIBRATION_RUNS - len(precisions)
    genes = configurations(options, count + extra, np.random.default_rng(0))
    version = f"onnxruntime {onnxruntime.__version__}"
    bits = [bits_of(network.graph, precisions, row) for row in genes]
    keys = [(case.name, threads, version, text, sweep) for sweep in range(SWEEPS) for text in bits]
    timings = Timings(out / "timings.csv")
    harness = Harness(seconds_per_pass=seconds)

    def call(position: int) -> Call:
        return network.call([precisions[g] for g in genes[position % len(genes)]], threads=threads)

    with pinned(threads):
        steps = -(-sum(key not in timings for key in keys) // AT_ONCE)
        # Every sweep in an order of its own, so that a machine that drifts does not drift between sorts of runs.
        shuffle = np.random.default_rng(1)
        order = [sweep * len(genes) + i for sweep in range(SWEEPS) for i in shuffle.permutation(len(genes)).tolist()]
        todo = time_all(keys, order, call, timings, harness)
        list(track(todo, f"{case.name}, {threads} threads", total=steps, console=console))
    measured = np.array([timings.milliseconds(keys[i :: len(genes)]) for i in range(len(genes))])
    found = predictions(network.graph, profile, precisions, genes, measured)
    return found.assign(network=case.name, threads=threads)[["network", "threads", *found.columns]]


def summary(found: pd.DataFrame) -> pd.DataFrame:
    """Return the scores of every network and number of threads."""
    tables = []
    for _, part in found.groupby(["network", "threads"], sort=False):
        table = scores(part)
        for place, name in enumerate(("network", "threads")):
            table.insert(place, name, part[name].iloc[0])
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def draw(found: pd.DataFrame) -> Figure:
    """Return the figure: predicted over measured latency, one panel per network and number of threads."""
    cases = list(found.groupby(["network", "threads"], sort=False))
    columns = min(4, len(cases))
    rows = -(-len(cases) // columns)
    figure = new_figure(7.2, 0.6 + 2.1 * rows)
    panels = figure.subplots(rows, columns, squeeze=False).flat
    looks = {"table": ("#D55E00", "o", "as measured layer by layer"), "calibrated": ("#0072B2", "^", "calibrated")}
    for axes, ((network, threads), part) in zip(panels, cases, strict=False):
        held = part[part["is_held_out"]]
        measured = held["latency_ms_measured"].to_numpy()
        errors = []
        for name, (colour, marker, words) in looks.items():
            predicted = held[f"{name}_ms_predicted"].to_numpy()
            errors.append(float(100 * np.abs(predicted / measured - 1).mean()))
            axes.plot(measured, predicted, marker, color=colour, markersize=3, mec="white", mew=0.3, label=words)
        ends = [measured.min() * 0.95, measured.max() * 1.05]
        axes.plot(ends, ends, color="black", linewidth=0.6, linestyle=":")
        threads_text = "1 thread" if threads == 1 else f"{threads} threads"
        axes.set_title(f"{network}, {threads_text}\nmean error {errors[0]:.1f} and {errors[1]:.1f} %")
        axes.set(xlabel="Latency, measured (ms)", ylabel="Latency, predicted (ms)")
    for axes in list(panels)[len(cases) :]:
        axes.remove()
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return figure


def write(found: pd.DataFrame, folder: Path) -> list[Path]:
    """Write configurations, scores and the figure to ``folder`` and return the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [
        write_csv(folder / "cpu_prediction.csv", found),
        write_csv(folder / "cpu_prediction_scores.csv", summary(found)),
    ]
    picture = folder / "cpu_prediction.png"
    with style():
        draw(found).savefig(picture, dpi=200)
    return [*paths, picture]


def arguments(given: Sequence[str] | None = None) -> Mapping[str, Any]:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True, help="folder for profiles, timings and results")
    parser.add_argument("--network", action="append", choices=list(CASES), help="may be repeated; all if absent")
    parser.add_argument("--threads", action="append", type=int, help="may be repeated; 1 and 2 if absent")
    parser.add_argument("--held-out", type=int, default=HELD_OUT, help="configurations beside those of the calibration")
    parser.add_argument("--seconds", type=float, default=0.3, help="seconds per configuration and pass")
    parser.add_argument("--publish", action="store_true", help="write to experiments/results, too")
    return vars(parser.parse_args(given))


def main() -> None:
    """Measure, predict, print the scores, and write tables and figure."""
    asked, console = arguments(), Console()
    out: Path = asked["out"]
    parts = [
        examine(CASES[name], out, threads=n, count=asked["held_out"], seconds=asked["seconds"], console=console)
        for name in asked["network"] or CASES
        for n in asked["threads"] or (1, 2)
    ]
    found = pd.concat(parts, ignore_index=True)
    console.print(summary(found).to_string(index=False, float_format="{:.4f}".format), markup=False, soft_wrap=True)
    for folder in (out, *([HERE / "results"] if asked["publish"] else [])):
        for path in write(found, folder):
            console.print(str(path), markup=False, soft_wrap=True)


if __name__ == "__main__":
    main()
