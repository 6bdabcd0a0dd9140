"""Weights that took long to find, on disk: one file per layer and format, of one network under one recipe."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from hwdse.errors import InputError
from hwdse.files import inside, parse_json, write_bytes, write_json
from hwdse.quantize.rebuilt import Rebuilt
from hwdse.quantize.weights import QuantizedWeight

__all__ = ["Shelf", "Store"]

_RANGES = "activations.json"
_PARTS = {"values", "scale", "zero_point", "levels", "missing", "is_nearest"}


@dataclass(frozen=True)
class Store:
    """A folder of weights that were found from calibration data.

    Attributes
    ----------
    folder
        Where they lie.
    identity
        What they depend on, by name: fingerprints of network and calibration data.
    """

    folder: Path
    identity: Mapping[str, str]

    def shelf(self, scheme: str, recipe: str, number_format: str) -> Shelf:
        """Return the weights of a format, by the keys of scheme and recipe."""
        return Shelf(
            inside(self.folder, scheme, recipe, number_format),
            {**self.identity, "scheme": scheme, "recipe": recipe, "format": number_format},
        )


@dataclass(frozen=True)
class Shelf:
    """The weights of one format.

    Attributes
    ----------
    folder
        Where they lie.
    identity
        What they depend on, by name.
    """

    folder: Path
    identity: Mapping[str, str]

    def has(self, name: str) -> bool:
        """Return True if the weight of a name has been found; what is wrong with its file is said by :meth:`get`."""
        return self._path(name).is_file()

    def get(self, name: str, nearest: QuantizedWeight) -> Rebuilt | None:
        """Return the weight of a name; ``None`` if it has not been found yet.

        Raises
        ------
        InputError
            If the file is damaged, or of another network, other data or another recipe.
        """
        path = self._path(name)
        if not path.is_file():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                header = parse_json((file.metadata() or {}).get("hwdse", "{}"))
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError, ValueError) as error:
            raise InputError(f"expected a weight in {path}, got {error}; delete the file to find it again") from error
        self._check(header, {**self.identity, "weight": name})
        if absent := _PARTS - tensors.keys() - header.keys():
            names = ", ".join(sorted(absent))
            raise InputError(f"expected a whole weight in {path}, got no {names}; delete the file to find it again")
        if not _fits(tensors, header, nearest):
            raise InputError(f"expected numbers of {name} in {path}, got others; delete the file to find it again")
        levels = nearest.levels
        if levels.number_format.is_learned:
            levels = levels.taught(tensors["levels"].numpy())
        values = torch.empty_like(nearest.values).copy_(tensors["values"])
        weight = replace(
            nearest, values=values, scale=tensors["scale"], zero_point=tensors["zero_point"], levels=levels
        )
        return Rebuilt(weight, tensors.get("bias"), header["missing"], header["is_nearest"])

    def put(self, name: str, rebuilt: Rebuilt) -> None:
        """Keep the weight of a name."""
        weight = rebuilt.weight
        tensors = {
            "values": weight.values.contiguous(),
            "scale": weight.scale.contiguous(),
            "zero_point": weight.zero_point.contiguous(),
            "levels": torch.from_numpy(weight.levels.values.copy()),
        }
        if rebuilt.bias is not None:
            tensors["bias"] = rebuilt.bias.contiguous()
        header = {**self.identity, "weight": name, "missing": rebuilt.missing, "is_nearest": rebuilt.is_nearest}
        write_bytes(self._path(name), save(tensors, metadata={"hwdse": json.dumps(header)}))

    def ranges(self, options: Mapping[str, int]) -> dict[str, int] | None:
        """Return the choice of ranges by point, out of so many ``options``; ``None`` if it has not been made yet.

        Raises
        ------
        InputError
            If the file is damaged, or of another network, other data or another recipe.
        """
        path = self.folder / _RANGES
        if not path.is_file():
            return None
        try:
            record = parse_json(path.read_text(encoding="utf-8"))
            chosen = {str(point): int(index) for point, index in record["chosen"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"expected ranges in {path}, got {error!r}; delete the file to find them again") from error
        self._check(record.get("identity"), self.identity)
        if chosen.keys() != options.keys() or not all(0 <= index < options[p] for p, index in chosen.items()):
            raise InputError(f"expected ranges of all points in {path}, got others; delete the file to find them again")
        return chosen

    def put_ranges(self, chosen: Mapping[str, int]) -> None:
        """Keep the choice of ranges by point."""
        write_json(self.folder / _RANGES, {"identity": dict(self.identity), "chosen": dict(chosen)})

    def _check(self, header: object, wanted: Mapping[str, str]) -> None:
        found = header if isinstance(header, dict) else {}
        differing = [key for key, value in wanted.items() if found.get(key) != value]
        if differing:
            raise InputError(
                f"expected weights of this network in {self.folder}, got those of another {', '.join(differing)}; "
                "delete the folder or use another one"
            )

    def _path(self, name: str) -> Path:
        return inside(self.folder, f"{quote(name, safe='')}.safetensors")


def _fits(tensors: Mapping[str, torch.Tensor], header: Mapping[str, object], nearest: QuantizedWeight) -> bool:
    """Return True if what was read has the shapes of the weight, finite numbers, and facts of the right kinds."""
    like = {"values": nearest.values, "scale": nearest.scale, "zero_point": nearest.zero_point}
    shaped = all(tensors[name].shape == expected.shape for name, expected in like.items())
    lists = all(tensors[name].ndim == 1 for name in ("levels", "bias") if name in tensors)
    finite = all(found.is_floating_point() and bool(found.isfinite().all()) for found in tensors.values())
    return shaped and lists and finite and isinstance(header["missing"], int) and isinstance(header["is_nearest"], bool)
