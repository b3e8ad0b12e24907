"""Operators that exporters take apart are put together again, so that they are layers once more.

Each pattern looks at the last operator of its group and gives the one operator that does the same, or None. What only
the replaced operators read becomes dead and is dropped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from onnx import helper

from fupruner.onnx_import.graph import Graph
from fupruner.onnx_import.values import Array


class Matcher:
    """Looks around in a graph."""

    def __init__(self, graph: Graph) -> None:
        self.constants, self.shapes, self.opset = graph.constants, graph.shapes, graph.opset
        self.makers = {name: node for node in graph.nodes for name in node.output}
        self.uses = Counter(name for node in graph.nodes for name in node.input) + Counter(graph.outputs)

    def maker(self, name: str, op: str, *, single: bool = True) -> onnx.NodeProto | None:
        """The operator that makes a value if it is of a kind and, unless told otherwise, nobody else reads the value."""
        node = self.makers.get(name)
        return node if node is not None and node.op_type == op and (not single or self.uses[name] == 1) else None

    def number(self, name: str) -> float | None:
        """Value of a constant that is one number."""
        value = self.constants.get(name)
        return float(value.reshape(-1)[0]) if value is not None and value.size == 1 else None

    def with_number(self, node: onnx.NodeProto, number: float) -> str | None:
        """The other operand of an operator that has one number as an operand, whichever side it is on."""
        for this, other in ((0, 1), (1, 0)):
            found = self.number(node.input[this])
            if found is not None and abs(found - number) <= 1e-6 * max(1.0, abs(number)):
                return str(node.input[other])
        return None

    def with_array(self, node: onnx.NodeProto) -> tuple[str, str] | None:
        """(value, constant) of an operator with one constant operand."""
        a, b = node.input
        if (a in self.constants) == (b in self.constants):
            return None
        return (b, a) if a in self.constants else (a, b)


def join(graph: Graph) -> Graph:
    """Replace every group of operators that a pattern knows."""
    nodes = list(graph.nodes)
    for pattern in PATTERNS:
        matcher = Matcher(replace(graph, nodes=tuple(nodes)))
        nodes = [pattern(matcher, node) or node for node in nodes]
        nodes = list(replace(graph, nodes=tuple(nodes)).only_live().nodes)
    return replace(graph, nodes=tuple(nodes))


def _one(op: str, inputs: list[str], last: onnx.NodeProto, name: str = "", **attributes: Any) -> onnx.NodeProto:
    path, slash, _ = (name or last.name).rpartition("/")  # the rest is the kind of an operator that is no more
    return helper.make_node(op, inputs, [last.output[0]], f"{path}/{op}" if slash else name or last.name, **attributes)


def linear(m: Matcher, node: onnx.NodeProto) -> onnx.NodeProto | None:
    """MatMul(x, W) + b -> MatMul(x, W, b), for a matrix and a row of constants."""
    pair = m.with_array(node) if node.op_type == "Add" else None
    product = m.maker(pair[0], "MatMul") if pair else None
    if pair is None or product is None or len(product.input) != 2:
        return None
    weight, bias = m.constants.get(product.input[1]), m.constants[pair[1]]
    if weight is None or weight.ndim != 2 or bias.shape != (weight.shape[1],):
        return None
    return _one("MatMul", [*product.input, pair[1]], node, product.name)


def gated(m: Matcher, node: onnx.NodeProto) -> onnx.NodeProto | None:
    """X * Sigmoid(x) -> Silu, x * HardSigmoid(x) with slope 1/6 -> HardSwish, x * Tanh(Softplus(x)) -> Mish."""
    if node.op_type != "Mul":
        return None
    for x, gate in (node.input, node.input[::-1]):
        if (sigmoid := m.maker(gate, "Sigmoid")) is not None and sigmoid.input[0] == x:
            return _one("Silu", [x], node, sigmoid.name)
        if (hard := m.maker(gate, "HardSigmoid")) is not None and hard.input[0] == x and _is_sixth(hard):
            return _one("HardSwish", [x], node, hard.name)
        tanh = m.maker(gate, "Tanh")
        softplus = m.maker(tanh.input[0], "Softplus") if tanh is not None else None
        if softplus is not None and softplus.input[0] == x:
            return _one("Mish", [x], node, softplus.name)
    return None


def _is_sixth(hard: onnx.NodeProto) -> bool:
    given = {attribute.name: attribute.f for attribute in hard.attribute}
    return bool(abs(given.get("alpha", 0.2) - 1 / 6) < 1e-6 and given.get("beta", 0.5) == 0.5)


def hard_sigmoid(m: Matcher, node: onnx.NodeProto) -> onnx.NodeProto | None:
    """Clip(x + 3, 0, 6) / 6 -> HardSigmoid(x)."""
    x = _clipped(m, node.input[0]) if node.op_type == "Div" and m.number(node.input[1]) == 6 else None
    return None if x is None else _one("HardSigmoid", [x], node, alpha=1 / 6, beta=0.5)


def hard_swish(m: Matcher, node: onnx.NodeProto) -> onnx.NodeProto | None:
    """X * Clip(x + 3, 0, 6) / 6 -> HardSwish(x)."""
    product = m.maker(node.input[0], "Mul") if node.op_type == "Div" and m.number(node.input[1]) == 6 else None
    if product is None:
        return None
    for x, gate in (product.input, product.input[::-1]):
        if _clipped(m, gate) == x:
            return _one("HardSwish", [x], node)
    return None


def _clipped(m: Matcher, name: str) -> str | None:
    """The x of Clip(x + 3, 0, 6)."""
    clip = m.maker(name, "Clip")
    if clip is None:
        return None
    attributes = {attribute.name: attribute.f for attribute in clip.attribute}
    bounds = [attributes.get("min"), attributes.get("max")] if m.opset < 11 else [m.number(i) for i in clip.input[1:]]
    add = m.maker(clip.input[0], "Add") if bounds == [0.0, 6.0] else None
    return None if add is None else m.with_number(add, 3.0)


def gelu(m: Matcher, node: onnx.NodeProto) -> onnx.NodeProto | None:
    """X * (1 + Erf(x / sqrt 2)) * 0.5 -> Gelu(x)."""
    inner = m.with_number(node, 0.5) if node.op_type == "Mul" else None
    product = m.maker(inner, "Mul") if inner else None
    for x, factor in () if product is None else (product.input, product.input[::-1]):
        add = m.maker(factor, "Add")
        one = m.with_number(add, 1.0) if add is not None else None
        erf = m.maker(one, "Erf") if one else None
        scaled = m.makers.get(erf.input[0]) if erf is not None else None
        if scaled is not None and scaled.input[0] == x and _is_root_of_half(m, scaled):
            return _one("Gelu", [x], node)
    return None


def _is_root_of_half(m: Matcher, node: onnx.NodeProto) -> bool:
    number = m.number(node.input[1]) if node.op_type in ("Div", "Mul") else None
    return number is not None and abs(number - (2**0.5 if node.op_type == "Div" else 0.5**0.5)) < 1e-5


def layer_norm(m: Matcher, node: onnx.NodeProto) -> onnx.NodeProto | None:
    """(x - mean) / Sqrt(mean of (x - mean)^2 + eps) * scale + shift over the last axis -> LayerNormalization."""
    shift = m.with_array(node) if node.op_type == "Add" else None
    times = m.maker(shift[0], "Mul") if shift else None
    scale = m.with_array(times) if times is not None else None
    div = m.maker(scale[0], "Div") if scale else None
    root = m.maker(div.input[1], "Sqrt") if div is not None else None
    add = m.maker(root.input[0], "Add") if root is not None else None
    if shift is None or scale is None or div is None or add is None or m.constants[shift[1]].ndim != 1:
        return None
    eps = next((value for value in map(m.number, add.input) if value is not None), None)
    centred = m.maker(div.input[0], "Sub", single=False)
    if eps is None or centred is None or m.constants[scale[1]].shape != m.constants[shift[1]].shape:
        return None
    if (
        not any(_is_variance(m, name, centred) for name in add.input)
        or _mean_of(m, centred.input[1]) != centred.input[0]
    ):
        return None
    return _one("LayerNormalization", [centred.input[0], scale[1], shift[1]], node, axis=-1, epsilon=eps)


def _is_variance(m: Matcher, name: str, centred: onnx.NodeProto) -> bool:
    power = m.maker(_mean_of(m, name) or "", "Pow")
    return power is not None and power.input[0] == centred.output[0] and m.number(power.input[1]) == 2


def _mean_of(m: Matcher, name: str) -> str | None:
    """What a value is the mean of, over the last axis, which stays."""
    node = m.maker(name, "ReduceMean", single=False)
    if node is None:
        return None
    given = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    axes: Array | Any = m.constants.get(node.input[1]) if len(node.input) > 1 else given.get("axes")
    rank = len(m.shapes.get(node.input[0], ()))
    last = axes is not None and np.size(axes) == 1 and int(np.reshape(axes, -1)[0]) in (-1, rank - 1 if rank else -1)
    return str(node.input[0]) if last and given.get("keepdims", 1) else None


def padded_average(m: Matcher, node: onnx.NodeProto) -> onnx.NodeProto | None:
    """AveragePool after a Pad with zeros on both sides of each image axis -> AveragePool that counts its pads."""
    pad = m.maker(node.input[0], "Pad") if node.op_type == "AveragePool" else None
    if pad is None or m.opset < 11 or (len(pad.input) > 3 and pad.input[3]):
        return None
    given = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    sides, constant = m.constants.get(pad.input[1]), not pad.attribute or pad.attribute[0].s == b"constant"
    if sides is None or not constant or (len(pad.input) > 2 and pad.input[2] and m.number(pad.input[2]) != 0):
        return None
    pads = sides.tolist()
    half = len(pads) // 2
    spatial = pads[2:half]
    odd = (
        pads[:half] != pads[half:]
        or any(pads[:2])
        or any(2 * p > k for p, k in zip(spatial, given["kernel_shape"], strict=True))
    )
    if odd or any(given.get("pads", ())) or given.get("ceil_mode", 0) or given.get("auto_pad", b"NOTSET") != b"NOTSET":
        return None
    kept = {key: given[key] for key in ("kernel_shape", "strides") if key in given}
    return _one("AveragePool", [pad.input[0]], node, pads=spatial * 2, count_include_pad=1, **kept)


PATTERNS: tuple[Callable[[Matcher, onnx.NodeProto], onnx.NodeProto | None], ...] = (
    linear, hard_swish, hard_sigmoid, gated, gelu, layer_norm, padded_average,
)  # fmt: skip
"""hard_swish before hard_sigmoid, whose operators it holds; gated after both, since it reads what they make."""
