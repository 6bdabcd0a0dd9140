"""What was fitted to one configuration of a network, whoever fitted it: weights, biases and activation quantizers."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hwdse.errors import InputError, RunFolderError
from hwdse.files import parse_json, write_bytes
from hwdse.formats import Levels, NumberFormat, Precision, parse
from hwdse.graph import BitConfig, Layer
from hwdse.quantize.quantizer import CASTS, CastQuantizer, CodebookQuantizer, Quantizer, UniformQuantizer
from hwdse.quantize.runnable import channels_last
from hwdse.quantize.weights import QuantizedWeight
from hwdse.reason import reason_of

__all__ = ["Fitted"]


@dataclass(frozen=True, eq=False)
class Fitted:
    """Numbers that belong to one configuration, and replace those that the recipe finds for each format alone.

    Attributes
    ----------
    config
        The configuration.
    weights
        By the parameter's name; those that are absent stay as the recipe finds them.
    biases
        By the layer's name, likewise.
    quantizers
        By the point where an activation is rounded, likewise.
    """

    config: BitConfig
    weights: Mapping[str, QuantizedWeight] = field(default_factory=dict)
    biases: Mapping[str, torch.Tensor] = field(default_factory=dict)
    quantizers: Mapping[str, Quantizer] = field(default_factory=dict)

    def weight(self, layer: Layer, number_format: NumberFormat) -> QuantizedWeight | None:
        """Return the weight of ``layer`` in the format that the configuration gives it; ``None`` if there is none."""
        return self.weights.get(layer.weight or "") if self._has(layer, number_format) else None

    def bias(self, layer: Layer, number_format: NumberFormat) -> torch.Tensor | None:
        """Return the bias that goes with the weight of ``layer``; ``None`` if there is none."""
        return self.biases.get(layer.name) if self._has(layer, number_format) else None

    def _has(self, layer: Layer, number_format: NumberFormat) -> bool:
        precision = self.config.precisions.get(layer.name)
        return precision is not None and precision.weights == number_format

    def check(self, precisions: Mapping[str, Precision]) -> None:
        """Check that ``precisions`` are those of the configuration, or none at all.

        Raises
        ------
        InputError
            If a layer's precision is another one.
        """
        if precisions and dict(precisions) != dict(self.config.precisions):
            names = [*self.config.precisions, *precisions]
            name = next(name for name in names if precisions.get(name) != self.config.precisions.get(name))
            raise InputError(
                f"expected the configuration that the weights were fitted for, with "
                f"{self.config.precisions.get(name, 'fp32')} at {name}, got {precisions.get(name, 'fp32')}; use the "
                "network without them"
            )

    def save(self, path: Path, about: Mapping[str, str]) -> Path:
        """Write everything to ``path`` (npz), whole or not at all.

        Parameters
        ----------
        path
            The file.
        about
            What it belongs to, such as fingerprints of network and data; asked for when it is read.

        Raises
        ------
        InputError
            If a weight is neither float32 nor float64.
        """
        arrays: dict[str, NDArray[Any]] = {}
        header = {
            "about": dict(about),
            "config": {name: str(precision) for name, precision in self.config.precisions.items()},
            "weights": [{"name": name, **_levels_record(found.levels)} for name, found in self.weights.items()],
            "biases": list(self.biases),
            "quantizers": {point: _quantizer_record(quantizer) for point, quantizer in self.quantizers.items()},
        }
        for i, (name, found) in enumerate(self.weights.items()):
            arrays |= {f"weight{i}": _array(found.values, name)}
            arrays |= {f"scale{i}": found.scale.double().numpy(), f"zero{i}": found.zero_point.double().numpy()}
        arrays |= {f"bias{i}": _array(bias, name) for i, (name, bias) in enumerate(self.biases.items())}
        content = io.BytesIO()
        np.savez_compressed(content, allow_pickle=False, header=np.array(json.dumps(header)), **arrays)
        return write_bytes(path, content.getvalue())

    @classmethod
    def load(cls, path: Path, about: Mapping[str, str]) -> Fitted:
        """Return what :meth:`save` wrote to ``path``.

        Raises
        ------
        RunFolderError
            If the file is missing or damaged, or belongs to something else than ``about``.
        """
        try:
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as archive:
                header = parse_json(str(archive["header"]))
                differing = sorted(key for key in about if header["about"].get(key) != about[key])
                found = None if differing else cls._of(header, archive)
        except FileNotFoundError as error:
            raise RunFolderError(f"expected fitted weights in {path}, got no file; fit them first") from error
        except Exception as error:  # what damage makes of the readers has no common class but this
            raise RunFolderError(
                f"expected fitted weights in {path}, got a damaged file ({reason_of(error)}); remove it and fit them "
                "again"
            ) from error
        if found is None:
            raise RunFolderError(
                f"expected weights in {path} that were fitted for the same question, got another "
                f"{', '.join(differing)}; remove the file and fit them again"
            )
        return found

    @classmethod
    def _of(cls, header: Mapping[str, Any], archive: Mapping[str, NDArray[Any]]) -> Fitted:
        weights = {
            record["name"]: QuantizedWeight(
                channels_last(torch.from_numpy(archive[f"weight{i}"])),
                torch.from_numpy(archive[f"scale{i}"]),
                torch.from_numpy(archive[f"zero{i}"]),
                _levels_of(record),
            )
            for i, record in enumerate(header["weights"])
        }
        return cls(
            BitConfig({name: Precision.parse(text) for name, text in header["config"].items()}),
            weights,
            {name: torch.from_numpy(archive[f"bias{i}"]) for i, name in enumerate(header["biases"])},
            {point: _quantizer_of(record) for point, record in header["quantizers"].items()},
        )


def _array(tensor: torch.Tensor, name: str) -> NDArray[Any]:
    """Return a weight or bias as it is stored."""
    if tensor.dtype not in (torch.float32, torch.float64):
        raise InputError(f"expected weights in float32 or float64, got {tensor.dtype} at {name}; convert the network")
    return tensor.detach().contiguous().numpy()


def _levels_record(levels: Levels) -> dict[str, Any]:
    """Return levels as plain numbers and text; JSON keeps every digit."""
    ends = {"lowest": levels.lowest, "highest": levels.highest, "is_affine": levels.is_affine}
    return {"format": levels.number_format.name, **ends, "learned": list(levels.learned)}


def _levels_of(record: Mapping[str, Any]) -> Levels:
    learned = tuple(map(float, record["learned"]))
    return Levels(parse(record["format"]), record["lowest"], record["highest"], bool(record["is_affine"]), learned)


def _quantizer_record(quantizer: Quantizer) -> dict[str, Any]:
    if isinstance(quantizer, CastQuantizer):
        return {"cast": next(name for name, cast in CASTS.items() if cast == quantizer)}
    assert isinstance(quantizer, UniformQuantizer | CodebookQuantizer)
    zero_point = quantizer.zero_point if isinstance(quantizer, UniformQuantizer) else 0
    return {**_levels_record(quantizer.levels), "scale": quantizer.scale, "zero_point": zero_point}


def _quantizer_of(record: Mapping[str, Any]) -> Quantizer:
    if "cast" in record:
        return CASTS[record["cast"]]
    levels = _levels_of(record)
    if levels.is_uniform:
        return UniformQuantizer(levels, float(record["scale"]), int(record["zero_point"]))
    return CodebookQuantizer(levels, float(record["scale"]))
