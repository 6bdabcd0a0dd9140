"""Layer graphs in files: JSON, compressed."""

from __future__ import annotations

import gzip
import zlib
from dataclasses import fields
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from hwdse.errors import InputError
from hwdse.files import write_bytes
from hwdse.graph import LayerGraph
from hwdse.reason import reason_of

__all__ = ["FOLDER", "SUFFIX", "path_of", "plain", "read_graph", "write_graph"]

FOLDER = Path(__file__).parent / "graphs"
"""Where the graphs of the package are."""

SUFFIX = ".json.gz"

_ADAPTER = TypeAdapter(LayerGraph)


def path_of(name: str) -> Path:
    """Return the file of the network ``name``.

    >>> path_of("resnet18").name
    'resnet18.json.gz'
    """
    return FOLDER / f"{name}{SUFFIX}"


def plain(graph: LayerGraph) -> LayerGraph:
    """Return ``graph`` without what a capture adds to it: the program and the places of the layers in it."""
    return LayerGraph(**{part.name: getattr(graph, part.name) for part in fields(LayerGraph) if part.init})


def write_graph(path: Path, graph: LayerGraph) -> Path:
    """Write ``graph`` to ``path``, whole or not at all, and return ``path``; the same graph gives the same bytes."""
    text = _ADAPTER.dump_json(plain(graph), exclude={"layer_index"}, exclude_defaults=True)
    return write_bytes(path, gzip.compress(text, mtime=0))


def read_graph(path: Path) -> LayerGraph:
    """Return the graph that :func:`write_graph` wrote to ``path``.

    Raises
    ------
    InputError
        If the file cannot be read, or holds something else.
    """
    try:
        return _ADAPTER.validate_json(gzip.decompress(path.read_bytes()))
    except (OSError, EOFError, zlib.error, ValidationError) as error:
        raise InputError(f"expected a layer graph in {path}, got {reason_of(error)}; write the file again") from error
