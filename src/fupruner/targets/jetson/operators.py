"""Operators of ONNX that TensorRT 8.2 builds engines from (onnx-tensorrt, release 8.2-GA, docs/operators.md)."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import helper

from fupruner.errors import TargetError
from fupruner.targets.onnx_device import require_operators
from fupruner.targets.onnx_layers import load_model

OPSET = 13

_NAMES = """
Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization Cast Ceil Celu Clip Concat Constant
ConstantOfShape Conv ConvTranspose Cos Cosh CumSum DepthToSpace Div Dropout Einsum Elu Equal Erf Exp Expand EyeLike Flatten Floor
GRU Gather GatherElements GatherND Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool Greater GreaterOrEqual HardSigmoid Identity
If InstanceNormalization IsNaN LRN LSTM LeakyRelu Less LessOrEqual Log LogSoftmax Loop LpNormalization LpPool MatMul Max MaxPool
Mean Min Mul Neg Not Or PRelu Pad Pow RNN Range ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin
ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize ReverseSequence Round Scan Scatter ScatterElements ScatterND Selu Shape
Sigmoid Sign Sin Sinh Size Slice Softmax Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Tan Tanh ThresholdedRelu Tile
TopK Transpose Unsqueeze Upsample Where
"""
OPERATORS = frozenset(_NAMES.split())

INSTEAD = {
    "DequantizeLinear": "a float network; these devices have no INT8",
    "HardSwish": "HardSigmoid and Mul",
    "Mod": "Sub and Mul",
    "NonMaxSuppression": "a plug-in of TensorRT behind the network",
    "OneHot": "Equal with Where",
    "QuantizeLinear": "a float network; these devices have no INT8",
    "Reciprocal": "Div",
    "RoiAlign": "a plug-in of TensorRT",
    "Xor": "Or, And and Not",
}


def require_buildable(path: Path, device: str) -> None:
    """Refuse a file that TensorRT 8.2 cannot build an engine from.

    Raises:
        TargetError: names operator, layer and what would replace it.
    """
    require_operators(path, OPERATORS, f"{device} (TensorRT 8.2)", INSTEAD)
    graph = load_model(path).graph
    weights = {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        problem = _problem(node, weights)
        if problem:
            raise TargetError(
                f"{device} (TensorRT 8.2) cannot build {node.op_type} {node.name or node.output[0]!r}: {problem[0]}.",
                hint=f"In the model, use {problem[1]}.",
            )


def _problem(node: onnx.NodeProto, weights: set[str]) -> tuple[str, str] | None:
    """What of a node's form is not supported, and what would be; None where it is fine."""
    settings = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    if node.op_type in ("Conv", "ConvTranspose"):
        if len(settings.get("kernel_shape", (0, 0))) not in (2, 3):
            return "only 2D and 3D are supported", "a 2D convolution over an axis of size 1"
        if node.input[1] not in weights:
            return "its weights are computed", "constant weights"
    if node.op_type in ("MaxPool", "AveragePool") and len(settings.get("kernel_shape", (0, 0))) not in (2, 3):
        return "only 2D and 3D are supported", "a 2D pool over an axis of size 1"
    if node.op_type == "MaxPool" and len(node.output) > 1:
        return "its indices are used", "a pool without indices"
    if node.op_type == "Resize" and settings.get("mode", b"nearest") not in (b"nearest", b"linear"):
        return f"mode {settings['mode'].decode()} is not supported", "nearest or linear"
    return None
