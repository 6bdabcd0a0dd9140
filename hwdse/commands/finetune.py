"""``hwdse finetune``: train the numbers of one configuration of a run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hwdse.commands.before_after import before_and_after, show_before_and_after
from hwdse.commands.deployed import Chosen, Restored, choose, restore
from hwdse.commands.screen import CONSOLE, print_json, watched
from hwdse.errors import RunFolderError
from hwdse.evaluate import METRICS, Evaluation
from hwdse.evaluate.batches import check_batch
from hwdse.evaluate.fingerprint import fingerprint_of_batches
from hwdse.factories import call_factory
from hwdse.files import check_folder, read_json, write_json
from hwdse.quantize.finetune import Settings, Tuned, finetune
from hwdse.quantize.fitted import Fitted

__all__ = ["Options", "finetune_run"]

_NOT_OF_LOGITS = "sqnr_db"


@dataclass(frozen=True)
class Options:
    """What the command line asks for.

    Attributes
    ----------
    config_id
        Configuration; the picked one if ``None``.
    data
        Factory of batches to train on; the run's calibration data if ``None``.
    experiment
        The run's experiment file, if it was moved.
    settings
        How; ``loss`` is decided by the metric if :attr:`loss` is ``None``.
    loss
        Loss.
    seconds
        Time at most.
    resume
        Go on with a tuning that was interrupted.
    """

    config_id: str | None
    data: str | None
    experiment: Path | None
    settings: dict[str, Any]
    loss: str | None
    seconds: float
    resume: bool


def finetune_run(run: Path, device: str | None, options: Options, *, as_json: bool) -> None:
    """Tune a configuration, write its numbers and ``tuned.json``, and show before and after."""
    chosen = choose(run, device, config_id=options.config_id, as_json=as_json)
    check_folder(run / chosen.device)
    checkpoint = chosen.tuned / "checkpoint.pt"
    if checkpoint.is_file() and not options.resume:
        raise RunFolderError(
            f"expected no unfinished tuning, got one in {chosen.tuned}; go on with --resume, or remove its "
            f"{checkpoint.name}"
        )
    with watched() as progress:
        restored, is_refined = _begun(chosen, restore(chosen, options.experiment, progress))
        network, config, evaluation = restored.network, restored.config, restored.inputs.evaluation
        settings = Settings(loss=options.loss or _loss_for(evaluation), **options.settings)
        batches = _batches(restored, options.data)
        network.find(config.precisions.values(), progress=progress)
        tuned = finetune(
            network,
            config,
            batches,
            settings,
            seconds=options.seconds,
            checkpoint=checkpoint,
            resume=options.resume,
            about=restored.about | {"training data": fingerprint_of_batches(batches)},
            progress=progress,
        )
        record = before_and_after(chosen, restored, tuned.fitted, progress)
    record |= _history(tuned, settings) | {"data": options.data or "calibration", "by": "finetune"}
    record |= {"from": "refine" if is_refined else "recipe"}
    if tuned.fitted is not None:
        tuned.fitted.save(chosen.tuned_weights, restored.about)
    elif not is_refined:
        chosen.tuned_weights.unlink(missing_ok=True)
    if tuned.fitted is not None or not is_refined:  # else the refined weights stay, with what was said of them
        write_json(chosen.tuned / "tuned.json", record)
    checkpoint.unlink(missing_ok=True)
    if as_json:
        print_json(record)
    else:
        _show(chosen, record)


def _begun(chosen: Chosen, restored: Restored) -> tuple[Restored, bool]:
    """Return the network with the weights that ``hwdse refine`` found for the configuration, if it did."""
    said = chosen.tuned / "tuned.json"
    if not (chosen.tuned_weights.is_file() and said.is_file() and read_json(said).get("by") == "refine"):
        return restored, False
    refined = Fitted.load(chosen.tuned_weights, restored.about)
    return replace(restored, network=restored.network.fitted(refined)), True


def _loss_for(evaluation: Evaluation) -> str:
    """Return the loss that goes with a metric: one of class scores is about logits."""
    metric = evaluation.metric
    return "kl" if METRICS.get(metric.name) is metric and metric.name != _NOT_OF_LOGITS else "mse"


def _batches(restored: Restored, data: str | None) -> list[Any]:
    """Return the batches to train on; a factory's file stands relative to the working directory."""
    batches = restored.inputs.calibration if data is None else call_factory(data, Path.cwd(), as_list=True)
    for batch in batches:
        check_batch(restored.network.captured, batch, "calibration" if data is None else "training")
    return list(batches)


def _history(tuned: Tuned, settings: Settings) -> dict[str, Any]:
    """Return how the tuning went."""
    return {
        "improved": tuned.fitted is not None,
        "ended": tuned.ended,
        "seconds": tuned.seconds,
        "training_samples": tuned.samples,
        "held_samples": tuned.held,
        "steps": tuned.checks[-1].step,
        "best_step": tuned.best.step,
        "held_loss": [[check.step, check.loss] for check in tuned.checks],
        "settings": settings.record(),
    }


def _show(chosen: Chosen, record: dict[str, Any]) -> None:
    """Print before and after beside full precision, and how it went."""
    losses = record["held_loss"][0][1], min(loss for _, loss in record["held_loss"])
    begun = "from refined weights, " if record["from"] == "refine" else ""
    how = (
        f"{begun}{record['ended']} after {record['steps']} steps in {record['seconds']:.0f} s, "
        f"{record['training_samples']} samples trained on, {record['held_samples']} held back"
    )
    show_before_and_after(record, losses, of="held-back", how=how)
    if record["improved"]:
        CONSOLE.print(f"tuned weights: {chosen.tuned_weights}", markup=False, soft_wrap=True)
    else:
        stays = "the refined weights stay" if record["from"] == "refine" else "the configuration stays as it was"
        CONSOLE.print(f"no improvement on the held-back samples: {stays}", markup=False)
