"""An exploration of ResNet-20 by workers: two processes against one, two Ray actors against this process alone."""

from __future__ import annotations

from contextlib import nullcontext
from importlib.util import find_spec
from math import inf
from time import perf_counter, process_time
from typing import Any

import numpy as np
import torch
from networks import resnet20
from timing import row

from hwdse.capture import capture
from hwdse.evaluate import evaluation_of
from hwdse.evaluate.executor import Request
from hwdse.evaluate.remote import HELD, Remote
from hwdse.formats import Precision, Scheme
from hwdse.graph import BitConfig
from hwdse.quantize.network import QuantizedNetwork
from hwdse.quantize.recipe import Recipe
from hwdse.search.surrogate import HarmModel
from hwdse.study import Budget, explore
from hwdse.threads import small_algebra
from hwdse.workers import Workers, engage

IMAGES, BATCH, EVALUATIONS, SMALL = 1452, 66, 100, 60
PRECISIONS = ("W2A8", "W4A4", "W4A8", "W8A8")


class Watch:
    """Notes when measuring begins."""

    def __init__(self) -> None:
        self.began = 0.0

    def start(self, stage: str, total: int | None) -> None:
        """Note the time of the stage that counts."""
        del total
        if stage == "measure":
            self.began = perf_counter()

    def advance(self) -> None:
        """Nothing is to be noted."""

    def warn(self, sentence: str) -> None:
        """How many work is no news."""
        del sentence


class Explored:
    """Explorations of one network, measured from the first evaluation to the last."""

    def __init__(self) -> None:
        model, images, self.kind = resnet20()
        self.model, self.captured = model, capture(model, images[:2])
        self.calibration = list(images[-256:].split(64))
        labels = model(images[:IMAGES]).argmax(-1)
        self.evaluation = evaluation_of(
            list(zip(images[:IMAGES].split(BATCH), labels.split(BATCH), strict=True)), "top1"
        )

    def seconds(self, workers: Workers) -> float:
        """Return how long so many evaluations take, whatever is to be started included."""
        watch = Watch()
        study = explore(
            self.model,
            self.captured,
            calibration=self.calibration,
            evaluation=self.evaluation,
            devices=["mpic"],
            objectives=("accuracy", "latency_ms"),
            precisions=PRECISIONS,
            budget=Budget(evaluations=EVALUATIONS),
            recipe=Recipe(),
            workers=workers,
            progress=watch,
        )
        assert study.meter.evaluations == EVALUATIONS
        return perf_counter() - watch.began

    def overhead_ms(self, workers: Workers) -> float:
        """Return what one evaluation of a single batch takes one worker beyond what it takes itself."""
        network = QuantizedNetwork.calibrated(self.captured, self.calibration, scheme=Scheme())
        first = next(iter(self.evaluation.batches))
        evaluation = evaluation_of([(first[0][:4], first[1][:4])], "top1")
        rng = np.random.default_rng(0)
        names = [layer.name for layer in self.captured.layers]
        chosen = [Precision.parse(text) for text in PRECISIONS]
        configs = [
            BitConfig(
                {
                    name: chosen[i]
                    for group in self.captured.groups
                    for i in [int(rng.integers(len(chosen)))]
                    for name in group.layers
                }
            )
            for _ in range(SMALL)
        ]
        assert all(set(config.precisions) == set(names) for config in configs)
        crew = engage(workers, held=HELD)
        assert crew is not None
        with crew:
            executor = Remote(crew, evaluation)
            for config in configs[:4]:
                score(executor, network, config)
            started = perf_counter()
            own = sum(score(executor, network, config) for config in configs)
            return 1000.0 * (perf_counter() - started - own) / len(configs)


def score(executor: Remote, network: QuantizedNetwork, config: BitConfig) -> float:
    """Return the seconds that the evaluation of a configuration says that it took."""
    executor.begin(Request(network, config))
    return executor.next_result()[1].seconds


def share(explored: Explored, ours: Workers, theirs: Workers) -> float:
    """Return the seconds with ``ours`` over those with ``theirs``, in two rounds: machines have their moods."""
    first, last = explored.seconds(theirs), explored.seconds(ours)
    return (last + explored.seconds(ours)) / (first + explored.seconds(theirs))


def algebra_share() -> float:
    """Return the processor time of expecting harm with one thread of algebra, over that with one for each core."""
    rng = np.random.default_rng(0)
    genes = rng.integers(0, 4, (1300, 21))
    model = HarmModel(rng.random((21, 4)), genes[:100], rng.random(100))
    spent = {"ours": inf, "theirs": inf}
    for _ in range(5):
        for name, threads in (("theirs", nullcontext()), ("ours", small_algebra())):
            with threads:
                started = process_time()
                for _ in range(20):
                    model(genes[100:])
                spent[name] = min(spent[name], process_time() - started)
    return spent["ours"] / spent["theirs"]


def run() -> list[dict[str, Any]]:
    """Return the rows: seconds with two workers over those with one, and what sending costs."""
    algebra = algebra_share()
    torch.set_num_threads(1)
    explored = Explored()
    what = f"ResNet-20 ({explored.kind}), {EVALUATIONS} evaluations, {IMAGES} images"
    processes = share(explored, Workers("processes", 2), Workers("processes", 1))
    rows = [
        row("processor time of expecting harm, one thread of algebra over all", algebra, unit="ratio", target=1.0),
        row(f"two processes over one, {what}", processes, unit="ratio", target=1 / 1.8),
        row(
            "overhead of an evaluation by a process",
            explored.overhead_ms(Workers("processes", 1)),
            unit="ms",
            target=20.0,
        ),
    ]
    if find_spec("ray") is not None:
        ray = share(explored, Workers("ray", 2), Workers())
        rows += [
            row(f"Ray with two actors over this process, {what}", ray, unit="ratio", target=1 / 1.7),
            row("overhead of an evaluation by Ray", explored.overhead_ms(Workers("ray", 1)), unit="ms", target=20.0),
        ]
    return rows
