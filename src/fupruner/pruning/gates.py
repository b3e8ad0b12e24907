"""Gates: what can be removed is multiplied by 1 or 0, so that closing it can be tried, scored and taken back.

A closed unit is zero wherever a layer reads it: behind each layer that makes channels, each norm, and every operator that
would turn a zero into something else stands a gate. That is what makes slimming exact. While training goes on, gates close
softly: a closing gate multiplies by less and less, so that the network gets used to it, and what lies behind it keeps
receiving gradients and can come back. A gate stands as late as possible, behind activations and Adds: fewer gates, and
activations see what they would see without.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from fupruner.errors import InputError
from fupruner.graph import edit
from fupruner.graph.cost import NORMS, PricedLayer, layer_shapes
from fupruner.graph.shapes import shape_of
from fupruner.graph.text import kind_of
from fupruner.pruning.activations import Activation, find_activations
from fupruner.pruning.branches import Branch, find_branches
from fupruner.pruning.groups import WEIGHTED, ChannelGroups, channel_axis, find_groups
from fupruner.pruning.labels import Labels, varies_only_along
from fupruner.pruning.operators import INSTANCE_NORMS, PER_CHANNEL
from fupruner.pruning.shortcuts import Shortcut, find_shortcuts
from fupruner.pruning.structure import STRUCTURE

_MOVES_ZERO = (nn.Sigmoid, nn.Hardsigmoid, nn.Softplus)
_ZERO_STAYS = {"relu", "tanh", "silu", "gelu", "hardswish", "leaky_relu", "elu", "mish", "relu6", "abs", "neg", "square", "sqrt", "erf",
               "sign", "round", "floor", "dropout", "to", "_to_copy", "celu", "selu", "hardtanh"}  # fmt: skip


class Gate(nn.Module):
    """Multiplies the channels of a tensor along one axis by 1 (open), by 0 (closed) or by something between (closing).

    Args:
        channels: length of the axis; 1 gates the whole tensor.
        axis: the axis, batch included.
        dims: axes of the tensor.
        samples: the axis of the batch; None where samples cannot be told apart, so that the gate cannot be scored.
    """

    value: Tensor

    def __init__(self, channels: int, axis: int, dims: int, samples: int | None = 0) -> None:
        super().__init__()
        self.shape = [channels if d == axis else 1 for d in range(dims)]
        self.axis, self.channels, self.samples = axis, channels, samples
        self.register_buffer("value", torch.ones(self.shape), persistent=False)
        self.all_open = True
        self.scored: Tensor | None = None

    def set(self, closed: NDArray[np.bool_], softness: float = 0.0) -> None:
        """Multiply the channels that are True by ``softness``, and open the others."""
        value = np.where(closed, softness, 1.0)
        self.value.copy_(torch.from_numpy(value).view(self.shape))
        self.all_open = not closed.any()

    def start_scoring(self) -> None:
        """From the next forward pass on, keep a gate variable per sample and channel, so that its gradient can be read."""
        self.scored = None if self.samples is None else torch.empty(0)

    def stop_scoring(self) -> None:
        """Forget the gate variables."""
        self.scored = None

    def gradients(self) -> Tensor | None:
        """Gradient of the loss with respect to the gate per sample and channel, (N, C), after a backward pass."""
        if self.scored is None or self.scored.grad is None or self.samples is None:
            return None
        return self.scored.grad.movedim(self.samples, 0).flatten(1).float()

    def forward(self, x: Tensor) -> Tensor:
        """Scale the channels."""
        if self.scored is not None:
            per_sample = [
                n if d == self.samples else m for d, (n, m) in enumerate(zip(x.shape, self.shape, strict=True))
            ]
            self.scored = self.value.to(x.dtype).expand(per_sample).clone().requires_grad_(True)
            return x * self.scored
        return x if self.all_open else x * self.value.to(x.dtype)


class ActivationGate(nn.Module):
    """Lets an activation act (open) or replaces it by the identity (closed), or something between (closing)."""

    value: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("value", torch.ones(()), persistent=False)
        self.is_open = True

    def set(self, closed: bool, softness: float = 0.0) -> None:
        """Keep ``softness`` of the activation if it is closed, else all of it."""
        self.value.fill_(softness if closed else 1.0)
        self.is_open = not closed

    def forward(self, activated: Tensor, x: Tensor) -> Tensor:
        """Choose between an activation's output and its input."""
        return activated if self.is_open else torch.lerp(x, activated, self.value.to(x.dtype))


