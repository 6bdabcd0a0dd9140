"""A configuration as an ONNX graph with explicit quantization.

Every rounded tensor has one pair of quantize and dequantize operators, uint8 whatever the scheme calls it (a signed
code is shifted, its value stays); narrower codes are clipped after rounding. Weights are stored as integers with a
scale per channel, biases of integer layers as int32 with the product of both scales. A ReLU or clip that the codes'
ends make superfluous is left out, so that a convolution is next to its quantized result. Linear layers with blocks of
weights become ``com.microsoft.MatMulNBits``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import fx

from hwdse.capture.sites import Site
from hwdse.deploy.holds import CONTAINER_BITS, Manner, manners
from hwdse.deploy.translate import MARKERS, OPSET, Translation
from hwdse.errors import InputError
from hwdse.files import write_bytes
from hwdse.formats import Granularity
from hwdse.graph import BitConfig, Layer
from hwdse.quantize.network import QuantizedNetwork, Setting
from hwdse.quantize.quantizer import UniformQuantizer

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

__all__ = ["Rounded", "cut_model", "explicit_model", "stored_bytes", "write_onnx"]

MICROSOFT = "com.microsoft"
ACCURACY_LEVEL = 4
"""``MatMulNBits`` then rounds activations to int8 by block, and multiplies integers."""

LARGEST_BIAS = 2.0**30
"""A bias is an int32 code, with a bit to spare for what is added to it."""

_LARGEST_CODE = 127
_MISREAD_BITS = 2
"""ONNX Runtime takes a dequantized int2 for one that its kernels multiply; an axis that is taken off prevents that."""

_FUSED_WITH_PRODUCTS = frozenset(
    "Elu HardSigmoid LeakyRelu Relu Selu Sigmoid Softplus Softsign Tanh ThresholdedRelu".split()
)

_OPSET_OF_BITS = {2: 25, 4: 21, 8: OPSET}
_IR_OF_OPSET = {25: 13, 21: 10, OPSET: 10}

Array = NDArray[Any]


def write_onnx(path: Path, model: ModelProto) -> Path:
    """Write ``model`` to ``path``, whole or not at all.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    try:
        return write_bytes(path, model.SerializeToString())
    except OSError as error:
        raise InputError(
            f"expected to write {path}, got: {error.strerror or error}; name a file in a folder that can be written to"
        ) from error


def explicit_model(
    translation: Translation,
    network: QuantizedNetwork,
    config: BitConfig,
    *,
    stored_bits: Mapping[str, int] | None = None,
    properties: Mapping[str, str] | None = None,
) -> ModelProto:
    """Return ``config`` as an ONNX model.

    Parameters
    ----------
    translation
        Of the network's program, with the biases of ``config`` where its weights were reconstructed.
    network
        Calibrated, under the scheme of the device.
    config
        Precision of every layer; absent ones stay in fp32.
    stored_bits
        Bits that integer weights are stored in, by layer; 8 where absent. 2 and 4 are packed.
    properties
        Texts to keep with the model.

    Raises
    ------
    InputError
        If the graph cannot hold a precision (the layer is named).
    """
    program = network.program.with_constants(network.configure(config).biases)
    own = zip(translation.program.constants, program.constants, strict=False)
    if translation.program.steps is not program.steps or any(given is not needed for given, needed in own):
        raise InputError("expected the translation of this network's program, got another one; translate it again")
    writer = _Writer(translation, network, config, dict(stored_bits or {}))
    for node in translation.model.graph.node:
        writer.add(node)
    return writer.model(dict(properties or {}))


def stored_bytes(model: ModelProto) -> int:
    """Return the bytes of all numbers that the file holds: the rest are operators and names."""
    return sum(len(tensor.raw_data) for tensor in model.graph.initializer)


@dataclass(frozen=True)
class Rounded:
    """A tensor that the graph rounds.

    Attributes
    ----------
    point
        Name under which the simulation rounds it.
    scale, zero
        Of its codes.
    given, found
        Input that its codes are given by, and output that they are found in, of :func:`cut_model`.
    """

    point: str
    scale: float
    zero: int
    given: str
    found: str


