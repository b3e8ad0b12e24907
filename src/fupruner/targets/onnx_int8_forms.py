"""ONNX models in forms that int8 kernels like, computing the same: what ships in float32 stays as it is.

An image of fewer than four channels is padded to four with zeros; int8 kernels take four products at once and have a slow path for less:

    conv(x, W)  =  conv(pad(x, 4 channels), [W, 0])

A shortcut that takes every n-th pixel and pads channels with zeros has no int8 kernel: it would be turned back to float32. It becomes
a convolution:

    pad(x[:, :, ::s, ::s], a channels before, b after)  =  conv1x1(x, P, stride s),    P[a + c, c] = 1, else 0
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper, shape_inference

from fupruner.targets.runtime import Array

CHANNELS = 4
PADDED = "/input/four_channels"
"""Name of the node that pads the image; it stays in float32."""


def with_int8_forms(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a model with both rewritings, wherever they apply."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    constants = _constants(copy.graph)
    shapes = _shapes(copy)
    for pad in [node for node in copy.graph.node if node.op_type == "Pad"]:
        found = _sampled_shortcut(copy.graph, pad, constants, shapes)
        if found is not None:
            _as_conv(copy.graph, pad, found)
    _pad_image(copy.graph, constants)
    _remove_unused(copy.graph)
    return copy


@dataclass(frozen=True)
class _Shortcut:
    """A value, the stride at which its pixels are taken, and zero channels before and after."""

    source: str
    stride: tuple[int, int]
    channels: int
    before: int
    after: int


def _constants(graph: onnx.GraphProto) -> dict[str, Array]:
    known = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        for attribute in node.attribute if node.op_type == "Constant" else ():
            if attribute.name == "value":
                known[node.output[0]] = numpy_helper.to_array(attribute.t)
    return known


def _shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    inferred = shape_inference.infer_shapes(model, data_prop=True).graph
    values = (*inferred.input, *inferred.value_info, *inferred.output)
    return {value.name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim) for value in values}


def _sampled_shortcut(
    graph: onnx.GraphProto, pad: onnx.NodeProto, constants: dict[str, Array], shapes: dict[str, tuple[int, ...]]
) -> _Shortcut | None:
    """What a Pad of channels behind slices is, or None where it is something else."""
    modes = [attribute.s for attribute in pad.attribute if attribute.name == "mode"]
    amounts = constants.get(pad.input[1])
    filler = constants.get(pad.input[2], np.ones(1)) if len(pad.input) > 2 and pad.input[2] else np.zeros(1)
    if any(mode != b"constant" for mode in modes) or amounts is None or np.any(filler) or len(pad.input) > 3:
        return None
    if amounts.shape != (8,) or min(amounts) < 0 or any(amounts[i] for i in (0, 2, 3, 4, 6, 7)):
        return None
    makers = {name: node for node in graph.node for name in node.output}
    source, strides = pad.input[0], {2: 1, 3: 1}
    while source in makers and makers[source].op_type == "Slice":
        step = _pixel_step(makers[source], constants, shapes)
        if step is None:
            return None
        for axis, stride in step.items():
            strides[axis] *= stride
        source = makers[source].input[0]
    shape = shapes.get(source, ())
    if strides == {2: 1, 3: 1} or len(shape) != 4 or not shape[1]:
        return None
    return _Shortcut(source, (strides[2], strides[3]), shape[1], int(amounts[1]), int(amounts[5]))


def _pixel_step(
    node: onnx.NodeProto, constants: dict[str, Array], shapes: dict[str, tuple[int, ...]]
) -> dict[int, int] | None:
    """Strides by axis of a slice that takes every n-th row or column from the first to the last; None for any other."""
    parts = [constants.get(name) for name in node.input[1:]]
    shape = shapes.get(node.input[0], ())
    if len(parts) != 4 or any(part is None for part in parts) or len(shape) != 4:
        return None
    starts, ends, axes, steps = (np.atleast_1d(part).tolist() for part in parts if part is not None)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if axis not in (2, 3) or start or step < 1 or not shape[axis] or end < shape[axis]:
            return None
    return dict(zip(axes, steps, strict=True))


def _as_conv(graph: onnx.GraphProto, pad: onnx.NodeProto, found: _Shortcut) -> None:
    weight = np.zeros((found.before + found.channels + found.after, found.channels, 1, 1), np.float32)
    weight[found.before + np.arange(found.channels), np.arange(found.channels)] = 1
    names = [f"{pad.output[0]}/{part}" for part in ("weight", "bias")]
    for name, array in zip(names, (weight, np.zeros(len(weight), np.float32)), strict=True):
        graph.initializer.append(numpy_helper.from_array(array, name))
    conv = helper.make_node(
        "Conv", [found.source, *names], [pad.output[0]], name=pad.name, kernel_shape=[1, 1], strides=list(found.stride)
    )
    position = list(graph.node).index(pad)
    graph.node.remove(pad)
    graph.node.insert(position, conv)


def _pad_image(graph: onnx.GraphProto, constants: dict[str, Array]) -> None:
    """Give the first convolution four channels, where the image has fewer and nothing else reads it."""
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [value.name for value in graph.input if value.name not in weights]
    uses = Counter(name for node in graph.node for name in node.input)
    readers = [node for node in graph.node if len(inputs) == 1 and inputs[0] in node.input]
    if len(readers) != 1 or readers[0].op_type != "Conv" or uses[readers[0].input[1]] != 1:
        return
    conv = readers[0]
    weight = constants.get(conv.input[1])
    groups = [attribute.i for attribute in conv.attribute if attribute.name == "group"]
    if weight is None or weight.ndim != 4 or weight.shape[1] >= CHANNELS or any(group != 1 for group in groups):
        return
    more = CHANNELS - weight.shape[1]
    wide = np.pad(weight, ((0, 0), (0, more), (0, 0), (0, 0)))
    graph.initializer.append(numpy_helper.from_array(wide, f"{conv.input[1]}/four_channels"))
    graph.initializer.append(numpy_helper.from_array(np.array([0, 0, 0, 0, 0, more, 0, 0], np.int64), f"{PADDED}/pads"))
    pad = helper.make_node("Pad", [conv.input[0], f"{PADDED}/pads"], [f"{PADDED}/output"], name=PADDED)
    conv.input[0], conv.input[1] = pad.output[0], f"{conv.input[1]}/four_channels"
    graph.node.insert(0, pad)


def _remove_unused(graph: onnx.GraphProto) -> None:
    results = {value.name for value in graph.output}
    while True:
        used = results | {name for node in graph.node for name in node.input}
        unused = [node for node in graph.node if not used.intersection(node.output)]
        if not unused:
            break
        for node in unused:
            graph.node.remove(node)
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    copies = [onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in kept]
    del graph.initializer[:]
    graph.initializer.extend(copies)
