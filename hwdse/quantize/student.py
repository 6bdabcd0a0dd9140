"""A configuration of a network in training: everything that it quantizes learns, all else stays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils import _pytree as pytree

from hwdse.errors import InputError
from hwdse.formats import FP32
from hwdse.graph import BitConfig, Layer
from hwdse.quantize.differentiable import out_of_place
from hwdse.quantize.fitted import Fitted
from hwdse.quantize.latent import LatentWeight, with_quantiles
from hwdse.quantize.learned_range import MANNERS, LearnedRange
from hwdse.quantize.network import QuantizedNetwork

__all__ = ["Learning", "Student", "first_tensor"]

State = dict[str, Any]


@dataclass(frozen=True)
class Learning:
    """What learns, how fast, and from where.

    Attributes
    ----------
    weight_rate, step_rate, bias_rate, activation_rate
        Adam's learning rates: of weights, in steps; of the logarithms of steps; of biases, as a share of the usual
        magnitude of what their layer writes; of the logarithms of activation steps.
    reach
        See :class:`LatentWeight`.
    activations
        One of :data:`MANNERS`.
    quantiles
        Learned codebooks of the format ``codebookN`` and ``quantileN`` begin anew, with quantiles of either sign.
    decay
        What is kept of a moving average at each step.

    Raises
    ------
    InputError
        If a rate is negative or not finite, or another value is outside of its range.
    """

    weight_rate: float = 0.002
    step_rate: float = 0.0002
    bias_rate: float = 0.001
    activation_rate: float = 0.001
    reach: float = 0.0
    activations: str = "learned"
    quantiles: bool = False
    decay: float = 0.99

    def __post_init__(self) -> None:
        for name in ("weight_rate", "step_rate", "bias_rate", "activation_rate"):
            if not 0.0 <= getattr(self, name) < float("inf"):
                raise InputError(f"expected a {name.replace('_', ' ')} of at least 0, got {getattr(self, name)}")
        if not (0.0 <= self.reach < 1.0 and 0.0 <= self.decay < 1.0):
            raise InputError(f"expected reach and decay from 0 to less than 1, got {self.reach} and {self.decay}")
        if self.activations not in MANNERS:
            raise InputError(f"expected activation ranges of {', '.join(MANNERS)}, got {self.activations!r}")


class Student:
    """The network under one configuration, with everything that the configuration quantizes ready to learn.

    Parameters
    ----------
    network, config
        The network, and its configuration to start from.
    learning
        What learns.
    """

    def __init__(self, network: QuantizedNetwork, config: BitConfig, learning: Learning) -> None:
        self.network, self.config, self.learning = network, config, learning
        self.program = out_of_place(network.program)
        setting = network.configure(config)
        self.ranges = {
            point: LearnedRange(quantizer, manner=learning.activations, decay=learning.decay)
            for point, quantizer in setting.quantizers.items()
        }
        self.weights: dict[str, LatentWeight] = {}
        self.biases: dict[str, torch.Tensor] = {}
        self._units: dict[str, float] = {}
        for name, precision in config.precisions.items():
            layer = network.captured.layers[network.captured.layer_index[name]]
            if layer.weight is None or precision.weights == FP32:
                continue
            if layer.weight not in self.weights:
                self.weights[layer.weight] = self._latent(layer)
            if name in self.program.biases:
                position = self.program.biases[name]
                start = setting.biases.get(position, self.program.constants[position])
                self.biases[name] = start.detach().clone().requires_grad_()
                self._units[name] = self._magnitude(layer)

    def _latent(self, layer: Layer) -> LatentWeight:
        assert layer.weight is not None
        full, axis = self.program.folded[layer.weight], self.network.weight_axis(layer.weight)
        start = self.network.quantized_weight(layer, self.config.precisions[layer.name].weights)
        if self.learning.quantiles:
            start = with_quantiles(start, full, axis=axis, scheme=self.network.scheme)
        return LatentWeight(start, full, axis=axis, scheme=self.network.scheme, reach=self.learning.reach)

    def _magnitude(self, layer: Layer) -> float:
        """Return the usual magnitude of what a layer writes, if its inputs were independent."""
        full = self.program.folded[layer.weight or ""]
        per_output = full.double().square().sum() / full.shape[self.network.weight_axis(layer.weight or "")]
        seen = float(self.network.all_streams[layer.input].moments.mean_square[0])
        return float(per_output * seen) ** 0.5 or 1.0

    def groups(self) -> list[dict[str, Any]]:
        """Return what learns with its learning rate, for an optimizer."""
        learning = self.learning
        biases = [{"params": [bias], "lr": learning.bias_rate * self._units[n]} for n, bias in self.biases.items()]
        rest = [
            ([weight.values for weight in self.weights.values()], learning.weight_rate),
            ([weight.growth for weight in self.weights.values()], learning.step_rate),
            ([one.growth for one in self.ranges.values()], learning.activation_rate),
        ]
        learns = [([p for p in parameters if p.requires_grad], rate) for parameters, rate in rest]
        return [*({"params": parameters, "lr": rate} for parameters, rate in learns if parameters), *biases]

    def __call__(self, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return the network's first output for one batch, with gradients."""
        program = self.program
        constants = {program.weights[name]: weight.rounded() for name, weight in self.weights.items()}
        constants |= {program.biases[name]: bias for name, bias in self.biases.items()}
        values = program.start(tuple(inputs), constants)
        program.quantize_inputs(values, self.ranges)
        program.advance(values, self.ranges)
        return first_tensor(program.result(values))

    def settle(self) -> None:
        """Do what follows a step of the optimizer."""
        for weight in self.weights.values():
            weight.settle(self.learning.decay)

    def fitted(self) -> Fitted:
        """Return everything as it is deployed."""
        return Fitted(
            self.config,
            {name: weight.quantized() for name, weight in self.weights.items()},
            {name: bias.detach().clone() for name, bias in self.biases.items()},
            {point: one.quantizer for point, one in self.ranges.items()},
        )

    def state(self) -> State:
        """Return a copy of all that changes: tensors in dictionaries."""
        return {
            "weights": {name: weight.state() for name, weight in self.weights.items()},
            "biases": {name: bias.detach().clone() for name, bias in self.biases.items()},
            "ranges": {point: one.state() for point, one in self.ranges.items()},
        }

    @torch.no_grad()
    def load(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state` returned."""
        for name, weight in self.weights.items():
            weight.load(state["weights"][name])
        for name, bias in self.biases.items():
            bias.copy_(state["biases"][name])
        for point, one in self.ranges.items():
            one.load(state["ranges"][point])


def first_tensor(output: Any) -> torch.Tensor:
    """Return the first tensor of a network's output.

    Raises
    ------
    InputError
        If there is none of numbers with a fraction.
    """
    leaf = next((leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, torch.Tensor)), None)
    if leaf is None or not leaf.is_floating_point():
        kind = type(output).__name__ if leaf is None else str(leaf.dtype)
        raise InputError(f"expected a network whose first output is a tensor of real numbers, got {kind}")
    return leaf
