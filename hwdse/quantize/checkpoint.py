"""Checkpoints: tensors and plain values in one file, whole or absent, with what they belong to."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from hwdse.errors import RunFolderError
from hwdse.files import write_bytes
from hwdse.reason import reason_of

__all__ = ["read_checkpoint", "write_checkpoint"]


def write_checkpoint(path: Path, state: Mapping[str, Any], about: Mapping[str, str]) -> Path:
    """Write ``state``, nested dictionaries and lists of tensors and plain values, and what it is ``about``."""
    content = io.BytesIO()
    torch.save({"about": dict(about), "state": dict(state)}, content)
    return write_bytes(path, content.getvalue())


def read_checkpoint(path: Path, about: Mapping[str, str]) -> dict[str, Any]:
    """Return the state in ``path``; nothing but tensors and plain values is read.

    Raises
    ------
    RunFolderError
        If the file is missing or damaged, or about something else; what differs is named.
    """
    if not path.is_file():
        raise RunFolderError(f"expected a checkpoint to go on from, got no file {path}; leave out --resume")
    try:
        if not zipfile.is_zipfile(path):  # torch would try its older formats, pickles among them
            raise zipfile.BadZipFile("no archive")  # noqa: TRY301  (told like all else that is wrong)
        found = torch.load(path, weights_only=True)
        there, state = dict(found["about"]), dict(found["state"])
    except Exception as error:  # what damage makes of the reader has no common class but this
        raise RunFolderError(
            f"expected a checkpoint in {path}, got a damaged file ({reason_of(error)}); remove it and begin anew"
        ) from error
    differing = sorted(key for key in {*about, *there} if about.get(key) != there.get(key))
    if differing:
        raise RunFolderError(
            f"expected the checkpoint {path} to be of the same tuning, got another {', '.join(differing)}; give what "
            "it was begun with, or leave out --resume"
        )
    return state
