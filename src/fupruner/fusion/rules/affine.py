"""Scale and shift by constants, and norms, into the convolution or linear layer behind or before them.

    after    y = a * (W x + b) + c          W' = a * W (rows), b' = a * b + c       (layer scale, constants)
    before   y = W (a * x + c) + b          W' = W * a (columns), b' = b + sum W c  (input normalisation, pre-activation norms)

*after* holds through permutations of axes. *before* holds through average pools, flattening, permutations of axes and
padding that repeats values; zero padding is exact only if c = 0, or if every channel pads with the same value -c/a, which then
becomes an explicit pad. A transposed convolution cannot take a shift before it: fewer taps meet at its border.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, fx, nn

from fupruner.fusion.algebra import has_statistics, inputs_of, outputs_of, padding_of, scale_inputs, scale_outputs
from fupruner.fusion.rule import Context, Level, Match, Refuse, Rule, only_user
from fupruner.fusion.values import Affine, affine_of
from fupruner.graph import edit
from fupruner.graph.cost import CONVS, NORMS, TRANSPOSED
from fupruner.graph.shapes import shape_of
from fupruner.graph.text import kind_of

aten = torch.ops.aten

_LAYERS = (*CONVS, *TRANSPOSED, nn.Linear)


class AffineAfterLayer(Rule):
    """Fold a scale or shift by constants into the layer before it."""

    name: ClassVar[str] = "affine-after-layer"
    level: ClassVar[Level] = "basic"

    def find(self, context: Context, node: fx.Node) -> Match | Refuse | None:
        """Match on the multiplication, division, addition or subtraction."""
        affine = affine_of(context, node)
        if affine is None or context.module(node) is not None:
            return None
        before, axis = affine.source, affine.axis
        while before.target is aten.permute.default and only_user(before) is not None:
            axis = None if axis is None else before.args[1][axis]  # type: ignore[index, assignment]
            before = before.all_input_nodes[0]
        layer = context.module(before)
        if not isinstance(layer, _LAYERS):
            return None
        rank = len(shape_of(before))
        if axis is not None and axis % rank != (rank - 1 if isinstance(layer, nn.Linear) else 1):
            return Refuse(node, f"the constant does not run along the output channels of {before.target}")
        if only_user(before) is None:
            return Refuse(node, f"{before.name} is read by {len(before.users)} operators")
        if context.is_shared(before):
            return Refuse(node, f"{before.target} is called more than once or shares its weights")
        return Match(node, (before.all_input_nodes[0],), node, parts={"layer": before, "affine": affine, "node": node})

    def rewrite(self, context: Context, match: Match) -> fx.Node:
        """Replace the layer and drop the arithmetic."""
        before, affine = match.parts["layer"], match.parts["affine"]
        layer = context.module(before)
        scale, shift = (t.expand(outputs_of(layer)) for t in (affine.scale, affine.shift))
        edit.replace_module(context.graph_module, before, scale_outputs(layer, scale, shift))
        edit.bypass(match.node, affine.source)
        return affine.source  # type: ignore[no-any-return]


@dataclass(frozen=True)
class _Reading:
    """How a layer reads an affine map: its scale and shift per input of the layer, and what lies between (nearest first)."""

    affine: Affine
    node: fx.Node
    path: tuple[fx.Node, ...]


class AffineBeforeLayer(Rule):
    """Fold a norm, scale or shift into the layers that read it."""

    name: ClassVar[str] = "affine-before-layer"
    level: ClassVar[Level] = "basic"

    def find(self, context: Context, node: fx.Node) -> Match | Refuse | None:
        """Match on the layer; a norm that no layer can take is refused at the norm."""
        layer = context.module(node)
        if isinstance(layer, NORMS):
            return _stranded(context, node)
        if not isinstance(layer, _LAYERS) or not node.all_input_nodes:
            return None
        reading = find_affine_before(context, node)
        if reading is None:
            return None
        if context.is_shared(node):
            return Refuse(
                node,
                f"{node.target} is called more than once or shares its weights, but only one call reads {reading.node.name}",
            )
        affine = _spread(reading.affine, layer, node)
        if affine is None:
            return Refuse(node, f"{reading.node.name} does not scale the input channels of {node.target}")
        reason = _padding_objection(layer, affine)
        if reason:
            return Refuse(node, reason)
        parts = {"layer": node, "norm": reading.node, "reading": replace(reading, affine=affine)}
        return Match(node, (affine.source,), node, parts=parts)

    def rewrite(self, context: Context, match: Match) -> fx.Node:
        """Replace the layer and let it, or what lies between, read the affine map's source."""
        node, reading = match.node, match.parts["reading"]
        layer: Any = context.module(node)
        affine = reading.affine
        scaled: Any = scale_inputs(layer, affine.scale, affine.shift)
        first = reading.path[-1] if reading.path else node
        first.replace_input_with(reading.node, affine.source)
        if isinstance(layer, CONVS) and any(padding_of(layer) or ()) and bool(affine.shift.any()):
            pads = [p for size in reversed(padding_of(layer) or ()) for p in (size, size)]
            value = float(-affine.shift[0] / affine.scale[0])
            with node.graph.inserting_before(node):
                padded = node.graph.call_function(aten.constant_pad_nd.default, (node.args[0], pads, value))
            node.args = (padded,)
            scaled.padding = (0,) * len(scaled.kernel_size)
            scaled._reversed_padding_repeated_twice = [0] * (2 * len(scaled.kernel_size))
        edit.replace_module(context.graph_module, node, scaled)
        return node


