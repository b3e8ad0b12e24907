"""TFLite models as objects: what the Edge TPU's compiler needs said differently, what it refuses, and what a model costs."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from fupruner.errors import TargetError
from fupruner.targets.edge_tpu.convert import quiet

OPERATORS = frozenset(
    {
        "ADD", "AVERAGE_POOL_2D", "CONCATENATION", "CONV_2D", "DEPTHWISE_CONV_2D", "EXPAND_DIMS", "FULLY_CONNECTED", "L2_NORMALIZATION",
        "LOGISTIC", "LSTM", "MAXIMUM", "MAX_POOL_2D", "MEAN", "MINIMUM", "MUL", "PACK", "PAD", "PRELU", "QUANTIZE", "REDUCE_MAX",
        "REDUCE_MIN", "RELU", "RELU6", "RELU_N1_TO_1", "RESHAPE", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR",
    }
)  # fmt: skip
"""What the Edge TPU runs (coral.ai/docs/edgetpu/models-intro); from the first other operator on, the host does the work."""

INSTEAD = {
    "GELU": "ReLU",
    "HARD_SWISH": "ReLU6",
    "LEAKY_RELU": "ReLU, or PReLU with one slope per channel",
    "PADV2": "a max-pool behind a ReLU, whose padding can be zero",
    "STRIDED_SLICE": "a strided 1x1 convolution; 'fupruner fuse MODEL --level aggressive --out fused.pt2' makes one of a strided shortcut",
    "TRANSPOSE": "layers that keep channels where they are",
    "TRANSPOSE_CONV": "nearest upsampling and a convolution",
}

_VERSIONS = {"CONV_2D": 3, "ADD": 2, "PAD": 2, "MEAN": 2, "MAX_POOL_2D": 2, "FULLY_CONNECTED": 4}
"""Versions of operators that the runtime of the compiler knows."""
_NO_FLOAT = {"FLOAT32", "FLOAT16", "FLOAT64", "BFLOAT16"}


@dataclass(frozen=True)
class FileOperator:
    """One operator of a file: the layer's name, multiply-adds, bytes of constants, activations that it reads and writes."""

    name: str
    kind: str
    macs: int
    weight_bytes: int
    elements: int


def read_model(content: bytes) -> Any:
    """A model as an object.

    Raises:
        TargetError: it is no TFLite file.
    """
    if content[4:8] != b"TFL3":
        raise TargetError("This is no TFLite file.")
    model = schema().ModelT.InitFromPackedBuf(content, 0)
    for buffer in model.buffers:  # weights may lie behind the model's own tables; old runtimes look inside only
        if buffer.offset > 1:
            buffer.data = list(content[buffer.offset : buffer.offset + buffer.size])
            buffer.offset = buffer.size = 0
    return model


def write_model(model: Any) -> bytes:
    """The bytes of a model."""
    import flatbuffers  # noqa: PLC0415 - an extra

    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def zero_pads(content: bytes) -> bytes:
    """The float model with padded max-pools padded by zeros, which is the same behind a ReLU.

    Raises:
        TargetError: the padded value may be negative; the layer is named.
    """
    model, tables = read_model(content), schema()
    kinds = _kinds(model)
    for graph in model.subgraphs:
        makers = {int(out): op for op in graph.operators for out in op.outputs}
        for op in graph.operators:
            if kinds[op.opcodeIndex] != "PADV2":
                continue
            maker = makers.get(int(op.inputs[0]))
            fused = getattr(maker.builtinOptions, "fusedActivationFunction", 0) if maker is not None else 0
            known = maker is not None and (kinds[maker.opcodeIndex] in ("RELU", "RELU6") or fused in (1, 3))
            if not known:
                raise _unsupported("PADV2", _output_name(graph, op))
            value, pads = graph.tensors[int(op.inputs[2])], graph.tensors[int(op.inputs[1])]
            value.type, value.shape, value.buffer = (
                pads.type,
                pads.shape,
                pads.buffer,
            )  # unused now, and no longer a float
            op.inputs = op.inputs[:2]
            op.builtinOptionsType, op.builtinOptions = tables.BuiltinOptions.PadOptions, tables.PadOptionsT()
    for code in model.operatorCodes:
        if _name_of(code) == "PADV2":
            code.builtinCode = code.deprecatedBuiltinCode = tables.BuiltinOperator.PAD
    return write_model(model)


