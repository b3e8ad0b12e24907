"""Plans: which gates close so that a budget is met at the least predicted loss.

A plan for a budget trades loss against cost, see ``greedy``. Plans for a plain ratio close the same share of every group,
or of all channels together; they exist for comparison and for use without a budget. No plan is predicted to be slower
than the network is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fupruner.errors import InputError
from fupruner.pruning.budget import Budget, SizeModel
from fupruner.pruning.gates import GatedNetwork
from fupruner.pruning.greedy import CHANNELS, Search, State, bundle_of, channel_move, widths
from fupruner.pruning.groups import Group
from fupruner.pruning.importance import Importance
from fupruner.pruning.pricing import Open, Pricer
from fupruner.pruning.scores import require_finite
from fupruner.records import Move, MoveKind, Plan

GIVEN_AWAY = 0.7
"""What a wider width may cost: this share of the time that its multiply-adds take elsewhere in the same layers."""


@dataclass(frozen=True)
class GatePlan:
    """A plan with the state of the gates that it asks for."""

    record: Plan
    is_open: Open
    closed_branches: frozenset[str]

    @property
    def key(self) -> tuple[bytes, frozenset[str]]:
        """What it closes, to compare plans by."""
        return self.is_open.tobytes(), self.closed_branches


class Planner:
    """Finds plans for one network on one target.

    Args:
        network: gates; they are not touched.
        pricer: what a state of the gates costs.
        target: name, for the record.
        alignment: channel counts that the target likes, see ``Target.alignment``.
        precision: of weights as shipped, for budgets in bytes.
        shipping: how much faster the unpruned network is in the number format that it ships in than the original as the user has it
            now, see ``verify.shipping_speedup``; speed-ups are over the latter.
        room: bytes of weights as shipped that every plan for a speed-up has to fit into, see ``Target.on_chip_bytes``; None for no limit.
    """

    def __init__(
        self, network: GatedNetwork, pricer: Pricer, target: str, alignment: int, precision: str = "float32",
        shipping: float = 1.0, room: float | None = None,
    ) -> None:  # fmt: skip
        self.network, self.pricer, self.target, self.precision = network, pricer, target, precision
        self.alignment, self.bundle = max(1, alignment), max(1, alignment // 2)
        self.search, self.room = Search(network, pricer, self.bundle), room
        self.all_open, self.baseline_ms = self.search.all_open, shipping * pricer.unfused()

    def for_speedup(self, importance: Importance, speedup: float) -> GatePlan:
        """The plan of least loss whose predicted time is the baseline's divided by ``speedup``.

        Raises:
            InputError: no set of moves is fast enough; the message says how fast the network can become.
        """
        state = self.search.run(importance, self.baseline_ms / speedup)
        if state.cost * speedup > self.baseline_ms * (1 + 1e-9):
            largest = self.baseline_ms / state.cost
            raise InputError(
                f"A speed-up of {speedup:.2f}x is out of reach on {self.target}: "
                f"{largest:.2f}x is the largest predicted one.",
                hint=f"Ask for at most {np.floor(largest * 100) / 100:.2f}.",
            )
        if self.room is None:
            return self._gate_plan(importance, f"speed-up {speedup:.3f}", state.moves)
        moves = self._within(importance, state, self.room)
        return self._gate_plan(importance, f"speed-up {speedup:.3f}, {Budget('bytes', self.room)}", moves)

    def for_budget(self, importance: Importance, budget: Budget) -> GatePlan:
        """The plan of least loss that stays within a budget of time, work or size.

        Raises:
            InputError: nothing that can be closed gets there; the message names the least that is possible.
        """
        search = self.search if budget.of_time else self._by_size(budget.kind)
        limit = budget.limit(self.baseline_ms if budget.of_time else search.baseline)
        state = search.run(importance, limit)
        if state.cost > limit * (1 + 1e-9):
            if budget.kind == "speedup":
                return self.for_speedup(importance, budget.value)
            raise InputError(
                f"{budget.kind} of {limit:g} are out of reach: {state.cost:.6g} is the least possible, "
                f"of {search.baseline:.6g} now."
            )
        return self._gate_plan(importance, str(budget), state.moves)

    def largest_speedup(self, importance: Importance) -> float:
        """The predicted speed-up of the fastest plan of all."""
        return self.baseline_ms / self.search.run(importance, 0.0).cost

    def fastest(self, importance: Importance) -> GatePlan:
        """The plan with the least predicted time of all."""
        return self._gate_plan(importance, "fastest", self.search.run(importance, 0.0).moves)

    def uniform(self, importance: Importance, ratio: float) -> GatePlan:
        """Close the same share of every group, rounded to widths that the target likes.

        A width that is predicted to cost more than a wider one is widened, so no group makes the network slower.

        Raises:
            InputError: the ratio does not lie between 0 and 1, or a score is not a number.
        """
        require_share(ratio)
        require_finite(importance.units, importance.criterion)
        moves = []
        for group in self.network.groups.prunable:
            wanted = (1 - ratio) * len(group.units)
            shut = self._least(group, importance, _nearest_width(group, wanted, self.alignment))
            if len(shut):
                moves.append(channel_move(group.name, shut, importance))
        return self._gate_plan(importance, f"ratio {ratio:.3f}", self._widen(importance, moves))

    def everywhere(self, importance: Importance, ratio: float) -> GatePlan:
        """Close the share of all units whose scores are the lowest, wherever they are; every group keeps a bundle.

        Raises:
            InputError: the ratio does not lie between 0 and 1, or a score is not a number.
        """
        require_share(ratio)
        require_finite(importance.units, importance.criterion)
        groups = self.network.groups.prunable
        moves = []
        if groups:
            threshold = np.quantile(np.concatenate([importance.units[g.units] for g in groups]), ratio)
            for group in groups:
                wanted = float((importance.units[group.units] > threshold).sum())
                shut = self._least(group, importance, _nearest_width(group, wanted, self.alignment))
                if len(shut):
                    moves.append(channel_move(group.name, shut, importance))
        return self._gate_plan(importance, f"global ratio {ratio:.3f}", self._widen(importance, moves))

    # -- parts -------------------------------------------------------------------------------------------------------

    def _within(self, importance: Importance, state: State, room: float) -> tuple[Move, ...]:
        """Moves of a plan and what has to go beside them so that the weights fit; importance decides what that is.

        Raises:
            InputError: the weights cannot be made to fit.
        """
        search = self._by_size("bytes")
        if search.pricer.total(state.is_open, state.closed) <= room:
            return state.moves
        small = search.run(importance, room)
        if small.cost > room:
            raise InputError(
                f"The weights cannot be made to fit into {room:g} bytes: {small.cost:.6g} is the least possible."
            )
        return _united(state.moves, small.moves, importance)

    def _by_size(self, kind: str) -> Search:
        return Search(
            self.network, Pricer(self.network, SizeModel(kind, self.precision), self.pricer.form), self.bundle
        )

    @staticmethod
    def _least(group: Group, importance: Importance, width: int) -> NDArray[np.int64]:
        """Units of a group to close so that a width is left: the least important ones."""
        order = group.units[np.argsort(importance.units[group.units], kind="stable")]
        return order[: len(group.units) - width]

    def _widen(self, importance: Importance, moves: list[Move]) -> list[Move]:
        """Widen groups, step by step, as long as that costs no time, or much less than the work it gives back.

        Such narrow widths cost accuracy and save next to nothing.
        """
        groups = {group.name: group for group in self.network.groups.prunable}
        is_open, _ = self.search.gates(moves)
        kept = []
        for move in moves:
            group = groups[move.where]
            shut = np.array(move.closed)
            layers, step = self.search.touched[group.name], _step(group, self.alignment)
            now, work = self._time_and_work(is_open, layers)
            while len(shut):
                fewer = self._least(group, importance, min(len(group.units), len(group.units) - len(shut) + step))
                is_open[shut], is_open[fewer] = True, False
                after, more = self._time_and_work(is_open, layers)
                if after > now * (1 + GIVEN_AWAY * (more / max(1, work) - 1)):
                    is_open[shut] = False
                    break
                shut, now, work = fewer, after, more
            if len(shut):
                kept.append(channel_move(group.name, shut, importance))
        return kept

    def _time_and_work(self, is_open: Open, layers: list[int]) -> tuple[float, int]:
        """Predicted time and multiply-adds of some layers."""
        shapes = self.pricer.shapes(is_open, frozenset(), layers)
        return sum(self.pricer.prices(shapes)), sum(shape.macs for shape in shapes if shape is not None)

    def _gate_plan(self, importance: Importance, budget: str, moves: list[Move] | tuple[Move, ...]) -> GatePlan:
        """Write a plan down; what each move saves is priced in the order in which they are made."""
        state = self._priced(moves)
        record = Plan(
            target=self.target, importance=importance.criterion, budget=budget, moves=state.moves, baseline_ms=self.baseline_ms,
            predicted_ms=state.cost, grade=self.pricer.cost_model.grade, widths_after=self.pricer.widths(state.is_open, state.closed),
            widths_before=self.pricer.widths(self.all_open, frozenset()), carried_before=self._carried(self.all_open, frozenset()),
            carried_after=self._carried(state.is_open, state.closed),
        )  # fmt: skip
        return GatePlan(record, state.is_open, state.closed)

    def _carried(self, is_open: Open, closed: frozenset[str]) -> dict[str, int]:
        """Reserved identity filters of each block; none where its branch is closed."""
        blocks = self.pricer.blocks.items()
        return {name: 0 if name in closed else int(block.shortcut.alive(is_open).sum()) for name, block in blocks}

    def _priced(self, moves: list[Move] | tuple[Move, ...]) -> State:
        """What each move saves when they are made in this order; only the layers that it touches are priced."""
        done: list[Move] = []
        is_open, closed = self.all_open.copy(), frozenset[str]()
        for move in moves:
            layers = self.search.layers_of(move)
            before = sum(self.pricer.prices(self.pricer.shapes(is_open, closed, layers)))
            if move.kind in CHANNELS:
                is_open[list(move.closed)] = False
            else:
                closed |= {move.where}
                self.search.reopen(is_open, closed)
            after = sum(self.pricer.prices(self.pricer.shapes(is_open, closed, layers)))
            done.append(move.model_copy(update={"saved_ms": before - after}))
        return State(tuple(done), is_open, closed, self.pricer.total(is_open, closed))


def _united(first: tuple[Move, ...], second: tuple[Move, ...], importance: Importance) -> tuple[Move, ...]:
    """What is closed by either of two plans."""
    closed: dict[tuple[MoveKind, str], set[int]] = {}
    for move in (*first, *second):
        closed.setdefault((move.kind, move.where), set()).update(move.closed)
    whole = {(move.kind, move.where): move for move in (*first, *second)}
    return tuple(
        channel_move(where, np.array(sorted(units)), importance) if kind == "channels" else whole[kind, where]
        for (kind, where), units in closed.items()
    )


def require_share(ratio: float) -> None:
    """Raise an ``InputError`` unless a ratio lies between 0 and 1."""
    if not 0 < ratio < 1:
        raise InputError(f"The pruning ratio is {ratio}; it must lie between 0 and 1.")


def _nearest_width(group: Group, wanted: float, alignment: int) -> int:
    """The whole number of steps that is nearest to a wanted width, at least one; narrow groups keep at least one unit."""
    count, step = len(group.units), _step(group, alignment)
    if count <= step:
        return max(1, min(count, round(wanted)))
    return min(count, max(step, step * round(wanted / step)))


def _step(group: Group, alignment: int) -> int:
    """Units by which a group's width changes: full blocks of channels in wide groups, half blocks in narrow ones."""
    wide = len(group.units) * group.width >= 2 * alignment
    return bundle_of(group, alignment if wide else max(1, alignment // 2))


__all__ = ["GatePlan", "Planner", "require_share", "widths"]
