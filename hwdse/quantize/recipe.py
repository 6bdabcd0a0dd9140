"""Recipes: how quantized values are found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hwdse.errors import InputError
from hwdse.formats import parse
from hwdse.quantize.adaround_settings import AdaRoundSettings

__all__ = ["CORRECTIONS", "DEFAULT_RECIPE", "OUTPUT", "RECIPES", "ROUNDINGS", "Recipe", "recipe_named"]

ROUNDINGS = ("nearest", "gram", "adaround")
"""Ways to round weights."""

CORRECTIONS = ("none", "local", "global")
"""Ways to correct biases."""

OUTPUT = "output"
"""The ranges that no calibrator finds, but the network's output."""


@dataclass(frozen=True)
class Recipe:
    """How quantized values are found; part of the fingerprint of an evaluation.

    Attributes
    ----------
    weight_ranges, activation_ranges
        Names of calibrators; for activations of at most 8 bits also ``output``: ranges by what they do to the network's
        output, see :mod:`hwdse.quantize.ranges`.
    weight_rounding
        ``nearest``; or, for weights of at most 8 bits that one layer alone reads, those that keep the layer's output on
        the calibration data: ``gram`` finds them from second moments, with the layer's bias, see
        :mod:`hwdse.quantize.gram`; ``adaround`` learns which of two levels each goes to, see
        :mod:`hwdse.quantize.adaround`.
    path
        Format of activations on the way to layers whose weights are found: ``int8``; ``fp32`` where activations of no
        layer are to be quantized.
    bias_correction
        ``none``, ``local`` or ``global``, see :func:`hwdse.quantize.bias.corrected`.
    adaround
        How ``adaround`` learns.
    equalization
        True to equalize the ranges of channels across layers first, see :mod:`hwdse.quantize.equalize`.

    Raises
    ------
    InputError
        If a way is unknown, or biases that are found with the weights are to be corrected.
    """

    weight_ranges: str = "minmax"
    activation_ranges: str = "mse"
    weight_rounding: str = "nearest"
    bias_correction: str = "none"
    equalization: bool = False
    path: str = "int8"
    adaround: AdaRoundSettings = field(default_factory=AdaRoundSettings)

    def __post_init__(self) -> None:
        if self.weight_rounding not in ROUNDINGS:
            raise InputError(f"expected a weight rounding of {', '.join(ROUNDINGS)}, got {self.weight_rounding!r}")
        if self.bias_correction not in CORRECTIONS:
            raise InputError(f"expected a bias correction of {', '.join(CORRECTIONS)}, got {self.bias_correction!r}")
        parse(self.path)
        if self.weight_rounding == "gram" and self.bias_correction != "none":
            raise InputError(
                f"expected no bias correction with the weight rounding gram, which finds biases, too, got "
                f"{self.bias_correction!r}; leave it out"
            )

    @property
    def activation_calibrator(self) -> str:
        """Name of the calibrator of activations whose ranges the output does not choose, or has not yet."""
        return "minmax" if self.activation_ranges == OUTPUT else self.activation_ranges

    @property
    def finds_weights(self) -> bool:
        """True if weights or biases are found from calibration data."""
        return self.weight_rounding != "nearest" or self.bias_correction != "none"

    @property
    def needs_data(self) -> bool:
        """True if anything is found from calibration data but what tensors hold."""
        return self.finds_weights or self.equalization or self.activation_ranges == OUTPUT

    @property
    def key(self) -> str:
        """Text that is equal for equal recipes.

        >>> Recipe().key
        'nearest.w-minmax.a-mse'
        >>> Recipe(equalization=True, bias_correction="local").key
        'equalized.nearest.w-minmax.b-local.a-mse'
        """
        parts = [
            "equalized" if self.equalization else "",
            self.weight_rounding if self.weight_rounding != "adaround" else self._learned_key,
            f"w-{self.weight_ranges}",
            f"p-{self.path}" if self.path != "int8" else "",
            f"b-{self.bias_correction}" if self.bias_correction != "none" else "",
            f"a-{self.activation_ranges}",
        ]
        return ".".join(part for part in parts if part)

    @property
    def _learned_key(self) -> str:
        """Text for how ``adaround`` learns: what differs from the defaults."""
        usual = vars(AdaRoundSettings())
        return "-".join(["adaround", *(f"{k}={v}" for k, v in vars(self.adaround).items() if v != usual[k])])

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Recipe:
        """Return the recipe with ``settings``, as :func:`dataclasses.asdict` gives them and JSON or TOML keep them.

        Raises
        ------
        InputError
            If a name or a value is none of a recipe.

        >>> Recipe.of({"weight_rounding": "adaround", "adaround": {"iterations": 100}}).key
        'adaround-iterations=100.w-minmax.a-mse'
        """
        try:
            learning = dict(settings.get("adaround", {}))
            if "beta" in learning:
                learning["beta"] = tuple(learning["beta"])
            return cls(**{**settings, "adaround": AdaRoundSettings(**learning)})
        except (TypeError, ValueError) as error:
            raise InputError(f"expected the settings of a recipe, got {dict(settings)}; correct them") from error


RECIPES: Mapping[str, Recipe] = {
    "gram": Recipe(weight_rounding="gram", activation_ranges=OUTPUT),
    "nearest": Recipe(),
    "adaround": Recipe(weight_rounding="adaround"),
    "equalized": Recipe(equalization=True, bias_correction="local"),
}
"""Recipes by name."""

DEFAULT_RECIPE = RECIPES["gram"]
"""What an exploration does unless it is told otherwise."""


def recipe_named(name: str) -> Recipe:
    """Return a recipe of :data:`RECIPES`.

    Raises
    ------
    InputError
        If there is none of that name.
    """
    if name not in RECIPES:
        raise InputError(f"expected a recipe of {', '.join(RECIPES)}, got {name!r}; correct --recipe")
    return RECIPES[name]
