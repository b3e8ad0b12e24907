"""What a gated network would cost on the target if its gates were cut now."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import fx, nn

from fupruner.graph import edit
from fupruner.graph.cost import PricedLayer
from fupruner.graph.layer_shape import LayerShape
from fupruner.graph.shapes import shape_of
from fupruner.pruning.activations import merged_shape
from fupruner.pruning.gates import GatedNetwork
from fupruner.pruning.groups import Group, channel_axis
from fupruner.pruning.labels import Labels
from fupruner.pruning.reserving import Form, ReservedBlock, reserved_blocks
from fupruner.targets.cost_model import CostModel

Open = NDArray[np.bool_]


@dataclass(frozen=True)
class _Priced:
    """A layer with the units of its input and output channels; None where channels are not followed.

    Attributes:
        axis_in: of the channels in the layer's input shape, counted from the end.
        axis_out: the same in its output shape.
    """

    layer: PricedLayer
    inputs: Labels | None
    outputs: Labels | None
    axis_in: int
    axis_out: int


@dataclass(frozen=True)
class _Chain:
    """An activation with the layers around it, by index; ``own`` is ``first`` where a runtime merges the activation into that."""

    name: str
    first: int
    own: int
    second: int


class Pricer:
    """Predicts the time of a network for any state of its gates.

    Args:
        network: a gated network.
        cost_model: prices layers; every shape is asked for once.
        form: in which blocks with gated shortcuts ship: ``fused``, their shortcuts have become filters, or the ``cheaper`` of that
            and an Add.
    """

    def __init__(self, network: GatedNetwork, cost_model: CostModel, form: Form = "cheaper") -> None:
        self.network, self.cost_model, self.form = network, cost_model, form
        self.layers = [self._priced(layer) for layer in network.layers]
        self.known: dict[LayerShape, float] = {}
        self.wanted: set[LayerShape] | None = None
        self.branches = {branch.name: branch for branch, _ in network.branches}
        self.activations = {activation.name: activation for activation, _ in network.activations}
        self.chains = self._chains()
        self.blocks = reserved_blocks(network)
        self.block_of = {i: block for block in self.blocks.values() for i in block.layers}
        self._shaped: dict[tuple[Any, ...], LayerShape] = {}
        self._by_group = self._layers_by_group()

    def _layers_by_group(self) -> dict[str, list[int]]:
        """By name of a group: the layers that read or make channels of it, or stand in a block that carries them."""
        groups = [*self.network.groups.groups, *(shortcut.group for shortcut, _ in self.network.shortcuts)]
        group_of = np.full(self.network.groups.labelling.units, len(groups))
        for number, group in enumerate(groups):
            group_of[group.units] = number
        found: dict[str, list[int]] = {group.name: [] for group in groups}
        for block in self.blocks.values():
            for number in np.unique(group_of[block.units]).tolist():
                if number < len(groups):
                    found[groups[number].name].extend(block.layers)
        for i, priced in enumerate(self.layers):
            seen = np.zeros(len(groups) + 1, dtype=bool)
            for units in (priced.inputs, priced.outputs):
                if units is not None:
                    seen[group_of[units]] = True
            for number in np.flatnonzero(seen[:-1]).tolist():
                found[groups[number].name].append(i)
        return found

    def _chains(self) -> dict[int, list[_Chain]]:
        """By layer: the activations that it makes, is or is made for, with the layers before and after each."""
        index = {node: i for i, priced in enumerate(self.layers) for node in (priced.layer.node, *priced.layer.merged)}
        chains: dict[int, list[_Chain]] = {}
        for name, activation in self.activations.items():
            chain = _Chain(name, *(index[n] for n in (activation.first, activation.node, activation.second)))
            for i in {chain.first, chain.own, chain.second}:
                chains.setdefault(i, []).append(chain)
        return chains

    def _priced(self, layer: PricedLayer) -> _Priced:
        node = layer.node
        module = edit.module_of(self.network.graph_module, node)
        source = self._source(node)
        inputs, axis_in = self._units(source, module)
        outputs, axis_out = self._units(node, module)
        return _Priced(layer, inputs, outputs, axis_in, axis_out)

    def _source(self, node: fx.Node) -> fx.Node:
        """The tensor that a node reads, looking through the gates."""
        source = node.all_input_nodes[0]
        while (
            source not in self.network.groups.labelling.labels
            and source.all_input_nodes
            and source.name.startswith("gates")
        ):
            source = source.all_input_nodes[0]
        return source

    def _units(self, node: fx.Node, module: nn.Module | None) -> tuple[Labels | None, int]:
        labelling, dims = self.network.groups.labelling, len(shape_of(node))
        labels = labelling.labels.get(node)
        if labels is None:
            return None, channel_axis(module, dims) - dims if module is not None else 1 - dims
        long = [d for d, n in enumerate(labels.shape) if n > 1]
        axis = channel_axis(module, labels.ndim) if module is not None else (long[0] if len(long) == 1 else 1)
        return labelling.units_along(node, axis) if labels.shape[axis] > 1 else None, axis - labels.ndim

    def shapes(
        self, is_open: Open, closed: frozenset[str], which: Iterable[int] | None = None, *, as_shipped: bool = True
    ) -> list[LayerShape | None]:
        """Layer shapes after cutting; None where a layer is gone.

        Args:
            is_open: (units,) open units.
            closed: names of closed branches and activations.
            which: indices of layers; all when None.
            as_shipped: whether shortcuts that ship as filters count as such, or as the Adds that they are while training goes on.
        """
        dead, adds = self._dead(closed)
        found = []
        which = range(len(self.layers)) if which is None else list(which)
        blocks = {self.block_of[i].name: self.block_of[i] for i in which if i in self.block_of}
        fused = self._fused(is_open, closed, blocks.values()) if as_shipped else {}
        for i in which:
            block = self.block_of.get(i)
            if block is not None and block.name in fused:
                found.append(fused[block.name][i])
                continue
            chain = next((c for c in self.chains.get(i, ()) if c.name in closed), None) if self.chains else None
            if chain is None:
                found.append(self._shape(i, is_open, dead, adds))
            else:
                found.append(self._without_activation(i, chain, is_open, dead, adds))
        return found

    def _fused(
        self, is_open: Open, closed: frozenset[str], blocks: Iterable[ReservedBlock]
    ) -> dict[str, dict[int, LayerShape | None]]:
        """Those of some blocks that ship without their Add, with the shapes of their layers.

        A block whose branch is closed, or whose inner activation is, is priced as it stands.
        """
        found = {}
        for block in blocks:
            if block.name in closed or any(c.name in closed for i in block.layers for c in self.chains.get(i, ())):
                continue
            plain = {i: self._shape(i, is_open, set(), set()) for i in block.layers}
            without = {i: self._shape(i, is_open, set(), {block.shortcut.branch.add}) for i in block.layers}
            fused = block.fused(without, is_open)
            if self.form == "fused" or self._is_cheaper(fused.values(), plain.values()):
                found[block.name] = fused
        return found

    def _is_cheaper(self, one: Collection[LayerShape | None], other: Collection[LayerShape | None]) -> bool:
        if self.wanted is not None:
            self.wanted.update(shape for shape in (*one, *other) if shape is not None)
            return True
        return sum(self.prices(one)) <= sum(self.prices(other))

    def foresee(self, look: Callable[[], object]) -> None:
        """Price at once all layers that choosing between forms will ask for, so that they are measured together.

        Args:
            look: asks for shapes; whatever it does is done again afterwards, with prices known.
        """
        if self.form == "fused" or not self.blocks:
            return
        self.wanted = set()
        try:
            look()
            wanted = sorted(self.wanted)
        finally:
            self.wanted = None
        self.prices(wanted)

    def _dead(self, closed: frozenset[str]) -> tuple[set[fx.Node], set[fx.Node]]:
        branches = [self.branches[name] for name in closed if name in self.branches]
        return set().union(*(branch.nodes for branch in branches)), {branch.add for branch in branches}

    def _without_activation(
        self, i: int, chain: _Chain, is_open: Open, dead: set[fx.Node], adds: set[fx.Node]
    ) -> LayerShape | None:
        """Shape of a layer beside a closed activation: the second one takes the first one in, if that is less work."""
        first, second = (self._shape(j, is_open, dead, adds) for j in (chain.first, chain.second))
        merged = merged_shape(first, second) if first is not None and second is not None else None
        if i == chain.second:
            return merged or second
        if i == chain.own != chain.first or merged is not None or first is None:
            return None
        return dataclasses.replace(first, activation="") if chain.own == chain.first else first

    def _shape(self, i: int, is_open: Open, dead: set[fx.Node], adds: set[fx.Node]) -> LayerShape | None:
        """Shape of a layer; what was asked for once is looked up, for searches ask for the same widths again and again."""
        priced = self.layers[i]
        if priced.layer.node in dead or priced.layer.node in adds:
            return None
        inputs = outputs = groups = -1
        if priced.inputs is not None:
            open_inputs = is_open[priced.inputs]
            inputs = int(np.count_nonzero(open_inputs))
            if priced.layer.shape.groups > 1:
                groups = int(np.count_nonzero(open_inputs.reshape(priced.layer.shape.groups, -1).any(axis=1)))
        if priced.outputs is not None:
            outputs = int(np.count_nonzero(is_open[priced.outputs]))
        adds_in = priced.layer.shape.fused_add and not adds.intersection(priced.layer.merged)
        key = (i, inputs, outputs, groups, adds_in)
        if key not in self._shaped:
            self._shaped[key] = _cut_shape(priced, inputs, outputs, groups, adds_in)
        return self._shaped[key]

    def prices(self, shapes: Iterable[LayerShape | None]) -> list[float]:
        """Milliseconds of each shape; 0 where a layer is gone. All unknown shapes are priced together."""
        shapes = list(shapes)
        missing = list(dict.fromkeys(s for s in shapes if s is not None and s not in self.known))
        if missing:
            self.known.update(zip(missing, self.cost_model.price(missing), strict=True))
        return [0.0 if s is None else self.known[s] for s in shapes]

    def total(self, is_open: Open, closed: frozenset[str]) -> float:
        """Milliseconds of the whole network."""
        return self.cost_model.overhead_ms + sum(self.prices(self.shapes(is_open, closed)))

    def widths(self, is_open: Open, closed: frozenset[str]) -> dict[str, int]:
        """Output channels of every layer with weights by name; 0 where it is gone."""
        kinds = ("conv", "conv_transpose", "linear")
        found = zip(self.layers, self.shapes(is_open, closed, as_shipped=False), strict=True)
        return {
            str(priced.layer.node.target): 0 if shape is None else shape.out_shape[priced.axis_out]
            for priced, shape in found
            if priced.layer.shape.kind in kinds
        }

    def layers_of_branch(self, name: str) -> list[int]:
        """Layers that change when a branch closes: its own, its Add, and the one that a runtime merges the Add into."""
        branch = self.branches[name]
        own = {
            i
            for i, priced in enumerate(self.layers)
            if priced.layer.node in branch.nodes or branch.add in (priced.layer.node, *priced.layer.merged)
        }
        return sorted(self._with_blocks(own))

    def layers_of_activation(self, name: str) -> list[int]:
        """Layers that change when an activation closes: itself and those that it stands between."""
        return sorted(i for i, chains in self.chains.items() if any(chain.name == name for chain in chains))

    def beside(self, name: str) -> set[str]:
        """Other activations that share a layer with one: of such neighbours only one may close."""
        return {c.name for i in self.layers_of_activation(name) for c in self.chains[i]} - {name}

    def touched(self, group: Group) -> list[int]:
        """Layers whose shape depends on a group."""
        found = self._by_group[group.name]
        chains = [chain for i in found for chain in self.chains.get(i, ())]
        return sorted(self._with_blocks({*found, *(j for c in chains for j in (c.first, c.own, c.second))}))

    def _with_blocks(self, layers: set[int]) -> set[int]:
        """Some layers, with all layers of the reserved blocks that they belong to: their form may change."""
        return layers.union(*(self.block_of[i].layers for i in layers if i in self.block_of))

    def unfused(self) -> float:
        """Milliseconds of the network as it came, with all of its Adds."""
        shapes = [priced.layer.shape for priced in self.layers]
        return self.cost_model.overhead_ms + sum(self.prices(shapes))


def _cut_shape(priced: _Priced, inputs: int, outputs: int, groups: int, fused_add: bool) -> LayerShape:
    """A layer's shape with fewer channels and groups; -1 where they are not followed."""
    shape = priced.layer.shape
    changes: dict[str, Any] = {"fused_add": fused_add}
    if priced.inputs is not None and inputs < len(priced.inputs):
        changes["in_shape"] = _with_channels(shape.in_shape, priced.axis_in, inputs)
        if shape.groups > 1:
            changes["groups"] = max(1, groups)
    if priced.outputs is not None and outputs < len(priced.outputs):
        changes["out_shape"] = _with_channels(shape.out_shape, priced.axis_out, outputs)
    return dataclasses.replace(shape, **changes)


def _with_channels(shape: tuple[int, ...], axis: int, channels: int) -> tuple[int, ...]:
    position = len(shape) + axis
    return (*shape[:position], channels, *shape[position + 1 :]) if 0 <= position < len(shape) else shape
