"""Which feature maps a pruned network can still learn from the original, and which channels of them it has left."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, fx

from fupruner.fusion.fuse import fuse_graph
from fupruner.fusion.rules.norm_after import NormAfterLayer
from fupruner.graph import edit
from fupruner.pruning.gates import GatedNetwork
from fupruner.pruning.groups import channel_axis
from fupruner.training.features import stage_ends


def hints(
    original: fx.GraphModule, network: GatedNetwork, slimmed: fx.GraphModule | None = None
) -> dict[str, Tensor | None]:
    """The ends of the stages, see ``training.features.Hints``.

    Args:
        original: the teacher, its shapes propagated; the network was made from it.
        network: gates as they were when it was slimmed.
        slimmed: what was cut from it; None for the gated network itself, whose maps have all channels.

    Returns:
        Layers that are left, each with the indices of the channels that are left; None where all are.
    """
    names = stage_ends(original)
    if slimmed is None:
        return dict.fromkeys(names)
    left = {str(node.target) for node in slimmed.graph.nodes if node.op == "call_module"}
    nodes = {str(node.target): node for node in network.graph_module.graph.nodes if node.op == "call_module"}
    return {name: _kept(network, nodes[name]) for name in names if name in left}


def folded_teacher(original: fx.GraphModule, example_inputs: tuple[Tensor, ...]) -> fx.GraphModule:
    """The same function in less time: norms are folded into the layers before them; what hints are taken from is still there.

    Args:
        original: its shapes propagated; it is not modified, and returned itself where folding would remove an end of a stage.
        example_inputs: tensors, batch first.
    """
    folded, _ = fuse_graph(original, example_inputs, "basic", only=(NormAfterLayer.name,))
    left = {str(node.target) for node in folded.graph.nodes if node.op == "call_module"}
    return folded if left.issuperset(stage_ends(original)) else original


def _kept(network: GatedNetwork, node: fx.Node) -> Tensor | None:
    labelling, module = network.groups.labelling, edit.module_of(network.graph_module, node)
    if node not in labelling.labels or module is None:
        return None
    axis = channel_axis(module, labelling.labels[node].ndim)
    mask = labelling.kept_along(node, axis, network.is_open)
    return None if mask is None or bool(mask.all()) else torch.from_numpy(np.flatnonzero(mask))
