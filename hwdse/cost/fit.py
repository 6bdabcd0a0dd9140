"""Whether a configuration fits a device's memories, as limits for a search and as sentences for people."""

from __future__ import annotations

from dataclasses import dataclass

from hwdse.cost.memory import live_sums
from hwdse.cost.size import MODEL as SIZE
from hwdse.errors import InputError
from hwdse.formats import Precision
from hwdse.graph import BitConfig, LayerGraph
from hwdse.hardware import HardwareProfile, Memory

__all__ = ["LevelFit", "MemoryFit", "memory_fit", "memory_limits"]

COLUMNS = {
    frozenset({"weights"}): "size_kib",
    frozenset({"activations"}): "activation_kib",
    frozenset({"weights", "activations"}): "memory_kib",
}
KIB = 1024


def memory_limits(profile: HardwareProfile) -> dict[str, float]:
    """Return the hard limits that a device's memories set: column to KiB, the tightest level per column.

    A level that holds weights limits ``size_kib``, one that holds activations ``activation_kib``. One that holds both
    limits ``memory_kib``, their exact sum at the worst operator: two separate limits would be either too loose or too
    tight. Caches, which hold nothing whole, set none.
    """
    limits: dict[str, float] = {}
    for memory in profile.memories:
        column = COLUMNS.get(frozenset(memory.holds)) if memory.spill_gb_per_s is None else None
        if column is not None:
            limits[column] = min(limits.get(column, float("inf")), memory.usable_kib)
    return limits


@dataclass(frozen=True)
class LevelFit:
    """One memory level and what a configuration asks of it.

    Attributes
    ----------
    memory
        The level.
    column
        Cost column that it limits.
    demand_bytes, limit_bytes
        What is needed, and what is there after code and runtime.
    operator
        Operator at which the activations peak; ``None`` where the level holds weights only.
    """

    memory: Memory
    column: str
    demand_bytes: int
    limit_bytes: int
    operator: str | None

    @property
    def fits(self) -> bool:
        """True if the level holds it."""
        return self.demand_bytes <= self.limit_bytes

    @property
    def sentence(self) -> str:
        """What is needed where, what is there, and how far apart they are."""
        held = " and ".join(self.memory.holds)
        where = f" at {self.operator}" if self.operator is not None else ""
        gap = self.limit_bytes - self.demand_bytes
        verdict = f"{gap} bytes to spare" if self.fits else f"{-gap} bytes too many"
        offer = f"{self.memory.name} has {self.limit_bytes} bytes ({self.memory.capacity_kib.kind}) for {held}"
        return f"{offer}, {self.demand_bytes} needed{where}: {verdict}"


@dataclass(frozen=True)
class MemoryFit:
    """How a configuration fits every memory level of a device."""

    levels: tuple[LevelFit, ...]

    @property
    def fits(self) -> bool:
        """True if every level holds what it must."""
        return all(level.fits for level in self.levels)

    @property
    def sentences(self) -> tuple[str, ...]:
        """One sentence per level that is too small; none if the configuration fits."""
        return tuple(level.sentence for level in self.levels if not level.fits)


def memory_fit(graph: LayerGraph, profile: HardwareProfile, config: BitConfig) -> MemoryFit:
    """Return how a configuration fits the memories of a device.

    Raises
    ------
    InputError
        If the device does not run a layer at its precision, or activations matter and the graph has no live sets.
    """
    candidates = tuple(dict.fromkeys(config.precisions.values()))
    choices = [candidates.index(_supported(graph, profile, config, i)) for i in range(len(graph.layers))]
    sizes = SIZE.costs(graph, profile, candidates)
    size = sum(float(sizes.values[i, c]) for i, c in enumerate(choices)) + sizes.constant
    peak, operator = _peak(graph, profile, candidates, choices)
    demands = {"size_kib": (size, None), "activation_kib": (peak, operator), "memory_kib": (size + peak, operator)}
    levels = []
    for memory in profile.memories:
        column = COLUMNS.get(frozenset(memory.holds)) if memory.spill_gb_per_s is None else None
        if column is not None:
            demand, at = demands[column]
            levels.append(LevelFit(memory, column, round(demand * KIB), int(memory.usable_kib * KIB), at))
    return MemoryFit(tuple(levels))


def _supported(graph: LayerGraph, profile: HardwareProfile, config: BitConfig, index: int) -> Precision:
    """Return the precision of a layer, which the device must run."""
    layer = graph.layers[index]
    precision = config.precisions.get(layer.name)
    if precision is None:
        raise InputError(f"expected a precision for every layer, got none for {layer.name}")
    if not profile.supports(layer, precision):
        raise InputError(f"expected a precision that {profile.name} supports for {layer.name}, got {precision}")
    return precision


def _peak(
    graph: LayerGraph, profile: HardwareProfile, candidates: tuple[Precision, ...], choices: list[int]
) -> tuple[float, str | None]:
    """Return the peak activation memory in KiB and the operator where it occurs."""
    if not any("activations" in memory.holds for memory in profile.memories):
        return 0.0, None
    sums = live_sums(graph, profile, candidates)
    alive = sums.constant + sums.terms[:, range(len(choices)), choices].sum(axis=1)
    worst = int(alive.argmax())
    return float(alive[worst]), graph.live_sets[worst].operator
