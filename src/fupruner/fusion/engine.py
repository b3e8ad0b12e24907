"""Runs rules to a fixpoint in one visible order, checks every rewrite in float64, and undoes what does not hold."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from fupruner.fusion.proof import prove, rounding_error
from fupruner.fusion.region import EmptyError, Region, between
from fupruner.fusion.rule import Context, Match, Refuse, Rule
from fupruner.graph import check, cost, edit, shapes
from fupruner.graph.layer_shape import LayerShape
from fupruner.graph.precision import DoubleWhereNeeded, round_to
from fupruner.graph.same import same_computation
from fupruner.progress import Advance, part
from fupruner.records import Fired, FusionLog, Refusal
from fupruner.targets.cost_model import CostModel

MAX_ROUNDS = 100
"""A rule set that still fires after so many rounds does not reach a fixpoint; that is a defect, not an input error."""


@dataclass
class _State:
    """What one run of the engine has learnt so far."""

    fired: list[Fired] = field(default_factory=list)
    refused: dict[str, dict[str, Refusal]] = field(default_factory=dict)
    undone: dict[tuple[str, str], Refusal] = field(default_factory=dict)

    def refusals(self) -> tuple[Refusal, ...]:
        """Everything that was undone, and what rules said when they last ran."""
        told = {(rule, node): each for rule, by_node in self.refused.items() for node, each in by_node.items()}
        return tuple({**self.undone, **told}.values())


class Prices:
    """Prices of layers, each asked for once.

    Args:
        cost_model: of the target.
    """

    def __init__(self, cost_model: CostModel) -> None:
        self.grade = cost_model.grade
        self._model = cost_model
        self._known: dict[LayerShape, float] = {}

    def of(self, graph_module: fx.GraphModule) -> float:
        """Milliseconds of a graph whose shapes were propagated."""
        layers = [layer.shape for layer in cost.layer_shapes(graph_module)]
        new = list(dict.fromkeys(shape for shape in layers if shape not in self._known))
        if new:
            self._known.update(zip(new, self._model.price(new), strict=True))
        return sum(self._known[shape] for shape in layers)


def run(
    graph_module: fx.GraphModule,
    example_inputs: tuple[Tensor, ...],
    rules: Sequence[Rule],
    *,
    level: str,
    cost_model: CostModel | None = None,
    calibration: Sequence[check.Inputs] = (),
) -> tuple[fx.GraphModule, FusionLog]:
    """Fuse a copy of a graph.

    All arithmetic is done in float64 and rounded once at the end, so that the fused weights are the exact ones.

    Args:
        graph_module: a canonical graph; it is not modified.
        example_inputs: tensors, batch first.
        rules: tried in this order, again and again, until none fires.
        level: recorded in the log.
        cost_model: when given, an aggressive rewrite stays only if the model says that it does not cost time.
        calibration: inputs of the user's own on which the result is compared too.

    Returns:
        The fused graph in the dtype of the original, and the log.

    Raises:
        NotEquivalentError: the fused network as a whole differs from the original although every rewrite held.
    """
    start = time.perf_counter()
    shapes.propagate(graph_module, example_inputs)
    before = cost.figures(graph_module)
    state = _State()
    idle = any(module.training for module in graph_module.modules())
    given = edit.clone(graph_module).eval() if idle else graph_module
    with part("fuse, rewrites") as advance:
        prices = Prices(cost_model) if cost_model else None
        work = _Fixpoint(rules, prices, state, given, advance).run(edit.twin(given))
    probes: list[check.Inputs] = []
    expected: list[Any] = []
    max_error = 0.0
    if not same_computation(given, work):  # else nothing but idle operators has gone: there is nothing to run
        probes, expected, max_error = prove(given, work, example_inputs, calibration)
    fused = round_to(work, given, _floating_dtype(graph_module, example_inputs))
    fused.meta = dict(graph_module.meta)
    log = FusionLog(
        level=level, fired=tuple(state.fired), refused=state.refusals(), before=before, after=cost.figures(fused),
        max_error=max_error, seconds=time.perf_counter() - start,
        max_error_float32=rounding_error(given, fused, probes[0], expected[0]) if probes else 0.0,
        checked_inputs=tuple("x".join(map(str, x[0].shape)) for x in probes),
    )  # fmt: skip
    return fused, log


class _Fixpoint:
    """One run of the rules over one graph."""

    def __init__(
        self, rules: Sequence[Rule], prices: Prices | None, state: _State, given: fx.GraphModule, advance: Advance
    ) -> None:
        self.rules, self.prices, self.state, self.advance = rules, prices, state, advance
        self.doubles = DoubleWhereNeeded(given)
        self.version = 0
        self.seen: dict[str, int] = {}
        """The version of the graph that a rule has left behind, with nothing to do."""

    def run(self, graph_module: fx.GraphModule) -> fx.GraphModule:
        """Apply rules until a whole round changes nothing.

        A rule that adds filters runs only when no basic one fires, and hands back to them as soon as it has fired.
        """
        basic = [rule for rule in self.rules if rule.level == "basic"]
        others = [rule for rule in self.rules if rule.level != "basic"]
        for _ in range(MAX_ROUNDS):
            changed = [self._exhaust(rule, graph_module) for rule in basic]
            if any(changed) or any(self._exhaust(rule, graph_module) for rule in others):
                continue
            edit.clean(graph_module)
            return graph_module
        raise RuntimeError(f"Fusion rules still fire after {MAX_ROUNDS} rounds: {self.state.fired[-3:]}")

    def _exhaust(self, rule: Rule, graph_module: fx.GraphModule) -> bool:
        """Apply one rule to every node; a pass that had to be undone is repeated without the place that failed."""
        if self.seen.get(rule.name) == self.version:
            return False  # nothing has changed since it found nothing
        before = len(self.state.fired)
        while not self._pass(rule, graph_module):
            pass
        fired = len(self.state.fired) > before
        self.version += fired
        if not fired:
            self.seen[rule.name] = self.version
        return fired

    def _pass(self, rule: Rule, graph_module: fx.GraphModule) -> bool:
        """Apply one rule wherever it matches now; False when a rewrite was undone and the graph is an older one."""
        context, snapshot = Context(graph_module), None
        priced = self.prices is not None and rule.level == "aggressive"
        refused = self.state.refused[rule.name] = {}  # of its refusals only those of its last pass still stand
        for node in list(graph_module.graph.nodes):
            if edit.is_erased(node) or (rule.name, node.name) in self.state.undone:
                continue
            found = rule.find(context, node)
            if isinstance(found, Match):
                if snapshot is None or priced:
                    snapshot = (edit.Snapshot(graph_module), len(self.state.fired))
                made = self._made_double(graph_module, found)
                context.spare[:] = self.doubles.fresh if made else []
                if made:
                    found = rule.find(context, node)  # what it took from the weights is to be in float64 too
            if isinstance(found, Refuse):
                refused[found.node.name] = Refusal(rule=rule.name, node=found.node.name, reason=found.reason)
            elif found is not None and snapshot is not None:
                reason = self._apply(rule, context, found)
                if reason:
                    snapshot[0].restore(graph_module)
                    del self.state.fired[snapshot[1] :]
                    key = (rule.name, found.node.name)
                    self.state.undone[key] = Refusal(rule=key[0], node=key[1], reason=reason)
                    return False
        return True

    def _made_double(self, graph_module: fx.GraphModule, match: Match) -> bool:
        try:
            return self.doubles.convert(graph_module, between(match.output, match.inputs))
        except ValueError:  # the region's inputs are incomplete: it is not going to be rewritten
            return False

    def _apply(self, rule: Rule, context: Context, match: Match) -> str:
        """Rewrite one place; the reason why it must be undone, or nothing."""
        graph_module, name, detail = context.graph_module, match.node.name, _describe(match)
        price = self._price(rule, graph_module)
        try:
            region = Region(graph_module, match)
        except ValueError as failure:
            return f"cannot be checked: {failure}"
        if check.has_nan(region.expected):
            return "cannot be checked: it gives NaN"
        output = rule.rewrite(context, match)
        try:
            error = check.relative_error(region.expected, region.actual(output))
        except (RuntimeError, ValueError, EmptyError) as failure:
            return f"undone: the rewritten part does not run ({failure})"
        if not error <= check.FLOAT64_TOLERANCE:
            return f"undone: the rewrite differs by {error:.3g} (relative, float64)"
        region.write_shapes(output)
        region.erase_dead()
        after = self._price(rule, graph_module)
        if after > price and self.prices is not None:
            return f"dearer on the target: {after:.4f} ms instead of {price:.4f} ms for the whole network ({self.prices.grade})"
        self.state.fired.append(Fired(rule=rule.name, node=name, detail=detail))
        self.advance(1)
        return ""

    def _price(self, rule: Rule, graph_module: fx.GraphModule) -> float:
        return self.prices.of(graph_module) if self.prices is not None and rule.level == "aggressive" else 0.0


def _describe(match: Match) -> str:
    return " + ".join(dict.fromkeys(n.name for n in match.parts.values() if isinstance(n, fx.Node)))


def _floating_dtype(graph_module: fx.GraphModule, example_inputs: tuple[Tensor, ...]) -> torch.dtype:
    """The precision of a network: that of its parameters, or of its input if they have none in common."""
    for tensors in (graph_module.parameters(), example_inputs):
        dtypes = {t.dtype for t in tensors if t.is_floating_point()}
        if len(dtypes) == 1:
            return next(iter(dtypes))
    return torch.float32
