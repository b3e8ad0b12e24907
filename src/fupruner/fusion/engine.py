"""Runs rules to a fixpoint in one visible order, checks every rewrite in float64, and undoes what does not hold."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from fupruner.errors import InputError, NotEquivalentError
from fupruner.fusion.region import EmptyError, Region, between
from fupruner.fusion.rule import Context, Match, Refuse, Rule
from fupruner.graph import check, cost, edit, shapes
from fupruner.graph.layer_shape import LayerShape
from fupruner.graph.precision import DoubleWhereNeeded, round_to, run_double
from fupruner.graph.same import same_computation
from fupruner.progress import Advance, part
from fupruner.records import Fired, FusionLog, Refusal
from fupruner.targets.base import CostModel

MAX_ROUNDS = 100
"""A rule set that still fires after so many rounds does not reach a fixpoint; that is a defect, not an input error."""

HEAVY = 300_000_000
"""Weights from which on a network as a whole is compared on one random input, of odd size, instead of two: each takes seconds."""

_NOISE = 20.0
"""Error of a fused network relative to that of one whose weights were moved by a few units in their last place."""


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
        probes, expected, max_error = _check(given, work, example_inputs, calibration)
    fused = round_to(work, given, _floating_dtype(graph_module, example_inputs))
    fused.meta = dict(graph_module.meta)
    log = FusionLog(
        level=level, fired=tuple(state.fired), refused=state.refusals(), before=before, after=cost.figures(fused),
        max_error=max_error, seconds=time.perf_counter() - start,
        max_error_float32=_rounding(given, fused, probes[0], expected[0]) if probes else 0.0,
        checked_inputs=tuple("x".join(map(str, x[0].shape)) for x in probes),
    )  # fmt: skip
    return fused, log


def _check(
    given: fx.GraphModule,
    work: fx.GraphModule,
    example_inputs: tuple[Tensor, ...],
    calibration: Sequence[check.Inputs] = (),
) -> tuple[list[check.Inputs], list[Any], float]:
    """Inputs on which the whole network was compared in float64, what it gives for them, and the largest error.

    Raises:
        NotEquivalentError: that error is too large.
    """
    probes, expected = _accepted(given, example_inputs)
    if calibration:
        probes, expected = [*probes, *calibration], [*expected, *_outputs(given, calibration)]
    actual = run_double(work, probes)
    return probes, expected, max(_error(given, *each) for each in zip(probes, expected, actual, strict=True))


def _accepted(given: fx.GraphModule, example_inputs: tuple[Tensor, ...]) -> tuple[list[check.Inputs], list[Any]]:
    """Random inputs that the network takes, and what it gives for them."""
    heavy = sum(parameter.numel() for parameter in given.parameters()) > HEAVY
    for candidates in check.probe_candidates(example_inputs):
        tried = candidates[-1:] if heavy else candidates
        pairs = list(zip(tried, run_double(given, tried), strict=True))
        taken = [(x, y) for x, y in pairs if not isinstance(y, Exception) and check.is_finite(y)]
        if taken:
            return [x for x, _ in taken], [y for _, y in taken]
    probe = check.last_resort(example_inputs)
    return [probe], _outputs(given, [probe])


def _outputs(given: fx.GraphModule, inputs: Sequence[check.Inputs]) -> list[Any]:
    """Outputs in float64 for inputs that the network has to take.

    Raises:
        InputError: it insists on another precision, or gives no numbers.
    """
    outputs = run_double(given, inputs)
    for x, output in zip(inputs, outputs, strict=True):
        shape = "x".join(map(str, x[0].shape))
        if isinstance(output, Exception):
            raise InputError(
                f"The network does not run in float64, in which rewrites are proved, on an input {shape}: {_first_line(output)}",
                hint="An operator in it creates tensors of a fixed precision. Fuse the part of the network without it.",
            )
        if check.has_nan(output):
            raise InputError(
                f"The network gives NaN for an input {shape}: nothing can be proved about it.",
                hint="Look for a negative variance, a division by zero or an overflow in its weights.",
            )
    return outputs


def _first_line(failure: Exception) -> str:
    return (str(failure).splitlines() or [type(failure).__name__])[0]


def _error(given: fx.GraphModule, probe: check.Inputs, expected: Any, actual: Any) -> float:
    """Error on one input.

    A network that amplifies rounding itself (random weights often do) cannot be held to the tolerance: there the error has to stay
    within a few times what rounding its weights does. Every single rewrite was held to the tolerance in any case.

    Raises:
        NotEquivalentError: the error is too large.
    """
    if isinstance(actual, Exception):
        raise NotEquivalentError(f"Fusion changed the network: it does not run any more ({_first_line(actual)}).")
    error = check.relative_error(expected, actual)
    if error <= check.FLOAT64_TOLERANCE:
        return error
    if error <= _NOISE * check.rounding_noise(edit.clone(given, torch.float64), _double(probe), expected):
        return error
    raise NotEquivalentError(f"Fusion changed the network: outputs differ by {error:.3g} (relative, float64).")


@torch.no_grad()
def _rounding(given: fx.GraphModule, fused: fx.GraphModule, probe: check.Inputs, exact: Any) -> float:
    """Error of the fused network in its own precision, against the original in float64.

    Where that is large, the original in float32 may be as far from it: the two are compared then.

    Raises:
        NotEquivalentError: in float32 it is more than rounding explains.
    """
    actual = fused.eval()(*probe)
    error = check.relative_error(exact, actual)
    single = all(t.dtype == torch.float32 for t in fused.parameters() if t.is_floating_point())
    if not single or error <= check.FLOAT32_TOLERANCE:
        return error
    expected = given(*probe)
    error = check.relative_error(expected, actual)
    if error <= max(check.FLOAT32_TOLERANCE, _NOISE * check.rounding_noise(given, probe, expected)):
        return error
    raise NotEquivalentError(
        f"Rounding the fused weights changed the network: outputs differ by {error:.3g} (float32)."
    )


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


def _double(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(x.double() if x.is_floating_point() else x for x in inputs)


def _floating_dtype(graph_module: fx.GraphModule, example_inputs: tuple[Tensor, ...]) -> torch.dtype:
    """The precision of a network: that of its parameters, or of its input if they have none in common."""
    for tensors in (graph_module.parameters(), example_inputs):
        dtypes = {t.dtype for t in tensors if t.is_floating_point()}
        if len(dtypes) == 1:
            return next(iter(dtypes))
    return torch.float32