def cut_model(model: bytes, axes: Mapping[str, int]) -> tuple[bytes, list[Rounded]]:
    """Return ``model`` cut at every rounded tensor, and these tensors.

    What reads a tensor's codes reads them from an input, and what writes them writes an output: every part of the graph
    can be looked at alone. A tensor that is rounded again behind a view is cut before it.

    Parameters
    ----------
    model
        Content of an ONNX file, from :func:`explicit_model`.
    axes
        Number of axes of every rounded tensor.
    """
    import onnx
    from onnx import helper, numpy_helper

    whole = onnx.load_from_string(model)
    constants = {tensor.name: tensor for tensor in whole.graph.initializer}
    clips = {node.input[0]: node.output[0] for node in whole.graph.node if node.op_type == "Clip"}
    cuts: dict[str, Rounded] = {}
    for node in whole.graph.node:
        point = node.input[1].removesuffix(":scale") if node.op_type == "QuantizeLinear" else ""
        if point and point not in {cut.point for cut in cuts.values()}:
            scale, zero = (numpy_helper.to_array(constants[name]).item() for name in node.input[1:])
            codes = clips.get(node.output[0], node.output[0])
            cuts[codes] = Rounded(point, scale, zero, f"{point}:given", codes)
    for node in whole.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in cuts:
            node.input[0] = cuts[node.input[0]].given
    for cut in cuts.values():
        sizes = [None] * axes[cut.point]
        whole.graph.input.append(helper.make_tensor_value_info(cut.given, onnx.TensorProto.UINT8, sizes))
        whole.graph.output.append(helper.make_tensor_value_info(cut.found, onnx.TensorProto.UINT8, None))
    return whole.SerializeToString(), list(cuts.values())


@dataclass
class _Codes:
    """An integer weight: codes as stored, scales ``(channels,)`` or ``()``, zero points alike."""

    name: str
    codes: Array
    scale: Array
    zero: Array


