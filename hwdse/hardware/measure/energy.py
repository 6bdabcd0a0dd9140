"""Energy that the processor counts itself (RAPL), read through Linux's powercap files."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hwdse.errors import InputError

__all__ = ["PowercapMeter", "Reading"]

POWERCAP = Path("/sys/class/powercap")
STEP_S = 1e-3  # the processor brings its counters up to date about every millisecond
SHORTEST_S = 100 * STEP_S  # so that one step more or less is one per cent
UNAVAILABLE = "energy is an estimated power times the latency"


@dataclass(frozen=True)
class Reading:
    """Counters at one moment: nanoseconds, and microjoules of every package."""

    time_ns: int
    energy_uj: tuple[int, ...]


class PowercapMeter:
    """Mean power of all processor packages between two readings.

    Parameters
    ----------
    folder
        Where the system lists its power zones.
    clock
        Nanoseconds that only grow.

    Raises
    ------
    InputError
        If there are no counters, or they may not be read.
    """

    def __init__(self, folder: Path = POWERCAP, *, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._clock = clock
        # Other zones are parts of packages (cores, memory), hold all of them (psys), or count them again (mmio).
        zones = sorted(folder.glob("*-rapl:*"))
        self._zones = [path for path in zones if _text(path / "name").startswith("package")]
        if not self._zones:
            raise InputError(f"expected RAPL counters under {folder}, got none on this machine; {UNAVAILABLE}")
        try:
            self._ranges_uj = tuple(int(_text(zone / "max_energy_range_uj")) for zone in self._zones)
            self.read()
        except (OSError, ValueError) as error:
            raise InputError(
                f"expected readable RAPL counters under {folder}, got {error}; run as root, else {UNAVAILABLE}"
            ) from error

    def read(self) -> Reading:
        """Return the counters now."""
        return Reading(self._clock(), tuple(int(_text(zone / "energy_uj")) for zone in self._zones))

    def energy_mj(self, before: Reading, after: Reading) -> float:
        """Return the energy between two readings in mJ; a counter may have started again once.

        Raises
        ------
        InputError
            If they are closer together than the counters' steps allow for.
        """
        seconds = (after.time_ns - before.time_ns) * 1e-9
        if seconds < SHORTEST_S:
            raise InputError(f"expected readings at least {SHORTEST_S:g} s apart, got {seconds:g} s; measure longer")
        pairs = zip(before.energy_uj, after.energy_uj, self._ranges_uj, strict=True)
        return sum(end - start if end >= start else end - start + full for start, end, full in pairs) * 1e-3

    def power_mw(self, before: Reading, after: Reading) -> float:
        """Return the mean power between two readings in mW."""
        return self.energy_mj(before, after) / ((after.time_ns - before.time_ns) * 1e-9)


def _text(path: Path) -> str:
    """Return what a file says, nothing where there is none."""
    return path.read_text(encoding="utf-8").strip() if path.is_file() else ""
