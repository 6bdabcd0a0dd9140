from __future__ import annotations

from pathlib import Path

import pytest

from hwdse.hardware.measure.machine import Cache, Machine, this_machine

X86 = """\
processor\t: 0
model name\t: Chip 9
cpu family\t: 25
model\t\t: 17
stepping\t: 1
flags\t\t: fpu avx2 sse2 avx512_vnni fma

processor\t: 1
model name\t: Chip 9
"""
ARM = "processor\t: 0\nFeatures\t: fp asimd asimddp\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    caches = tmp_path / "sys/devices/system/cpu/cpu0/cache"
    for index, level, sort, size in ((0, 1, "Data", "32K"), (1, 1, "Instruction", "48K"), (2, 3, "Unified", "32768K")):
        folder = caches / f"index{index}"
        folder.mkdir(parents=True)
        for name, text in (("level", level), ("type", sort), ("size", size)):
            (folder / name).write_text(f"{text}\n")
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text(X86)
    (tmp_path / "proc/meminfo").write_text("MemFree: 5 kB\nMemTotal:       24684084 kB\n")
    return tmp_path


def test_a_machine_is_its_model_and_instructions(root: Path) -> None:
    assert this_machine(root) == Machine(
        "Chip 9, family/model/stepping 25/17/1, 2 cores",
        "avx2 fma avx512_vnni",
        (Cache("L1", 32), Cache("L3", 32768)),
        24684084,
    )


def test_an_arm_machine(root: Path) -> None:
    (root / "proc/cpuinfo").write_text(ARM)
    machine = this_machine(root)
    assert machine.flags == "asimd asimddp"
    assert machine.cpu.endswith(", 1 core")
    assert machine.has_int8_products


def test_a_system_that_says_nothing(tmp_path: Path) -> None:
    machine = this_machine(tmp_path)
    assert machine.cpu
    assert (machine.flags, machine.caches, machine.memory_kib) == ("", (), 0)


@pytest.mark.parametrize(
    ("flags", "has"), [("avx2 fma", False), ("avx512_vnni", True), ("amx_int8", True), ("", False)]
)
def test_which_instructions_multiply_bytes(flags: str, has: bool) -> None:
    assert Machine("c", flags).has_int8_products is has