@dataclass
class GatedNetwork:
    """A graph with gates at every place where a prunable unit lives, and at every residual branch.

    Attributes:
        graph_module: the graph that trains; in eval mode with all gates open it equals the graph it was made from.
        groups: its channel groups.
        gates: each gate with the unit of each of its channels.
        branches: each branch with its gate.
        layers: the graph's layers as a device sees them, all gates open.
        is_open: (units,) which units are open now.
        closed_branches: names of branches, and of activations, that are closed now.
        softness: what closed gates multiply by now.
        activations: each activation that may be switched off, with its gate.
        shortcuts: each shortcut whose channels have gates of their own; they are among ``gates``.
    """

    graph_module: fx.GraphModule
    groups: ChannelGroups
    gates: list[tuple[Gate, Labels]]
    branches: list[tuple[Branch, Gate]]
    layers: list[PricedLayer]
    is_open: NDArray[np.bool_]
    closed_branches: frozenset[str] = frozenset()
    softness: float = 0.0
    activations: list[tuple[Activation, ActivationGate]] = field(default_factory=list)
    shortcuts: list[tuple[Shortcut, Gate]] = field(default_factory=list)

    def set(self, is_open: NDArray[np.bool_], closed_branches: frozenset[str], softness: float = 0.0) -> None:
        """Open and close gates.

        Args:
            is_open: (units,) True keeps a unit.
            closed_branches: names of the branches, and of the activations, to switch off.
            softness: what closed gates multiply by; 0 once and for all, more while they are only closing.
        """
        self.is_open, self.closed_branches, self.softness = is_open.copy(), closed_branches, softness
        for shortcut, _ in self.shortcuts:
            if shortcut.branch.name in closed_branches:  # the shortcut is all that is left of the block
                self.is_open[shortcut.group.units] = True
        for gate, units in self.gates:
            gate.set(~self.is_open[units], softness)
        for branch, gate in self.branches:
            gate.set(np.array([branch.name in closed_branches]), softness)
        for activation, switch in self.activations:
            switch.set(activation.name in closed_branches, softness)


def insert_gates(
    graph_module: fx.GraphModule,
    *,
    activations: bool = False,
    reserved: Collection[str] = (),
    share_tensors: bool = False,
) -> GatedNetwork:
    """Put gates into a copy of a graph whose shapes were propagated.

    Args:
        graph_module: it is not modified.
        activations: whether to gate activations too; that pays only if what was around a closed one is fused before it ships.
        reserved: names of Adds whose shortcuts fusion turns into filters before it ships: each channel that they carry gets a gate.
        share_tensors: use the graph's own weights, which saves their memory; for networks that are not trained.
    """
    copied = edit.clone(graph_module, share_tensors=share_tensors)
    groups = find_groups(copied)
    found = find_branches(copied)
    shortcuts = find_shortcuts(copied, found, groups.labelling, reserved)
    layers = layer_shapes(copied)
    switches = find_activations(copied, frozenset(b.name for b in found)) if activations else []
    prunable = np.zeros(max(1, groups.labelling.units), dtype=bool)
    for group in groups.prunable:
        prunable[group.units] = True
    gates = [_insert(copied, node, units, axis) for node, units, axis in _gate_points(copied, groups, prunable)]
    branches = [(branch, _insert_branch(copied, branch)) for branch in found]
    switched = [(activation, _insert_switch(copied, activation)) for activation in switches]
    carried = [(shortcut, _insert_shortcut(copied, shortcut)) for shortcut in shortcuts]
    copied.graph.lint()
    copied.recompile()
    is_open = np.ones(groups.labelling.units, dtype=bool)
    gates += [(gate, shortcut.group.units) for shortcut, gate in carried]
    return GatedNetwork(copied, groups, gates, branches, layers, is_open, activations=switched, shortcuts=carried)


def require_prunable(network: GatedNetwork) -> None:
    """Raise an ``InputError`` if nothing of a network can be closed."""
    if not network.groups.prunable and not network.branches:
        raise InputError("There is nothing to prune: no channel and no branch of this network can be removed.")


def _gate_points(
    graph_module: fx.GraphModule, groups: ChannelGroups, prunable: NDArray[np.bool_]
) -> list[tuple[fx.Node, Labels, int]]:
    points: dict[fx.Node, tuple[fx.Node, Labels, int]] = {}
    for node in groups.labelling.labels:
        units, axis = _units_of(graph_module, groups, node)
        if units is None or not prunable[units].any() or keeps_zero(graph_module, groups, node):
            continue
        place = _as_late_as_possible(graph_module, groups, node, units)
        points[place] = (place, units, axis)
    return list(points.values())


def _units_of(graph_module: fx.GraphModule, groups: ChannelGroups, node: fx.Node) -> tuple[Labels | None, int]:
    """Unit of each channel of a tensor and the axis they lie along; None where labels lie along several axes."""
    labels = groups.labelling.labels[node]
    module = edit.module_of(graph_module, node)
    long = [d for d, n in enumerate(labels.shape) if n > 1]
    axis = (
        channel_axis(module, labels.ndim)
        if module is not None
        else long[0]
        if len(long) == 1
        else min(1, labels.ndim - 1)
    )
    return (groups.labelling.unit_of[labels.ravel()], axis) if varies_only_along(labels, axis) else (None, axis)


