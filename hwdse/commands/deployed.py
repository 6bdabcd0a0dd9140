"""What ``hwdse export``, ``verify`` and ``finetune`` start from: a run folder, and the network that it was about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hwdse.commands.answer import limits_of, stop
from hwdse.commands.inputs import load
from hwdse.deploy import Deployment
from hwdse.deploy.translate import needs_packages
from hwdse.errors import InputError, RunFolderError
from hwdse.evaluate import Evaluation
from hwdse.evaluate.fingerprint import fingerprint, fingerprint_of_batches, fingerprint_of_network
from hwdse.experiment import Experiment, Inputs, load_experiment
from hwdse.files import inside, read_json
from hwdse.front import Front
from hwdse.graph import BitConfig
from hwdse.hardware import HardwareProfile, recorded_profile
from hwdse.infeasible import Infeasible
from hwdse.progress import Progress
from hwdse.quantize.fitted import Fitted
from hwdse.quantize.network import QuantizedNetwork
from hwdse.quantize.recipe import Recipe
from hwdse.report.fronts import load_front
from hwdse.report.tables import RunTables, device_of
from hwdse.study.measure import parse_bits
from hwdse.study.weights import weight_store

__all__ = ["Chosen", "Restored", "choose", "deploy", "restore"]


@dataclass(frozen=True)
class Chosen:
    """A configuration of a run.

    Attributes
    ----------
    run, device
        Run folder and name of the device.
    measured
        Its row of the table of measured configurations.
    """

    run: Path
    device: str
    measured: Mapping[Any, Any]

    @property
    def config_id(self) -> str:
        """Of the configuration."""
        return str(self.measured["config_id"])

    @property
    def bits(self) -> str:
        """Precision of every layer in order, separated by spaces."""
        return str(self.measured["bits"])

    @property
    def tuned(self) -> Path:
        """Folder of what fine-tuning found for it."""
        return inside(self.run, self.device, "tuned", self.config_id)

    @property
    def tuned_weights(self) -> Path:
        """File of its tuned weights, which is there if tuning improved it."""
        return self.tuned / "weights.npz"


@dataclass(frozen=True, eq=False)
class Restored:
    """The network of a run, calibrated as it was.

    Attributes
    ----------
    network, profile, config
        The network under the device's scheme, the device, and the configuration.
    inputs
        What the experiment's factories made.
    about
        What numbers that are fitted to the configuration belong to: fingerprints of network and data, the keys of
        recipe and scheme, and the bits.
    """

    network: QuantizedNetwork
    profile: HardwareProfile
    config: BitConfig
    inputs: Inputs
    about: dict[str, str]


def choose(
    run: Path, device: str | None, *, config_id: str | None, maximum: Sequence[str] = (), as_json: bool
) -> Chosen:
    """Return a configuration of ``run``: by its id, the best one under limits, or the one that was picked.

    Without a ``device`` it is of the only one.

    Exits with 3 if none is within the limits.

    Raises
    ------
    InputError
        If the run has no such device, configuration or pick; it has several devices and none is named; or both an id
        and limits are given.
    """
    if config_id is not None and maximum:
        raise InputError("expected either --config or --max, got both; drop one")
    limits = limits_of(maximum)
    device = device_of(run, device)
    tables = RunTables.load(run, devices=[device])
    if sentence := tables.results[device].emptiness:
        stop(device, sentence, {"reason": sentence}, as_json=as_json)
    if limits:
        front: Front = load_front(run, device, tables=tables)
        row = front.pick_row(maximum=limits)
        if isinstance(row, Infeasible):
            stop(device, str(row), asdict(row), as_json=as_json)
        return Chosen(run, device, front.table.iloc[row].to_dict())
    wanted = config_id or tables.results[device].pick
    if wanted is None:
        raise InputError(
            f"expected a picked configuration of {device} in {run}, got none; run hwdse pick, or name one by --config"
        )
    measured = tables.results[device].measured
    rows = measured[measured["config_id"] == wanted]
    if rows.empty:
        known = ", ".join(measured["config_id"].head(5))
        raise InputError(
            f"expected the config_id of a configuration in {run / device / 'measured.csv'} ({known} ...), got "
            f"{wanted!r}; correct --config"
        )
    return Chosen(run, device, rows.iloc[0].to_dict())


def deploy(
    chosen: Chosen, experiment_path: Path | None, progress: Progress, *, use_tuned: bool
) -> tuple[Deployment, Inputs, bool]:
    """Restore the network of a run, and make the model of a configuration; say whether its weights were tuned.

    Parameters
    ----------
    chosen, experiment_path, progress
        As for :func:`restore`.
    use_tuned
        Take tuned weights where there are some.

    Raises
    ------
    InputError
        As :func:`restore`; or if tuned weights belong to something else.
    """
    needs_packages()
    restored = restore(chosen, experiment_path, progress)
    network, is_tuned = restored.network, use_tuned and chosen.tuned_weights.is_file()
    if is_tuned:
        network = network.fitted(Fitted.load(chosen.tuned_weights, restored.about))
    progress.start("export", 1)
    deployment = Deployment.of(network, restored.profile, restored.config)
    progress.advance()
    return deployment, restored.inputs, is_tuned


def restore(chosen: Chosen, experiment_path: Path | None, progress: Progress) -> Restored:
    """Load the network of a run, and calibrate it again.

    Parameters
    ----------
    chosen
        The configuration.
    experiment_path
        The experiment's file, which names the factories and beside which they stand; by default the run's copy of
        it, and where it was explored from.
    progress
        Who watches.

    Raises
    ------
    InputError
        If the experiment is not found, or makes another network or other data than the run was about.
    """
    run = chosen.run
    resolved = read_json(run / "resolved.json")
    path = experiment_path or Path(str(resolved.get("experiment", "")))
    kept = run / "experiment.toml"
    if not kept.is_file():
        raise RunFolderError(
            f"expected a run of an experiment file, got none in {run}; use hwdse.export in Python for this network"
        )
    if experiment_path is not None and not path.is_file():
        raise InputError(f"expected an experiment file, got no file {path}; correct --experiment")
    experiment, folder = load_experiment(experiment_path or kept), path.parent
    parts = (*vars(experiment.model).values(), *vars(experiment.data).values())
    if not path.is_file() and any(".py:" in str(part) for part in parts):
        raise InputError(
            f"expected the run's experiment file, beside which its factories stand, got no file {path}; name it by "
            "--experiment"
        )
    profile = recorded_profile(resolved, chosen.device)
    if profile is None:
        raise RunFolderError(
            f"expected the profile that {chosen.device} was explored with, got no file "
            f"{resolved.get('profiles', {}).get(chosen.device, '')}; restore it, or name its folder in HWDSE_PROFILES"
        )
    if profile.scheme.key != resolved.get("schemes", {}).get(chosen.device):
        raise RunFolderError(f"expected the scheme of {chosen.device} as it was in {run}, got {profile.scheme.key}")
    inputs, captured = load(experiment, folder, progress)
    recipe = _recipe(resolved, experiment)
    found = _check_same(resolved, fingerprint_of_network(captured), inputs, recipe, path)
    progress.start("calibrate", len(inputs.calibration))
    network = QuantizedNetwork.calibrated(
        captured,
        inputs.calibration,
        scheme=profile.scheme,
        recipe=recipe,
        store=weight_store(run, found["network"], inputs.calibration, recipe),
        on_batch=progress.advance,
    )
    config = parse_bits(captured.layer_index, chosen.bits)
    return Restored(network, profile, config, inputs, found | {"scheme": profile.scheme.key, "bits": chosen.bits})


def _recipe(resolved: Mapping[str, object], experiment: Experiment) -> Recipe:
    """Return the recipe of a run, which the command line may have chosen."""
    there = resolved.get("quantize")
    try:
        return Recipe.of(there) if isinstance(there, dict) else experiment.quantize.recipe
    except InputError as error:
        raise RunFolderError(
            f"expected the recipe of the run in resolved.json, got {there}; restore the file"
        ) from error


def _check_same(
    resolved: Mapping[str, object], network: str, inputs: Inputs, recipe: Recipe, path: Path
) -> dict[str, str]:
    """Check that network, data and recipe are those of the run, and return what they are."""
    evaluation: Evaluation = inputs.evaluation
    parts = {"calibration": inputs.calibration, "evaluation": evaluation.batches}
    data = fingerprint({name: fingerprint_of_batches(batches) for name, batches in parts.items()})
    found = {"network": network, "data": data, "recipe": recipe.key}
    identity = resolved.get("identity")
    there = identity if isinstance(identity, dict) else {}
    differing = [name for name, value in found.items() if there.get(name) != value]
    if differing:
        raise RunFolderError(
            f"expected the factories of {path} to make what the run was about, got another {', '.join(differing)}; "
            "restore them, or explore again"
        )
    return found
