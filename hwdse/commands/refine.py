"""``hwdse refine``: find the weights of one configuration of a run once more, each after those before it."""

from __future__ import annotations

from pathlib import Path

from hwdse.commands.before_after import before_and_after, show_before_and_after
from hwdse.commands.deployed import choose, restore
from hwdse.commands.screen import CONSOLE, print_json, watched
from hwdse.errors import RunFolderError
from hwdse.files import check_folder, write_json
from hwdse.quantize.ranges import mean_harm

__all__ = ["refine_run"]


def refine_run(run: Path, device: str | None, *, config_id: str | None, experiment: Path | None, as_json: bool) -> None:
    """Refine a configuration, keep it if it harms the calibration data less, and show before and after."""
    chosen = choose(run, device, config_id=config_id, as_json=as_json)
    check_folder(run / chosen.device)
    if (chosen.tuned / "checkpoint.pt").is_file():
        raise RunFolderError(
            f"expected no unfinished tuning, got one in {chosen.tuned}; end it by hwdse finetune --resume first"
        )
    with watched() as progress:
        restored = restore(chosen, experiment, progress)
        network, config = restored.network, restored.config
        network.find(config.precisions.values(), progress=progress)
        refined = network.refined(config, progress=progress)
        settings = [subject.configure(config) for subject in (network, network.fitted(refined))]
        before, after = (
            mean_harm(network.program, network.batches, setting.constants, setting.quantizers) for setting in settings
        )
        better = refined if after < before else None
        record = before_and_after(chosen, restored, better, progress)
    record |= {"improved": better is not None, "calibration_harm": [before, after], "by": "refine"}
    if better is None:
        chosen.tuned_weights.unlink(missing_ok=True)
    else:
        better.save(chosen.tuned_weights, restored.about)
    write_json(chosen.tuned / "tuned.json", record)
    if as_json:
        print_json(record)
        return
    show_before_and_after(record, (before, after), of="calibration", how="weights found once more, layer by layer")
    if better is not None:
        CONSOLE.print(f"refined weights: {chosen.tuned_weights}", markup=False, soft_wrap=True)
    else:
        CONSOLE.print("no less harm to the calibration data: the configuration stays as it was", markup=False)
