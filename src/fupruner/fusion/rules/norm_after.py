"""Batch norm into the layer before it.

    y = g * (W x + b - m) / s + beta      with s = sqrt(var + eps)
    W' = W * g/s,  b' = (b - m) * g/s + beta        (g/s per output channel)

Holds for convolutions (any groups, dilation, padding), transposed convolutions and linear layers. Exact only if nobody
else reads the layer's output and the layer is called once; the norm itself may be shared, because its values are copied.
"""

from __future__ import annotations

from typing import Any, ClassVar

from torch import fx, nn

from fupruner.fusion.algebra import has_statistics, norm_affine, scale_outputs
from fupruner.fusion.rule import Context, Level, Match, Refuse, Rule
from fupruner.graph import edit
from fupruner.graph.channelwise import ReservedNorm
from fupruner.graph.cost import CONVS, NORMS, TRANSPOSED

__all__ = ["NormAfterLayer", "norm_affine", "scale_outputs"]


class NormAfterLayer(Rule):
    """Fold a batch norm into the convolution, transposed convolution or linear layer before it."""

    name: ClassVar[str] = "norm-after-layer"
    level: ClassVar[Level] = "basic"

    def find(self, context: Context, node: fx.Node) -> Match | Refuse | None:
        """Match on the norm."""
        norm = context.module(node)
        if not isinstance(norm, (*NORMS, ReservedNorm)):
            return None
        before = node.all_input_nodes[0]
        layer = context.module(before)
        if not isinstance(layer, (*CONVS, *TRANSPOSED, nn.Linear)):
            return None
        if not has_statistics(norm):
            return Refuse(node, "the norm has no running statistics: it depends on the batch")
        if len(before.users) > 1:
            return Refuse(node, f"{before.name} is read by {len(before.users)} operators, not by the norm alone")
        if context.is_shared(before):
            return Refuse(node, f"{before.target} is called more than once or shares its weights")
        if isinstance(layer, nn.Linear) and isinstance(norm, nn.BatchNorm1d) and len(before.meta.get("shape", ())) == 3:
            return Refuse(node, "the norm's channels are not the linear layer's output features")
        return Match(node, (before.all_input_nodes[0],), node, parts={"layer": before, "norm": node})

    def rewrite(self, context: Context, match: Match) -> fx.Node:
        """Replace the layer and drop the norm."""
        before, node = match.parts["layer"], match.parts["norm"]
        layer: Any = context.module(before)
        folded = scale_outputs(layer, *norm_affine(context.module(node)), reuse=context.is_spare(layer.weight))
        edit.replace_module(context.graph_module, before, folded)
        edit.bypass(node, before)
        return before  # type: ignore[no-any-return]
