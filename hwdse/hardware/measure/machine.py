"""What of a processor decides how fast its kernels are: its model, its vector instructions, its caches."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Cache", "Machine", "this_machine"]

INSTRUCTIONS = (
    "avx2", "fma", "avx512f", "avx512bw", "avx512_vnni", "avx_vnni", "avx_vnni_int8", "avx512_bf16", "avx512_fp16",
    "amx_tile", "amx_int8", "amx_bf16", "asimd", "asimddp", "i8mm", "bf16", "sve", "sve2",
)  # fmt: skip
INT8_PRODUCTS = frozenset({"avx512_vnni", "avx_vnni", "avx_vnni_int8", "amx_int8", "asimddp", "i8mm"})


@dataclass(frozen=True)
class Cache:
    """One level of a core's caches."""

    name: str
    capacity_kib: int


@dataclass(frozen=True)
class Machine:
    """A processor.

    Attributes
    ----------
    cpu
        Model with family, model number and stepping, and how many cores the system has.
    flags
        Vector instructions that kernels are chosen by, separated by spaces.
    caches
        Of the first core, data or unified, the smallest first; empty where the system does not tell.
    memory_kib
        Main memory, 0 where the system does not tell.
    """

    cpu: str
    flags: str
    caches: tuple[Cache, ...] = ()
    memory_kib: int = 0

    @property
    def has_int8_products(self) -> bool:
        """True if it multiplies unsigned by signed bytes without saturating sums of two products in between."""
        return bool(INT8_PRODUCTS & set(self.flags.split()))


def this_machine(root: Path = Path("/")) -> Machine:
    """Return the processor that this runs on, as the files under ``root`` describe it."""
    facts = _cpu_facts(root / "proc" / "cpuinfo")
    name = facts.get("model name") or platform.processor() or platform.machine()
    numbers = [facts[key] for key in ("cpu family", "model", "stepping") if key in facts]
    known = set((facts.get("flags") or facts.get("Features") or "").split())
    cores = facts.get("cores", "")
    parts = [name, *(["family/model/stepping " + "/".join(numbers)] if numbers else []), *([cores] if cores else [])]
    return Machine(
        cpu=", ".join(parts),
        flags=" ".join(flag for flag in INSTRUCTIONS if flag in known),
        caches=_caches(root / "sys" / "devices" / "system" / "cpu" / "cpu0" / "cache"),
        memory_kib=_memory_kib(root / "proc" / "meminfo"),
    )


def _cpu_facts(path: Path) -> dict[str, str]:
    """Return the lines of the first processor, and the number of processors; none where there is no such file."""
    if not path.is_file():
        return {}
    facts: dict[str, str] = {}
    cores = 0
    for line in path.read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(":")
        cores += key.strip() == "processor"
        facts.setdefault(key.strip(), value.strip())
    return facts | {"cores": f"{cores} cores" if cores != 1 else "1 core"}


def _caches(folder: Path) -> tuple[Cache, ...]:
    """Return the data caches that the system lists."""
    found = []
    for index in sorted(folder.glob("index*")):
        level, sort, size = (index / name for name in ("level", "type", "size"))
        if not all(path.is_file() for path in (level, sort, size)):
            continue
        text = size.read_text(encoding="utf-8").strip()
        if sort.read_text(encoding="utf-8").strip() != "Instruction" and text.endswith("K"):
            found.append(Cache(f"L{level.read_text(encoding='utf-8').strip()}", int(text[:-1])))
    return tuple(sorted(found, key=lambda cache: cache.name))


def _memory_kib(path: Path) -> int:
    """Return the main memory."""
    if not path.is_file():
        return 0
    lines = (line.split() for line in path.read_text(encoding="utf-8").splitlines())
    return next((int(words[1]) for words in lines if words[:1] == ["MemTotal:"]), 0)