def sampled(content: bytes) -> bytes:
    """The float model with every n-th pixel taken by a max-pool over one pixel, in place of a strided slice, which the device lacks.

    Shortcuts that are subsampled and padded with zero channels have such slices. Others stay as they are.
    """
    model, tables = read_model(content), schema()
    kinds = _kinds(model)
    pool = tables.OperatorCodeT()
    pool.builtinCode = pool.deprecatedBuiltinCode = tables.BuiltinOperator.MAX_POOL_2D
    pool.version = 1
    for graph in model.subgraphs:
        for op in graph.operators:
            strides = _pixel_strides(model, graph, op) if kinds[op.opcodeIndex] == "STRIDED_SLICE" else None
            if strides is None:
                continue
            if pool not in model.operatorCodes:
                model.operatorCodes.append(pool)
            op.opcodeIndex, op.inputs = model.operatorCodes.index(pool), op.inputs[:1]
            op.builtinOptionsType, options = tables.BuiltinOptions.Pool2DOptions, tables.Pool2DOptionsT()
            options.padding, options.filterHeight, options.filterWidth = tables.Padding.VALID, 1, 1
            options.strideH, options.strideW = strides
            op.builtinOptions = options
    return write_model(model)


def _pixel_strides(model: Any, graph: Any, op: Any) -> tuple[int, int] | None:
    """Strides of a slice that takes whole images, every n-th pixel from the first on; None for any other."""
    source = [int(n) for n in graph.tensors[int(op.inputs[0])].shape]
    begin, end, strides = (_whole_numbers(model, graph, int(i)) for i in op.inputs[1:4])
    options = op.builtinOptions
    if options.ellipsisMask or options.newAxisMask or options.shrinkAxisMask or len(source) != 4 or len(strides) != 4:
        return None
    starts = all(value == 0 or options.beginMask >> axis & 1 for axis, value in enumerate(begin))
    ends = all(value >= source[axis] or options.endMask >> axis & 1 for axis, value in enumerate(end))
    if not (starts and ends and strides[0] == strides[3] == 1 and min(strides) >= 1 and len(end) == 4):
        return None
    return strides[1], strides[2]


def _whole_numbers(model: Any, graph: Any, number: int) -> list[int]:
    """The constant behind a tensor of int32; empty where it is computed."""
    data = model.buffers[graph.tensors[number].buffer].data
    return [] if data is None else [int(n) for n in np.frombuffer(bytes(data), dtype=np.int32)]


def for_old_runtimes(content: bytes) -> bytes:
    """The quantised model with operator versions that the compiler's runtime knows, and flat outputs of linear layers."""
    model = read_model(content)
    kinds = _kinds(model)
    for code in model.operatorCodes:
        code.version = _VERSIONS.get(_name_of(code), code.version)
    for graph in model.subgraphs:
        for op in graph.operators:
            flat = len(graph.tensors[int(op.inputs[0])].shape) == 2 if len(op.inputs) else False
            if kinds[op.opcodeIndex] == "FULLY_CONNECTED" and flat:
                op.builtinOptions.keepNumDims = False
    return write_model(model)


