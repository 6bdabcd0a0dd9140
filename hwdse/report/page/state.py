"""How far a run came: what of it can be shown, and what a reader must know first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hwdse.errors import RunFolderError
from hwdse.files import read_json
from hwdse.report.tables import RunTables

__all__ = ["RunState"]

GO_ON = "go on with hwdse explore and --resume"


@dataclass(frozen=True)
class RunState:
    """What a run folder holds so far.

    Attributes
    ----------
    record
        Everything that ``resolved.json`` says.
    environment
        Versions and machine; empty where the run did not record them.
    devices
        All devices of the run.
    infeasible
        Device to why nothing fits it.
    tables
        The result tables; ``None`` where the run was stopped before it wrote any.
    """

    record: Mapping[str, Any]
    environment: Mapping[str, Any]
    devices: tuple[str, ...]
    infeasible: Mapping[str, str]
    tables: RunTables | None

    @classmethod
    def of(cls, run: Path) -> RunState:
        """Return the state of the run folder ``run``.

        Raises
        ------
        RunFolderError
            If it is no run folder, or a file is missing or damaged.
        """
        record = read_json(run / "resolved.json")
        devices, infeasible = record.get("devices"), record.get("infeasible", {})
        if not (isinstance(devices, list) and devices and isinstance(infeasible, dict)):
            raise RunFolderError(f"expected a run's devices in {run / 'resolved.json'}, got none; restore the file")
        # Written last, after the tables of every device.
        tables = RunTables.load(run) if "full_precision" in record else None
        reasons = {str(name): str(reason) for name, reason in infeasible.items()}
        environment = read_json(run / "environment.json") if (run / "environment.json").exists() else {}
        return cls(record, environment, tuple(map(str, devices)), reasons, tables)

    @property
    def name(self) -> str:
        """Of the experiment."""
        return str(self.record.get("name", "study"))

    @property
    def is_infeasible(self) -> bool:
        """Whether nothing fits any device."""
        return set(self.infeasible) >= set(self.devices)

    @property
    def unfinished(self) -> str:
        """A sentence that says what the run lacks; empty where it lacks nothing."""
        if self.is_infeasible:
            return ""
        if self.tables is None:
            return f"This run is unfinished: it was stopped before it had results; {GO_ON}."
        feasible = [device for device in self.tables.results.values() if not device.infeasible]
        if all(device.measured.empty for device in feasible):
            return f"This run is empty: no configuration was measured; raise the budget and {GO_ON}."
        return ""

    @property
    def sentences(self) -> list[str]:
        """What a reader must know first."""
        found = [self.unfinished]
        if self.tables is not None and (doubt := self.tables.full_precision.doubt):
            found.append(f"{doubt[0].upper()}{doubt[1:]}.")
        found += [f"No feasible configuration on {name}: {reason}" for name, reason in self.infeasible.items()]
        shown = [] if self.tables is None else [d for d in self.tables.results.values() if not d.emptiness]
        if single := ", ".join(device.device for device in shown if len(device.measured) == 1):
            found.append(f"Only one configuration was measured for {single}: there is nothing to choose from.")
        if bare := ", ".join(device.device for device in shown if device.pick is None):
            found.append(
                f"Nothing was picked for {bare}: the run was stopped early, or not explored from the command line."
            )
        return [sentence for sentence in found if sentence]
