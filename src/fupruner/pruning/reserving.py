"""What residual blocks look like to a device once their shortcuts have become filters."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import fx

from fupruner.graph.layer_shape import LayerShape
from fupruner.pruning.gates import GatedNetwork
from fupruner.pruning.shortcuts import Shortcut

Form = Literal["fused", "cheaper"]
Open = NDArray[np.bool_]


@dataclass(frozen=True)
class ReservedBlock:
    """A block with a gated shortcut, by the indices of its layers among those of the network.

    Attributes:
        layers: everything whose shape depends on whether the shortcut is an Add or filters.
        first: the convolution that gets the reserved filters.
        last: the one that reads them, and does the Add.
        between: what lies between them and carries the channels on.
        gone: layers of the shortcut itself and its Add.
    """

    shortcut: Shortcut
    layers: tuple[int, ...]
    first: int
    last: int
    between: frozenset[int]
    gone: frozenset[int]

    @property
    def name(self) -> str:
        """Name of the branch."""
        return self.shortcut.branch.name

    @property
    def units(self) -> NDArray[np.int64]:
        """Units that say how many channels are carried."""
        own, carried = self.shortcut.group.units, self.shortcut.carried
        return own if carried is None else np.concatenate([own, carried])

    def fused(self, without_add: dict[int, LayerShape | None], is_open: Open) -> dict[int, LayerShape | None]:
        """Shapes of the block's layers when the channels that are carried now are filters.

        Args:
            without_add: the layers as cut, with no Add merged into them.
            is_open: (units,) open units.
        """
        count = int(np.count_nonzero(self.shortcut.alive(is_open)))
        return {i: None if i in self.gone else self._widened(i, shape, count) for i, shape in without_add.items()}

    def _widened(self, i: int, shape: LayerShape | None, count: int) -> LayerShape | None:
        if shape is None or count == 0:
            return shape
        changes: dict[str, Any] = {}
        if i == self.last or i in self.between:
            changes["in_shape"] = (shape.in_shape[0] + count, *shape.in_shape[1:])
        if i == self.first or i in self.between:
            changes["out_shape"] = (shape.out_shape[0] + count, *shape.out_shape[1:])
        if i in self.between and shape.groups > 1:
            changes["groups"] = shape.groups + count
        return dataclasses.replace(shape, **changes) if changes else shape


def reserved_blocks(network: GatedNetwork) -> dict[str, ReservedBlock]:
    """Blocks with gated shortcuts by the names of their branches; of two that share layers only the first one."""
    index: dict[fx.Node, int] = {}
    for i, layer in enumerate(network.layers):
        index.update(dict.fromkeys((layer.node, *layer.merged), i))
    found: dict[str, ReservedBlock] = {}
    taken: set[int] = set()
    for shortcut, _ in network.shortcuts:
        block = _block(shortcut, network, index)
        if not taken.intersection(block.layers):
            taken.update(block.layers)
            found[block.name] = block
    return found


def _block(shortcut: Shortcut, network: GatedNetwork, index: dict[fx.Node, int]) -> ReservedBlock:
    first, last = index[shortcut.convs[0]], index[shortcut.convs[-1]]
    inner = {index[node] for node in shortcut.branch.nodes if node in index}
    beside = {i for i, layer in enumerate(network.layers) if layer.node in shortcut.path}
    add = index[shortcut.branch.add]
    own_add = {add} if network.layers[add].node is shortcut.branch.add else set()
    layers = tuple(sorted(inner | beside | {add}))
    between = frozenset(i for i in inner if first < i < last)
    return ReservedBlock(shortcut, layers, first, last, between, frozenset(beside | own_add))
