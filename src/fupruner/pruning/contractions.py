"""Operators that sum products over an axis: matrix products and attention. What they do to labels.

A channel that is summed over is closed on both sides, so that it adds nothing; the result does not know it any more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import fx

from fupruner.graph.shapes import shape_of
from fupruner.pruning.labels import Labelling, Labels
from fupruner.pruning.structure import argument, broadcast, compress


def _matmul(labelling: Labelling, node: fx.Node) -> Labels | None:
    """(..., M, K) times (..., K, N): K is summed over, everything else is kept."""
    left, right = node.args[:2]
    dims = len(shape_of(node))
    a, b = _canonical(labelling, left, dims), _canonical(labelling, right, dims)
    if dims < 2 or len(shape_of(left)) < 2 or len(shape_of(right)) < 2:  # type: ignore[arg-type]
        return _refuse(labelling, node, a, b)
    summed = [labels is not None and labels.shape[axis] > 1 for labels, axis in ((a, -1), (b, -2))]
    if summed[0] != summed[1]:
        return _refuse(labelling, node, a, b)
    if summed[0] and a is not None and b is not None:
        labelling.tie(a, b.swapaxes(-1, -2))
        return None
    if a is None or b is None:
        return _kept(labelling, node, a, b)
    long = {d for labels in (a, b) for d, n in enumerate(labels.shape) if n > 1}
    if len(long) > 1:
        return _refuse(labelling, node, a, b)
    if a.size == b.size and a.shape == b.shape and long and next(iter(long)) < dims - 2:
        labelling.tie(a, b)
    return a if a.size >= b.size else b


def _kept(labelling: Labelling, node: fx.Node, a: Labels | None, b: Labels | None) -> Labels | None:
    """One operand has labels: they stay, unless the other one is as long there and cannot be cut."""
    labels, other = (a, node.args[1]) if a is not None else (b, node.args[0])
    if labels is None:
        return None
    shape = shape_of(other)  # type: ignore[arg-type]
    shape = (1,) * (labels.ndim - len(shape)) + shape
    if any(labels.shape[d] > 1 and shape[d] > 1 for d in range(labels.ndim - 2)):
        return _refuse(labelling, node, labels, None)
    return labels


def _canonical(labelling: Labelling, operand: Any, dims: int) -> Labels | None:
    """Labels of an operand that differ along one axis; others are frozen."""
    labels = labelling.of(operand)
    if labels is None:
        return None
    labels = broadcast(compress(labels), dims)
    if sum(n > 1 for n in labels.shape) > 1:
        labelling.freeze(labels, "it is part of a product along several axes")
        return None
    return labels if labels.size > 1 else None


def _refuse(labelling: Labelling, node: fx.Node, *operands: Labels | None) -> Labels | None:
    for labels in operands:
        labelling.freeze(labels, f"{node.name} multiplies it with something that cannot be cut alike")
    return None


def _attention(labelling: Labelling, node: fx.Node) -> Labels | None:
    """Scaled dot-product attention: heads, or the channels of all heads, leave queries, keys and values together."""
    dims = len(shape_of(node))
    q, k, v = (_canonical(labelling, operand, dims) for operand in node.args[:3])
    if (
        q is None
        or k is None
        or v is None
        or not q.shape == k.shape == v.shape
        or q.shape[-2] > 1
        or node.kwargs.get("enable_gqa")
        or _masked_along(labelling, node, q)
    ):
        return _refuse(labelling, node, q, k, v)
    labelling.tie(q, k)
    labelling.tie(q, v)
    return v


def _masked_along(labelling: Labelling, node: fx.Node, q: Labels) -> bool:
    """Whether attention has a mask that would have to be cut with the heads; channels inside heads do not meet it."""
    mask = argument(node, 3, "attn_mask", None)
    return mask is not None and (q.shape[-1] == 1 or labelling.of(mask) is not None)


CONTRACTIONS: dict[str, Callable[[Any, fx.Node], Labels | None]] = {
    "matmul": _matmul, "bmm": _matmul, "scaled_dot_product_attention": _attention,
}  # fmt: skip
"""Label rules of products, by operator."""
