"""Operators that rearrange tensors: what they do to labels, and how their arguments change when channels are cut.

Each operator has a label rule here (``STRUCTURE``); ``slim`` derives the new arguments from the labels that survive.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
from torch import fx

from fupruner.graph.shapes import shape_of
from fupruner.pruning.labels import Labelling, Labels


def compress(labels: Labels) -> Labels:
    """Shrink every axis along which labels do not differ to length 1."""
    for axis in range(labels.ndim):
        first = np.take(labels, [0], axis=axis)
        if labels.shape[axis] > 1 and np.array_equal(np.broadcast_to(first, labels.shape), labels):
            labels = first
    return labels


def broadcast(labels: Labels, dims: int) -> Labels:
    """Prepend axes of length 1 until there are ``dims``."""
    return labels.reshape((1,) * (dims - labels.ndim) + labels.shape)


def argument(node: fx.Node, index: int, name: str, default: Any) -> Any:
    """An argument of an operator, given by position or by name."""
    return node.args[index] if len(node.args) > index else node.kwargs.get(name, default)


def _to_one_axis(labelling: Labelling, labels: Labels) -> Labels:
    """Where labels differ along several axes, channels can leave along the longest one only; the rest are tied to it."""
    long = [d for d, n in enumerate(labels.shape) if n > 1]
    if len(long) < 2:
        return labels
    keep = max(long, key=lambda d: (labels.shape[d], d))
    first = labels[tuple(slice(None) if d == keep else slice(0, 1) for d in range(labels.ndim))]
    labelling.tie(labels, first)
    return first


def _reshape(labelling: Labelling, node: fx.Node, source: Labels) -> Labels | None:
    out, given = shape_of(node), shape_of(node.all_input_nodes[0])
    merged = _merges_batch(node, source)
    if merged is not None:
        return _heads_beside_batch(labelling, source, given, out, merged)
    if not out or source.shape[0] != 1:
        labelling.freeze(source, f"{node.name} mixes channels with the batch")
        return None
    if given[:1] == out[:1]:
        given, out = (1, *given[1:]), (1, *out[1:])
    labels = compress(np.broadcast_to(source, given).reshape(out))
    if labels.shape[0] != 1:
        labelling.freeze(source, f"{node.name} mixes channels with the batch")
        return None
    return _to_one_axis(labelling, labels)


def _merges_batch(node: fx.Node, source: Labels) -> int | None:
    """Axis of a reshape that holds the batch and, varying faster, a factor of what followed it: (T, N, H*D) to (T, N*H, D)."""
    sizes, given, out = argument(node, 1, "shape", None), shape_of(node.all_input_nodes[0]), shape_of(node)
    if not isinstance(sizes, list | tuple) or len(sizes) != len(out):
        return None
    named = [axis for axis, size in enumerate(sizes) if isinstance(size, fx.Node)]
    if len(named) != 1 or not 0 < named[0] < len(given) - 1:
        return None
    axis = named[0]
    batch_leads = given[:axis] == out[:axis] and out[axis] % given[axis] == 0
    return axis if batch_leads and all(n == 1 for n in source.shape[: axis + 1]) else None


def _heads_beside_batch(
    labelling: Labelling, source: Labels, given: tuple[int, ...], out: tuple[int, ...], axis: int
) -> Labels:
    """Labels of one sample; those that lie along the axis of the batch are tied, so that they hold for any batch."""
    batch = given[axis]
    one_given = [1 if d == axis else n for d, n in enumerate(given)]
    one_out = [n // batch if d == axis else n for d, n in enumerate(out)]
    labels = compress(np.broadcast_to(source, one_given).reshape(one_out))
    first = labels.take([0], axis=axis)
    labelling.tie(labels, first)
    return _to_one_axis(labelling, first)


def _reshape_as(labelling: Labelling, node: fx.Node, source: Labels) -> Labels | None:
    """The shape comes from another tensor, which has to lose the same channels."""
    labels, other = _reshape(labelling, node, source), labelling.of(node.args[1])
    if labels is None or other is None or other.shape != labels.shape:
        labelling.freeze(source, f"{node.name} takes its shape from a tensor with other channels")
        labelling.freeze(other, f"{node.name} takes its shape from it")
        return None
    labelling.tie(labels, other)
    return labels


def _permute(labelling: Labelling, node: fx.Node, source: Labels) -> Labels:
    return source.transpose([int(d) for d in node.args[1]])  # type: ignore[union-attr,arg-type]


def _transpose(labelling: Labelling, node: fx.Node, source: Labels) -> Labels:
    return source.swapaxes(int(node.args[1]), int(node.args[2]))  # type: ignore[arg-type]


def _unsqueeze(labelling: Labelling, node: fx.Node, source: Labels) -> Labels:
    dim = int(node.args[1])  # type: ignore[arg-type]
    return np.expand_dims(source, dim % (source.ndim + 1))


def _squeeze(labelling: Labelling, node: fx.Node, source: Labels) -> Labels | None:
    given, out = shape_of(node.all_input_nodes[0]), shape_of(node)
    dims = argument(node, 1, "dim", None)
    axes = range(len(given)) if dims is None else [dims] if isinstance(dims, int) else list(dims)
    gone = tuple(d % len(given) for d in axes if given[d] == 1)
    labels = source.squeeze(gone)
    if labels.ndim == len(out):
        return labels
    labelling.freeze(source, f"{node.name} drops an axis that other batches have")
    return None


def _expand(labelling: Labelling, node: fx.Node, source: Labels) -> Labels:
    return broadcast(source, len(shape_of(node)))


def _cat(labelling: Labelling, node: fx.Node, source: Labels) -> Labels | None:
    operands = list(node.args[0])  # type: ignore[arg-type]
    dims = len(shape_of(node))
    axis = int(argument(node, 1, "dim", 0)) % dims
    arrays = []
    for operand in operands:
        labels = labelling.of(operand)
        shape = shape_of(operand)
        if labels is None:
            labels = labelling.fresh(shape[axis], axis, dims)
            labelling.freeze(labels, f"{operand.name} is concatenated but its channels cannot be followed")
        arrays.append((labels, shape[axis]))
    if any(any(n > 1 for d, n in enumerate(labels.shape) if d != axis) for labels, _ in arrays):
        return _cat_along_other_axis(labelling, node, [labels for labels, _ in arrays], axis)
    full = [np.broadcast_to(a, [n if d == axis else 1 for d in range(dims)]) for a, n in arrays]
    return np.concatenate(full, axis=axis)


def _cat_along_other_axis(labelling: Labelling, node: fx.Node, arrays: list[Labels], axis: int) -> Labels | None:
    """Tensors joined along space or tokens: the channels of all of them are the same channels."""
    if any(a.shape[axis] > 1 for a in arrays):
        for a in arrays:
            labelling.freeze(a, f"{node.name} joins tensors whose channels lie along different axes")
        return None
    for other in arrays[1:]:
        if other.shape != arrays[0].shape:
            for a in arrays:
                labelling.freeze(a, f"{node.name} joins tensors of which some cannot be followed")
            return None
        labelling.tie(arrays[0], other)
    return arrays[0]


def _split(labelling: Labelling, node: fx.Node, source: Labels) -> tuple[Labels | None, ...]:
    """Chunk, split, split with sizes, unbind: slices of the labels along one axis."""
    name = str(node.target)
    unbind = "unbind" in name
    axis = int(argument(node, 1 if unbind else 2, "dim", 0)) % source.ndim
    length = shape_of(node.all_input_nodes[0])[axis]
    sizes = split_sizes(node, length)
    edges = np.cumsum([0, *sizes])
    parts = []
    for start, stop in pairwise(edges):
        part = source if source.shape[axis] == 1 else source.take(range(start, stop), axis=axis)
        parts.append(part.squeeze(axis) if unbind else part)
    return tuple(parts)


def split_sizes(node: fx.Node, length: int) -> list[int]:
    """Lengths of the parts that a chunk, split or unbind makes of an axis."""
    name = str(node.target)
    if "unbind" in name:
        return [1] * length
    size = node.args[1]
    if isinstance(size, list | tuple):
        return [int(s) for s in size]  # type: ignore[arg-type]
    step = -(-length // int(size)) if "chunk" in name else int(size)  # type: ignore[arg-type]
    return [min(step, length - start) for start in range(0, length, step)]


def _slice(labelling: Labelling, node: fx.Node, source: Labels) -> Labels | None:
    axis = int(argument(node, 1, "dim", 0)) % source.ndim
    start, stop, step = (argument(node, i, n, d) for i, n, d in ((2, "start", 0), (3, "end", None), (4, "step", 1)))
    if source.shape[axis] == 1:
        return source
    if not all(isinstance(v, int | None) for v in (start, stop, step)):
        labelling.freeze(source, f"{node.name} slices channels at places that depend on the input")
        return None
    index = tuple(slice(start, stop, step) if d == axis else slice(None) for d in range(source.ndim))
    part = source[index]
    if step != 1:
        labelling.freeze(part, f"{node.name} takes every {step}th channel")
    return part


def _select(labelling: Labelling, node: fx.Node, source: Labels) -> Labels | None:
    axis, index = int(node.args[1]) % source.ndim, node.args[2]  # type: ignore[arg-type]
    if source.shape[axis] == 1:
        return source.squeeze(axis)
    labelling.freeze(source, f"{node.name} picks single channels")
    part: Labels = np.take(source, [int(index)], axis=axis).squeeze(axis)  # type: ignore[arg-type]
    return part


def _pad(labelling: Labelling, node: fx.Node, source: Labels) -> Labels | None:
    pads = list(node.args[1])  # type: ignore[arg-type]
    labels = source
    for i in range(0, len(pads), 2):
        axis = source.ndim - 1 - i // 2
        before, after = pads[i], pads[i + 1]
        if labels.shape[axis] == 1 or (before == 0 and after == 0):
            continue
        if min(before, after) < 0 or any(n > 1 for d, n in enumerate(labels.shape) if d != axis):
            labelling.freeze(source, f"{node.name} crops channels")
            return None
        parts = [labelling.fresh(before, axis, labels.ndim), labels, labelling.fresh(after, axis, labels.ndim)]
        labels = np.concatenate(parts, axis=axis)
    return labels


def _reduce(labelling: Labelling, node: fx.Node, source: Labels) -> Labels | None:
    """Mean, sum, norm or maximum over axes along which labels do not differ; to a sum or norm closed channels add nothing."""
    name = str(node.target)
    norm = "vector_norm" in name
    dims = argument(node, 2 if norm else 1, "dim", None)
    if dims is None or dims == []:
        labelling.freeze(source, f"{node.name} reduces over channels")
        return None
    axes = tuple((d % source.ndim) for d in ([dims] if isinstance(dims, int) else dims))
    keep = bool(argument(node, 3 if norm else 2, "keepdim", False))
    if any(source.shape[d] > 1 for d in axes):
        if "sum" not in name and not norm:
            labelling.freeze(source, f"{node.name} reduces over channels")
        return None
    return source if keep else source.squeeze(axes)


def _flip_or_roll(labelling: Labelling, node: fx.Node, source: Labels) -> Labels | None:
    dims = argument(node, 2 if "roll" in str(node.target) else 1, "dims", None)
    if dims and all(source.shape[d] == 1 for d in ([dims] if isinstance(dims, int) else dims)):
        return source
    labelling.freeze(source, f"{node.name} moves channels around")
    return None


def _softmax(labelling: Labelling, node: fx.Node, source: Labels) -> Labels | None:
    if source.shape[int(node.args[1]) % source.ndim] > 1:  # type: ignore[arg-type]
        labelling.freeze(source, f"{node.name} normalises over channels")
        return None
    return source


def _pixel_shuffle(labelling: Labelling, node: fx.Node, source: Labels) -> Labels | None:
    """(C*r*r) channels become C: the r*r channels that make one output channel are tied."""
    r = int(node.args[1])  # type: ignore[arg-type]
    if source.ndim != 4 or any(n > 1 for d, n in enumerate(source.shape) if d != 1):
        labelling.freeze(source, f"{node.name} mixes channels and space")
        return None
    blocks = source.reshape(-1, r * r)
    labelling.tie(blocks, blocks[:, :1])
    return blocks[:, 0].reshape(1, -1, 1, 1)


STRUCTURE: dict[str, Callable[[Any, fx.Node, Labels], Any]] = {
    "reshape": _reshape, "view": _reshape, "flatten": _reshape, "unflatten": _reshape, "_unsafe_view": _reshape, "reshape_as": _reshape_as,
    "permute": _permute, "transpose": _transpose, "unsqueeze": _unsqueeze, "squeeze": _squeeze, "expand": _expand,
    "cat": _cat, "chunk": _split, "split": _split, "split_with_sizes": _split, "unbind": _split,
    "slice": _slice, "select": _select, "pad": _pad, "constant_pad_nd": _pad,
    "mean": _reduce, "sum": _reduce, "amax": _reduce, "linalg_vector_norm": _reduce,
    "expand_as": _expand, "softmax": _softmax, "flip": _flip_or_roll, "roll": _flip_or_roll,
    "pixel_shuffle": _pixel_shuffle,
}  # fmt: skip
"""Label rules of operators that rearrange tensors, by name."""
