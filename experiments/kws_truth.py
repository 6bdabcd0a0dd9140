"""What every configuration of a design space really scores, so that searches can be judged against the truth.

All choices of three precisions for the ten layers of the DS-CNN, 59,049 configurations, each on all 800 evaluation
utterances. Run it with ``python experiments/kws_truth.py``; data and weights are found under $HWDSE_DATA.
:meth:`Truth.load` needs neither.

It takes about eight minutes on one core where freed memory stays in the process (with glibc, ``MALLOC_TRIM_THRESHOLD_``
and ``MALLOC_MMAP_THRESHOLD_`` of 1000000000 in the environment), and half as long again where it does not.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from rich.console import Console

from hwdse.analysis.sensitivity import measure_sensitivity
from hwdse.capture import capture
from hwdse.commands.screen import watched
from hwdse.cost import cost_table
from hwdse.cost.bops import MODEL as BOPS
from hwdse.cost.size import MODEL as SIZE
from hwdse.errors import InputError
from hwdse.evaluate import top1_on
from hwdse.evaluate.fingerprint import fingerprint, fingerprint_of_batches, fingerprint_of_network
from hwdse.factories import load_factory
from hwdse.files import write_bytes
from hwdse.formats import NumberFormat, Precision, Scheme
from hwdse.graph import TiedGroup
from hwdse.hardware import load_profile
from hwdse.pareto import hypervolume, non_dominated
from hwdse.progress import SILENT, Progress
from hwdse.quantize.network import QuantizedNetwork, Setting
from hwdse.quantize.observe import observe
from hwdse.quantize.program import Program
from hwdse.quantize.quantizer import Quantizer
from hwdse.quantize.recipe import Recipe
from hwdse.quantize.runnable import Environment, channels_last
from hwdse.search import exact, hull
from hwdse.space import DesignSpace
from hwdse.study.device import LOSS

__all__ = ["CANDIDATES", "Truth", "every_output", "main", "measure", "summary"]

HERE = Path(__file__).parent
PATH = HERE / "results" / "kws_truth.npz"
CANDIDATES = ("W8A8", "W4A4", "W3A8")
COSTS = (SIZE.metric, BOPS.metric)
LARGEST_DROP = 0.2
"""Harm of the reference point of hypervolumes: nobody cares for what loses more."""

BLOCK = 243
"""Configurations between two reports of progress."""

Genes = NDArray[np.uint8]
Weights = Mapping[int, torch.Tensor]


@dataclass(frozen=True, eq=False)
class Truth:
    """Measured answers and costs of all configurations of a network; a gene is an index into the candidates.

    Attributes
    ----------
    layers
        Names in execution order, one gene each.
    candidates
        Precisions, in the order of the genes.
    answers
        ``(samples, ceil(configurations / 8))`` uint8: bit ``i`` of a row, the highest of a byte first, says whether
        configuration ``i`` answers the sample correctly. The first layer's gene is the most significant digit of ``i``.
    full_precision
        ``(samples,)``: correct answers of the network as it was trained.
    kl
        ``(layers, candidates)``, nats: divergence of the output with one layer quantized and all others in full
        precision, on the calibration samples.
    costs
        ``(layers, candidates, 2)``: size in KiB and bit operations per sample in 1e9; they add up.
    origin
        What was measured and how: fingerprints, keys and versions.
    """

    layers: tuple[str, ...]
    candidates: tuple[Precision, ...]
    answers: NDArray[np.uint8]
    full_precision: NDArray[np.bool_]
    kl: NDArray[np.float64]
    costs: NDArray[np.float64]
    origin: Mapping[str, str]

    @classmethod
    def load(cls, path: Path = PATH) -> Truth:
        """Return what :meth:`save` wrote.

        Raises
        ------
        InputError
            If there is no such file.
        """
        if not path.is_file():
            raise InputError(f"expected measured answers in {path}, got no file; run {Path(__file__).name} first")
        with np.load(path) as archive:
            return cls(
                layers=tuple(map(str, archive["layers"])),
                candidates=tuple(Precision.parse(str(text)) for text in archive["candidates"]),
                answers=archive["answers"],
                full_precision=archive["full_precision"],
                kl=archive["kl"],
                costs=archive["costs"],
                origin=json.loads(str(archive["origin"])),
            )

    def save(self, path: Path = PATH) -> Path:
        """Write everything to ``path``, whole or not at all; ``correct`` is there for those who need no more."""
        content = io.BytesIO()
        np.savez_compressed(
            content,
            layers=np.array(self.layers),
            candidates=np.array([str(candidate) for candidate in self.candidates]),
            answers=self.answers,
            full_precision=self.full_precision,
            kl=self.kl,
            costs=self.costs,
            cost_names=np.array([metric.name for metric in COSTS]),
            correct=self.correct,
            origin=np.array(json.dumps(dict(self.origin))),
        )
        return write_bytes(path, content.getvalue())

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of choices by layer."""
        return (len(self.candidates),) * len(self.layers)

    @cached_property
    def correct(self) -> NDArray[np.uint16]:
        """Number of correct answers, indexed by the genes: one axis per layer."""
        total = np.zeros(int(np.prod(self.shape)), dtype=np.uint16)
        for row in self.answers:
            total += np.unpackbits(row, count=len(total))
        return total.reshape(self.shape)

    @cached_property
    def space(self) -> DesignSpace:
        """The design space: size, bit operations, and the sum of KL divergences as the predicted loss."""
        groups = tuple(TiedGroup(layer, (layer,)) for layer in self.layers)
        unary = np.concatenate([self.costs, self.kl[..., None]], axis=2)
        candidates, columns = len(self.candidates), len(COSTS) + 1
        return DesignSpace(
            groups,
            self.candidates,
            (*COSTS, LOSS),
            allowed=np.ones(self.kl.shape, dtype=np.bool_),
            unary=unary,
            constant=np.zeros(columns),
            edges=np.empty((0, 2), dtype=np.int64),
            pairwise=np.empty((0, candidates, candidates, columns)),
        )

    @cached_property
    def genes(self) -> Genes:
        """All configurations ``(configurations, layers)``, in the order of the answers."""
        return np.indices(self.shape, dtype=np.uint8).reshape(len(self.layers), -1).T.copy()

    def right(self, genes: ArrayLike) -> NDArray[np.bool_]:
        """Return which samples each of ``genes (n, layers)`` answers correctly, ``(n, samples)``."""
        place = np.ravel_multi_index(tuple(np.asarray(genes).T), self.shape)
        return np.asarray((self.answers[:, place // 8] >> (7 - place % 8)).T & 1, dtype=np.bool_)

    def drop(self, genes: ArrayLike) -> NDArray[np.float64]:
        """Return the measured harm ``(n,)`` of ``genes (n, layers)``: accuracy of full precision minus their own."""
        lost = int(self.full_precision.sum()) - self.correct[tuple(np.asarray(genes).T)].astype(np.int64)
        return np.asarray(lost / len(self.full_precision))

    def points(self, genes: Genes, cost: str) -> NDArray[np.float64]:
        """Return measured harm and ``cost`` of ``genes``, ``(n, 2)``."""
        return np.stack([self.drop(genes), self.space.evaluate(genes)[:, self.space.column(cost)]], axis=1)

    def front(self, cost: str) -> Genes:
        """Return the configurations that none beats in both measured harm and ``cost``, cheapest first."""
        points = self.points(self.genes, cost)
        kept = np.flatnonzero(non_dominated(points))
        return self.genes[kept[np.argsort(points[kept, 1])]]

    def volume(self, genes: Genes, cost: str) -> float:
        """Return the hypervolume of measured harm and ``cost`` below a drop of 20 points at the largest cost.

        In units of harm times the whole range of the cost, which is that from all cheapest to all costliest choices.
        """
        column = self.costs[..., [metric.name for metric in COSTS].index(cost)]
        low, high = column.min(axis=1).sum(), column.max(axis=1).sum()
        points = self.points(genes, cost)
        points[:, 1] = (points[:, 1] - low) / (high - low)
        return hypervolume(points, (LARGEST_DROP, 1.0))


@dataclass(frozen=True)
class _Level:
    """One layer of the program.

    Attributes
    ----------
    reads
        Number of steps after which its input is there.
    place
        Position of the input.
    step
        The layer itself.
    choices
        For every format of the input, what rounds it, and the weights by position of every gene with this format.
    """

    reads: int
    place: int
    step: int
    choices: list[tuple[Quantizer | None, dict[int, Weights]]]


def _levels(network: QuantizedNetwork, candidates: Sequence[Precision]) -> list[_Level]:
    """Return the layers in the order of the program, each with what every candidate puts there."""
    program, captured = network.program, network.captured
    if captured.edges != tuple(pairwise(range(len(captured.layers)))):
        raise InputError("expected a chain of layers, each reading what the one before it wrote, got branches")
    inputs = {point: (0, position) for position, point in program.inputs}
    points = inputs | {step.point: (i + 1, step.output) for i, step in enumerate(program.steps) if step.point}
    levels = []
    for layer in captured.layers:
        choices: dict[NumberFormat, tuple[Quantizer | None, dict[int, Weights]]] = {}
        for gene, candidate in enumerate(candidates):
            setting = network.setting({layer.name: candidate})
            quantizer = setting.quantizers.get(layer.input)
            choices.setdefault(candidate.activations, (quantizer, {}))[1][gene] = setting.weights
        assert layer.weight is not None
        step = program.first_change({program.weights[layer.weight]: program.folded[layer.weight]}, {})
        levels.append(_Level(*points[layer.input], step, list(choices.values())))
    return levels


def every_output(
    network: QuantizedNetwork, batch: Any, candidates: Sequence[Precision]
) -> Iterator[tuple[int, torch.Tensor]]:
    """Yield the number of each configuration and its output for ``batch``, for a chain of layers.

    Depth first: what configurations have in common at the network's beginning is computed once, an input is rounded
    once per format, and weights are swapped by pointer. Every operator is one of
    :meth:`~hwdse.quantize.network.QuantizedNetwork.forward` on the same values, so the outputs are equal.

    Raises
    ------
    InputError
        If the network has branches.
    """
    program, levels = network.program, _levels(network, candidates)

    def walk(values: Environment, depth: int, number: int) -> Iterator[tuple[int, torch.Tensor]]:
        done = levels[depth - 1].step + 1 if depth else 0
        if depth == len(levels):
            program.advance(values, {}, first=done)
            yield number, values[program.steps[-1].output]
            return
        level = levels[depth]
        program.advance(values, {}, first=done, last=level.reads)
        for quantizer, choices in level.choices:
            rounded = list(values)
            tensor = channels_last(values[level.place])
            rounded[level.place] = tensor if quantizer is None else quantizer(tensor)
            program.advance(rounded, {}, first=level.reads, last=level.step)
            for gene, weights in choices.items():
                branch = list(rounded)
                for position, weight in weights.items():
                    branch[position] = weight
                program.advance(branch, {}, first=level.step, last=level.step + 1)
                yield from walk(branch, depth + 1, number * len(candidates) + gene)

    return walk(program.start(batch, {}), 0, 0)


def measure(candidates: Sequence[Precision], progress: Progress = SILENT) -> Truth:
    """Return the answers of all configurations of the DS-CNN, of which ``progress`` hears in blocks.

    Raises
    ------
    InputError
        If data or weights are absent.
    """
    captured = capture(_made("models.py:dscnn"), _made("models.py:dscnn_example"))
    calibration, evaluation = _made("data.py:kws_calibration"), _made("data.py:kws_evaluation")
    recipe = Recipe()
    progress.start("calibrate", len(calibration))
    program = Program.of(captured)
    streams = observe(program, calibration, on_batch=progress.advance)
    network = QuantizedNetwork(program, scheme=Scheme(), streams=streams, recipe=recipe)
    progress.start("sensitivity", len(calibration))
    sensitivity = measure_sensitivity(
        network, calibration, candidates=candidates, methods=("kl",), on_batch=progress.advance
    )
    names = [metric.name for metric in COSTS]
    table = cost_table(captured, load_profile(HERE / "any_format.toml"), candidates, metrics=names)
    count = len(candidates) ** len(captured.layers)
    progress.start("measure", len(evaluation) * count // BLOCK)
    parts, references = [], []
    with torch.inference_mode():
        for batch, labels in evaluation:
            right = torch.empty((count, len(labels)), dtype=torch.bool)
            for number, output in every_output(network, batch, candidates):
                right[number] = output.argmax(-1) == labels
                if number % BLOCK == 0:
                    progress.advance()
            parts.append(np.packbits(right.numpy().T, axis=1))
            references.append(network.forward(batch, Setting()).argmax(-1) == labels)
    samples = {"calibration": fingerprint_of_batches(calibration), "evaluation": fingerprint_of_batches(evaluation)}
    return Truth(
        layers=tuple(captured.layer_index),
        candidates=tuple(candidates),
        answers=np.concatenate(parts),
        full_precision=torch.cat(references).numpy(),
        kl=sensitivity.scores["kl"],
        costs=table.values,
        origin={
            "network": fingerprint_of_network(captured),
            "data": fingerprint(samples),
            "scheme": network.scheme.key,
            "recipe": recipe.key,
            "metric": top1_on(evaluation).metric.key,
            "torch": torch.__version__,
        },
    )


def _made(name: str) -> Any:
    return load_factory(name, folder=HERE)()


def summary(truth: Truth) -> pd.DataFrame:
    """Return what the true front holds and what the additive prediction finds of it, a row per cost and method."""
    rows = []
    for metric in COSTS:
        fronts = {"truth": truth.front(metric.name)}
        fronts |= {
            name: search(truth.space, (LOSS.name, metric.name)).genes
            for name, search in (("exact front of the predicted loss", exact.search), ("its hull", hull.search))
        }
        whole = truth.volume(fronts["truth"], metric.name)
        for name, genes in fronts.items():
            found = truth.volume(genes, metric.name)
            rows.append((metric.name, name, len(genes), found, found / whole))
    return pd.DataFrame(rows, columns=["cost", "front", "configurations", "hypervolume", "share_of_truth"])


def main() -> None:
    """Measure, write the file, and print what it says."""
    torch.set_num_threads(1)
    with watched() as progress:
        truth = measure([Precision.parse(text) for text in CANDIDATES], progress)
    path = truth.save()
    console = Console()
    accuracy = truth.correct.ravel() / len(truth.full_precision)
    shares = np.array([0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0])
    quantiles = pd.DataFrame({"share_of_configurations": shares, "top1_measured": np.quantile(accuracy, shares)})
    console.print(f"full precision {truth.full_precision.mean():.4f}, {accuracy.size} configurations", highlight=False)
    for table in (quantiles, summary(truth)):
        console.print(table.to_string(index=False, float_format="{:.4f}".format), markup=False, soft_wrap=True)
    console.print(f"{path} ({path.stat().st_size / 1024:.0f} KiB)", markup=False, soft_wrap=True)


if __name__ == "__main__":
    main()