def find_affine_before(context: Context, layer: fx.Node) -> _Reading | None:
    """Walk back from a layer over what commutes with an affine map, to that map."""
    path: list[fx.Node] = []
    node = layer.all_input_nodes[0]
    steps: list[fx.Node] = []
    while True:
        affine = affine_of(context, node)
        if affine is not None:
            for step in reversed(steps):
                moved = _carry(context, step, affine)
                if moved is None:
                    return None
                affine = moved
            return _Reading(affine, node, tuple(path))
        if len(node.all_input_nodes) != 1 or only_user(node) is None or not _commutes(context, node):
            return None
        path.append(node)
        steps.append(node)
        node = node.all_input_nodes[0]


def _commutes(context: Context, node: fx.Node) -> bool:
    """Whether an operator that averages or moves values gives the same after an affine map as before it."""
    module = context.module(node)
    if isinstance(module, nn.AvgPool1d | nn.AvgPool2d):
        pads = module.padding if isinstance(module.padding, tuple) else (module.padding,)
        return getattr(module, "divisor_override", None) is None and (not any(pads) or not module.count_include_pad)
    if module is not None:
        return isinstance(module, nn.AdaptiveAvgPool1d | nn.AdaptiveAvgPool2d | nn.Flatten | nn.Identity | nn.Dropout)
    if node.target is aten.pad.default:
        return len(node.args) > 2 and node.args[2] in ("reflect", "replicate", "circular")
    return node.target is aten.permute.default


def _carry(context: Context, step: fx.Node, affine: Affine) -> Affine | None:
    """The affine map as it acts behind an operator that commutes with it."""
    if affine.axis is None:
        return affine
    rank = len(shape_of(step.all_input_nodes[0]))
    args: Any = step.args
    if step.target is aten.permute.default:
        return replace(affine, axis=[d % rank for d in args[1]].index(affine.axis % rank))
    module = context.module(step)
    if isinstance(module, nn.Flatten):
        if affine.axis % rank != 1 or module.start_dim != 1 or module.end_dim % rank != rank - 1:
            return None
        repeats = shape_of(step)[1] // len(affine.scale)
        return replace(
            affine, scale=affine.scale.repeat_interleave(repeats), shift=affine.shift.repeat_interleave(repeats)
        )
    return affine if affine.axis % rank == 1 else None


def _spread(affine: Affine, layer: Any, node: fx.Node) -> Affine | None:
    """Scale and shift per input of the layer, or None if they run along another axis."""
    rank, count = len(shape_of(node)), inputs_of(layer)
    if affine.axis is None:
        return replace(affine, scale=affine.scale.expand(count), shift=affine.shift.expand(count))
    wanted = rank - 1 if isinstance(layer, nn.Linear) else 1
    return affine if affine.axis % rank == wanted and len(affine.scale) == count else None


def _padding_objection(layer: Any, affine: Affine) -> str:
    if not bool(affine.shift.any()) or isinstance(layer, nn.Linear):
        return ""
    if isinstance(layer, TRANSPOSED):
        return "a transposed convolution cannot take a shift before it: fewer taps meet at its border"
    padding = padding_of(layer)
    if padding is None:
        return "its sides are padded differently"
    if any(padding) and not _same_pad_value(affine.scale, affine.shift):
        return "it pads with zeros, which the shift before it would make different values in each channel"
    return ""


def _same_pad_value(scale: Tensor, shift: Tensor) -> bool:
    if not bool(scale.all()):
        return False
    values = -shift / scale
    return float((values - values[0]).abs().max()) <= 1e-12 * max(1.0, float(values.abs().max()))


def _stranded(context: Context, node: fx.Node) -> Refuse | None:
    """Why a norm with no convolution on either side stays."""
    if not has_statistics(context.module(node)):
        return None
    before = node.all_input_nodes[0]
    if isinstance(context.module(before), _LAYERS) or any(
        isinstance(context.module(user), _LAYERS) for user in node.users
    ):
        return None
    after = ", ".join(sorted({kind_of(context.graph_module, user) for user in node.users}))
    return Refuse(
        node, f"it stands between {kind_of(context.graph_module, before)} and {after}: no layer can take it in"
    )
