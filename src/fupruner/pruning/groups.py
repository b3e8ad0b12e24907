"""Channel groups: units with the same producers and consumers, listed together."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import fx, nn

from fupruner.graph import edit
from fupruner.graph.cost import CONVS, TRANSPOSED
from fupruner.pruning.labels import Labelling
from fupruner.records import GroupRecord

WEIGHTED = (*CONVS, *TRANSPOSED, nn.Linear)


@dataclass
class Group:
    """Units that are interchangeable: each is one channel (or block of channels) in the same layers.

    Attributes:
        name: the first producer.
        units: (n,) the units, in the order in which the first producer emits them.
        producers: layers whose output channels belong to the group.
        consumers: layers whose input channels belong to the group.
        frozen: why the group cannot be pruned, or empty.
        width: channels of the first producer that one unit stands for.
    """

    name: str
    units: NDArray[np.int64]
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    frozen: str = ""
    width: int = 1

    def record(self) -> GroupRecord:
        """The JSON-ready form."""
        return GroupRecord(
            name=self.name,
            channels=len(self.units),
            producers=self.producers,
            consumers=self.consumers,
            frozen=self.frozen,
        )


@dataclass
class ChannelGroups:
    """All groups of a graph with the labelling that they come from."""

    labelling: Labelling
    groups: list[Group] = field(default_factory=list)

    @property
    def prunable(self) -> list[Group]:
        """Groups that may be pruned."""
        return [g for g in self.groups if not g.frozen]


def channel_axis(module: nn.Module, dims: int) -> int:
    """Axis along which a layer's channels lie: the last one for linear layers, 1 for everything else."""
    return dims - 1 if isinstance(module, nn.Linear) else 1


def find_groups(graph_module: fx.GraphModule) -> ChannelGroups:
    """Group the channels of a graph whose shapes were propagated."""
    labelling = Labelling(graph_module)
    sites: dict[int, list[tuple[str, str]]] = defaultdict(list)
    order: dict[int, int] = {}
    channels: dict[int, dict[str, int]] = defaultdict(dict)
    for node in graph_module.graph.nodes:
        module = edit.module_of(graph_module, node)
        if not isinstance(module, WEIGHTED):
            continue
        for role, tensor in (("consumer", node.all_input_nodes[0]), ("producer", node)):
            labels = labelling.of(tensor)
            if labels is None:
                continue
            for unit, count in _counted(labelling.unit_of[labels.ravel()]).items():
                sites[unit].append((role, str(node.target)))
                if role == "producer":
                    order.setdefault(unit, len(order))
                    channels[unit].setdefault(str(node.target), count)
    return ChannelGroups(labelling, _collect(labelling, sites, order, channels))


def _counted(units: NDArray[np.int64]) -> dict[int, int]:
    """How often each unit occurs, in the order of first occurrence."""
    found, first, counts = np.unique(units, return_index=True, return_counts=True)
    order = np.argsort(first)
    return dict(zip(found[order].tolist(), counts[order].tolist(), strict=True))


def _collect(
    labelling: Labelling,
    sites: dict[int, list[tuple[str, str]]],
    order: dict[int, int],
    channels: dict[int, dict[str, int]],
) -> list[Group]:
    members: dict[tuple[tuple[tuple[str, str], ...], str], list[int]] = defaultdict(list)
    for unit in sorted(order, key=order.__getitem__):
        members[(tuple(dict.fromkeys(sites[unit])), labelling.frozen.get(unit, ""))].append(unit)
    groups = []
    names: set[str] = set()
    for (signature, frozen), units in members.items():
        producers = tuple(name for role, name in signature if role == "producer")
        consumers = tuple(name for role, name in signature if role == "consumer")
        name, count = producers[0], 1
        while name in names:
            count += 1
            name = f"{producers[0]}#{count}"
        names.add(name)
        groups.append(Group(name, np.array(units), producers, consumers, frozen, channels[units[0]][producers[0]]))
    return groups
