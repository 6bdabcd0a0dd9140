"""Weights that one layer reads, alone or with an embedding: those that can be fitted to what the layer is to write."""

from __future__ import annotations

from hwdse.capture.operators import base_name
from hwdse.capture.sites import Site
from hwdse.quantize.program import Program

__all__ = ["rebuildable", "tied"]


def rebuildable(program: Program) -> dict[str, Site]:
    """Return the one layer that reads each weight, by the weight's name.

    A weight that something else reads too, be it another layer or an embedding, has no layer to be fitted to alone.
    Neither has one of a product that is multiplied by a factor.
    """
    found = {}
    for site in program.captured.sites.values():
        node = site.operands[1]
        while len(node.users) == 1 and node is not site.weight_node:
            node = node.all_input_nodes[0]
        is_scaled = not {"alpha", "beta"}.isdisjoint(site.node.kwargs)
        if site.weight is not None and node is site.weight_node and len(node.users) == 1 and not is_scaled:
            found[site.weight] = site
    return found


def tied(program: Program) -> dict[str, Site]:
    """Return the one layer that reads each weight that is looked up as an embedding, too, by the weight's name."""
    found: dict[str, list[Site]] = {}
    for site in program.captured.sites.values():
        if site.weight is not None:
            found.setdefault(site.weight, []).append(site)
    return {
        name: sites[0]
        for name, sites in found.items()
        if len(sites) == 1
        and sites[0].operands[1] is sites[0].weight_node
        and {base_name(user) for user in sites[0].weight_node.users if user is not sites[0].node} == {"embedding"}
    }
