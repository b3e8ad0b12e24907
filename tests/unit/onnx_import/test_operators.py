"""Each operator, in all its forms, against ONNX Runtime, with a batch that stays free in the captured graph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from fupruner.onnx_import import import_onnx
from fupruner.onnx_import.node import OPERATORS
from unit.onnx_import.files import model_of, node, positive, random, saved

I64 = np.int64
W = {"w": random(6, 3, 3, 3), "b": random(6, seed=1)}
NORM = {"s": positive(3), "b": random(3), "m": random(3, seed=1), "v": positive(3, seed=1)}


def ints(*values: int) -> np.ndarray:
    return np.array(values, dtype=I64)


CASES = [
    ("Conv", "x w b", W, {"pads": [1, 1, 1, 1], "strides": [2, 1]}, {}),
    ("ScatterND", "x i u", {"i": np.array([[[0, 2, 1], [0, 0, 3]]], np.int64), "u": random(1, 2, 10)}, {}, {}),
    ("ScatterND", "x i u", {"i": np.array([[0, 1], [0, 1]], np.int64), "u": random(2, 8, 10)}, {"reduction": "add"}, {"opset": 16}),
    ("ScatterND", "c i x", {"c": random(4, 3, 8, 10), "i": np.array([[3]], np.int64)}, {}, {"shape": (1, 3, 8, 10)}),
    ("Conv", "x w", W, {"pads": [0, 1, 2, 3]}, {}),
    ("Conv", "x w", W, {"auto_pad": "SAME_UPPER", "strides": [2, 2]}, {}),
    ("Conv", "x w", W, {"auto_pad": "SAME_LOWER", "strides": [3, 2], "dilations": [1, 1]}, {}),
    ("Conv", "x w", {"w": random(6, 3, 2, 2)}, {"auto_pad": "SAME_LOWER"}, {}),
    ("Conv", "x w", W, {"auto_pad": "VALID", "dilations": [2, 2]}, {}),
    ("Conv", "x w", {"w": random(6, 1, 3, 3)}, {"group": 3}, {}),
    ("Conv", "x w", {"w": random(4, 3, 3)}, {"strides": [2]}, {"shape": ("n", 3, 11)}),
    ("ConvTranspose", "x w b", {"w": random(3, 2, 3, 3), "b": random(2)},
     {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 0]}, {}),
    ("ConvTranspose", "x w", {"w": random(3, 2, 3, 3)}, {"strides": [2, 2], "pads": [1, 1, 0, 1]}, {}),
    ("ConvTranspose", "x w", {"w": random(3, 1, 2, 2)}, {"group": 3, "strides": [2, 2]}, {}),
    ("Gemm", "x w b", {"w": random(5, 6), "b": random(5)}, {"transB": 1, "alpha": 0.5, "beta": 2.0}, {"shape": ("n", 6)}),
    ("Gemm", "x w", {"w": random(6, 5)}, {}, {"shape": ("n", 6)}),
    ("MatMul", "x w", {"w": random(10, 4)}, {}, {}),
    ("MatMul", "x w", {"w": random(3, 10, 4)}, {}, {}),
    ("Einsum", "x w", {"w": random(10, 4)}, {"equation": "nchw,wd->nchd"}, {}),
    ("Einsum", "x x", {}, {"equation": "nchw, ndhw -> ncd"}, {}),
    ("Einsum", "x", {}, {"equation": "...hw->...wh"}, {}),
    ("BatchNormalization", "x s b m v", NORM, {"epsilon": 0.01}, {}),
    ("BatchNormalization", "x s b m v", NORM, {}, {"shape": ("n", 3), "opset": 9}),
    ("InstanceNormalization", "x s b", NORM, {"epsilon": 0.01}, {}),
    ("LayerNormalization", "x s b", {"s": positive(8, 10), "b": random(8, 10)}, {"axis": 2}, {}),
    ("LayerNormalization", "x s", {"s": positive(10)}, {}, {}),
    ("GroupNormalization", "x s b", {"s": positive(6), "b": random(6)}, {"num_groups": 3}, {"opset": 21, "shape": ("n", 6, 4, 5)}),
    ("LRN", "x", {}, {"size": 3, "alpha": 0.1, "beta": 0.5, "bias": 2.0}, {}),
    ("MaxPool", "x", {}, {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}, {}),
    ("MaxPool", "x", {}, {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}, {}),
    ("MaxPool", "x", {}, {"kernel_shape": [2, 2], "pads": [0, 0, 1, 1]}, {}),
    ("MaxPool", "x", {}, {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"}, {}),
    ("AveragePool", "x", {}, {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}, {}),
    ("AveragePool", "x", {}, {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1, "strides": [2, 2]}, {}),
    ("AveragePool", "x", {}, {"kernel_shape": [3, 2], "pads": [0, 0, 1, 1]}, {}),
    ("AveragePool", "x", {}, {"kernel_shape": [3, 2], "pads": [0, 0, 1, 1], "count_include_pad": 1}, {}),
    ("AveragePool", "x", {}, {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"}, {}),
    ("GlobalAveragePool", "x", {}, {}, {}),
    ("GlobalMaxPool", "x", {}, {}, {}),
    ("Clip", "x lo hi", {"lo": np.float32(0), "hi": np.float32(6)}, {}, {}),
    ("Clip", "x lo", {"lo": np.float32(0)}, {}, {}),
    ("Clip", "x - hi", {"hi": np.float32(0.3)}, {}, {}),
    ("Clip", "x", {}, {"min": -0.2, "max": 0.4}, {"opset": 9}),
    ("LeakyRelu", "x", {}, {"alpha": 0.2}, {}),
    ("Elu", "x", {}, {"alpha": 0.7}, {}),
    ("Selu", "x", {}, {}, {}),
    ("Celu", "x", {}, {"alpha": 0.7}, {}),
    ("ThresholdedRelu", "x", {}, {"alpha": 0.3}, {}),
    ("HardSigmoid", "x", {}, {}, {}),
    ("HardSigmoid", "x", {}, {"alpha": 1 / 6}, {}),
    ("HardSwish", "x", {}, {}, {}),
    ("Mish", "x", {}, {}, {"opset": 18}),
    ("Gelu", "x", {}, {"approximate": "tanh"}, {"opset": 20}),
    ("PRelu", "x s", {"s": random(3, 1, 1)}, {}, {}),
    ("PRelu", "x s", {"s": random(3, 8, 1)}, {}, {}),
    ("Softmax", "x", {}, {"axis": 1}, {}),
    ("Softmax", "x", {}, {"axis": 2}, {"opset": 11}),
    ("LogSoftmax", "x", {}, {}, {}),
    ("Add", "x c", {"c": random(3, 1, 1)}, {}, {}),
    ("Sub", "c x", {"c": np.float32(2)}, {}, {}),
    ("Mul", "x c", {"c": random(1, 3, 8, 1)}, {}, {}),
    ("Div", "c x", {"c": np.float32(2)}, {}, {}),
    ("Pow", "x c", {"c": np.float32(2)}, {}, {}),
    ("Max", "x c", {"c": random(3, 1, 1)}, {}, {}),
    ("Min", "x c", {"c": np.float32(0.1)}, {}, {}),
    ("Sum", "x x c", {"c": random(10)}, {}, {}),
    ("Mean", "x c", {"c": random(10)}, {}, {}),
    ("Mod", "x c", {"c": np.float32(0.7)}, {"fmod": 1}, {}),
    ("ReduceMean", "x", {}, {"axes": [2, 3], "keepdims": 0}, {}),
    ("ReduceMean", "x a", {"a": ints(-1)}, {}, {"opset": 18}),
    ("ReduceSum", "x a", {"a": ints(1)}, {"keepdims": 0}, {}),
    ("ReduceSum", "x", {}, {"axes": [1]}, {"opset": 11}),
    ("ReduceMax", "x", {}, {"axes": [1, 3]}, {}),
    ("ReduceMin", "x", {}, {"axes": [1]}, {}),
    ("ReduceProd", "x", {}, {"axes": [1, 3], "keepdims": 0}, {}),
    ("ReduceL1", "x", {}, {"axes": [1]}, {}),
    ("ReduceL2", "x", {}, {"axes": [1, 2]}, {}),
    ("LpNormalization", "x", {}, {"axis": 1}, {}),
    ("ArgMax", "x", {}, {"axis": 1, "keepdims": 0}, {"out_kind": TensorProto.INT64}),
    ("Cast", "x", {}, {"to": TensorProto.INT32}, {"out_kind": TensorProto.INT32}),
    ("CastLike", "x c", {"c": np.float32(0)}, {}, {}),
    ("Dropout", "x", {}, {"ratio": 0.3}, {"opset": 10}),
    ("Reshape", "x s", {"s": ints(0, -1)}, {}, {}),
    ("Reshape", "x s", {"s": ints(-1, 240)}, {}, {}),
    ("Reshape", "x s", {"s": ints(0, 3, 4, 2, 10)}, {}, {}),
    ("Flatten", "x", {}, {}, {}),
    ("Flatten", "x", {}, {"axis": 2}, {}),
    ("Transpose", "x", {}, {"perm": [0, 2, 3, 1]}, {}),
    ("Squeeze", "x a", {"a": ints(2, 3)}, {}, {"shape": ("n", 3, 1, 1)}),
    ("Squeeze", "x", {}, {"axes": [2]}, {"shape": ("n", 3, 1, 4), "opset": 11}),
    ("Unsqueeze", "x a", {"a": ints(1, -1)}, {}, {}),
    ("Unsqueeze", "x", {}, {"axes": [2]}, {"opset": 11}),
    ("Expand", "x s", {"s": ints(1, 3, 5)}, {}, {"shape": ("n", 3, 1)}),
    ("Tile", "x r", {"r": ints(1, 2, 1, 1)}, {}, {}),
    ("Slice", "x b e a s", {"b": ints(1, -1), "e": ints(2**63 - 1, -(2**63)), "a": ints(2, 3), "s": ints(2, -2)}, {}, {}),
    ("Slice", "x", {}, {"starts": [1], "ends": [-1], "axes": [3]}, {"opset": 9}),
    ("Gather", "x i", {"i": np.array(-1, I64)}, {"axis": 1}, {}),
    ("Gather", "x i", {"i": ints(2, 0, -2)}, {"axis": 1}, {}),
    ("Gather", "x i", {"i": np.array([[2, 0], [1, 1]], I64)}, {"axis": 3}, {}),
    ("Pad", "x p c", {"p": ints(0, 0, 1, 2, 0, 0, 3, 0), "c": np.float32(0.5)}, {}, {}),
    ("Pad", "x p - a", {"p": ints(1, 2), "a": ints(3)}, {}, {"opset": 18}),
    ("Pad", "x p", {"p": ints(0, 1, 0, 0, 0, 2, 0, 0)}, {}, {}),
    ("Pad", "x", {}, {"pads": [0, 0, 1, 2, 0, 0, 3, 0], "mode": "reflect"}, {"opset": 10}),
    ("Pad", "x p", {"p": ints(0, 0, 0, 1, 0, 0, 0, 1)}, {"mode": "edge"}, {}),
    ("DepthToSpace", "x", {}, {"blocksize": 2}, {"shape": ("n", 8, 3, 5)}),
    ("DepthToSpace", "x", {}, {"blocksize": 2, "mode": "CRD"}, {"shape": ("n", 8, 3, 5)}),
    ("SpaceToDepth", "x", {}, {"blocksize": 2}, {}),
    ("Upsample", "x s", {"s": np.float32([1, 1, 2, 3])}, {}, {"opset": 9}),
    ("Resize", "x s", {"s": np.float32([1, 1, 2, 2])}, {}, {"opset": 10}),
    ("Resize", "x - s", {"s": np.float32([1, 1, 2, 3])}, {}, {}),
    ("Resize", "x - s", {"s": np.float32([1, 1, 2, 2])}, {"mode": "linear"}, {}),
    ("Resize", "x - - s", {"s": ints(2, 3, 5, 17)}, {"mode": "linear", "coordinate_transformation_mode": "align_corners"},
     {"shape": (2, 3, 8, 10)}),
    ("Resize", "x - - s", {"s": ints(13, 17)}, {"axes": [2, 3], "mode": "cubic"}, {"opset": 18}),
    ("Resize", "x - - s", {"s": ints(2, 3, 11, 7)}, {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
     {"shape": (2, 3, 8, 10)}),
    *[(op, "x", {}, {}, {}) for op in ("Relu", "Sigmoid", "Tanh", "Softplus", "Softsign", "Abs", "Neg", "Exp", "Reciprocal", "Erf", "Sin",
                                       "Cos", "Floor", "Ceil", "Round", "Sign", "Identity")],
]  # fmt: skip


@pytest.mark.parametrize(
    ("op", "inputs", "constants", "attributes", "more"),
    CASES,
    ids=lambda v: v if isinstance(v, str) and v[0].isupper() else "",
)
def test_operator_computes_what_the_runtime_computes(tmp_path: Path, op, inputs, constants, attributes, more):
    used = {name: value for name, value in constants.items() if name in inputs.split()}
    model = model_of([node(op, inputs, **attributes)], constants=used, **more)
    shape = more.get("shape", ("batch", 3, 8, 10))
    network = import_onnx(saved(model, tmp_path)).module
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for batch in (2, 3) if isinstance(shape[0], str) else (shape[0],):
        x = torch.randn(batch, *shape[1:])
        with torch.no_grad():
            torch.testing.assert_close(
                network(x), torch.from_numpy(session.run(None, {"x": x.numpy()})[0]), rtol=1e-4, atol=1e-5
            )


@pytest.mark.parametrize("op", ["Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Equal"])
def test_comparison_chooses_between_two_values(tmp_path: Path, op: str):
    nodes = [node(op, "x c", "t"), node("Not", "t", "u"), node("Where", "u x d")]
    check(tmp_path, nodes, {"c": random(3, 1, 1), "d": np.float32(7)})


def test_logarithm_and_root_of_positive_values(tmp_path: Path):
    check(tmp_path, [node("Exp", "x", "t"), node("Log", "t", "u"), node("Sqrt", "t", "v"), node("Mul", "u v")], {})


def check(folder: Path, nodes: list, constants: dict, **more: object) -> nn.Module:
    """Import compares with the runtime by itself; a free batch is tried on top."""
    imported = import_onnx(saved(model_of(nodes, constants=constants, **more), folder))
    assert imported.notes == ()
    return imported.module


def shuffle(batch: str) -> list:
    """Channel shuffle by sizes read from the tensor, as exporters write it."""
    return [
        node("Shape", "x", "s"), node("Gather", f"s {batch}", "n", axis=0), node("Unsqueeze", "n zero", "n1"),
        node("Slice", "s two four", "hw"),
        node("Concat", "n1 groups hw", "wide", axis=0), node("Reshape", "x wide", "a"), node("Transpose", "a", "b", perm=[0, 2, 1, 3, 4]),
        node("Concat", "n1 minus hw", "narrow", axis=0), node("Reshape", "b narrow"),
    ]  # fmt: skip


def test_sizes_that_depend_on_the_batch_stay_symbols_of_the_captured_graph(tmp_path: Path):
    constants = {
        "i": np.array(0, I64),
        "zero": ints(0),
        "two": ints(2),
        "four": ints(4),
        "groups": ints(2, 3),
        "minus": ints(-1),
    }
    network = check(tmp_path, shuffle("i"), constants, shape=("n", 6, 4, 5))
    free = ({0: torch.export.Dim("n")},)
    program = torch.export.export(network, (torch.randn(2, 6, 4, 5),), dynamic_shapes=free, strict=False)
    x = torch.randn(5, 6, 4, 5)
    expected = x.reshape(5, 2, 3, 4, 5).transpose(1, 2).reshape(5, 6, 4, 5)
    torch.testing.assert_close(program.module()(x), expected)


def test_arithmetic_on_sizes(tmp_path: Path):
    nodes = [
        node("Shape", "x", "s"), node("Cast", "s", "f", to=TensorProto.FLOAT), node("Slice", "f two four", "hw"),
        node("Mul", "hw scale", "g"),
        node("Floor", "g", "h"), node("Cast", "h", "hw2", to=TensorProto.INT64), node("Slice", "s zero two", "nc"),
        node("Concat", "nc hw2", "sizes", axis=0), node("Resize", "x - - sizes", "z", mode="nearest"),
        node("ReduceProd", "hw2", "p", keepdims=0),
        node("Cast", "p", "q", to=TensorProto.FLOAT), node("Div", "z q"),
    ]  # fmt: skip
    check(tmp_path, nodes, {"two": ints(2), "four": ints(4), "zero": ints(0), "scale": np.float32([2, 3])})


def test_where_and_expand_on_sizes(tmp_path: Path):
    nodes = [
        node("Shape", "x", "s"), node("Gather", "s first", "n", axis=0), node("Concat", "n rest", "wanted", axis=0),
        node("ConstantOfShape", "four", "ones", value=helper.make_tensor("v", TensorProto.INT64, [1], [1])),
        node("Mul", "ones minus", "ms"), node("Equal", "wanted ms", "is"), node("Where", "is ones wanted", "sizes"),
        node("Expand", "c sizes", "e"), node("Add", "x e"),
    ]  # fmt: skip
    constants = {
        "first": ints(0),
        "rest": ints(-1, 8, -1),
        "four": ints(4),
        "minus": np.array(-1, I64),
        "c": random(3, 1, 10),
    }
    check(tmp_path, nodes, constants)


def test_constants_that_are_written_to(tmp_path: Path):
    nodes = [
        node("ConstantOfShape", "two", "zeros", value=helper.make_tensor("v", TensorProto.FLOAT, [1], [0])),
        node("ScatterND", "zeros i u", "mask"), node("ScatterND", "mask i u", "twice", reduction="add"), node("Add", "x twice"),
    ]  # fmt: skip
    constants = {"two": ints(8, 10), "i": np.array([[0], [7]], I64), "u": random(2, 10)}
    check(tmp_path, nodes, constants, opset=16)


def test_split_in_every_form(tmp_path: Path):
    add = [node("Add", "a b", "t"), node("Sub", "t c")]
    check(tmp_path, [node("Split", "x", "a b c", axis=1), *add], {})
    check(tmp_path, [node("Split", "x", "a b c", axis=1, split=[1, 1, 1]), *add], {}, opset=11)
    uneven = [node("Split", "x s", "a b", axis=3), node("Concat", "b a", axis=3)]
    check(tmp_path, uneven, {"s": ints(3, 7)})
    check(tmp_path, [node("Split", "x", "a b", axis=2, num_outputs=2), node("Mul", "a b")], {}, opset=18)


def test_constants_are_computed_once(tmp_path: Path):
    nodes = [
        node("Constant", "", "k", value_float=2.0), node("Mul", "w k", "w2"), node("Transpose", "w2", "w3", perm=[1, 0]),
        node("MatMul", "x w3"),
    ]  # fmt: skip
    network = check(tmp_path, nodes, {"w": random(4, 10)})
    assert [type(layer) for layer in network.children()] == [nn.Linear]


def test_every_operator_of_the_list_is_tried_here():
    tried = {case[0] for case in CASES} | {
        "Greater",
        "GreaterOrEqual",
        "Less",
        "LessOrEqual",
        "Equal",
        "Not",
        "Where",
        "Log",
        "Sqrt",
        "Split",
    }
    tried |= {"Shape", "Concat", "ConstantOfShape", "Silu", "Size", "Range", "And", "Or", "Xor", "ArgMin"}
    assert set(OPERATORS) == tried
