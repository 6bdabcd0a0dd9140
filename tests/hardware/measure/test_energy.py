from __future__ import annotations

from pathlib import Path

import pytest

from hwdse.errors import InputError
from hwdse.hardware.measure.energy import PowercapMeter, Reading


@pytest.fixture
def powercap(tmp_path: Path) -> Path:
    """Return two packages with counters, a part of one of them, the zone that holds all, and one counted twice."""
    zones = {"intel-rapl:0": "package-0", "intel-rapl:1": "package-1", "intel-rapl:0:0": "core", "intel-rapl:2": "psys",
             "intel-rapl-mmio:0": "package-0"}  # fmt: skip
    for zone, name in zones.items():
        (tmp_path / zone).mkdir()
        (tmp_path / zone / "name").write_text(f"{name}\n")
        (tmp_path / zone / "energy_uj").write_text("1000\n")
        (tmp_path / zone / "max_energy_range_uj").write_text("262143328850\n")
    (tmp_path / "intel-rapl").mkdir()
    return tmp_path


def test_power_is_that_of_all_packages(powercap: Path) -> None:
    times = iter([0, 0, 2_000_000_000])
    meter = PowercapMeter(powercap, clock=lambda: next(times))
    before = meter.read()
    (powercap / "intel-rapl:0" / "energy_uj").write_text("5001000")
    (powercap / "intel-rapl:1" / "energy_uj").write_text("3001000")
    (powercap / "intel-rapl:2" / "energy_uj").write_text("99999999")
    after = meter.read()
    assert before.energy_uj == (1000, 1000)
    assert meter.energy_mj(before, after) == pytest.approx(8000.0)
    assert meter.power_mw(before, after) == pytest.approx(4000.0)


def test_a_counter_that_started_again_is_understood(powercap: Path) -> None:
    meter = PowercapMeter(powercap)
    before, after = Reading(0, (262143328850 - 500, 0)), Reading(10**9, (1500, 0))
    assert meter.energy_mj(before, after) == pytest.approx(2.0)


def test_readings_too_close_for_the_counters_steps(powercap: Path) -> None:
    meter = PowercapMeter(powercap)
    assert meter.power_mw(Reading(0, (0, 0)), Reading(100_000_000, (100, 0))) == pytest.approx(1.0)
    with pytest.raises(InputError, match=r"readings at least 0.1 s apart, got 0.099 s; measure longer"):
        meter.power_mw(Reading(0, (0, 0)), Reading(99_000_000, (100, 0)))


def test_a_machine_without_counters(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected RAPL counters under .*got none on this machine; energy is an est"):
        PowercapMeter(tmp_path / "nothing")


def test_counters_that_say_nothing(powercap: Path) -> None:
    (powercap / "intel-rapl:0" / "energy_uj").write_text("")
    with pytest.raises(InputError, match="expected readable RAPL counters"):
        PowercapMeter(powercap)


def test_counters_that_may_not_be_read(powercap: Path, monkeypatch) -> None:
    read = Path.read_text

    def deny(self: Path, **options: str) -> str:
        if self.name == "energy_uj":
            raise PermissionError(13, "Permission denied", str(self))
        return read(self, **options)

    monkeypatch.setattr(Path, "read_text", deny)
    with pytest.raises(InputError, match=r"expected readable RAPL counters.*Permission denied.*run as root"):
        PowercapMeter(powercap)
