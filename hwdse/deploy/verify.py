"""Did the prediction hold: a deployed configuration against its simulation, its request and its predicted metrics."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

import torch

from hwdse.deploy.audit import Executed, audit
from hwdse.deploy.deployment import KIB, Deployment
from hwdse.deploy.run import Agreement, DeployedNetwork, compare, measure_latency
from hwdse.errors import InputError
from hwdse.evaluate import Evaluation, Evaluator, Interval, mean_interval, paired_interval
from hwdse.hardware.measure.timing import Harness, Timing
from hwdse.progress import Progress
from hwdse.quantize.batch import tensors_of

__all__ = ["SIZE_TOLERANCE", "Verification", "verify"]

SIZE_TOLERANCE = 0.02
SIZE_ALLOWANCE_KIB = 1.0
"""What shapes and positions may take, which no cost model counts; it matters for the smallest networks alone."""

SAME_QUALITY = 1e-5
"""Difference of quality that is no more than its rounding: scores are kept in single precision."""

US_PER_MS = 1000.0


@dataclass(frozen=True)
class Verification:
    """What was found.

    Attributes
    ----------
    agreement
        The runtime's results against the simulation's.
    executed
        What the runtime executes for every layer; ``None`` where the device's runtime is another one.
    latency
        Time of one inference; ``None`` where the device's runtime is another one.
    latency_ms_predicted
        What was predicted of it.
    batch
        Samples per inference.
    file_kib, stored_kib, size_kib
        The file, the numbers in it, and what was counted before.
    metric
        Name of the quality.
    measured, simulated
        Quality through the runtime, and by the simulation on the same samples.
    drop
        Simulated minus measured, paired.
    note
        What is not comparable, in a sentence; empty where everything is.
    recorded
        Quality that was measured of the configuration before, on the same samples; ``None`` where there is none.
    """

    agreement: Agreement
    executed: list[Executed] | None
    latency: Timing | None
    latency_ms_predicted: float
    batch: int
    file_kib: float
    stored_kib: float
    size_kib: float
    metric: str
    measured: Interval
    simulated: Interval
    drop: Interval
    note: str = ""
    recorded: float | None = None

    @property
    def latency_ms(self) -> float | None:
        """Smallest measured time of one inference in ms."""
        return None if self.latency is None else self.latency.minimum_us / US_PER_MS

    @property
    def size_error(self) -> float:
        """How far the numbers in the file are from the predicted size, as a share of that."""
        return self.stored_kib / self.size_kib - 1.0

    @property
    def failures(self) -> list[str]:
        """What does not hold, a sentence each."""
        found = [
            f"audit: expected {one.layer} in {one.requested}, got {one.operator} ({one.executed})"
            for one in self.executed or []
            if not one.is_as_requested
        ]
        agreement = self.agreement
        if agreement.largest_lsb > 1:
            found.append(f"agreement: expected codes that differ by at most 1, got {agreement.largest_lsb}")
        if not agreement.same_answers:
            found.append(
                f"agreement: expected the simulation's top-1 in 99 % of {agreement.rows} rows, got another in "
                f"{agreement.other_top1}"
            )
        if abs(self.size_error) * self.size_kib > max(SIZE_TOLERANCE * self.size_kib, SIZE_ALLOWANCE_KIB):
            found.append(
                f"size: expected {self.size_kib:.1f} KiB within {SIZE_TOLERANCE:.0%}, got {self.stored_kib:.1f} KiB"
            )
        if self.recorded is not None and abs(self.recorded - self.simulated.mean) > SAME_QUALITY:
            found.append(
                f"{self.metric}: expected {self.recorded:.4f}, which the run recorded, got {self.simulated.mean:.4f} "
                "in the simulation; what the run found is not what is there now: explore again"
            )
        return found

    @property
    def verdict(self) -> str:
        """In a sentence what was compared with what, how far apart it is at most, and whether it holds."""
        agreement, failures = self.agreement, len(self.failures)
        held = "it holds" if not failures else f"it does not hold ({failures} finding{'s' if failures > 1 else ''})"
        return (
            f"ONNX Runtime against the simulation on {agreement.samples} samples: {agreement.codes} codes differ by at "
            f"most {agreement.largest_lsb}, outputs by {agreement.relative:.2e} of the largest, {self.metric} by "
            f"{abs(self.drop.mean):.2g}; {held}"
        )

    def record(self) -> dict[str, Any]:
        """Return everything as plain numbers and text."""
        prefix = f"{self.metric}_measured"
        return {
            "verdict": self.verdict,
            "runtime": f"onnxruntime {version('onnxruntime')}",
            "agreement": asdict(self.agreement) | {"top1": self.agreement.top1, "holds": self.agreement.holds},
            "audit": None if self.executed is None else _audit_record(self.executed),
            "batch": self.batch,
            "latency_ms_measured": self.latency_ms,
            "latency_ms_p10_measured": None if self.latency is None else self.latency.p10_us / US_PER_MS,
            "latency_is_stable": None if self.latency is None else self.latency.is_stable,
            "latency_ms_predicted": self.latency_ms_predicted,
            "file_kib": self.file_kib,
            "stored_kib": self.stored_kib,
            "size_kib": self.size_kib,
            prefix: self.measured.mean,
            f"{prefix}_low": self.measured.low,
            f"{prefix}_high": self.measured.high,
            f"{self.metric}_simulated": self.simulated.mean,
            f"{self.metric}_recorded": self.recorded,
            f"{self.metric}_difference": self.drop.mean,
            f"{self.metric}_difference_low": self.drop.low,
            f"{self.metric}_difference_high": self.drop.high,
            "samples": self.measured.samples,
            "note": self.note,
            "failures": self.failures,
        }


def _audit_record(executed: list[Executed]) -> dict[str, Any]:
    wrong = [one for one in executed if not one.is_as_requested]
    mismatches = [
        {"layer": e.layer, "requested": str(e.requested), "operator": e.operator, "executed": e.executed} for e in wrong
    ]
    return {"layers": len(executed), "mismatches": mismatches}


def verify(
    deployment: Deployment,
    evaluation: Evaluation,
    progress: Progress,
    *,
    threads: int = 1,
    harness: Harness | None = None,
) -> Verification:
    """Run ``deployment`` in ONNX Runtime and compare.

    Latency and executed precisions are looked at only where the device's figures are about this runtime.

    Parameters
    ----------
    deployment
        The configuration.
    evaluation
        Samples and metric.
    progress
        Who watches.
    threads
        Threads within one operator.
    harness
        What times.

    Raises
    ------
    InputError
        If a package is missing, the model does not run, or there are no samples.
    """
    network, config, content = deployment.network, deployment.config, deployment.content
    batches = [item[0] for item in evaluation.batches]
    progress.start("verify", 4 if deployment.runs_as_deployed else 2)
    agreement = compare(network, config, content, batches)
    progress.advance()
    evaluator = Evaluator(evaluation)
    simulated = evaluator.score(network, config).per_sample
    measured = evaluator.score(DeployedNetwork(network, content, threads=threads), config).per_sample
    progress.advance()
    profile, may_count = deployment.profile, evaluation.metric.may_count
    executed = timing = None
    note = (
        f"latency is not comparable: the figures of {profile.name} are about {profile.spec.software_stack}, and ONNX "
        "Runtime on this processor ran the file; neither time nor executed precisions were looked at"
    )
    if deployment.runs_as_deployed:
        executed, note = audit(content, config.precisions, threads=threads), ""
        progress.advance()
        timing = measure_latency(content, _first(batches, profile.batch), threads=threads, harness=harness)
        progress.advance()
    return Verification(
        agreement=agreement,
        executed=executed,
        latency=timing,
        latency_ms_predicted=deployment.predicted["latency_ms_predicted"],
        batch=profile.batch,
        file_kib=len(content) / KIB,
        stored_kib=deployment.stored_kib,
        size_kib=deployment.predicted["size_kib"],
        metric=evaluation.metric.name,
        measured=mean_interval(measured, may_count=may_count),
        simulated=mean_interval(simulated, may_count=may_count),
        drop=paired_interval(measured, simulated, may_count=may_count),
        note=note,
    )


def _first(batches: Iterable[Any], samples: int) -> Any:
    """Return the first ``samples`` samples as one batch, repeated where there are fewer.

    Raises
    ------
    InputError
        If there is no batch.
    """
    for batch in batches:
        return tuple(_resized(tensor, samples) for tensor in tensors_of(batch))
    raise InputError("expected at least one evaluation batch, got none; check the evaluation factory")


def _resized(tensor: torch.Tensor, samples: int) -> torch.Tensor:
    repeats = -(-samples // tensor.shape[0])
    return torch.cat([tensor] * repeats)[:samples].contiguous()
