"""Imports point left only, and what needs no torch does not load it."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import hwdse

ROOT = Path(hwdse.__file__).parent

# Every module and folder of the package, from left to right; a name may import what stands before it.
ORDER = (
    # Words of one's own: errors, and reading and finding things.
    "errors", "reason", "files", "progress", "plugins", "factories", "examples", "threads", "parts",
    # Work done side by side.
    "workers",
    # The nouns: numbers, layers, fronts.
    "formats", "graph", "pareto", "units", "infeasible", "front",
    # What a device is, what a network is, what its tensors hold.
    "hardware", "calibrate", "capture", "networks",
    # What a choice costs and what it harms.
    "cost", "quantize", "analysis",
    # Figures of whole networks that predictions are held against.
    "published",
    # All choices as arrays; folding of layers and lookup of rows are its parts.
    "fold", "lookup", "space",
    # Choosing and measuring.
    "search", "evaluate",
    # A whole run, and the file that asks for it.
    "experiment", "reference", "study",
    # What comes out, and the command line.
    "deploy", "report", "commands", "cli", "__main__",
)  # fmt: skip
RANK = {name: rank for rank, name in enumerate(ORDER)}

TORCH_FREE = (
    "errors", "reason", "files", "progress", "plugins", "factories", "formats", "graph", "pareto", "units",
    "infeasible", "front", "hardware", "cost", "published", "fold", "lookup", "space", "search", "report", "cli",
)  # fmt: skip

BLOCKED = """
import sys, importlib
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ImportError(f"{name} is not to be imported")
sys.meta_path.insert(0, Blocker())
for name in sys.argv[1:]:
    importlib.import_module(name)
assert "torch" not in sys.modules
"""


def modules() -> dict[str, Path]:
    """Return the path of every module by its dotted name."""
    paths = {".".join(("hwdse", *p.relative_to(ROOT).with_suffix("").parts)): p for p in ROOT.rglob("*.py")}
    return {name.removesuffix(".__init__"): path for name, path in paths.items()}


def imported(node: ast.AST, module: str) -> list[str]:
    """Return the absolute names that an import statement of ``module`` may load, submodules included."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    assert node.level == 0, f"{module} imports relatively"
    assert node.module is not None
    return [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]


def statements(tree: ast.AST, *, deferred: bool) -> Iterator[ast.AST]:
    """Yield the nodes of a module, with or without those that run later: function bodies and ``TYPE_CHECKING``."""
    for node in ast.iter_child_nodes(tree):
        later = isinstance(node, ast.FunctionDef) or (
            isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        )
        if deferred or not later:
            yield node
            yield from statements(node, deferred=deferred)


def imports(module: str, path: Path, *, deferred: bool = True) -> set[str]:
    """Return the modules of this package that ``module`` imports."""
    known = modules()
    names = [
        name for node in statements(ast.parse(path.read_text()), deferred=deferred) for name in imported(node, module)
    ]
    return {name for name in names if name in known} - {module}


def part(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def test_every_part_has_its_place() -> None:
    assert {part(module) for module in modules()} - {""} <= set(ORDER)


@pytest.mark.parametrize("module", sorted(modules()))
def test_imports_point_left(module: str) -> None:
    if module == "hwdse":
        return  # the facade names everything and loads it on first use
    wrong = {
        name
        for name in imports(module, modules()[module])
        if name != "hwdse" and part(name) != part(module) and RANK[part(name)] >= RANK[part(module)]
    }
    assert not wrong, f"{module} imports from its right: {sorted(wrong)}"
    assert "hwdse" not in imports(module, modules()[module]), f"{module} imports the facade"


def test_the_facade_loads_nothing() -> None:
    assert imports("hwdse", modules()["hwdse"], deferred=False) == set()


def test_no_module_waits_for_itself() -> None:
    graph = {module: imports(module, path, deferred=False) for module, path in modules().items()}
    assert len(list(TopologicalSorter(graph).static_order())) == len(graph)


def test_much_of_it_imports_without_torch() -> None:
    names = [module for module in modules() if part(module) in TORCH_FREE]
    assert {part(name) for name in names} == set(TORCH_FREE)
    result = subprocess.run([sys.executable, "-c", BLOCKED, *names], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr


def test_the_blocker_blocks() -> None:
    result = subprocess.run(
        [sys.executable, "-c", BLOCKED, "hwdse.capture"], capture_output=True, text=True, timeout=120
    )
    assert result.returncode != 0
    assert "torch is not to be imported" in result.stderr


@pytest.mark.parametrize("first", ["pass", "import hwdse.capture", "hwdse.load_profile", "hwdse.explore"])
def test_the_facade_gives_what_it_lists_whatever_was_loaded_before(first: str) -> None:
    code = f"import hwdse\n{first}\nfor name in hwdse.__all__:\n    assert callable(getattr(hwdse, name)), name"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_the_facade_has_nothing_else() -> None:
    with pytest.raises(AttributeError, match="module 'hwdse' has no attribute 'price'"):
        _ = hwdse.price
