"""Channel groups: units with the same producers and consumers, listed together."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import fx, nn

from fupruner.graph import edit
from fupruner.graph.cost import CONVS, TRANSPOSED
from fupruner.pruning.labeller import label
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
    labelling = label(graph_module)
    sites = _Sites(labelling.units)
    for node in graph_module.graph.nodes:
        module = edit.module_of(graph_module, node)
        if not isinstance(module, WEIGHTED):
            continue
        for role, tensor in (("consumer", node.all_input_nodes[0]), ("producer", node)):
            labels = labelling.of(tensor)
            if labels is not None:
                sites.add(role, str(node.target), labelling.unit_of[labels.ravel()])
    return ChannelGroups(labelling, _collect(labelling, sites))


class _Sites:
    """Where each unit is made and read, by number, so that units are handled all at once.

    Attributes:
        lists: distinct lists of (role, layer); the first one is empty.
        of: (units,) the list of each unit.
        order: (units,) when the unit's first producer emits it; -1 without a producer.
        width: (units,) channels of the first producer that the unit stands for.
    """

    def __init__(self, units: int) -> None:
        self.lists: list[tuple[tuple[str, str], ...]] = [()]
        self.of, self.width = np.zeros(units, dtype=np.int64), np.zeros(units, dtype=np.int64)
        self.order = np.full(units, -1, dtype=np.int64)
        self._numbers: dict[tuple[tuple[str, str], ...], int] = {(): 0}

    def add(self, role: str, layer: str, channels: NDArray[np.int64]) -> None:
        """A layer makes or reads some channels, of which the units are given in order."""
        units, counts = _counted(channels)
        lists = self.of[units]
        for number in np.unique(lists).tolist():
            self.of[units[lists == number]] = self._longer(self.lists[number], (role, layer))
        if role == "producer":
            new = self.order[units] < 0
            self.order[units[new]] = self.order.max(initial=-1) + 1 + np.arange(int(new.sum()))
            self.width[units[new]] = counts[new]

    def _longer(self, sites: tuple[tuple[str, str], ...], site: tuple[str, str]) -> int:
        """Number of the list with one more site; of the same list if that is in it already."""
        sites = sites if site in sites else (*sites, site)
        if sites not in self._numbers:
            self._numbers[sites] = len(self.lists)
            self.lists.append(sites)
        return self._numbers[sites]


def _counted(channels: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Units in the order of first occurrence, and how often each occurs."""
    found, first, counts = np.unique(channels, return_index=True, return_counts=True)
    order = np.argsort(first)
    return found[order], counts[order]


def _collect(labelling: Labelling, sites: _Sites) -> list[Group]:
    """Units with the same sites, frozen for the same reason, make a group; groups and units in the order of production."""
    made = np.flatnonzero(sites.order >= 0)
    made = made[np.argsort(sites.order[made])]
    keys = sites.of[made] * len(labelling.reasons) + labelling.frozen[made]
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    groups = []
    names: set[str] = set()
    for key in np.argsort(first).tolist():
        units = made[inverse == key]
        signature = sites.lists[sites.of[units[0]]]
        producers = tuple(name for role, name in signature if role == "producer")
        consumers = tuple(name for role, name in signature if role == "consumer")
        name, count = producers[0], 1
        while name in names:
            count += 1
            name = f"{producers[0]}#{count}"
        names.add(name)
        reason = labelling.reasons[labelling.frozen[units[0]]]
        groups.append(Group(name, units, producers, consumers, reason, int(sites.width[units[0]])))
    return groups
