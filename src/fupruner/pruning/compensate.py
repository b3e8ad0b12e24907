"""Compensation: before any training, what is left of a layer takes over what the removed channels contributed.

The original and the slimmed network run side by side, layer by layer, on calibration images. Every layer of the slimmed
network is changed by least squares so that its output, computed from what the slimmed network gives it, comes closest
to the original's. The last layer before a residual Add aims at the original's sum instead: it makes up for what the
stream has lost, blocks that are gone included. Each layer sees the corrections of all layers before it. Batch norms get
the statistics of the corrected network without a change of function.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from fupruner.errors import InputError
from fupruner.graph import edit
from fupruner.graph.cost import NORMS, is_add
from fupruner.pruning import least_squares
from fupruner.pruning.gates import GatedNetwork
from fupruner.pruning.groups import channel_axis
from fupruner.pruning.least_squares import ROWS, WIDEST, NormalEquations
from fupruner.pruning.replay import Replay, peak_bytes

RIDGE = 3e-2
MEMORY = 2**30
"""Bytes that tensors of calibration images may take."""


@torch.no_grad()
def compensate(
    network: GatedNetwork,
    slimmed: fx.GraphModule,
    original: fx.GraphModule,
    batches: Iterable[Tensor],
    *,
    ridge: float = RIDGE,
) -> fx.GraphModule:
    """A copy of a slimmed network whose layers make up for what was removed.

    Memory holds the tensors of all images that are still to be read, of both networks. Where they would take more than
    ``MEMORY``, only as many images are used as fit; large images give many positions each, so fewer are enough.

    Args:
        network: the gates that ``slimmed`` was cut by, as they were then.
        slimmed: what ``slim`` returned for the network.
        original: the graph that ``network`` was made from, or one with the same nodes; it says what the outputs should be.
        batches: calibration images, normalised, (N, C, H, W) each.
        ridge: strength of the pull towards the weights as they are, relative to the mean square of the inputs.

    Raises:
        InputError: there are no images, or the network does not take them.
    """
    inputs = list(batches)
    require_fit(original, inputs)
    result = edit.clone(slimmed).eval()
    inputs = _that_fit(inputs, peak_bytes(original, inputs[0][:1]) + peak_bytes(slimmed, inputs[0][:1]))
    _Pass(network, result, edit.clone(original).eval(), inputs, ridge).run()
    return result


def _that_fit(batches: list[Tensor], bytes_per_image: int) -> list[Tensor]:
    """As many images as may be held in memory, at least eight."""
    room, kept = max(8, MEMORY // max(1, bytes_per_image)), []
    for x in batches:
        kept.append(x[:room])
        room -= len(kept[-1])
        if room <= 0:
            break
    return kept


def require_fit(graph_module: fx.GraphModule, batches: Sequence[Tensor]) -> None:
    """Raise an ``InputError`` unless there are calibration images and the network takes them."""
    if not batches:
        raise InputError(
            "There are no calibration images.", hint="The data has no training images, or the split is empty."
        )
    images = batches[0]
    try:
        graph_module(images[:1])
    except (RuntimeError, ValueError) as error:
        shape = "x".join(map(str, images.shape))
        raise InputError(
            f"The network does not take calibration images of shape {shape}: {str(error).splitlines()[0]}"
        ) from None


@dataclass(frozen=True)
class _Goal:
    """What a layer should lead to: a node of the original, reached through norm and Add of the slimmed network.

    Attributes:
        node: its output is the goal.
        norm: stands between the layer and the goal, or None.
        other: node of the slimmed network that is added behind the norm, or None.
    """

    node: fx.Node
    norm: Any = None
    other: fx.Node | None = None


class _Pass:
    """One walk over the slimmed network with the original beside it."""

    def __init__(
        self,
        network: GatedNetwork,
        slimmed: fx.GraphModule,
        original: fx.GraphModule,
        inputs: Sequence[Tensor],
        ridge: float,
    ) -> None:
        self.labelling, self.is_open = network.groups.labelling, network.is_open
        self.slimmed, self.original, self.ridge = slimmed, original, ridge
        self.twin = {node.name: node for node in original.graph.nodes}
        self.gated = {node.name: node for node in network.graph_module.graph.nodes}
        readers = {node: [node, *node.all_input_nodes] for node in slimmed.graph.nodes}
        self.twins = {node: [self.twin[n.name] for n in read if n.name in self.twin] for node, read in readers.items()}
        for node in readers:
            if node.name in self.twin:  # behind a closed activation the original reads another node
                self.twins[node] += self.twin[node.name].all_input_nodes[:1]
        twins = [twin for read in self.twins.values() for twin in read]
        self.small, self.large = Replay(slimmed, inputs), Replay(original, inputs, kept=twins)
        self.ahead: Iterator[fx.Node] = iter(original.graph.nodes)
        self.images = sum(len(x) for x in inputs)
        self.shared = edit.shared_modules(slimmed)
        self.generator = torch.Generator().manual_seed(0)
        self.changed = False

    def run(self) -> None:
        """Change the slimmed network, layer by layer."""
        for node in self.slimmed.graph.nodes:
            if node.op == "output":
                break
            twin = self.twin.get(node.name)
            self.small(node)
            if twin is not None:
                self._advance(twin)
                module = edit.module_of(self.slimmed, node)
                if str(node.target) not in self.shared and least_squares.solvable(module):
                    self._layer(node, module)
                elif str(node.target) not in self.shared and isinstance(module, NORMS) and self.changed:
                    recenter(module, self.small.of(node.all_input_nodes[0]))
            self.small.done(node)
            for read in self.twins[node]:
                self.large.drop(read)

    def _advance(self, until: fx.Node) -> None:
        """Run the original up to a node; tensors stay until the slimmed network has passed their twins."""
        while not self.large.has(until):
            node = next(self.ahead)
            self.large(node)
            self.large.done(node)

    def _layer(self, node: fx.Node, module: Any) -> None:
        """Change one layer and compute its output again."""
        goal = self._goal(node)
        if self._agrees(node) and (goal.other is None or self._agrees(goal.other)):
            return
        self._advance(goal.node)
        narrow = least_squares.unknowns(module) <= WIDEST
        changed = self._all_taps(node, module, goal) if narrow else self._channels(node, module)
        if changed is not None:
            edit.replace_module(self.slimmed, node, changed)
            self.small(node)
            self.changed = True

    def _agrees(self, node: fx.Node) -> bool:
        """Whether a node computes just what its twin computes; so it is as long as nothing was removed."""
        twin = self.twin.get(node.name)
        if twin is None or not self.large.has(twin):
            return False
        return all(torch.equal(a, b) for a, b in zip(self.small.of(node), self.large.of(twin), strict=True))

    def _goal(self, node: fx.Node) -> _Goal:
        """The Add that a layer's output goes into, if the other operand is known by now; else the layer's own output."""
        norm, last = None, node
        while len(last.users) == 1:
            user = next(iter(last.users))
            module = edit.module_of(self.slimmed, user)
            if isinstance(module, NORMS) and norm is None and module.running_var is not None:
                norm = module
            elif is_add(user) and user.name in self.twin:
                other = next((n for n in user.all_input_nodes if n is not last), None)
                return (
                    _Goal(self.twin[user.name], norm, other) if self.small.has(other) else _Goal(self.twin[node.name])
                )
            elif not isinstance(module, nn.Identity | nn.Dropout):
                break
            last = user
        return _Goal(self.twin[node.name])

    def _all_taps(self, node: fx.Node, module: Any, goal: _Goal) -> nn.Module:
        """Solve for all weights of each output at once."""
        sums, axis = NormalEquations(), channel_axis(module, self.small.of(node)[0].dim())
        share = self._share(node, axis, least_squares.unknowns(module))
        for x, r in zip(self.small.of(node.all_input_nodes[0]), self._missing(node, module, goal), strict=True):
            sums.add(*least_squares.rows_of(module, x, r, share, self.generator))
        weight, bias = sums.solve(self.ridge)
        return _with_weights(module, least_squares.weights_of(module, weight), bias.flatten())

    def _missing(self, node: fx.Node, module: Any, goal: _Goal) -> Iterator[Tensor]:
        """What has to be added to a layer's output to reach the goal, per batch."""
        kept = self._kept(node, goal.node.name)
        others = self.small.of(goal.other) if goal.other is not None else [0.0] * len(self.small.inputs)
        for full, now, other in zip(self.large.of(goal.node), self.small.of(node), others, strict=True):
            wanted = full if kept is None else full.index_select(channel_axis(module, full.dim()), kept)
            missing = wanted - other - (now if goal.norm is None else goal.norm(now))
            yield missing if goal.norm is None else _before_norm(goal.norm, missing)

    def _channels(self, node: fx.Node, module: Any) -> nn.Module | None:
        """Solve for the original's input channels as mixtures of those that are left, and fold the mixture into the weights."""
        source = node.all_input_nodes[0]
        full: Any = edit.module_of(self.original, self.twin[node.name])
        twin = self.twin[node.name].all_input_nodes[0]
        if getattr(module, "groups", 1) > 1 or not self.large.has(twin):
            return None
        axis = channel_axis(module, self.small.of(source)[0].dim())
        kept = self._kept(source, source.name)
        sums = NormalEquations()
        share = self._share(source, axis, module.weight.shape[1])
        for x, wanted in zip(self.small.of(source), self.large.of(twin), strict=True):
            now = x if kept is None else torch.zeros_like(wanted).index_copy_(axis, kept, x)
            sums.add(*least_squares.rows_of_channels(module, x, wanted - now, share, self.generator))
        mixture, shift = (part[0].to(full.weight.dtype) for part in sums.solve(self.ridge))
        rows = self._kept(node, node.name)
        weight = full.weight if rows is None else full.weight.index_select(0, rows)
        constant = weight.flatten(2).sum(2) if weight.dim() > 2 else weight
        return _with_weights(module, torch.einsum("oi...,ij->oj...", weight, mixture), constant @ shift)

    def _kept(self, node: fx.Node, name: str) -> Tensor | None:
        """Indices of the channels of a node that are left, or None if all are."""
        gated = self.gated.get(name)
        if gated is None:
            return None
        dims = self.labelling.labels[gated].ndim if gated in self.labelling.labels else 0
        if not dims:
            return None
        module = edit.module_of(self.slimmed, node)
        mask = self.labelling.kept_along(gated, channel_axis(module, dims) if module is not None else 1, self.is_open)
        return None if mask is None or mask.all() else torch.from_numpy(mask.nonzero()[0])

    def _share(self, node: fx.Node, axis: int, unknowns: int) -> float:
        """Share of the positions of a node's tensors to look at."""
        out: Tensor = self.small.of(node)[0]
        positions = out[0].numel() // max(1, out.shape[axis])
        return max(ROWS, 4 * unknowns) / max(1, self.images * positions)


