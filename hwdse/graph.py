"""Layers, tensors and tied groups of a network as plain frozen data.

All counts are per sample (batch of one). Nothing here knows torch: :mod:`hwdse.capture` fills it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import prod

from hwdse.errors import InputError
from hwdse.formats import Precision

__all__ = ["BitConfig", "Layer", "LayerGraph", "LiveSet", "Node", "Tensor", "TiedGroup", "Value", "tie"]


@dataclass(frozen=True)
class Tensor:
    """An activation tensor that is stored between operators.

    Attributes
    ----------
    name
        Unique name.
    shape
        Shape without the batch dimension.
    owner
        Name of the layer whose activation format it is stored in: its reader, or the next layer downstream.
        ``None`` for tensors that no layer follows (the network's outputs), which stay in fp32.
    """

    name: str
    shape: tuple[int, ...]
    owner: str | None

    @property
    def elements(self) -> int:
        """Number of values per sample.

        >>> Tensor("x", (3, 4), None).elements
        12
        """
        return prod(self.shape)


@dataclass(frozen=True)
class Layer:
    """One operator that has MACs: a convolution, a linear, or a product of two activations.

    Attributes
    ----------
    name
        Unique name: the module path, or the operator's node name where there is no module.
    op
        ``conv``, ``linear`` or ``matmul``.
    input
        Name of the tensor it reads (the first operand of a matmul).
    output
        Name of the tensor it writes (after the batch norm and activation fused with it).
    input_shape, output_shape
        Shapes without the batch dimension; channels first for convolutions.
    macs
        Multiply-accumulates per sample.
    weight
        Qualified name of the weight parameter; ``None`` for a matmul of two activations. Layers that share a
        parameter share the name.
    weight_shape
        Shape of the weight, output channels first; ``()`` for a matmul.
    bias_count
        Number of bias values after folding batch norm; 0 without a bias.
    kernel, stride, groups
        Spatial kernel and stride (``()`` for linear and matmul) and channel groups of a convolution.
    second_input
        Tensor name of a matmul's second operand, whose format is the precision's weight format.
    second_shape
        Its shape without the batch dimension.
    bias
        Qualified name of the bias parameter. Layers that share a parameter share the name; ``None`` without one, or
        where the bias comes from a batch norm alone.
    """

    name: str
    op: str
    input: str
    output: str
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    macs: int
    weight: str | None = None
    weight_shape: tuple[int, ...] = ()
    bias_count: int = 0
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    groups: int = 1
    second_input: str | None = None
    second_shape: tuple[int, ...] = ()
    bias: str | None = None

    @property
    def weight_count(self) -> int:
        """Number of weights; 0 for a matmul."""
        return prod(self.weight_shape) if self.weight is not None else 0

    @property
    def output_channels(self) -> int:
        """Number of output channels, each with its own scale where the scheme is per channel; 0 for a matmul."""
        return self.weight_shape[0] if self.weight is not None else 0

    @property
    def input_channels(self) -> int:
        """Number of input channels (features) of all groups together; of a matmul, the contracted length."""
        if self.op == "conv":
            return self.weight_shape[1] * self.groups
        return self.weight_shape[1] if self.weight is not None else self.input_shape[-1]

    @property
    def op_class(self) -> str:
        """Class that decides a device's efficiency: conv, pointwise, depthwise, grouped, linear or matmul."""
        if self.op != "conv":
            return self.op
        if self.groups > 1:
            return "depthwise" if self.groups == self.input_channels else "grouped"
        return "pointwise" if prod(self.kernel) == 1 else "conv"


@dataclass(frozen=True)
class TiedGroup:
    """Layers that must share one choice: readers of one tensor, users of one weight. One gene per group."""

    name: str
    layers: tuple[str, ...]


@dataclass(frozen=True)
class LiveSet:
    """Tensors that are in memory while one operator runs."""

    operator: str
    tensors: tuple[str, ...]


@dataclass(frozen=True)
class Node:
    """An operator without MACs that no layer takes in: an addition, a pooling, a norm, an activation with two readers.

    A batch norm that is folded into a layer and a ReLU or clip that alone reads a layer's result belong to the layer, a
    number that a product of two activations is multiplied by belongs to the product. ``transpose`` moves values that
    stay in their format: values are looked through it. ``pad`` and ``slice`` write tensors of another size.

    Attributes
    ----------
    name
        Unique name.
    operator
        What it does: ``add``, ``max_pool``, ``global_avg_pool``, ``gelu``, ``softmax``, ``layer_norm`` ...
    elements
        Values per sample of the largest tensor that it reads or writes.
    activation
        ``relu`` or ``clip`` where one alone reads its result; it is part of this operator.
    """

    name: str
    operator: str
    elements: int
    activation: str | None = None


@dataclass(frozen=True)
class Value:
    """What one operator writes and others read, views looked through, before any operator is written over another.

    Attributes
    ----------
    name
        Unique name; layers that read it call it their input.
    elements
        Number of values per sample.
    layer, node
        Name of the layer or of the node that writes it; both are ``None`` for an input of the network.
    layers, nodes
        Names of the layers and of the nodes that read it, in execution order.
    """

    name: str
    elements: int
    layer: str | None = None
    node: str | None = None
    layers: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()


@dataclass(frozen=True)
class BitConfig:
    """A choice of one candidate precision per layer, equal within each tied group.

    Attributes
    ----------
    precisions
        Precision of every layer by its name, in execution order.
    origin
        What it was found for, where that is known: the calibrated network and the device.

    >>> config = BitConfig({"conv1": Precision.parse("W8A8"), "fc": Precision.parse("W4A8")})
    >>> config.bits
    'W8A8 W4A8'
    >>> print(config)
    conv1 W8A8
    fc    W4A8
    >>> config
    <BitConfig of 2 layers: 1 x W8A8, 1 x W4A8>
    """

    precisions: Mapping[str, Precision]
    origin: object = field(default=None, compare=False, repr=False)

    @property
    def bits(self) -> str:
        """Precision of every layer in order, separated by spaces."""
        return " ".join(map(str, self.precisions.values()))

    def __repr__(self) -> str:
        counts = Counter(map(str, self.precisions.values())).most_common()
        words = ", ".join(f"{count} x {precision}" for precision, count in counts)
        return f"<BitConfig of {len(self.precisions)} layers: {words}>"

    def __str__(self) -> str:
        width = max(map(len, self.precisions), default=0)
        return "\n".join(f"{name:<{width}} {precision}" for name, precision in self.precisions.items())


@dataclass(frozen=True)
class LayerGraph:
    """The layers of a network in execution order, the tensors between them, and what must be chosen together.

    Attributes
    ----------
    layers, tensors, groups
        In execution order; every layer is in exactly one group.
    edges
        Pairs (producer, consumer) of layer indices: the consumer reads what the producer wrote, directly or through
        operators without MACs.
    live_sets
        Tensors in memory at each operator; a network's activation memory is the largest of them.
    other_parameters
        Parameters that belong to no layer (norm scales, embeddings) and stay in fp32.
    nodes
        Operators without MACs, in execution order.
    values
        What flows between layers and nodes, in execution order.
    """

    layers: tuple[Layer, ...]
    tensors: tuple[Tensor, ...]
    groups: tuple[TiedGroup, ...]
    edges: tuple[tuple[int, int], ...] = ()
    live_sets: tuple[LiveSet, ...] = ()
    other_parameters: int = 0
    nodes: tuple[Node, ...] = ()
    values: tuple[Value, ...] = ()
    layer_index: Mapping[str, int] = field(init=False, repr=False, compare=False)

    def __repr__(self) -> str:
        weights = sum({layer.weight: layer.weight_count for layer in self.layers}.values())
        macs = sum(layer.macs for layer in self.layers)
        return (
            f"<{type(self).__name__} of {len(self.layers)} layers in {len(self.groups)} tied groups: {macs:,} MACs, "
            f"{weights:,} weights>"
        )

    def __post_init__(self) -> None:
        index = {layer.name: i for i, layer in enumerate(self.layers)}
        if len(index) != len(self.layers):
            raise InputError("expected layers with unique names, got the same name twice")
        tied = [name for group in self.groups for name in group.layers]
        if sorted(tied) != sorted(index):
            raise InputError("expected every layer in exactly one tied group")
        object.__setattr__(self, "layer_index", index)

    @cached_property
    def group_of(self) -> tuple[int, ...]:
        """Index of the tied group of each layer, in layer order."""
        owner = {name: g for g, group in enumerate(self.groups) for name in group.layers}
        return tuple(owner[layer.name] for layer in self.layers)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the whole network per sample."""
        return sum(layer.macs for layer in self.layers)

    @property
    def parameter_count(self) -> int:
        """Number of parameters after folding batch norm; shared weights count once."""
        shared = {layer.weight: layer.weight_count for layer in self.layers if layer.weight is not None}
        biases = {layer.bias or layer.weight or layer.name: layer.bias_count for layer in self.layers}
        return sum(shared.values()) + sum(biases.values()) + self.other_parameters

    def config(self, precisions: Sequence[Precision]) -> BitConfig:
        """Return the configuration that gives group ``g`` the precision ``precisions[g]``.

        Raises
        ------
        InputError
            If there is not one precision per group.
        """
        if len(precisions) != len(self.groups):
            raise InputError(f"expected {len(self.groups)} precisions (groups), got {len(precisions)}")
        return BitConfig({layer.name: precisions[g] for layer, g in zip(self.layers, self.group_of, strict=True)})


def tie(layers: Sequence[Layer], extra: Sequence[Sequence[str]] = ()) -> tuple[TiedGroup, ...]:
    """Return the tied groups of ``layers``: readers of one tensor and users of one weight share a choice.

    Parameters
    ----------
    layers
        In execution order.
    extra
        Further sets of layer names that a device ties.

    A group is named after its first layer.

    Raises
    ------
    InputError
        If ``extra`` names a layer that is not among ``layers``.
    """
    parent = {layer.name: layer.name for layer in layers}

    def root(name: str) -> str:
        while parent[name] != name:
            name = parent[name]
        return name

    def join(names: Sequence[str]) -> None:
        for name in names[1:]:
            parent[root(name)] = root(names[0])

    shared: dict[tuple[str, str], list[str]] = {}
    for layer in layers:
        shared.setdefault(("tensor", layer.input), []).append(layer.name)
        if layer.weight is not None:
            shared.setdefault(("weight", layer.weight), []).append(layer.name)
    unknown = [name for names in extra for name in names if name not in parent]
    if unknown:
        raise InputError(f"expected layers of the network to tie, got {unknown[0]!r}")
    for names in (*shared.values(), *extra):
        join(list(names))
    members: dict[str, list[str]] = {}
    for layer in layers:
        members.setdefault(root(layer.name), []).append(layer.name)
    return tuple(TiedGroup(names[0], tuple(names)) for names in members.values())
