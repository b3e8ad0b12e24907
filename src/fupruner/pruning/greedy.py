"""The search for a plan: the move with the least loss per saved cost goes first, until the budget is met.

What a move saves is priced again whenever a layer that it touches has changed. At the end moves that turn out not to be
needed are taken back.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import fx

from fupruner.graph.layer_shape import LayerShape
from fupruner.pruning.gates import GatedNetwork
from fupruner.pruning.groups import Group
from fupruner.pruning.importance import Importance
from fupruner.pruning.pricing import Open, Pricer
from fupruner.pruning.scores import require_finite
from fupruner.records import Move, MoveKind

LEVELS = 8
"""At most so many widths are tried per group, so that a table stays small for wide layers."""
CHANNELS = ("channels", "shortcut")
"""Kinds of moves that close units; the others close what they name."""
LEAST = 1e-9
"""Relative to the baseline: what saves less saves nothing."""


@dataclass(frozen=True)
class State:
    """Gates and the moves that led there.

    Attributes:
        cost: of the whole network, in the pricer's currency.
    """

    moves: tuple[Move, ...]
    is_open: Open
    closed: frozenset[str]
    cost: float


@dataclass(frozen=True)
class _Candidate:
    """A move that could be made next and what it saves."""

    move: Move
    saved: float


@dataclass(frozen=True)
class _Unpriced:
    """A move with the layers that it touches and their shapes after it."""

    move: Move
    layers: list[int]
    after: list[LayerShape | None]


class Search:
    """Finds plans for one network and one currency.

    Args:
        network: gates; they are not touched.
        pricer: what a state of the gates costs.
        bundle: channels are closed in multiples of this.
    """

    def __init__(self, network: GatedNetwork, pricer: Pricer, bundle: int) -> None:
        self.network, self.pricer, self.bundle = network, pricer, bundle
        self.shortcuts = {shortcut.group.name: shortcut for shortcut, _ in network.shortcuts}
        carried = {
            name: shortcut.group for name, shortcut in self.shortcuts.items() if shortcut.branch.name in pricer.blocks
        }
        self.groups = {group.name: group for group in network.groups.prunable} | carried
        self.touched = {name: pricer.touched(group) for name, group in self.groups.items()}
        self.owned = {name: pricer.layers_of_branch(name) for name in pricer.branches}
        self.around = {name: pricer.layers_of_activation(name) for name in pricer.activations}
        self.all_open = np.ones(network.groups.labelling.units, dtype=bool)
        self.baseline = pricer.total(self.all_open, frozenset())

    def run(self, importance: Importance, limit: float) -> State:
        """Close what costs the least until the cost is at most ``limit``, or nothing that could be closed saves anything.

        Args:
            importance: what closing costs.
            limit: in the pricer's currency; below what is possible, the fastest state is returned.

        Raises:
            InputError: a score is not a number.
        """
        require_finite(importance.units, importance.criterion)
        table = _Table(self, importance)
        moves: list[Move] = []
        spent = self.baseline
        while spent > limit:
            best = table.best(spent - limit)
            if best is None:
                break
            moves.append(best.move)
            table.make(best.move)
            spent -= best.saved
            if spent <= limit:
                spent = self.pricer.total(table.is_open, table.closed)  # sums of differences drift
        return self.take_back(moves, limit)

    def take_back(self, moves: list[Move], limit: float) -> State:
        """Drop moves that a limit does not need, the most harmful first, and those that save nothing beside the others."""
        kept = list(moves)
        cost = self.pricer.total(*self.gates(kept))
        for move in sorted(moves, key=lambda m: -m.loss):
            rest = [m for m in kept if m is not move]
            without = self.pricer.total(*self.gates(rest))
            if without <= max(limit, cost):
                kept, cost = rest, without
        return State(tuple(kept), *self.gates(kept), cost)

    def gates(self, moves: list[Move] | tuple[Move, ...]) -> tuple[Open, frozenset[str]]:
        """Open units, and names of closed branches and activations, after some moves."""
        is_open = self.all_open.copy()
        for move in moves:
            if move.kind in CHANNELS:
                is_open[list(move.closed)] = False
        closed = frozenset(m.where for m in moves if m.kind not in CHANNELS)
        self.reopen(is_open, closed)
        return is_open, closed

    def reopen(self, is_open: Open, closed: frozenset[str]) -> None:
        """The shortcut past a closed branch is all that is left of the block: it carries everything."""
        for shortcut in self.shortcuts.values():
            if shortcut.branch.name in closed:
                is_open[shortcut.group.units] = True

    def layers_of(self, move: Move) -> list[int]:
        """Layers that a move touches."""
        kinds = {"branch": self.owned, "activation": self.around}
        return kinds.get(move.kind, self.touched)[move.where]

    def near(self, layers: list[int]) -> set[str]:
        """Groups, branches and activations whose savings change when some layers do."""
        changed = set(layers)
        near = {name for name, touched in self.touched.items() if changed.intersection(touched)}
        for kind, parts in (("branch", self.owned), ("activation", self.around)):
            near |= {f"{kind} {name}" for name, owned in parts.items() if changed.intersection(owned)}
        return near


class _Table:
    """What could be done next. What a move saves is looked up again before it is made, if a neighbour has changed.

    Savings shrink as neighbours shrink, so a move that is not the best with its old saving is not the best at all, and
    most moves need not be priced again.
    """

    def __init__(self, search: Search, importance: Importance) -> None:
        self.search, self.pricer, self.importance = search, search.pricer, importance
        self.is_open, self.closed = search.all_open.copy(), frozenset[str]()
        self.candidates: dict[str, list[_Candidate]] = {}
        self.stale: set[str] = set()
        scored = (name for name in self.pricer.activations if name in importance.activations)
        branches = (f"branch {name}" for name in self.pricer.branches)
        self.refresh([*search.groups, *branches, *(f"activation {name}" for name in scored)])

    def best(self, needed: float) -> _Candidate | None:
        """The move with the least loss per saved cost, of those that save anything."""
        least = LEAST * self.search.baseline
        while True:
            useful = [(c, key) for key, found in self.candidates.items() for c in found if c.saved > least]
            if not useful and not self.stale:
                return None
            chosen, key = min(useful, key=lambda pair: _rank(pair[0], needed)) if useful else (None, "")
            if chosen is not None and key not in self.stale:
                return chosen
            self.refresh([key] if chosen is not None else sorted(self.stale))

    def make(self, move: Move) -> None:
        """Close what a move closes."""
        if move.kind == "branch":
            self.closed |= {move.where}
            self.search.reopen(self.is_open, self.closed)
            self.stale = set(self.candidates)
            self.refresh([f"branch {move.where}"])
        elif move.kind == "activation":
            self.closed |= {move.where}
            self.stale |= self.search.near(self.search.layers_of(move)) & set(self.candidates)
            self.refresh([f"activation {move.where}"])
        else:
            self.is_open[list(move.closed)] = False
            self.stale |= self.search.near(self.search.layers_of(move)) & set(self.candidates)
            self.refresh([move.where])

    def refresh(self, keys: list[str]) -> None:
        """Find and price the moves of some groups and branches, all at once, so that new layers are measured together."""
        self.pricer.foresee(lambda: [self._moves(key) for key in keys])
        found = {key: self._moves(key) for key in keys}
        self.pricer.prices(shape for some in found.values() for move in some for shape in move.after)
        for key, some in found.items():
            layers = some[0].layers if some else []
            now = sum(self.pricer.prices(self.pricer.shapes(self.is_open, self.closed, layers)))
            self.candidates[key] = [_Candidate(u.move, now - sum(self.pricer.prices(u.after))) for u in some]
        self.stale.difference_update(keys)

    def _moves(self, key: str) -> list[_Unpriced]:
        if key in self.search.groups:
            return self._narrower(self.search.groups[key])
        if key.startswith("activation "):
            return self._linear(key.removeprefix("activation "))
        return self._without(key.removeprefix("branch "))

    def _narrower(self, group: Group) -> list[_Unpriced]:
        """Moves that shrink a group to each of its widths, the least important units first."""
        shortcut = self.search.shortcuts.get(group.name)
        if shortcut is not None and (shortcut.branch.name in self.closed or self._gone(shortcut.branch.add)):
            return []
        alive = group.units[self.is_open[group.units] if shortcut is None else shortcut.alive(self.is_open)]
        order = alive[np.argsort(self.importance.units[alive], kind="stable")]
        layers, moves = self.search.touched[group.name], []
        choices = widths(group, self.search.bundle)
        for width in choices if shortcut is None else [0, *choices]:
            if width < len(alive):
                shut = order[: len(alive) - width]
                self.is_open[shut] = False
                after = self.pricer.shapes(self.is_open, self.closed, layers)
                self.is_open[shut] = True
                kind: MoveKind = "channels" if shortcut is None else "shortcut"
                moves.append(_Unpriced(channel_move(group.name, shut, self.importance, kind), layers, after))
        return moves

    def _without(self, name: str) -> list[_Unpriced]:
        """The move that closes a branch, if it is not closed and does not lie in one that is."""
        branches = self.pricer.branches
        if name in self.closed or self._gone(branches[name].add):
            return []
        move = Move(kind="branch", where=name, closed=(0,), loss=self.importance.branches[name], saved_ms=0.0)
        layers = self.search.owned[name]
        return [_Unpriced(move, layers, self.pricer.shapes(self.is_open, self.closed | {name}, layers))]

    def _linear(self, name: str) -> list[_Unpriced]:
        """The move that closes an activation, if it is still there and no neighbour is closed."""
        if self.closed & {name, *self.pricer.beside(name)} or self._gone(self.pricer.activations[name].node):
            return []
        move = Move(kind="activation", where=name, closed=(0,), loss=self.importance.activations[name], saved_ms=0.0)
        layers = self.search.around[name]
        return [_Unpriced(move, layers, self.pricer.shapes(self.is_open, self.closed | {name}, layers))]

    def _gone(self, node: fx.Node) -> bool:
        """Whether a node lies in a closed branch."""
        branches = self.pricer.branches
        return any(node in branches[name].nodes for name in self.closed if name in branches)


def _rank(candidate: _Candidate, needed: float) -> tuple[float, float, str]:
    """Loss per saved cost; a move that alone meets the budget counts only what is needed."""
    return candidate.move.loss / min(candidate.saved, needed), -candidate.saved, candidate.move.where


def channel_move(where: str, shut: NDArray[np.int64], importance: Importance, kind: MoveKind = "channels") -> Move:
    """The move that closes some units of a group; what it saves is not known yet."""
    loss = float(importance.units[shut].sum())
    return Move(kind=kind, where=where, closed=tuple(shut.tolist()), loss=loss, saved_ms=0.0)


def widths(group: Group, bundle: int) -> list[int]:
    """Widths in units that a group may shrink to: whole bundles of channels, at most ``LEVELS`` of them, at least one."""
    count, step = len(group.units), bundle_of(group, bundle)
    step *= max(1, -(-count // (step * LEVELS)))
    return list(range(step, count, step))


def bundle_of(group: Group, bundle: int) -> int:
    """Units that make up a bundle of channels: fewer where a unit is several channels of a layer."""
    return max(1, bundle // group.width)
