"""Models, data and metrics by name: ``package.module:factory`` or ``path/file.py:factory``."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

from hwdse.errors import InputError
from hwdse.reason import reason_of

__all__ = ["FROM_FILE", "call_factory", "load_factory"]

FROM_FILE = "hwdse_factory_"
"""Modules loaded from a file have names that start so; no other process can import them by name."""


def load_factory(name: str, *, folder: Path) -> Callable[..., Any]:
    """Return the function called ``name``.

    Parameters
    ----------
    name
        ``package.module:function``, or ``file.py:function`` with the file relative to ``folder``.
    folder
        Folder of the experiment file.

    Raises
    ------
    InputError
        If the module or file is missing, fails to import, or has no such function.
    """
    place, separator, attribute = name.partition(":")
    if not (separator and place and attribute.isidentifier()):
        raise InputError(f"expected a factory as package.module:function or file.py:function, got {name!r}")
    module = _from_file(folder / place, name) if place.endswith(".py") else _from_package(place, name, folder)
    factory = getattr(module, attribute, None)
    if not callable(factory):
        known = [n for n, value in vars(module).items() if not n.startswith("_") and callable(value)]
        close = get_close_matches(attribute, known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"it has {', '.join(known) or 'none'}"
        raise InputError(f"expected a function {attribute!r} in {place}, got none; {hint}")
    return factory  # type: ignore[no-any-return]


def _from_package(place: str, name: str, folder: Path) -> ModuleType:
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        file = f"{place.replace('.', '/')}.py"
        hint = f"; did you mean {file}:{name.partition(':')[2]}, the file beside?" if (folder / file).is_file() else ""
        raise InputError(f"expected an installed module for factory {name!r}, got: {error}{hint}") from error
    except (Exception, SystemExit) as error:
        raise _import_failure(name, error) from error


def _import_failure(name: str, error: BaseException) -> InputError:
    """Return the sentence for a module that fails while it is imported; its own sentence if it has one."""
    if isinstance(error, InputError):
        return error
    return InputError(f"expected factory {name!r} to import, got {reason_of(error)}; run its file on its own")


def _from_file(path: Path, name: str) -> ModuleType:
    if not path.is_file():
        raise InputError(f"expected a Python file for factory {name!r}, got no file {path}")
    path = path.resolve()
    # A name of its own: two experiments may both have a models.py.
    module_name = f"{FROM_FILE}{path.stem}_{sha256(str(path).encode()).hexdigest()[:8]}"
    if module_name in sys.modules:
        return sys.modules[module_name]
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[module_name]
        raise _import_failure(name, error) from error
    return module


def call_factory(name: str, folder: Path, *, as_list: bool | None = None) -> Any:
    """Call the factory ``name``; what goes wrong inside becomes one sentence.

    Generators run inside too: with ``as_list`` everything is read, with False what can be read only once.

    Raises
    ------
    InputError
        If there is no such factory, or it does not run.
    """
    factory = load_factory(name, folder=folder)
    try:
        made = factory()
        if as_list or (as_list is not None and isinstance(made, Iterator)):
            return list(made)
    except InputError:
        raise
    except (Exception, SystemExit) as error:
        raise InputError(f"expected factory {name!r} to run, got {reason_of(error)}; correct the factory") from error
    return made