@dataclass
class _Writer:
    """Fills the markers of a translation in, one node after the other."""

    translation: Translation
    network: QuantizedNetwork
    config: BitConfig
    stored_bits: dict[str, int]
    nodes: list[NodeProto] = field(default_factory=list)
    constants: dict[str, TensorProto] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    makers: dict[str, NodeProto] = field(default_factory=dict)
    weights: dict[tuple[str, ...], str] = field(default_factory=dict)
    opset: int = OPSET
    count: int = 0

    def __post_init__(self) -> None:
        self.manners: dict[str, Manner] = manners(self.network, dict(self.config.precisions))
        self.setting: Setting = self.network.configure(self.config)
        self.layers: dict[str, Layer] = {layer.name: layer for layer in self.network.captured.layers}
        graph = self.translation.model.graph
        self.constants |= {tensor.name: tensor for tensor in graph.initializer}
        self.reads: dict[str, int] = {}
        for name in [*(name for node in graph.node for name in node.input), *(o.name for o in graph.output)]:
            self.reads[name] = self.reads.get(name, 0) + 1

    # Nodes of the translation.

    def add(self, node: NodeProto) -> None:
        """Add what a node of the translation stands for."""
        if node.domain != MARKERS:
            copy = type(node)()
            copy.CopyFrom(node)
            for i, name in enumerate(node.input):
                copy.input[i] = self.value(name)
            self._append(copy)
        else:
            name = node.attribute[0].s.decode()
            written = {"Point": self._point, "Layer": self._layer, "Weight": self._read_weight}[node.op_type]
            self.names[node.output[0]] = written(node, name)

    def value(self, name: str) -> str:
        """Return the value that stands for one of the translation."""
        return self.names.get(name, name)

    def _point(self, node: NodeProto, name: str) -> str:
        """Round a tensor where the configuration asks for it."""
        source = self.value(node.input[0])
        quantizer = self.setting.quantizers.get(name)
        if quantizer is None:
            return source
        assert isinstance(quantizer, UniformQuantizer)
        maker = self.makers.get(source)
        if maker is not None and self.reads[node.input[0]] == 1 and self._is_superfluous(maker, quantizer):
            self.nodes.remove(maker)
            source = maker.input[0]
        alone = self.reads[node.input[0]] == 1
        return self._round(self._call(source, name) if alone else source, name, quantizer)

    def _is_superfluous(self, node: NodeProto, quantizer: UniformQuantizer) -> bool:
        """Return True if a ReLU or clip changes nothing that is rounded afterwards."""
        if node.op_type not in ("Relu", "Clip"):
            return False
        given = [self._number(name) for name in node.input[1:]] if node.op_type == "Clip" else [0.0]
        low, high = (*given, None, None)[:2]
        first, last = quantizer.bounds
        inside = low is not None and round(low / quantizer.scale) > first
        inside |= high is not None and round(high / quantizer.scale) < last
        return not inside

    def _number(self, name: str) -> float | None:
        """Return a constant's only number; ``None`` where none is given."""
        from onnx import numpy_helper

        return float(numpy_helper.to_array(self.constants[name])) if name else None

    def _call(self, value: str, name: str) -> str:
        """Give a value that one operator reads the name that its tensor has in tables, and return its name."""
        maker = self.makers.get(value)
        if maker is None:
            return value
        maker.output[list(maker.output).index(value)] = name
        self.makers[name] = self.makers.pop(value)
        return name

    def _round(self, source: str, name: str, quantizer: UniformQuantizer) -> str:
        """Add a pair of quantize and dequantize, and return what it writes."""
        first, last = (int(bound) for bound in quantizer.bounds)
        scale = self._constant(f"{name}:scale", np.float32(quantizer.scale))
        zero = self._constant(f"{name}:zero", np.uint8(-first))
        codes = self._node("QuantizeLinear", [source, scale, zero])
        if last - first < 2**CONTAINER_BITS - 1:
            codes = self._node("Clip", [codes, "", self._constant(f"{name}:last", np.uint8(last - first))])
        return self._node("DequantizeLinear", [codes, scale, zero])

    # Layers.

    def _layer(self, node: NodeProto, name: str) -> str:
        """Add a layer in its precision."""
        layer, site, manner = self.layers[name], self.network.captured.sites[name], self.manners[name]
        operands = [self.value(operand) for operand in node.input]
        if manner is Manner.INTEGER:
            operands[0] = self._rounded(operands[0], layer.input)
            if layer.weight is None:
                operands[1] = self._rounded(operands[1], f"{name}.second")
        if layer.weight is None:
            return self._sum(self._node("MatMul", operands[:2], name=name), operands[2:], site)
        bias = operands[1] if len(operands) > 1 else ""
        if manner is Manner.BLOCKED:
            return self._sum(self._blocked(layer, site, operands[0]), operands[1:], site)
        if site.is_convolution:
            weight, bias = self._operands(layer, bias, is_gemm=False)
            return self._node("Conv", _given([operands[0], weight, bias]), name=name, **_convolution(site.node))
        assert site.weight_node is not None
        axes = {len(self.network.captured.flow.shapes[operand]) for operand in (site.operands[0], site.weight_node)}
        if axes == {2} and (bias == "" or bias in self.constants):
            _check_plain(site)
            weight, bias = self._operands(layer, bias, is_gemm=True)
            turned = {"transB": 1} if site.weight_axis == 0 else {}
            return self._node("Gemm", _given([operands[0], weight, bias]), name=name, **turned)
        weight = self._by_columns(layer, site)
        return self._sum(self._node("MatMul", [operands[0], weight], name=name), operands[1:], site)

    def _rounded(self, value: str, point: str) -> str:
        """Return ``value`` next to its dequantization: behind a view, the same codes are written once more."""
        maker = self.makers.get(value)
        if maker is not None and maker.op_type == "DequantizeLinear":
            return value
        quantizer = self.setting.quantizers[point]
        assert isinstance(quantizer, UniformQuantizer)
        return self._round(value, point, quantizer)

    def _sum(self, product: str, bias: list[str], site: Site) -> str:
        _check_plain(site)
        return self._node("Add", [product, *bias]) if bias else product

    def _operands(self, layer: Layer, bias: str, *, is_gemm: bool) -> tuple[str, str]:
        """Return the values of a layer's weight, and of its bias if it has one."""
        if self.manners[layer.name] is Manner.FLOAT:
            return self._float(layer.weight or ""), bias
        quantizer = self.setting.quantizers[layer.input]
        assert isinstance(quantizer, UniformQuantizer)
        numbers = None if bias == "" else self._array(bias).astype(np.float64)  # packed weights leave it in fp32
        coded = self._codes(layer, numbers, quantizer.scale)
        weight = self._dequantized(layer, coded, has_zero=is_gemm)
        if numbers is None or self._bits(layer) != CONTAINER_BITS:
            return weight, bias
        codes = np.rint(numbers / (quantizer.scale * coded.scale.astype(np.float64))).astype(np.int32)
        step = self._node("Mul", [f"{layer.input}:scale", f"{coded.name}:scale"])
        axis = {"axis": 0} if coded.scale.ndim else {}
        return weight, self._node("DequantizeLinear", [self._constant(f"{layer.name}:bias", codes), step], **axis)

    def _codes(self, layer: Layer, bias: Array | None = None, step: float = 0.0) -> _Codes:
        """Return the codes of a layer's weight.

        Codes of fewer than 8 bits in a container are multiplied by a power of two that their scales are divided by: the
        values are the same, and a bias, which is rounded to the product of the scales, is as fine as beside int8.

        A bias that is too large for the scale of its channel, as beside weights that a batch norm all but removed,
        makes it larger. That changes the result by less than one of its own codes: half a step for each of at most some
        thousand products of 255, where the bias alone is 2^30 steps.
        """
        assert layer.weight is not None
        found = self.network.quantized_weight(layer, self.config.precisions[layer.name].weights)
        axis = self.network.weight_axis(layer.weight)
        values = found.values.double().movedim(axis, 0)
        by_channel = self.network.scheme.weight_granularity is Granularity.PER_CHANNEL
        scale, zero = found.scale.numpy().astype(np.float32), found.zero_point.numpy()
        name = _name_of(layer.weight)
        lowest, highest = found.levels.lowest, found.levels.highest
        assert lowest is not None
        assert highest is not None
        if self._bits(layer) == CONTAINER_BITS and not zero.any():
            scale /= np.float32(2 ** int(np.log2(_LARGEST_CODE / max(-lowest, highest, 1))))
        if bias is not None:
            least = np.abs(bias) / (step * LARGEST_BIAS)
            wider = np.maximum(scale, (least if by_channel else least.max()).astype(np.float32))
            name = name if np.array_equal(wider, scale) else f"{layer.name}:{name}"
            scale = wider
        rows = (-1, *[1] * (values.ndim - 1))
        codes = np.rint(values.numpy() / scale.astype(np.float64).reshape(rows)) + zero.reshape(rows)
        assert np.abs(codes).max(initial=0.0) <= -np.iinfo(np.int8).min
        stored = np.ascontiguousarray(np.moveaxis(codes, 0, axis)).astype(np.int8)
        if not by_channel:
            scale, zero = scale.reshape(()), zero.reshape(())
        return _Codes(name, stored, scale, zero.astype(np.int8))

    def _dequantized(self, layer: Layer, coded: _Codes, *, has_zero: bool, turned: bool = False) -> str:
        """Return the value of an integer weight; packed where it is stored in fewer than 8 bits."""
        bits = self._bits(layer)
        self.opset = max(self.opset, _OPSET_OF_BITS[bits])
        has_zero = has_zero or bool(coded.zero.any())
        key = (coded.name, str(has_zero), str(turned))
        if key in self.weights:
            return self.weights[key]
        axis = self.network.weight_axis(layer.weight or "")
        if layer.op == "linear" and coded.codes.ndim > 2:  # a matrix in a batch of one
            coded.codes, axis = coded.codes.reshape(coded.codes.shape[-2:]), 1
        shape = coded.codes.shape
        if bits == _MISREAD_BITS:
            coded.codes, axis = coded.codes[None], axis + 1
        codes = self._integers(coded.name, coded.codes, bits)
        operands = [codes, self._constant(f"{coded.name}:scale", coded.scale)]
        if has_zero:
            zero = np.broadcast_to(coded.zero, coded.scale.shape)
            operands.append(self._integers(f"{coded.name}:zero", zero, bits))
        if turned and bits == CONTAINER_BITS:
            operands[0] = self._node("Transpose", [codes], perm=[1, 0])
            axis = 1 - axis
        value = self._node("DequantizeLinear", operands, **({"axis": axis} if coded.scale.ndim else {}))
        if bits == _MISREAD_BITS:
            value = self._node("Reshape", [value, self._constant(f"{coded.name}:shape", np.array(shape))])
        if turned and bits != CONTAINER_BITS:  # a runtime that multiplies such integers turns them itself
            value = self._node("Transpose", [value], perm=[1, 0])
        self.weights[key] = value
        return value

    def _bits(self, layer: Layer) -> int:
        """Return the bits that an integer weight is stored in."""
        return self.stored_bits.get(layer.name, CONTAINER_BITS)

    def _by_columns(self, layer: Layer, site: Site) -> str:
        """Return the value of a linear layer's weight with the output channels last."""
        turned = site.weight_axis == 0
        if self.manners[layer.name] is Manner.INTEGER:
            return self._dequantized(layer, self._codes(layer), has_zero=False, turned=turned)
        weight = self._float(layer.weight or "")
        if not turned:
            return weight
        if (key := (weight, "turned")) not in self.weights:
            self.weights[key] = self._node("Transpose", [weight], perm=[1, 0])
        return self.weights[key]

    def _blocked(self, layer: Layer, site: Site, source: str) -> str:
        """Add a product with packed weights: rows of output channels, blocks of the values that each is summed from."""
        weights = self.config.precisions[layer.name].weights
        found = self.network.quantized_weight(layer, weights)
        block, bits, (channels, length) = self.network.scheme.block_size, weights.bits, layer.weight_shape
        blocks = -(-length // block)
        rows = found.values.double().movedim(site.weight_axis, 0).reshape(channels, length).numpy()
        scale = found.scale.numpy().astype(np.float32).reshape(channels, blocks)
        padded = np.pad(rows, ((0, 0), (0, blocks * block - length))).reshape(channels, blocks, block)
        codes = np.rint(padded / scale.astype(np.float64)[..., None]) + 2 ** (bits - 1)
        packed = _packed(codes.astype(np.uint8), bits)
        name = _name_of(layer.weight)
        names = [self._constant(name, packed), self._constant(f"{name}:scale", scale.reshape(-1))]
        sizes = {"K": length, "N": channels, "bits": bits, "block_size": block, "accuracy_level": ACCURACY_LEVEL}
        return self._node("MatMulNBits", [source, *names], name=layer.name, domain=MICROSOFT, **sizes)

    def _read_weight(self, node: NodeProto, weight: str) -> str:
        """Return the value of a weight where something else than a layer reads it, such as an embedding.

        Raises
        ------
        InputError
            If it is stored in blocks, which only products read.
        """
        del node
        users = [layer for layer in self.layers.values() if layer.weight == weight]
        layer = next((user for user in users if self.manners[user.name] is not Manner.FLOAT), users[0])
        if self.manners[layer.name] is Manner.FLOAT:
            return self._float(weight)
        if self.manners[layer.name] is Manner.INTEGER:
            return self._dequantized(layer, self._codes(layer), has_zero=False)
        raise InputError(
            f"expected weights in blocks that products alone read, got {weight} at {layer.name}, which something else "
            "reads, too; leave that layer in fp32"
        )

    def _float(self, weight: str) -> str:
        return self._constant(_name_of(weight), self.translation.program.folded[weight].detach().contiguous().numpy())

    # Parts of the graph.

    def _array(self, name: str) -> Array:
        from onnx import numpy_helper

        return np.asarray(numpy_helper.to_array(self.constants[name]))

    def _constant(self, name: str, value: Array | np.generic) -> str:
        """Add a constant; one of that name is there already where a tensor or weight is used twice."""
        from onnx import numpy_helper

        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(np.asarray(value), name)
        return name

    def _integers(self, name: str, codes: Array, bits: int) -> str:
        """Add signed integers in as many bits each, packed."""
        from onnx import TensorProto

        if bits == CONTAINER_BITS:
            return self._constant(name, np.ascontiguousarray(codes))
        if name not in self.constants:
            flat = np.pad(codes.reshape(-1), (0, -codes.size % (CONTAINER_BITS // bits))).view(np.uint8)
            kind = {2: "INT2", 4: "INT4"}[bits]
            if not hasattr(TensorProto, kind):
                raise InputError(f"expected an onnx package that has {kind}, got an older one; upgrade it")
            content = _packed(flat & (2**bits - 1), bits).tobytes()
            self.constants[name] = TensorProto(
                name=name, dims=codes.shape, data_type=getattr(TensorProto, kind), raw_data=content
            )
        return name

    def _node(self, operator: str, inputs: list[str], **attributes: Any) -> str:
        """Append an operator and return the name of what it writes."""
        from onnx import helper

        self.count += 1
        name = f":t{self.count}"
        self._append(helper.make_node(operator, inputs, [name], **attributes))
        return name

    def _append(self, node: NodeProto) -> None:
        self.nodes.append(node)
        self.makers |= dict.fromkeys(node.output, node)

    def model(self, properties: Mapping[str, str]) -> ModelProto:
        """Return the whole model, without what nobody reads."""
        from onnx import helper

        graph = self.translation.model.graph
        self._name_outputs([output.name for output in graph.output])
        self._part_activations()
        kept = _needed(self.nodes, [output.name for output in graph.output])
        read = {name for node in kept for name in node.input}
        constants = [tensor for name, tensor in self.constants.items() if name in read]
        whole = helper.make_graph(kept, "network", graph.input, graph.output, constants)
        domains = {node.domain for node in kept} | {""}
        versions = {"": self.opset}
        imports = [helper.make_opsetid(domain, versions.get(domain, 1)) for domain in sorted(domains)]
        model = helper.make_model(
            whole, opset_imports=imports, ir_version=_IR_OF_OPSET[self.opset], producer_name="hwdse"
        )
        helper.set_model_props(model, dict(properties))
        return model

    def _part_activations(self) -> None:
        """Put a reshape between an integer linear layer and an activation that stays in fp32.

        ONNX Runtime makes one operator of them before it looks at quantization, and that computes in fp32.
        """
        from onnx import helper

        nodes: list[NodeProto] = []
        for node in self.nodes:
            maker = self.makers.get(node.input[0]) if node.op_type in _FUSED_WITH_PRODUCTS else None
            if maker is not None and maker.op_type == "Gemm" and self.manners[maker.name] is Manner.INTEGER:
                sizes = self._constant(":rows", np.array([0, -1]))
                self.count += 1
                nodes.append(helper.make_node("Reshape", [node.input[0], sizes], [f":t{self.count}"]))
                node.input[0] = f":t{self.count}"
            nodes.append(node)
        self.nodes = nodes

    def _name_outputs(self, outputs: Iterable[str]) -> None:
        """Give the values that the network returns the names of its outputs."""
        for output in outputs:
            if (value := self.value(output)) != output:
                self._append(_identity(value, output))


def _name_of(weight: str | None) -> str:
    """Return the name of a weight's constant, which no tensor has."""
    assert weight is not None
    return weight if "." in weight else f"{weight}:weight"


def _identity(value: str, output: str) -> NodeProto:
    from onnx import helper

    node: NodeProto = helper.make_node("Identity", [value], [output])
    return node


def _needed(nodes: list[NodeProto], outputs: Iterable[str]) -> list[NodeProto]:
    """Return the nodes that the outputs depend on, in their order."""
    wanted, kept = set(outputs), []
    for node in reversed(nodes):
        if wanted & set(node.output):
            wanted |= set(node.input)
            kept.append(node)
    return kept[::-1]


def _given(operands: list[str]) -> list[str]:
    return [operand for operand in operands if operand]


def _packed(codes: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Return codes of 2, 4 or 8 bits packed along the last axis, the first one lowest.

    >>> _packed(np.array([1, 2, 3, 4], dtype=np.uint8), 4).tolist()
    [33, 67]
    """
    per_byte = CONTAINER_BITS // bits
    packed = np.zeros((*codes.shape[:-1], codes.shape[-1] // per_byte), dtype=np.uint8)
    for place in range(per_byte):
        packed |= codes[..., place::per_byte] << (bits * place)
    return packed


def _arguments(node: fx.Node) -> dict[str, Any]:
    """Return an operator's arguments by their names in its schema."""
    schema = node.target._schema.arguments  # type: ignore[union-attr]
    given = dict(zip((argument.name for argument in schema), node.args, strict=False)) | node.kwargs
    return {argument.name: given.get(argument.name, argument.default_value) for argument in schema}


def _convolution(node: fx.Node) -> dict[str, Any]:
    """Return the attributes of a convolution that differ from their defaults."""
    arguments = _arguments(node)
    kernel = arguments["weight"].meta["val"].shape[2:]
    count = len(kernel)
    stride, dilation = _each(arguments["stride"], count), _each(arguments["dilation"], count)
    padding = arguments["padding"]
    if isinstance(padding, str):
        spans = zip(dilation, kernel, strict=True)
        whole = [d * (int(k) - 1) if padding == "same" else 0 for d, k in spans]
        pads = [*(total // 2 for total in whole), *(total - total // 2 for total in whole)]
    else:
        pads = _each(padding, count) * 2
    found = {"strides": stride, "dilations": dilation, "pads": pads, "group": arguments["groups"]}
    defaults = {"strides": [1] * count, "dilations": [1] * count, "pads": [0] * 2 * count, "group": 1}
    return {name: value for name, value in found.items() if value != defaults[name]}


def _each(value: Any, count: int) -> list[int]:
    values = list(value) if isinstance(value, list | tuple) else [value]
    return [int(v) for v in (values if len(values) == count else values * count)]


def _check_plain(site: Site) -> None:
    """Check that a product is not scaled."""
    scaled = [name for name in ("alpha", "beta") if site.node.kwargs.get(name, 1) != 1]
    if scaled:
        raise InputError(f"expected products without factors, got {scaled[0]} at {site.name}; multiply apart from it")
