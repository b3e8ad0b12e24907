"""Slimming: cut closed channels, branches and activations out of a gated network, exactly.

Closed units are zero everywhere in their group (see ``gates``), so the filters that make them, the weights that read them
and their places in norms and constants can be cut without changing the function.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from fupruner.errors import FuPrunerError
from fupruner.graph import edit, shapes
from fupruner.graph.borrowed import unborrow
from fupruner.graph.cost import CONVS, NORMS, TRANSPOSED
from fupruner.graph.shapes import shape_of
from fupruner.graph.text import kind_of
from fupruner.pruning.gates import ActivationGate, Gate, GatedNetwork
from fupruner.pruning.groups import channel_axis
from fupruner.pruning.labels import Labelling
from fupruner.pruning.operators import INSTANCE_NORMS
from fupruner.pruning.structure import argument, split_sizes

Mask = NDArray[np.bool_]


def slim(network: GatedNetwork, example_inputs: tuple[Tensor, ...]) -> fx.GraphModule:
    """A physically smaller graph that computes what the gated network computes in eval mode.

    Args:
        network: gates as they are now decide; the network is not modified.
        example_inputs: tensors, batch first, for the shapes of the result.

    Raises:
        FuPrunerError: a layer would lose all of its channels.
    """
    copied, labelling = _copy(network)
    cut = _Cut(copied, labelling, network.is_open)
    _bypass_branches(network, copied)
    _bypass_activations(network, copied)
    _mask_shortcuts(network, copied, labelling)
    edit.clean(copied)
    alive = set(copied.graph.nodes)
    for node in list(copied.graph.nodes):
        if node in alive:
            cut.node(node)
    for node in list(copied.graph.nodes):
        if isinstance(edit.module_of(copied, node), Gate):
            edit.bypass(node, node.all_input_nodes[0])
    edit.clean(copied)
    unborrow(copied, network.graph_module)
    shapes.propagate(copied, example_inputs)
    return copied


def _bypass_branches(network: GatedNetwork, copied: fx.GraphModule) -> None:
    """Let what reads the Add of a closed branch read the other operand, which may itself be the Add of one."""
    by_name = {n.name: n for n in copied.graph.nodes}
    calls = {edit.module_of(network.graph_module, n): n.name for n in network.graph_module.graph.nodes}
    for branch, gate in network.branches:
        if branch.name in network.closed_branches:
            add = by_name[branch.add.name]
            left, right = add.args[:2]
            edit.bypass(add, right if left is by_name[calls[gate]] else left)


def _bypass_activations(network: GatedNetwork, copied: fx.GraphModule) -> None:
    """Let what reads the gate of an activation read the activation, or where it is closed, what that reads."""
    by_name = {n.name: n for n in copied.graph.nodes}
    calls = {edit.module_of(network.graph_module, n): n.name for n in network.graph_module.graph.nodes}
    for activation, gate in network.activations:
        node = by_name.get(calls[gate])  # gone with its branch
        if node is not None and not edit.is_erased(node):
            activated, source = node.all_input_nodes
            edit.bypass(node, source if activation.name in network.closed_branches else activated)


def _mask_shortcuts(network: GatedNetwork, copied: fx.GraphModule, labelling: Labelling) -> None:
    """Where a shortcut carries only some of the channels that are left, multiply the others by zero; drop one that carries none."""
    by_name = {n.name: n for n in copied.graph.nodes}
    calls = {edit.module_of(network.graph_module, n): n.name for n in network.graph_module.graph.nodes}
    for shortcut, gate in network.shortcuts:
        node, alive = by_name[calls[gate]], shortcut.alive(network.is_open)
        left = alive if shortcut.carried is None else alive[network.is_open[shortcut.carried]]
        if left.all():
            continue
        if shortcut.is_plain and not left.any():
            add = by_name[shortcut.branch.add.name]
            beside = [n for n in add.args[:2] if not _comes_from(n, node)]
            edit.bypass(add, beside[0])
            continue
        mask = torch.from_numpy(left).to(edit.get_attribute(copied, str(node.target)).value.dtype)
        name = edit.fresh_name(copied, f"shortcut_masks.{shortcut.branch.name.replace('#', '_')}")
        edit.set_tensor(copied, name, mask.view(-1, *[1] * (len(shape_of(node)) - 2)))
        with copied.graph.inserting_after(node):
            masked = copied.graph.call_function(torch.ops.aten.mul.Tensor, (node, node))
        node.replace_all_uses_with(masked)
        with copied.graph.inserting_before(masked):
            constant = copied.graph.get_attr(name)
        masked.args = (node, constant)
        masked.meta["shape"] = node.meta["shape"]
        if node in labelling.labels:
            labelling.labels[masked] = labelling.labels[node]


def _comes_from(node: object, source: fx.Node) -> bool:
    """Whether a node is a source or what a chain of operators makes of it."""
    while isinstance(node, fx.Node) and node is not source and len(node.all_input_nodes) == 1:
        node = node.all_input_nodes[0]
    return node is source


def _copy(network: GatedNetwork) -> tuple[fx.GraphModule, Labelling]:
    """Copy the graph, for now with the network's own tensors, and carry the labelling over to the copy's nodes by name."""
    copied = edit.clone(network.graph_module, share_tensors=True)
    by_name = {n.name: n for n in copied.graph.nodes}
    for node in network.graph_module.graph.nodes:
        by_name[node.name].meta = dict(node.meta)
    old = network.groups.labelling
    new = copy.copy(old)
    new.graph_module = copied
    new.labels = {by_name[n.name]: labels for n, labels in old.labels.items() if n.name in by_name}
    new.tuples = {by_name[n.name]: parts for n, parts in old.tuples.items() if n.name in by_name}
    for node in copied.graph.nodes:  # a gate carries the labels of what it gates
        module = edit.module_of(copied, node)
        if isinstance(module, Gate | ActivationGate) and node.all_input_nodes[0] in new.labels:
            new.labels[node] = new.labels[node.all_input_nodes[0]]
    return copied, new


class _Cut:
    """Cuts layers, constants and the arguments of operators."""

    def __init__(self, graph_module: fx.GraphModule, labelling: Labelling, is_open: Mask) -> None:
        self.graph_module, self.labelling, self.is_open = graph_module, labelling, is_open
        self.done: set[str] = set()

    def kept(self, node: fx.Node, axis: int) -> Mask | None:
        """Positions along an axis that survive, or None if all do."""
        mask = self.labelling.kept_along(node, axis, self.is_open)
        return None if mask is None or bool(mask.all()) else mask

    def node(self, node: fx.Node) -> None:
        """Cut whatever a node owns."""
        if node.op == "call_module" and str(node.target) not in self.done:
            self.done.add(str(node.target))
            self._layer(node)
        elif node.op == "get_attr" and str(node.target) not in self.done:
            self.done.add(str(node.target))
            self._constant(node)
        elif node.op == "call_function":
            handler = _ARGUMENTS.get(kind_of(self.graph_module, node))
            if handler is not None:
                handler(self, node)

    def _layer(self, node: fx.Node) -> None:
        module: Any = edit.module_of(self.graph_module, node)
        if isinstance(module, Gate) or not node.all_input_nodes:
            return
        source = node.all_input_nodes[0]
        if isinstance(module, (*CONVS, *TRANSPOSED, nn.Linear)):
            axis = channel_axis(module, len(shape_of(node)))
            inputs, outputs = self.kept(source, axis), self.kept(node, axis)
            if any(mask is not None and not mask.any() for mask in (inputs, outputs)):
                raise FuPrunerError(
                    f"{node.target} would lose all of its channels.", hint="Close its branch, or keep one channel."
                )
            if inputs is not None or outputs is not None:
                edit.replace_module(self.graph_module, node, cut_weighted(module, _index(inputs), _index(outputs)))
        elif isinstance(module, (*NORMS, *INSTANCE_NORMS, nn.PReLU, nn.GroupNorm)):
            kept = self.kept(node, 1)
            if kept is not None:
                edit.replace_module(self.graph_module, node, cut_per_channel(module, _index(kept)))

    def _constant(self, node: fx.Node) -> None:
        value: Tensor = edit.get_attribute(self.graph_module, str(node.target))
        for axis in range(value.dim() if isinstance(value, Tensor) else 0):
            kept = self.kept(node, axis)
            if kept is not None:
                cut = value.detach().index_select(axis, _index(kept))
                edit.set_tensor(
                    self.graph_module, str(node.target), nn.Parameter(cut) if isinstance(value, nn.Parameter) else cut
                )

    def sizes(self, node: fx.Node, position: int) -> None:
        """Rewrite a list of sizes (reshape, expand, unflatten) to the surviving lengths."""
        given = list(node.args[position])  # type: ignore[arg-type]
        first = int(node.args[1]) % len(shape_of(node.all_input_nodes[0])) if position == 2 else 0  # type: ignore[arg-type]
        for i, size in enumerate(given):
            mask = self.kept(node, first + i) if isinstance(size, int) and size > 1 else None
            if mask is not None:
                given[i] = int(mask.sum())
        _set_argument(node, position, given)

    def split(self, node: fx.Node) -> None:
        """A chunk or split along channels becomes a split into the surviving lengths."""
        source = node.all_input_nodes[0]
        axis = int(argument(node, 2, "dim", 0)) % len(shape_of(source))
        mask = self.kept(source, axis)
        if mask is None:
            return
        edges = np.cumsum([0, *split_sizes(node, len(mask))])
        node.target = torch.ops.aten.split_with_sizes.default
        node.args = (source, [int(mask[a:b].sum()) for a, b in pairwise(edges)], axis)

    def slice(self, node: fx.Node) -> None:
        """Move the ends of a slice to where its channels lie now."""
        source = node.all_input_nodes[0]
        axis = int(argument(node, 1, "dim", 0)) % len(shape_of(source))
        mask = self.kept(source, axis)
        if mask is None:
            return
        start, stop, step = slice(
            argument(node, 2, "start", 0), argument(node, 3, "end", None), argument(node, 4, "step", 1)
        ).indices(len(mask))
        first = int(mask[:start].sum())
        node.args = (source, axis, first, first + int(mask[start:stop].sum()), step)

    def pad(self, node: fx.Node) -> None:
        """Pad by as many zero channels as survive."""
        source = node.all_input_nodes[0]
        pads = list(node.args[1])  # type: ignore[arg-type]
        for i in range(0, len(pads), 2):
            axis = len(shape_of(source)) - 1 - i // 2
            mask = self.kept(node, axis)
            if mask is not None and (pads[i] or pads[i + 1]):
                pads[i], pads[i + 1] = (
                    int(mask[: pads[i]].sum()),
                    int(mask[len(mask) - pads[i + 1] :].sum()) if pads[i + 1] else 0,
                )
        _set_argument(node, 1, pads)


def _keep_scale(cut: _Cut, node: fx.Node) -> None:
    """Attention divides by the root of the width of its queries unless told otherwise: tell it the width from before."""
    query = node.all_input_nodes[0]
    if node.kwargs.get("scale") is None and cut.kept(query, len(shape_of(query)) - 1) is not None:
        node.kwargs = {**node.kwargs, "scale": shape_of(query)[-1] ** -0.5}


_ARGUMENTS: dict[str, Callable[[_Cut, fx.Node], None]] = {
    "reshape": lambda cut, node: cut.sizes(node, 1), "view": lambda cut, node: cut.sizes(node, 1),
    "expand": lambda cut, node: cut.sizes(node, 1), "unflatten": lambda cut, node: cut.sizes(node, 2),
    "chunk": _Cut.split, "split": _Cut.split, "split_with_sizes": _Cut.split,
    "scaled_dot_product_attention": _keep_scale, "slice": _Cut.slice, "pad": _Cut.pad, "constant_pad_nd": _Cut.pad,
}  # fmt: skip


def _set_argument(node: fx.Node, position: int, value: Any) -> None:
    node.args = (*node.args[:position], value, *node.args[position + 1 :])


def _index(mask: Mask | None) -> Any:
    return None if mask is None else torch.from_numpy(np.flatnonzero(mask))


def cut_weighted(layer: Any, inputs: Tensor | None, outputs: Tensor | None) -> nn.Module:
    """A copy of a convolution, transposed convolution or linear layer with some input and output channels.

    Args:
        layer: grouped layers lose whole groups, or the channels at the same places in every group.
        inputs: indices to keep; None keeps all.
        outputs: the same.
    """
    weight, transposed = layer.weight.detach(), isinstance(layer, TRANSPOSED)
    groups = getattr(layer, "groups", 1)
    in_axis, out_axis = (0, 1) if transposed else (1, 0)
    alive = groups
    if groups > 1:
        rows, columns = (inputs, outputs) if transposed else (outputs, inputs)
        weight = weight if rows is None else weight.index_select(0, rows)
        if columns is not None:
            alive, places = _in_group(columns, weight.shape[1])
            weight = weight.index_select(1, places)
    else:
        weight = weight if inputs is None else weight.index_select(in_axis, inputs)
        weight = weight if outputs is None else weight.index_select(out_axis, outputs)
    changed = copy.copy(layer)
    bias = (
        layer.bias
        if layer.bias is None or outputs is None
        else nn.Parameter(layer.bias.detach().index_select(0, outputs))
    )
    changed._parameters = {"weight": nn.Parameter(weight.contiguous()), "bias": bias}
    changed._buffers, changed._modules = dict(layer._buffers), {}
    if isinstance(layer, nn.Linear):
        changed.out_features, changed.in_features = weight.shape
        return changed  # type: ignore[no-any-return]
    n_in = layer.in_channels if inputs is None else len(inputs)
    changed.groups = alive
    changed.in_channels, changed.out_channels = n_in, layer.out_channels if outputs is None else len(outputs)
    return changed  # type: ignore[no-any-return]


def _in_group(kept: Tensor, width: int) -> tuple[int, Tensor]:
    """How many groups have channels left, and the places inside a group that are kept; the same ones in every group."""
    group = kept // width
    return len(group.unique()), kept[group == group[0]] % width


_COUNTS: dict[type[nn.Module], str] = {nn.PReLU: "num_parameters", nn.GroupNorm: "num_channels"}


def cut_per_channel(layer: Any, kept: Tensor) -> nn.Module:
    """A copy of a norm or PReLU with some of its channels."""
    changed = copy.copy(layer)
    attribute = _COUNTS.get(type(layer), "num_features")
    size = getattr(layer, attribute)

    def cut(tensor: Tensor) -> Tensor:
        if tensor.dim() != 1 or len(tensor) != size or size == 1:
            return tensor
        return tensor.detach().index_select(0, kept)

    changed._parameters = {k: None if p is None else nn.Parameter(cut(p)) for k, p in layer._parameters.items()}
    changed._buffers = {k: None if b is None else cut(b) for k, b in layer._buffers.items()}
    changed._modules = {}
    setattr(changed, attribute, len(kept))
    if isinstance(layer, nn.GroupNorm):
        changed.num_groups = layer.num_groups * len(kept) // size
    return changed  # type: ignore[no-any-return]