def _as_late_as_possible(graph_module: fx.GraphModule, groups: ChannelGroups, node: fx.Node, units: Labels) -> fx.Node:
    """Move over norms, activations, pools and Adds that are the only reader and work on the same units."""
    while len(node.users) == 1:
        user = next(iter(node.users))
        module = edit.module_of(graph_module, user)
        channelwise = isinstance(module, (*PER_CHANNEL, *NORMS, *INSTANCE_NORMS, nn.PReLU)) or kind_of(
            graph_module, user
        ) in ("add", "mul", "relu")
        if not channelwise or user not in groups.labelling.labels:
            break
        behind, _ = _units_of(graph_module, groups, user)
        if behind is None or not np.array_equal(behind, units):
            break
        node = user
    return node


def keeps_zero(graph_module: fx.GraphModule, groups: ChannelGroups, node: fx.Node) -> bool:
    """Whether a channel that is zero in every operand is zero in the result."""
    module = edit.module_of(graph_module, node)
    if module is not None:
        if isinstance(module, nn.Hardtanh) and not isinstance(module, nn.ReLU6):
            return bool(module.min_val <= 0 <= module.max_val)
        if isinstance(module, (*WEIGHTED, *NORMS, *INSTANCE_NORMS, *_MOVES_ZERO)):
            return False
        return isinstance(module, (*PER_CHANNEL, nn.PReLU, nn.Flatten))
    if node.op != "call_function":
        return True
    name = kind_of(graph_module, node)
    tensors = [n for n in node.all_input_nodes if shape_of(n)]
    labelled = [n for n in tensors if n in groups.labelling.labels]
    if name == "mul":
        return bool(labelled)
    if name in ("add", "sub", "maximum", "minimum"):
        numbers = [a for a in node.args if isinstance(a, int | float)]
        return not numbers and len(labelled) == len(tensors) and all(n.op != "get_attr" for n in tensors)
    return (
        name in _ZERO_STAYS
        or (name in STRUCTURE and name != "softmax")
        or name.startswith(("max_pool", "avg_pool", "adaptive", "upsample", "getitem"))
    )


def _insert(graph_module: fx.GraphModule, node: fx.Node, units: Labels, axis: int) -> tuple[Gate, Labels]:
    gate = Gate(len(units), axis, len(shape_of(node)) or 4, _axis_of_samples(graph_module, node, axis))
    users = list(node.users)
    gate_node = edit.add_call(graph_module, f"gates.{node.name}", gate, (node,), after=node)
    for user in users:
        user.replace_input_with(node, gate_node)
    return gate, units


def _axis_of_samples(graph_module: fx.GraphModule, node: fx.Node, channels: int) -> int | None:
    """The axis of a tensor that the batch lies along: the first one, or where that is longer, another one of its length."""
    batch = shape_of(next(n for n in graph_module.graph.nodes if n.op == "placeholder"))[:1]
    shape = shape_of(node)
    if not batch or shape[:1] in ((), batch):
        return 0
    return next((d for d, n in enumerate(shape) if n == batch[0] and d != channels), None)


def _insert_branch(graph_module: fx.GraphModule, branch: Branch) -> Gate:
    """Gate the operand as the Add reads it now: a channel gate may have been put behind it."""
    operand = next(
        n
        for n in branch.add.all_input_nodes
        if n is branch.operand or (branch.operand in n.all_input_nodes and _is_gate(graph_module, n))
    )
    gate = Gate(1, 1, len(shape_of(branch.operand)), _axis_of_samples(graph_module, branch.operand, -1))
    gate_node = edit.add_call(
        graph_module, f"gates.branch.{branch.name.replace('#', '_')}", gate, (operand,), after=operand
    )
    branch.add.replace_input_with(operand, gate_node)
    return gate


def _insert_shortcut(graph_module: fx.GraphModule, shortcut: Shortcut) -> Gate:
    """Gate what a shortcut reads, and nothing else that reads it: a channel gate may have been put behind the source."""
    source, entry = shortcut.source, shortcut.entry
    read = next(
        n
        for n in entry.all_input_nodes
        if n is source
        or (source in n.all_input_nodes and _is_gate(graph_module, n) and n is not shortcut.branch.operand)
    )
    shape = shape_of(source)
    gate = Gate(shape[1], 1, len(shape), _axis_of_samples(graph_module, source, 1))
    name = f"gates.shortcut.{shortcut.branch.name.replace('#', '_')}"
    gate_node = edit.add_call(graph_module, name, gate, (read,), after=read)
    entry.replace_input_with(read, gate_node)
    return gate


def _insert_switch(graph_module: fx.GraphModule, activation: Activation) -> ActivationGate:
    """Gate an activation: what read it reads its gate, which also reads what the activation reads."""
    node, gate = activation.node, ActivationGate()
    source, users = node.all_input_nodes[0], list(node.users)
    gate_node = edit.add_call(graph_module, f"gates.activation.{node.name}", gate, (node, source), after=node)
    for user in users:
        user.replace_input_with(node, gate_node)
    return gate


def _is_gate(graph_module: fx.GraphModule, node: fx.Node) -> bool:
    return isinstance(edit.module_of(graph_module, node), Gate)
