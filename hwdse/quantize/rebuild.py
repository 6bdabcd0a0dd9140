"""All weights of a network in given formats, layer after layer, each from what it reads on calibration data.

A layer reads what the layers before it write with their rounded weights, and is to write what it writes in full
precision: it makes up for the errors that reach it, as far as its own weights can [Nagel2020]_.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch.utils import _pytree as pytree

from hwdse.capture.sites import Site
from hwdse.errors import InputError
from hwdse.formats import Scheme
from hwdse.progress import SILENT, Progress
from hwdse.quantize.adaround import adaround
from hwdse.quantize.bias import corrected, spread
from hwdse.quantize.blocks import blocks, single_layers
from hwdse.quantize.gram import gram
from hwdse.quantize.program import Program, layer_output
from hwdse.quantize.rebuildable import rebuildable, tied
from hwdse.quantize.rebuilt import Rebuilt
from hwdse.quantize.recipe import Recipe
from hwdse.quantize.runnable import Quantizers
from hwdse.quantize.store import Shelf
from hwdse.quantize.walk import LayerView, Part, Walk
from hwdse.quantize.weights import QuantizedWeight

__all__ = ["rebuild"]

_LEAST_SPREAD = 0.2
"""Share of full precision's spread of outputs below which corrected biases are taken to have broken the network."""

_TIED_DAMPING = 1.0
"""What the error of a weight itself counts, where an embedding looks it up, too."""

_GUARD_SAMPLES = 256
"""Samples on which that is looked at."""


@torch.inference_mode(False)
def rebuild(
    program: Program,
    batches: Iterable[Any],
    *,
    scheme: Scheme,
    recipe: Recipe,
    nearest: Callable[[str], QuantizedWeight],
    quantizers: Quantizers,
    names: Collection[str] | None = None,
    taken: Mapping[int, torch.Tensor] | None = None,
    shelf: Shelf | None = None,
    progress: Progress = SILENT,
) -> dict[str, Rebuilt]:
    """Return all weights that one layer reads, alone or with an embedding, by name; others are rounded to nearest.

    No layer has a larger output error on the calibration data than with its weights rounded to nearest.

    Parameters
    ----------
    program, batches
        Network and calibration data.
    scheme
        Who shares a scale.
    recipe
        How weights are rounded and biases corrected.
    nearest
        Gives the weight of a name, rounded to nearest.
    quantizers
        What rounds activations on the way.
    names
        Of the weights that are found or rounded to nearest; all by default.
    taken
        What else is rounded on the way, by position.
    shelf
        Where finished layers are kept; those that are there are not found again.
    progress
        Advanced after each layer, and told what went wrong.

    Raises
    ------
    InputError
        If there is no batch, or a value is not finite (the layer is named), or the shelf holds something else.
    """
    names = program.weights if names is None else names
    sites = {name: site for name, site in rebuildable(program).items() if name in names}
    changed = {program.weights[name]: nearest(name).values for name in names if name not in sites} | dict(taken or {})
    batches = list(batches)
    walks = [Walk(program, batch, quantizers, changed) for batch in batches]
    if not sum(walk.samples for walk in walks):
        raise InputError("expected calibration batches with samples, got none; check the calibration factory")
    found: dict[str, Rebuilt] = {}
    if recipe.weight_rounding == "gram":
        for name, site in tied(program).items() if batches else ():
            if name in names:
                found[name] = _tied(program, batches, site, nearest(name), scheme, shelf)
                changed[program.weights[name]] = found[name].weight.values
                progress.advance()
    is_by_block = recipe.weight_rounding == "adaround" and recipe.adaround.by_block
    for block in blocks(program) if is_by_block else single_layers(program):
        own = {str(site.weight): site for site in block.sites if site.weight in sites}
        there = {name: shelf.get(name, nearest(name)) for name in own} if shelf is not None else {}
        weights = {name: rebuilt for name, rebuilt in there.items() if rebuilt is not None}
        if weights.keys() != own.keys():
            part = Part(program, replace(block, sites=tuple(own.values())), walks, nearest, scheme)
            weights = _rebuilt(part, recipe)
        for name, rebuilt in weights.items():
            if shelf is not None and there[name] is None:
                shelf.put(name, rebuilt)
            _put(walks, changed, program, own[name], rebuilt)
            progress.advance()
        found |= weights
    return found if recipe.bias_correction == "none" else _guarded(program, found, sites, walks, progress)


