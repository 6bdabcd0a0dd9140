"""Networks whose latencies are published for chips, as layer graphs that load without torch.

The graphs lie in ``graphs/``; ``python -m hwdse.networks`` writes them from :mod:`hwdse.networks.models`.
"""

from __future__ import annotations

from functools import cache

from hwdse.errors import InputError
from hwdse.graph import LayerGraph
from hwdse.hardware.faults import closest
from hwdse.networks.store import FOLDER, SUFFIX, path_of, read_graph

__all__ = ["layer_graph", "reference_networks"]


def reference_networks() -> tuple[str, ...]:
    """Return the names of the networks whose graphs are in the package, sorted.

    >>> "resnet18" in reference_networks()
    True
    """
    return tuple(sorted(path.name.removesuffix(SUFFIX) for path in FOLDER.glob(f"*{SUFFIX}")))


@cache
def layer_graph(name: str) -> LayerGraph:
    """Return the layer graph of the network ``name``, with counts per sample at its published input size.

    Raises
    ------
    InputError
        If there is no such network.

    >>> layer_graph("resnet18").macs
    1814073344
    """
    known = reference_networks()
    if name not in known:
        raise InputError(f"expected a reference network, got {name!r}; {closest(name, known)}")
    return read_graph(path_of(name))
