"""Element-wise operators: tie the labels of their operands index by index."""

from __future__ import annotations

from torch import Tensor, fx

from fupruner.graph import edit
from fupruner.graph.shapes import shape_of
from fupruner.pruning.labels import Labelling, Labels
from fupruner.pruning.structure import broadcast


def elementwise(labelling: Labelling, node: fx.Node) -> Labels | None:
    """Operands at the same place live and die together; an axis along which one of them is spread ties nothing."""
    shape = shape_of(node)
    if not shape:
        return None
    result: Labels | None = None
    for operand in node.all_input_nodes:
        labels = labelling.of(operand)
        if labels is None:
            labels = _constant(labelling, operand, len(shape))
            if labels is None:
                continue
        labels = broadcast(labels, len(shape))
        if result is None:
            result = labels
        else:
            _tie_overlap(labelling, result, labels, shape)
            result = result if result.size >= labels.size else labels
    return _freeze_against_unlabelled(labelling, node, result)


def _tie_overlap(labelling: Labelling, a: Labels, b: Labels, shape: tuple[int, ...]) -> None:
    """Tie two operands where both have labels along the same axes; a broadcast axis ties nothing."""
    for axis in range(len(shape)):
        if (a.shape[axis] > 1) != (b.shape[axis] > 1) and max(a.size, b.size) > 1:
            _edges_for_partial(labelling, a, b, axis)
            return
    labelling.tie(a, b)


def _edges_for_partial(labelling: Labelling, a: Labels, b: Labels, axis: int) -> None:
    """Operands that vary along different axes: an operand without labels along an axis may still be as long there."""
    labelling.tie(a, b) if a.size == 1 or b.size == 1 else _freeze_both(labelling, a, b)


def _freeze_both(labelling: Labelling, a: Labels, b: Labels) -> None:
    for labels in (a, b):
        labelling.freeze(labels, "it meets channels along another axis in an element-wise operator")


def _constant(labelling: Labelling, operand: fx.Node, dims: int) -> Labels | None:
    """A parameter or buffer in an element-wise operator gets labels along its one long axis, and is cut with them."""
    if operand.op != "get_attr":
        return None
    value = edit.get_attribute(labelling.graph_module, str(operand.target))
    if not isinstance(value, Tensor) or value.dim() == 0:
        return None
    long = [d for d, n in enumerate(value.shape) if n > 1]
    if len(long) != 1:
        return None
    labels = labelling.fresh(value.shape[long[0]], long[0], value.dim())
    labelling.labels[operand] = labels
    return labels


def _freeze_against_unlabelled(labelling: Labelling, node: fx.Node, result: Labels | None) -> Labels | None:
    """An operand that cannot be followed but is as long along a labelled axis pins that axis."""
    if result is None:
        return None
    for operand in node.all_input_nodes:
        if operand.op == "call_function" and "expand_as" in str(operand.target):
            operand = operand.all_input_nodes[0]  # noqa: PLW2901 - it takes on the length of what it is spread over
        shape = shape_of(operand)
        if operand in labelling.labels or not shape:
            continue
        shape = (1,) * (result.ndim - len(shape)) + shape
        if any(result.shape[d] > 1 and shape[d] > 1 for d in range(result.ndim)):
            labelling.freeze(result, f"{node.name} combines it with {operand.name}, whose channels cannot be followed")
    return result