def _tied(
    program: Program,
    batches: Iterable[Any],
    site: Site,
    nearest: QuantizedWeight,
    scheme: Scheme,
    shelf: Shelf | None,
) -> Rebuilt:
    """Return a weight that is an embedding, too, for what its layer reads in full precision.

    The network begins with it, so it is found before all others; its own error counts as much as its layer's.
    """
    name = str(site.weight)
    there = shelf.get(name, nearest) if shelf is not None else None
    if there is None:
        step = program.step_of[layer_output(site).name]
        walks = [Walk(program, batch, {}, {}) for batch in batches]
        found = gram(LayerView(program, site, step, walks, nearest, scheme), damping=_TIED_DAMPING)
        there = replace(found, bias=None)
        if shelf is not None:
            shelf.put(name, there)
    return there


def _put(
    walks: Iterable[Walk], changed: dict[int, torch.Tensor], program: Program, site: Site, rebuilt: Rebuilt
) -> None:
    """Have all batches go on with a weight and its bias."""
    assert site.weight is not None
    own = {program.weights[site.weight]: rebuilt.weight.values}
    if rebuilt.bias is not None:
        own[program.biases[site.name]] = rebuilt.bias
    changed |= own
    for walk in walks:
        walk.put(own, site)


def _rebuilt(part: Part, recipe: Recipe) -> dict[str, Rebuilt]:
    """Return the weights of a part, and their biases."""
    if recipe.weight_rounding == "adaround":
        found = adaround(part, recipe.adaround)
    else:
        found = {str(view.site.weight): _ROUNDERS[recipe.weight_rounding](view) for view in part.layers}
    if recipe.bias_correction == "none":
        return found
    if recipe.weight_rounding == "adaround":
        for walk in part.walks:
            walk.forget()  # it went through the whole part in full precision
    correct = {}
    for view in part.layers:
        name = str(view.site.weight)
        correct[name] = corrected(found[name], view, recipe.bias_correction)
        _put(part.walks, part.walks[0].changed, part.program, view.site, correct[name])
    return correct


def _nearest(view: LayerView) -> Rebuilt:
    return Rebuilt(view.nearest, is_nearest=True)


_ROUNDERS: Mapping[str, Callable[[LayerView], Rebuilt]] = {"nearest": _nearest, "gram": gram}


def _guarded(
    program: Program, found: dict[str, Rebuilt], sites: Mapping[str, Site], walks: list[Walk], progress: Progress
) -> dict[str, Rebuilt]:
    """Return what was found, without the biases if these are what makes all outputs nearly the same.

    Matching the means of a network that is far from full precision, layer upon layer, can do that.
    """
    looked: list[Walk] = []
    for walk in walks:
        if sum(w.samples for w in looked) < _GUARD_SAMPLES:
            looked.append(walk)
    biases = {program.biases[sites[name].name]: r.bias for name, r in found.items() if r.bias is not None}
    plain = {position: v for position, v in looked[0].changed.items() if position not in biases}
    full, corrected_, without = (
        _spread(program, looked, constants, rounded=i > 0) for i, constants in enumerate(({}, looked[0].changed, plain))
    )
    if corrected_ >= min(_LEAST_SPREAD * full, without):
        return found
    progress.warn(
        f"expected corrected biases to keep the outputs apart, got {corrected_ / full:.2g} of full precision's spread "
        f"({without / full:.2g} without them); the biases stay as they were"
    )
    return {name: replace(rebuilt, bias=None) for name, rebuilt in found.items()}


def _spread(program: Program, walks: list[Walk], constants: Mapping[int, torch.Tensor], *, rounded: bool) -> float:
    rows = []
    with torch.no_grad():
        for walk in walks:
            quantizers = walk.quantizers if rounded else {}
            values = program.start(walk.batch, constants)
            program.quantize_inputs(values, quantizers)
            program.advance(values, quantizers)
            tensors = [t for t in pytree.tree_leaves(program.result(values)) if isinstance(t, torch.Tensor)]
            rows.append(tensors[0].reshape(-1, tensors[0].shape[-1]))
    return spread(torch.cat(rows))
