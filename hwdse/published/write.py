"""A profile's file with new sections in it: everything else, comments too, stays as it was."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from shutil import copy
from tempfile import TemporaryDirectory

from hwdse.errors import ProfileError
from hwdse.files import write_text
from hwdse.hardware import HardwareProfile, check
from hwdse.hardware.quantity import Section
from hwdse.hardware.toml_text import keys_text

__all__ = ["profile_text", "write_profile"]

SECTIONS = ("calibration", "accuracy")


def write_profile(path: Path, profile: HardwareProfile, original: str) -> Path:
    """Write ``original``, the text of a profile's file, with the calibration and the accuracy of ``profile``.

    A latency table that the profile names must lie beside ``path``.

    Raises
    ------
    ProfileError
        If the result has faults; nothing is written then.
    """
    text = profile_text(profile, original)
    table = profile.spec.table
    with TemporaryDirectory() as folder:
        draft = Path(folder) / path.name
        draft.write_text(text, encoding="utf-8")
        if table is not None and path.with_name(table).is_file():
            copy(path.with_name(table), folder)
        faults = check(draft)
    if faults:
        raise ProfileError(str(path), faults)
    return write_text(path, text)


def profile_text(profile: HardwareProfile, original: str) -> str:
    """Return ``original`` with the name, the ``[calibration]``, the ``[accuracy]`` and new sources of ``profile``."""
    parts = [_sourced(block, profile) for block in _blocks(original) if not _is_replaced(block)]
    parts[0] = re.sub(r'^name\s*=\s*"[^"]*"', f'name = "{profile.name}"', parts[0], count=1, flags=re.MULTILINE)
    parts[-1] = parts[-1].rstrip("\n") + "\n\n"
    parts += [_section(name, found) for name in SECTIONS if (found := getattr(profile.spec, name)) is not None]
    return "".join(parts).rstrip("\n") + "\n"


def _sourced(block: str, profile: HardwareProfile) -> str:
    """Return a piece of the file; ``[sources]`` with those of ``profile`` that it lacks."""
    if _header(block) != "[sources]":
        return block
    known = tomllib.loads(block)["sources"]
    new = {key: text for key, text in profile.spec.sources.items() if key not in known}
    return block.rstrip("\n") + "\n" + keys_text(new) + "\n" if new else block


def _section(name: str, section: Section) -> str:
    """Return a section as TOML; a mapping of figures becomes a section of its own."""
    values = {key: value for key, value in section.model_dump(mode="json", exclude_none=True).items() if value != {}}
    apart = {key: value for key, value in values.items() if isinstance(value, dict) and "value" not in value}
    text = f"[{name}]\n" + keys_text({key: value for key, value in values.items() if key not in apart}) + "\n"
    return text + "".join(f"[{name}.{key}]\n{keys_text(value)}\n" for key, value in apart.items())


def _blocks(text: str) -> list[str]:
    """Return the file in pieces that each start with a table's header, the comments above it with it.

    What follows the last key of a section that is written anew, comments and blank lines, is a piece of its own.
    """
    pieces, current = list[str](), list[str]()
    for line in text.splitlines(keepends=True):
        if line.startswith("[") and current:
            cut = _trailing(current)
            pieces += ["".join(current[:cut])]
            current = current[cut:]
        current.append(line)
    cut = _trailing(current)
    return [piece for piece in [*pieces, "".join(current[:cut]), "".join(current[cut:])] if piece]


def _trailing(lines: list[str]) -> int:
    """Return where the comments at the end of ``lines`` begin, blank lines between them too; its length without any."""
    cut = len(lines)
    for i in range(len(lines) - 1, -1, -1):
        if lines[i].startswith("#"):
            cut = i
        elif lines[i].strip():
            break
    return cut


def _header(block: str) -> str:
    """Return the header of a piece, empty without one."""
    return next((line.strip() for line in block.splitlines() if line.startswith("[")), "")


def _is_replaced(block: str) -> bool:
    """Return whether a piece is a section that is written anew."""
    return any(re.match(rf"\[{name}[\].]", _header(block)) for name in SECTIONS)