def recenter(norm: Any, inputs: Sequence[Tensor]) -> None:
    """Give a norm the statistics of these inputs (N, C, ...) without changing what it computes in eval mode.

    Scale and shift take the difference, so that training, which normalises by the batch, starts from the same function.
    """
    if norm.running_var is None or norm.weight is None:
        return
    rows = torch.cat([x.movedim(1, 0).flatten(1) for x in inputs], dim=1)
    mean = rows.mean(1)
    variance = (rows - mean[:, None]).square_().mean(1)  # Tensor.var takes five times as long on a CPU
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    shift = norm.bias - norm.running_mean * scale
    norm.weight.copy_(scale * torch.sqrt(variance + norm.eps))
    norm.bias.copy_(shift + mean * scale)
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance)


def _before_norm(norm: Any, missing: Tensor) -> Tensor:
    """What has to be added in front of a norm so that ``missing`` is added behind it; nothing where it lets nothing through."""
    scale = torch.rsqrt(norm.running_var + norm.eps) * (1.0 if norm.weight is None else norm.weight)
    scale = scale.view(-1, *[1] * (missing.dim() - 2))
    return torch.where(scale.abs() > 1e-4, missing / scale, torch.zeros_like(missing))


def _with_weights(module: Any, weight: Tensor, bias: Tensor) -> nn.Module:
    """A copy of a layer with changes added to its weights and biases."""
    changed = copy.copy(module)
    before = module.bias if module.bias is not None else torch.zeros(len(bias), dtype=module.weight.dtype)
    changed._parameters = {
        "weight": nn.Parameter((module.weight + weight.to(module.weight.dtype)).contiguous()),
        "bias": nn.Parameter(before + bias.to(before.dtype)),
    }
    return changed  # type: ignore[no-any-return]
