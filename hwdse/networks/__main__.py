"""``python -m hwdse.networks [NAME ...]``: capture the reference networks and write their graphs; all if none named."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from hwdse.capture import capture
from hwdse.errors import InputError
from hwdse.graph import LayerGraph
from hwdse.networks.models import NETWORKS, build
from hwdse.networks.store import path_of, write_graph

__all__ = ["main"]


def main(names: Sequence[str]) -> int:
    """Write the graphs of ``names`` and print what they hold; return the exit code."""
    try:
        graphs = {name: _written(name) for name in names or sorted(NETWORKS)}
    except InputError as error:
        Console(stderr=True, highlight=False).print(f"error: {error}", markup=False, soft_wrap=True)
        return error.exit_code
    Console(highlight=False).print(_table(graphs))
    return 0


def _written(name: str) -> LayerGraph:
    """Capture one network and write its graph."""
    graph = capture(*build(name))
    write_graph(path_of(name), graph)
    return graph


def _table(graphs: dict[str, LayerGraph]) -> Table:
    """Return one row per network; parameters after folding batch norm."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("network", no_wrap=True)
    for heading in ("layers", "MACs", "parameters"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, graph in graphs.items():
        table.add_row(name, f"{len(graph.layers)}", f"{graph.macs:,}", f"{graph.parameter_count:,}")
    return table


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