def require_runnable(content: bytes) -> None:
    """Refuse what the Edge TPU does not run: other operators, floats, open shapes.

    Raises:
        TargetError: names the operator or the value, and what would replace it.
    """
    model = read_model(content)
    kinds, types = _kinds(model), _names(schema().TensorType)
    if len(model.subgraphs) != 1:
        raise TargetError(f"The file has {len(model.subgraphs)} graphs; the Edge TPU runs one, without control flow.")
    graph = model.subgraphs[0]
    for op in graph.operators:
        if kinds[op.opcodeIndex] not in OPERATORS:
            raise _unsupported(kinds[op.opcodeIndex], _output_name(graph, op))
    for tensor in graph.tensors:
        name = tensor.name.decode(errors="replace")
        if types[tensor.type] in _NO_FLOAT:
            raise TargetError(f"The Edge TPU computes in int8, and {name!r} is {types[tensor.type].lower()}.")
        if tensor.shapeSignature is not None and any(int(size) < 0 for size in tensor.shapeSignature):
            raise TargetError(f"The shape of {name!r} is open; the Edge TPU needs fixed ones.")


def operators_of(content: bytes) -> list[FileOperator]:
    """Operators in order, with what they cost."""
    model = read_model(content)
    graph, kinds = model.subgraphs[0], _kinds(model)
    return [
        FileOperator(
            _output_name(graph, op),
            kinds[op.opcodeIndex],
            _macs(graph, op, kinds),
            _constant_bytes(model, graph, op),
            _elements(model, graph, op),
        )
        for op in graph.operators
    ]


def input_bytes(content: bytes) -> int:
    """Bytes of the inputs in int8."""
    graph = read_model(content).subgraphs[0]
    return sum(prod(int(size) for size in graph.tensors[int(i)].shape) for i in graph.inputs)


def _macs(graph: Any, op: Any, kinds: list[str]) -> int:
    shape = [int(n) for n in graph.tensors[int(op.outputs[0])].shape]
    if kinds[op.opcodeIndex] not in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
        return 0
    weight = [int(n) for n in graph.tensors[int(op.inputs[1])].shape]
    taps = prod(weight[1:3]) if kinds[op.opcodeIndex] == "DEPTHWISE_CONV_2D" else prod(weight[1:])
    return prod(shape) * taps


def _elements(model: Any, graph: Any, op: Any) -> int:
    tensors = [graph.tensors[int(i)] for i in (*op.inputs, *op.outputs) if int(i) >= 0]
    return sum(prod(int(n) for n in tensor.shape) for tensor in tensors if model.buffers[tensor.buffer].data is None)


def _constant_bytes(model: Any, graph: Any, op: Any) -> int:
    buffers = [model.buffers[graph.tensors[int(i)].buffer] for i in op.inputs if int(i) >= 0]
    return sum(0 if buffer.data is None else len(buffer.data) for buffer in buffers)


def _unsupported(kind: str, name: str) -> TargetError:
    hint = f"In the model, use {INSTEAD[kind]}." if kind in INSTEAD else "Replace it by operators that the device has."
    return TargetError(f"The Edge TPU has no operator {kind}, which {name!r} needs.", hint=hint)


def _output_name(graph: Any, op: Any) -> str:
    """The dotted name of the layer, out of a path like ``Wrapper/Sequential_wrapped/Block_4/torch.nn.Conv2d_conv1;2``."""
    text: str = graph.tensors[int(op.outputs[0])].name.decode(errors="replace")
    path = text.partition(";")[0].split("/")[2:]
    return ".".join(filter(None, (part.rpartition(".")[2].partition("_")[2] for part in path))) or text


def _kinds(model: Any) -> list[str]:
    return [_name_of(code) for code in model.operatorCodes]


def _name_of(code: Any) -> str:
    number = max(code.builtinCode, code.deprecatedBuiltinCode)
    return _names(schema().BuiltinOperator).get(number, str(number))


def _names(enumeration: Any) -> dict[int, str]:
    return {value: name for name, value in vars(enumeration).items() if isinstance(value, int)}


def schema() -> Any:
    """The classes of TFLite's tables, from an extra."""
    with quiet():
        from ai_edge_litert import schema_py_generated  # noqa: PLC0415 - an extra

        return schema_py_generated
