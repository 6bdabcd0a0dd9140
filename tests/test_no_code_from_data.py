"""Nothing in the package turns data into code: every call that could is listed here."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import hwdse

ROOT = Path(hwdse.__file__).parent

MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "yaml", "xml"}
CALLS = {"eval", "exec", "compile", "__import__"}
METHODS = {"read_pickle", "to_pickle", "literal_eval", "loads_pickle", "unpack_archive", "extractall"}
IMPORTERS = {"import_module", "exec_module", "spec_from_file_location"}

MAY = {
    ("factories.py", "import_module"),
    ("factories.py", "exec_module"),
    ("factories.py", "spec_from_file_location"),
    ("__init__.py", "import_module"),  # of the package's own parts
    # Between a crew and the workers that it starts itself; never from a run folder or a pool.
    ("workers/messages.py", "import pickle"),
    ("workers/packing.py", "import pickle"),
    ("workers/packing.py", "import cloudpickle"),
}


def name_of(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def is_off(call: ast.Call, option: str, value: object) -> bool:
    return any(k.arg == option and isinstance(k.value, ast.Constant) and k.value.value is value for k in call.keywords)


def dangers(path: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            found += [f"import {name}" for name in names if name.partition(".")[0] in MODULES]
        if not isinstance(node, ast.Call):
            continue
        name, owner = name_of(node.func), ast.unparse(node.func).rpartition(".")[0]
        if (name in CALLS and not owner) or name in METHODS or name in IMPORTERS:
            found.append(name)
        if (owner, name) == ("torch", "load") and not is_off(node, "weights_only", True):
            found.append("torch.load without weights_only=True")
        if owner in ("np", "numpy") and name == "load" and not is_off(node, "allow_pickle", False):
            found.append("np.load without allow_pickle=False")
    return found


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_only_factories_and_the_package_itself_are_code(path: Path) -> None:
    place = path.relative_to(ROOT).as_posix()
    assert [danger for danger in dangers(path) if (place, danger) not in MAY] == []


@pytest.mark.parametrize(
    "text", ["import pickle", "torch.load(p)", "np.load(p, allow_pickle=True)", "eval(x)", "pd.read_pickle(p)"]
)
def test_what_is_looked_for_is_found(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(text)
    assert len(dangers(tmp_path / "a.py")) == 1
