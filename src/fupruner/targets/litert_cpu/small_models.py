"""TFLite models of one layer each: built for a shape, or cut out of a file. LiteRT tells no times of single operators from Python."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from fupruner.graph.layer_shape import LayerShape
from fupruner.targets.edge_tpu.flatbuffer import read_model, schema, write_model
from fupruner.targets.runtime import Array

_SCALE = 0.05
_ACTIVATIONS = {"": 0, "relu": 1, "relu6": 3, "clip": 3}
KINDS = ("conv", "linear", "add", "mul", "relu", "maxpool2d", "avgpool2d", "adaptiveavgpool2d", "mean", "pad")


def _key(kind: str) -> str:
    """Spelling that does not depend on where underscores are."""
    return kind.replace("_", "")


def can_build(layer: LayerShape) -> bool:
    """Whether there is a model for such a layer."""
    shapes = (layer.in_shape, layer.out_shape)
    kind = _key(layer.kind)
    known = kind in KINDS and _key(layer.activation) in _ACTIVATIONS
    if not known or not all(n >= 1 for s in shapes for n in s):
        return False
    if kind == "linear":
        return all(len(shape) == 1 for shape in shapes)
    if kind in ("conv", "maxpool2d", "avgpool2d"):
        windows = (layer.kernel, layer.stride)
        fits = len(layer.in_shape) == 3 and all(len(window) == 2 for window in windows)
        return fits and (kind == "conv" or not any(layer.padding))
    if kind in ("adaptiveavgpool2d", "mean"):
        return len(layer.in_shape) == 3 and prod(layer.out_shape) == layer.in_shape[0]
    return len(layer.in_shape) in (1, 3) and (kind == "pad" or layer.in_shape == layer.out_shape)


class _Model:
    """A graph that grows, in float32 or int8. Shapes are channels last, with the batch."""

    def __init__(self, *, int8: bool) -> None:
        self.schema, self.int8 = schema(), int8
        self.model, self.graph = self.schema.ModelT(), self.schema.SubGraphT()
        self.model.version, self.model.subgraphs, self.model.operatorCodes = 3, [self.graph], []
        self.model.buffers = [self.schema.BufferT()]
        self.graph.tensors, self.graph.operators, self.graph.inputs, self.graph.outputs = [], [], [], []
        self._random = np.random.default_rng(0)

    def value(self, shape: Sequence[int]) -> int:
        """A tensor that is computed, or an input."""
        return self._tensor(shape, "INT8" if self.int8 else "FLOAT32", None, [_SCALE] if self.int8 else [], 0)

    def entry(self, shape: Sequence[int]) -> int:
        """An input of the model."""
        number = self.value(shape)
        self.graph.inputs.append(number)
        return number

    def weights(self, shape: Sequence[int], channels: int, axis: int) -> int:
        """Random weights, in int8 with a scale per output channel."""
        if self.int8:
            array = self._random.integers(-127, 128, tuple(shape), dtype=np.int8)
            return self._tensor(shape, "INT8", array, [_SCALE] * channels, axis)
        return self._tensor(shape, "FLOAT32", self._random.standard_normal(tuple(shape), dtype=np.float32), [], 0)

    def bias(self, channels: int, scales: int) -> int:
        """A bias of zeros."""
        kind, dtype = ("INT32", np.int32) if self.int8 else ("FLOAT32", np.float32)
        return self._tensor(
            [channels], kind, np.zeros(channels, dtype), [_SCALE * _SCALE] * scales if self.int8 else [], 0
        )

    def numbers(self, values: Array) -> int:
        """Whole numbers that an operator takes as a tensor."""
        return self._tensor(values.shape, "INT32", values.astype(np.int32), [], 0)

    def _tensor(self, shape: Sequence[int], kind: str, array: Array | None, scales: list[float], axis: int) -> int:
        tensor = self.schema.TensorT()
        tensor.shape, tensor.type = [int(n) for n in shape], getattr(self.schema.TensorType, kind)
        tensor.name, tensor.buffer, tensor.hasRank = f"t{len(self.graph.tensors)}", 0, True
        if array is not None:
            buffer = self.schema.BufferT()
            buffer.data = list(array.tobytes())
            self.model.buffers.append(buffer)
            tensor.buffer = len(self.model.buffers) - 1
        if scales:
            tensor.quantization = self.schema.QuantizationParametersT()
            tensor.quantization.scale, tensor.quantization.zeroPoint = scales, [0] * len(scales)
            tensor.quantization.quantizedDimension = axis
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def operator(
        self, kind: str, inputs: list[int], shape: Sequence[int], options: str = "", version: int = 1, **settings: Any
    ) -> int:
        """Add an operator that makes one tensor."""
        code, op = self.schema.OperatorCodeT(), self.schema.OperatorT()
        code.builtinCode = getattr(self.schema.BuiltinOperator, kind)
        code.deprecatedBuiltinCode, code.version = min(code.builtinCode, 127), version
        self.model.operatorCodes.append(code)
        op.opcodeIndex, op.inputs = len(self.model.operatorCodes) - 1, inputs
        if options:
            op.builtinOptionsType = getattr(self.schema.BuiltinOptions, options)
            op.builtinOptions = getattr(self.schema, f"{options}T")()
            for name, setting in settings.items():
                setattr(op.builtinOptions, name, setting)
        made = self.value(shape)
        op.outputs = [made]
        self.graph.operators.append(op)
        return made

    def content(self, output: int) -> bytes:
        """The model with one output."""
        self.graph.outputs = [output]
        return write_model(self.model)


def build(layer: LayerShape, *, int8: bool) -> bytes:
    """A model that is this layer alone; it must satisfy ``can_build``."""
    model, kind = _Model(int8=int8), _key(layer.kind)
    x = model.entry(_last(layer.in_shape))
    out, act = _last(layer.out_shape), _ACTIVATIONS[_key(layer.activation)]
    first = 0 if layer.fused_add else act
    if kind == "conv":
        y = _conv(model, layer, x, first)
    elif kind == "linear":
        wide, narrow = layer.in_shape[0], layer.out_shape[0]
        inputs = [x, model.weights((narrow, wide), 1, 0), model.bias(narrow, 1)]
        y = model.operator(
            "FULLY_CONNECTED", inputs, out, "FullyConnectedOptions", 4 if int8 else 1, fusedActivationFunction=first
        )
    elif kind in ("maxpool2d", "avgpool2d"):
        y = _pool(model, layer, x, first)
    elif kind in ("adaptiveavgpool2d", "mean"):
        axes = model.numbers(np.array([1, 2]))
        shape = (1, 1, 1, layer.in_shape[0])
        y = model.operator("MEAN", [x, axes], shape, "ReducerOptions", 2 if int8 else 1, keepDims=True)
    elif kind == "relu":
        y = model.operator("RELU", [x], out, "", 2 if int8 else 1)
    elif kind == "pad":
        y = _pad(model, x, layer.in_shape, layer.out_shape)
    else:
        kind, options = ("ADD", "AddOptions") if layer.kind == "add" else ("MUL", "MulOptions")
        y = model.operator(kind, [x, model.entry(out)], out, options, 2 if int8 else 1, fusedActivationFunction=first)
    if layer.fused_add:
        y = model.operator(
            "ADD", [y, model.entry(out)], out, "AddOptions", 2 if int8 else 1, fusedActivationFunction=act
        )
    return model.content(y)


def _last(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (1, *shape[1:], shape[0]) if len(shape) == 3 else (1, *shape)


def _window(layer: LayerShape) -> dict[str, int]:
    return {"strideH": layer.stride[0], "strideW": layer.stride[1]}


def _conv(model: _Model, layer: LayerShape, x: int, activation: int) -> int:
    same = layer.stride == (1, 1) and layer.in_shape[1:] == layer.out_shape[1:]
    if any(layer.padding) and not same:
        padded = (layer.in_shape[0], *(n + 2 * p for n, p in zip(layer.in_shape[1:], layer.padding, strict=True)))
        x = _pad(model, x, layer.in_shape, padded)
    dilation = layer.dilation or (1, 1)
    settings = {
        **_window(layer), "padding": 0 if same else 1, "fusedActivationFunction": activation, "dilationHFactor": dilation[0],
        "dilationWFactor": dilation[1],
    }  # fmt: skip
    wide, narrow = layer.in_shape[0], layer.out_shape[0]
    out = _last(layer.out_shape)
    bias = model.bias(narrow, narrow)
    if layer.groups == wide and layer.groups > 1:
        weights = model.weights((1, *layer.kernel, narrow), narrow, 3)
        settings["depthMultiplier"] = narrow // wide
        return model.operator("DEPTHWISE_CONV_2D", [x, weights, bias], out, "DepthwiseConv2DOptions", 3, **settings)
    weights = model.weights((narrow, *layer.kernel, wide // layer.groups), narrow, 0)
    return model.operator("CONV_2D", [x, weights, bias], out, "Conv2DOptions", 3 if model.int8 else 1, **settings)


def _pool(model: _Model, layer: LayerShape, x: int, activation: int) -> int:
    kind = "MAX_POOL_2D" if _key(layer.kind) == "maxpool2d" else "AVERAGE_POOL_2D"
    return model.operator(
        kind, [x], _last(layer.out_shape), "Pool2DOptions", 2 if model.int8 else 1, **_window(layer), padding=1,
        filterHeight=layer.kernel[0], filterWidth=layer.kernel[1], fusedActivationFunction=activation,
    )  # fmt: skip


def _pad(model: _Model, x: int, source: tuple[int, ...], target: tuple[int, ...]) -> int:
    more = np.array([b - a for a, b in zip(_last(source), _last(target), strict=True)])
    pads = model.numbers(np.stack([more // 2, more - more // 2], axis=1))
    return model.operator("PAD", [x, pads], _last(target), "PadOptions", 2 if model.int8 else 1)


def cut_out(content: bytes) -> list[bytes]:
    """Every operator of a file as a model of its own, in order."""
    whole = read_model(content)
    return [_alone(read_model(content), position) for position in range(len(whole.subgraphs[0].operators))]


def _alone(model: Any, position: int) -> bytes:
    graph = model.subgraphs[0]
    op = graph.operators[position]
    used = [int(i) for i in (*op.inputs, *op.outputs) if int(i) >= 0]
    constant = {i for i in used if model.buffers[graph.tensors[i].buffer].data is not None}
    kept = [model.buffers[graph.tensors[i].buffer] for i in used]
    place = {number: i for i, number in enumerate(dict.fromkeys(used))}
    model.buffers = [schema().BufferT(), *kept]
    for number, buffer in zip(used, range(1, len(used) + 1), strict=True):
        graph.tensors[number].buffer = buffer
    inputs = [place[int(i)] for i in op.inputs if int(i) >= 0 and int(i) not in constant]
    graph.tensors = [graph.tensors[number] for number in place]
    op.inputs = [place[int(i)] if int(i) >= 0 else -1 for i in op.inputs]
    op.outputs = [place[int(i)] for i in op.outputs]
    graph.operators, graph.inputs, graph.outputs = [op], list(dict.fromkeys(inputs)), list(op.outputs)
    model.signatureDefs, model.metadata, model.metadataBuffer = [], [], None
    return write_model(model)
