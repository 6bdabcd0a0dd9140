"""A network under one scheme: calibrated ranges, one quantized copy of the weights per format, any configuration."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass, field
from typing import Any

import torch

from hwdse.calibrate import Boxes, Stream, calibrator
from hwdse.capture import Capture
from hwdse.capture.sites import Site
from hwdse.errors import InputError
from hwdse.formats import FP32, NumberFormat, Precision, Scheme, parse
from hwdse.graph import BitConfig, Layer
from hwdse.progress import SILENT, Progress, Remembered
from hwdse.quantize.equalize import equalize
from hwdse.quantize.fitted import Fitted
from hwdse.quantize.layout import Layout
from hwdse.quantize.observe import observe, read_points
from hwdse.quantize.program import Program
from hwdse.quantize.quantizer import Quantizer, activation_quantizer
from hwdse.quantize.ranges import choose_ranges, range_candidates
from hwdse.quantize.rebuild import rebuild
from hwdse.quantize.rebuildable import rebuildable, tied
from hwdse.quantize.rebuilt import Rebuilt
from hwdse.quantize.recipe import OUTPUT, Recipe
from hwdse.quantize.store import Shelf, Store
from hwdse.quantize.weights import QuantizedWeight, quantize_weight
from hwdse.threads import single_threaded
from hwdse.workers import Crew

__all__ = ["QuantizedNetwork", "Setting", "program_of"]


_MOST_BITS = 8
"""Formats of more bits are rounded to nearest: their errors are small beside those of 8-bit activations."""


@dataclass(frozen=True)
class Setting:
    """What a configuration puts into a program: weights and biases by position, quantizers by point."""

    weights: Mapping[int, torch.Tensor] = field(default_factory=dict)
    quantizers: Mapping[str, Quantizer] = field(default_factory=dict)
    biases: Mapping[int, torch.Tensor] = field(default_factory=dict)

    @property
    def constants(self) -> dict[int, torch.Tensor]:
        """Weights and biases by position."""
        return {**self.weights, **self.biases}


def program_of(captured: Capture, recipe: Recipe, batches: Sequence[Any], *, written: bool) -> Program:
    """Return the program of a network; equalized, if the recipe says so."""
    program = Program.of(captured, written=written)
    return equalize(program, batches).program if recipe.equalization else program


class QuantizedNetwork:
    """Runs bit configurations of one captured network under one scheme.

    Weights are quantized once per (parameter, format) and swapped by pointer; ranges are found once per
    (tensor, format).

    Parameters
    ----------
    program
        The compiled network.
    scheme
        How the device represents numbers.
    streams
        What every point of ``program`` holds, from :func:`observe`. The attribute of that name leaves out what no layer
        reads, ``all_streams`` does not.
    recipe
        How ranges and weights are found.
    batches
        Calibration data, which a recipe that finds weights from them needs again for every format.
    store
        Where such weights are kept on disk.

    Raises
    ------
    InputError
        If the scheme has quantized outputs and the program was compiled without them, or the recipe finds weights
        from data and there are no batches.
    """

    def __init__(
        self,
        program: Program,
        *,
        scheme: Scheme,
        streams: Mapping[str, Stream],
        recipe: Recipe | None = None,
        batches: Sequence[Any] = (),
        store: Store | None = None,
    ) -> None:
        convolutions = any(site.is_convolution for site in program.captured.sites.values())
        if scheme.quantized_outputs and convolutions and not program.written:
            raise InputError(
                f"expected a program with the results of convolutions for the scheme {scheme.key}, got one without; "
                "compile it by Program.of(captured, written=True)"
            )
        self.program = program
        self.scheme = scheme
        self.recipe = recipe or Recipe()
        if self.recipe.needs_data and not batches:
            raise InputError(
                "expected calibration batches for a recipe that reconstructs weights, got none; give batches"
            )
        self.batches, self.store = batches, store
        read = read_points(program.captured)
        self.streams = {point: stream for point, stream in streams.items() if point in read}
        self.all_streams = streams
        self._calibrate = calibrator(self.recipe.activation_calibrator)
        self._weights: dict[tuple[str, NumberFormat], QuantizedWeight] = {}
        self._rebuilt: dict[NumberFormat, dict[str, Rebuilt]] = {}
        self._seen: dict[tuple[str, NumberFormat], Quantizer | None] = {}
        self._chosen: dict[NumberFormat, dict[str, Quantizer]] = {}
        self._fitted: Fitted | None = None

    @classmethod
    def calibrated(
        cls,
        captured: Capture,
        batches: Iterable[Any],
        *,
        scheme: Scheme,
        recipe: Recipe | None = None,
        store: Store | None = None,
        on_batch: Callable[[], None] | None = None,
    ) -> QuantizedNetwork:
        """Return the network under ``scheme``, with the ranges that calibration ``batches`` give it.

        Raises
        ------
        InputError
            As :func:`observe`.
        """
        kept = list(batches) if recipe is not None and recipe.needs_data else []
        program = program_of(captured, recipe or Recipe(), kept, written=scheme.quantized_outputs)
        streams = observe(program, kept or batches, on_batch=on_batch)
        return cls(program, scheme=scheme, streams=streams, recipe=recipe, batches=kept, store=store)

    @property
    def captured(self) -> Capture:
        """The captured network."""
        return self.program.captured

    def fitted(self, fitted: Fitted) -> QuantizedNetwork:
        """Return this network with what was ``fitted`` to one configuration, which is then the only one that it runs.

        Raises
        ------
        InputError
            If the configuration is not one of this network.
        """
        self.check(fitted.config.precisions)
        network = copy(self)
        network._fitted = fitted
        return network

    def refined(self, config: BitConfig, *, progress: Progress = SILENT) -> Fitted:
        """Return the weights of ``config`` found once more, each after those that the layers before have in it.

        A configuration's weights are otherwise stitched from those that were found with all layers in one format.

        Raises
        ------
        InputError
            If the recipe finds no weights from data, or the configuration is not one of this network.
        """
        if not self.recipe.finds_weights:
            raise InputError(f"expected a recipe that finds weights from data, got {self.recipe.key}; use gram")
        setting = self.configure(config)
        layers = [layer for layer in self.captured.layers if layer.weight is not None]
        formats = {str(layer.weight): config.precisions[layer.name].weights for layer in layers}
        names = [name for name, number_format in formats.items() if self._is_rebuilt(number_format)]
        progress.start("refine", len(self._sites.keys() & set(names)))
        found = rebuild(
            self.program,
            self.batches,
            scheme=self.scheme,
            recipe=self.recipe,
            nearest=lambda name: self._nearest(name, formats[name]),
            quantizers=setting.quantizers,
            taken={p: v for p, v in setting.weights.items() if p not in {self.program.weights[n] for n in names}},
            names=names,
            progress=progress,
        )
        by_weight = {str(layer.weight): layer.name for layer in layers}
        biases = {by_weight[name]: r.bias for name, r in found.items() if r.bias is not None}
        return Fitted(config, {name: rebuilt.weight for name, rebuilt in found.items()}, biases)

    def setting(self, precisions: Mapping[str, Precision]) -> Setting:
        """Return weights and quantizers for ``precisions`` by layer name; other layers stay in full precision.

        Raises
        ------
        InputError
            If a layer is unknown, or layers that are tied get different precisions.
        """
        self.check(precisions)
        weights: dict[int, torch.Tensor] = {}
        biases: dict[int, torch.Tensor] = {}
        quantizers: dict[str, Quantizer] = {}
        for name, precision in precisions.items():
            layer = self.captured.layers[self.captured.layer_index[name]]
            points = [(layer.input, precision.activations)]
            if layer.weight is None:
                points.append((f"{layer.name}.second", precision.weights))
            elif precision.weights != FP32:
                quantized = self.quantized_weight(layer, precision.weights)
                weights[self.program.weights[layer.weight]] = quantized.values
                if (bias := self.bias(layer, precision.weights)) is not None:
                    biases[self.program.biases[name]] = bias
            for point, number_format in points:
                quantizer = self.quantizer(point, number_format)
                if quantizer is not None:
                    quantizers[point] = quantizer
        return Setting(weights, self._with_written(quantizers, precisions), biases)

    def _with_written(
        self, quantizers: Mapping[str, Quantizer], precisions: Mapping[str, Precision]
    ) -> dict[str, Quantizer]:
        """Return ``quantizers`` with those of what convolutions of integers write and no reader rounds."""
        found = dict(quantizers)
        for name, point in self.program.written.items() if self.scheme.quantized_outputs else ():
            precision = precisions.get(name)
            if precision is not None and precision.weights.is_integer and precision.activations.is_integer:
                own = self.quantizer(point, precision.activations) if point not in found else None
                found |= {point: own} if own is not None else {}
        return found

    def check(self, precisions: Mapping[str, Precision]) -> None:
        """Check that ``precisions`` are those of layers, and that tied layers share one.

        Raises
        ------
        InputError
            If a layer is unknown, layers that are tied get different precisions, or weights were fitted for others.
        """
        if self._fitted is not None:
            self._fitted.check(precisions)
        unknown = [name for name in precisions if name not in self.captured.layer_index]
        if unknown:
            raise InputError(f"expected layer names of this network, got {unknown[0]!r}")
        for group in self.captured.groups:
            given = {str(precisions[name]) for name in group.layers if name in precisions}
            if len(given) > 1:
                raise InputError(
                    f"expected one precision for the tied layers {', '.join(group.layers)}, got "
                    f"{' and '.join(sorted(given))}"
                )

    def configure(self, config: BitConfig) -> Setting:
        """Return weights and quantizers for a whole configuration."""
        return self.setting(config.precisions)

    def forward(self, batch: Any, setting: Setting) -> Any:
        """Return the network's output for one batch under ``setting``."""
        return self.program.forward(batch, setting.constants, setting.quantizers)

    def quantized_weight(self, layer: Layer, number_format: NumberFormat) -> QuantizedWeight:
        """Return the weight of ``layer`` in ``number_format``, values and scales.

        Raises
        ------
        InputError
            If the format cannot hold it (the layer is named).
        """
        assert layer.weight is not None
        if self._fitted is not None and (fitted := self._fitted.weight(layer, number_format)) is not None:
            return fitted
        rebuilt = self._of_format(number_format).get(layer.weight)
        return self._nearest(layer.weight, number_format) if rebuilt is None else rebuilt.weight

    def bias(self, layer: Layer, number_format: NumberFormat) -> torch.Tensor | None:
        """Return the bias that goes with a reconstructed or fitted weight; ``None`` if the layer keeps its own."""
        if self._fitted is not None and (fitted := self._fitted.bias(layer, number_format)) is not None:
            return fitted
        rebuilt = self._of_format(number_format).get(layer.weight or "")
        return None if rebuilt is None else rebuilt.bias

    def find(self, precisions: Collection[Precision], *, progress: Progress = SILENT, crew: Crew | None = None) -> None:
        """Find all weights and ranges of ``precisions`` now; what is not found here is found on demand.

        Raises
        ------
        InputError
            As :meth:`check_formats`, :meth:`reconstruct` and :meth:`choose_ranges`.
        """
        self.check_formats(precisions)
        self.reconstruct((precision.weights for precision in precisions), progress=progress, crew=crew)
        self.choose_ranges((precision.activations for precision in precisions), progress=progress)

    def check_formats(self, precisions: Iterable[Precision]) -> None:
        """Check that the formats of all ``precisions`` can hold what they are for, before anything that takes long.

        Raises
        ------
        InputError
            If one cannot hold a weight or a tensor (layer and tensor are named).
        """
        for precision in dict.fromkeys(precisions):
            for name in self.program.weights:
                if precision.weights != FP32:
                    self._nearest(name, precision.weights)
            for point in self.streams:
                self._seen_quantizer(point, precision.activations)

    def reconstruct(
        self, number_formats: Iterable[NumberFormat], *, progress: Progress = SILENT, crew: Crew | None = None
    ) -> None:
        """Find all weights in ``number_formats`` now, if the recipe finds them from data; else it is done on demand.

        Formats are found side by side: by a ``crew``, or by as many threads as there are. Says through ``progress``
        where calibration data are too few, and which layers stay rounded to nearest.

        Raises
        ------
        InputError
            If a format cannot hold a weight, or a value is not finite (the layer is named).
        """
        wanted = [f for f in dict.fromkeys(number_formats) if self._is_rebuilt(f) and f not in self._rebuilt]
        if not wanted:
            return
        progress.start(f"weights in {', '.join(f.name for f in wanted)}", len(self._sites) * len(wanted))
        far = [f for f in wanted if crew is not None and not self._is_kept(f)]
        if crew is not None and far:
            self._rebuilt |= dict(zip(far, self._rebuilt_by(crew, far, progress), strict=True))
        near = [f for f in wanted if f not in far]
        if near:
            with single_threaded(), ThreadPoolExecutor(min(torch.get_num_threads(), len(near))) as executor:
                found = executor.map(lambda number_format: self._rebuild(number_format, progress), near)
                self._rebuilt |= dict(zip(near, found, strict=True))
        self._tell(wanted, progress)

    def _is_kept(self, number_format: NumberFormat) -> bool:
        """Return True if all weights in a format are on disk."""
        shelf = self._shelf(number_format)
        return shelf is not None and all(shelf.has(name) for name in self._sites)

    def _rebuilt_by(
        self, crew: Crew, number_formats: Sequence[NumberFormat], progress: Progress
    ) -> Iterator[dict[str, Rebuilt]]:
        """Yield the weights in each format, found by a crew and kept here."""
        bare = copy(self)
        bare.store, bare._weights, bare._rebuilt, bare._seen, bare._chosen = None, {}, {}, {}, {}
        items = [(bare, number_format) for number_format in number_formats]
        for number_format, (found, sentences) in zip(
            number_formats, crew.map(rebuild_format, items, about="the search for weights"), strict=True
        ):
            shelf = self._shelf(number_format)
            for name, rebuilt in found.items():
                if shelf is not None:
                    shelf.put(name, rebuilt)
                progress.advance()
            for sentence in sentences:
                progress.warn(sentence)
            yield found

    def choose_ranges(self, number_formats: Iterable[NumberFormat], *, progress: Progress = SILENT) -> None:
        """Find ranges of all activations in ``number_formats`` now, if the recipe finds them by the output.

        Raises
        ------
        InputError
            If a format cannot hold a tensor, or an output is not finite (the tensor is named).
        """
        if self.recipe.activation_ranges != OUTPUT:
            return
        for number_format in dict.fromkeys(number_formats):
            if number_format.bits <= _MOST_BITS and number_format not in self._chosen:
                self._chosen[number_format] = self._chosen_quantizers(number_format, progress)

    def _tell(self, number_formats: Iterable[NumberFormat], progress: Progress) -> None:
        """Say what is not as it should be with weights that were found."""
        sites = self._sites
        missing: dict[str, int] = {}
        kept: dict[str, list[str]] = {}
        for number_format in number_formats:
            for name, rebuilt in self._rebuilt[number_format].items():
                if rebuilt.missing:
                    missing[name] = rebuilt.missing
                if rebuilt.is_nearest and self.recipe.weight_rounding != "nearest":
                    kept.setdefault(number_format.name, []).append(sites[name].name)
        if missing:
            weight = max(missing, key=missing.__getitem__)
            site = sites[weight]
            needed = Layout.of(site, self.program.folded[weight]).columns + 1
            others = f"too few for {len(missing)} layers in all; " if len(missing) > 1 else ""
            progress.warn(
                f"expected {needed} rows of calibration data (samples, or positions of samples) or more to reconstruct "
                f"the weights of {site.name}, got {needed - missing[weight]}; {others}add samples"
            )
        for text, names in kept.items():
            progress.warn(
                f"expected {self.recipe.weight_rounding} to find better weights in {text} than rounding to nearest, "
                f"got none for {', '.join(names)}; these stay rounded to nearest"
            )

    @property
    def _sites(self) -> dict[str, Site]:
        """The layer that each weight is fitted to, by the weight's name."""
        return rebuildable(self.program) | (tied(self.program) if self.recipe.weight_rounding == "gram" else {})

    def _is_rebuilt(self, number_format: NumberFormat) -> bool:
        return self.recipe.finds_weights and number_format.bits <= _MOST_BITS

    def _of_format(self, number_format: NumberFormat) -> Mapping[str, Rebuilt]:
        """Return the reconstructed weights in a format, if its are."""
        if not self._is_rebuilt(number_format):
            return {}
        if number_format not in self._rebuilt:
            self.reconstruct([number_format])
        return self._rebuilt[number_format]

    def _rebuild(self, number_format: NumberFormat, progress: Progress) -> dict[str, Rebuilt]:
        return rebuild(
            self.program,
            self.batches,
            scheme=self.scheme,
            recipe=self.recipe,
            nearest=lambda name: self._nearest(name, number_format),
            quantizers=self._quantizers_on_path(),
            shelf=self._shelf(number_format),
            progress=progress,
        )

    def _shelf(self, number_format: NumberFormat) -> Shelf | None:
        """Return where what is found for a format is kept."""
        if self.store is None:
            return None
        return self.store.shelf(self.scheme.key, self.recipe.key, number_format.name)

    def _quantizers_on_path(self) -> dict[str, Quantizer]:
        """Return what rounds activations on the way to layers whose weights are found."""
        points = [point for point in self.program.points if point in self.streams]
        quantizers = {point: self._seen_quantizer(point, parse(self.recipe.path)) for point in points}
        return {point: quantizer for point, quantizer in quantizers.items() if quantizer is not None}

    def _nearest(self, weight: str, number_format: NumberFormat) -> QuantizedWeight:
        """Return the weight of a name rounded to nearest."""
        key = (weight, number_format)
        if key not in self._weights:
            full, axis = self.program.folded[weight], self.weight_axis(weight)
            try:
                self._weights[key] = quantize_weight(
                    full, number_format, scheme=self.scheme, axis=axis, ranges=self.recipe.weight_ranges
                )
            except InputError as error:
                layer = next(site.name for site in self.captured.sites.values() if site.weight == weight)
                raise InputError(f"{error} (layer {layer!r})") from error
        return self._weights[key]

    def weight_axis(self, weight: str) -> int:
        """Return the axis of a parameter's output channels; layers that read it both ways share the first one's."""
        return next(site.weight_axis for site in self.captured.sites.values() if site.weight == weight)

    def _found_quantizer(self, point: str, number_format: NumberFormat) -> Quantizer | None:
        self.choose_ranges([number_format])
        chosen = self._chosen.get(number_format, {})
        return chosen[point] if point in chosen else self._seen_quantizer(point, number_format)

    def _seen_quantizer(self, point: str, number_format: NumberFormat) -> Quantizer | None:
        """Return the quantizer at ``point`` by what the tensor holds."""
        key = (point, number_format)
        if key not in self._seen:
            try:
                self._seen[key] = activation_quantizer(
                    Boxes.of_stream(self.all_streams[point]),
                    number_format=number_format,
                    scheme=self.scheme,
                    calibrate=self._calibrate,
                )
            except InputError as error:
                raise InputError(f"{error} (tensor {point!r})") from error
        return self._seen[key]

    def _chosen_quantizers(self, number_format: NumberFormat, progress: Progress = SILENT) -> dict[str, Quantizer]:
        """Return the quantizers of all points by their effect on the output, with all weights in the same format."""
        rounded = self.all_streams if self.scheme.quantized_outputs else self.streams
        candidates = range_candidates(rounded, number_format, scheme=self.scheme)
        shelf = self._shelf(number_format)
        chosen = shelf.ranges({p: len(options) for p, options in candidates.items()}) if shelf is not None else None
        if chosen is None:
            found = self._of_format(number_format)
            constants = {
                position: (found[name].weight if name in found else self._nearest(name, number_format)).values
                for name, position in self.program.weights.items()
            }
            sites = self._sites
            biases = {self.program.biases[sites[n].name]: r.bias for n, r in found.items() if r.bias is not None}
            progress.start(f"ranges in {number_format.name}", len(candidates))
            chosen = choose_ranges(
                self.program, self.batches, {**constants, **biases}, candidates, on_point=progress.advance
            )
            if shelf is not None:
                shelf.put_ranges(chosen)
        return {point: candidates[point][index] for point, index in chosen.items()}

    def quantizer(self, point: str, number_format: NumberFormat) -> Quantizer | None:
        """Return what rounds the activations at ``point``; ``None`` keeps fp32.

        Raises
        ------
        InputError
            If the format cannot hold them (the tensor is named).
        """
        if self._fitted is not None and point in self._fitted.quantizers:
            return self._fitted.quantizers[point]
        return self._found_quantizer(point, number_format)


def rebuild_format(network: QuantizedNetwork, number_format: NumberFormat) -> tuple[dict[str, Rebuilt], list[str]]:
    """Return a network's weights in a format, and what is to be said about them; for another process."""
    remembered = Remembered()
    with single_threaded():
        found = network._rebuild(number_format, remembered)
    return found, remembered.sentences
