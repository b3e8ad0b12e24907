"""Runs rules to a fixpoint in one visible order, checks every rewrite in float64, and undoes what does not hold."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from fupruner.errors import NotEquivalentError
from fupruner.fusion.rule import Context, Match, Refuse, Rule
from fupruner.graph import check, cost, edit, shapes
from fupruner.records import Fired, FusionLog, Refusal
from fupruner.targets.base import CostModel

MAX_ROUNDS = 100
"""A rule set that still fires after so many rounds does not reach a fixpoint; that is a defect, not an input error."""


@dataclass
class _State:
    """What one run of the engine has learnt so far."""

    fired: list[Fired] = field(default_factory=list)
    refused: dict[tuple[str, str], Refusal] = field(default_factory=dict)
    banned: set[tuple[str, str]] = field(default_factory=set)


def run(
    graph_module: fx.GraphModule,
    example_inputs: tuple[Tensor, ...],
    rules: Sequence[Rule],
    *,
    level: str,
    cost_model: CostModel | None = None,
) -> tuple[fx.GraphModule, FusionLog]:
    """Fuse a copy of a graph.

    All arithmetic is done in float64 and rounded once at the end, so that the fused weights are the exact ones.

    Args:
        graph_module: a canonical graph; it is not modified.
        example_inputs: tensors, batch first.
        rules: tried in this order, again and again, until none fires.
        level: recorded in the log.
        cost_model: when given, an aggressive rewrite stays only if the model says that it does not cost time.

    Returns:
        The fused graph in the dtype of the original, and the log.

    Raises:
        NotEquivalentError: the fused network as a whole differs from the original although every rewrite held.
    """
    start = time.perf_counter()
    shapes.propagate(graph_module, example_inputs)
    before = cost.figures(graph_module)
    dtype = _floating_dtype(graph_module)
    reference = edit.clone(graph_module).double()
    work = edit.clone(graph_module).double()
    probes = [_double(x) for x in check.probe_inputs(example_inputs, lambda x: check.accepts(reference, _double(x)))]
    state = _State()
    fixpoint = _Fixpoint(rules, probes[0], example_inputs, cost_model, state)
    work = fixpoint.run(work)
    max_error = check.largest_error(reference, work, probes, torch.float64)
    if not max_error <= check.FLOAT64_TOLERANCE:
        raise NotEquivalentError(f"Fusion changed the network: outputs differ by {max_error:.3g} (relative, float64).")
    fused = work.to(dtype)
    fused.meta = dict(graph_module.meta)
    shapes.propagate(fused, example_inputs)
    rounded = check.largest_error(graph_module, fused, probes, torch.float32)
    refused = tuple(r for r in state.refused.values())
    log = FusionLog(
        level=level, fired=tuple(state.fired), refused=refused, before=before, after=cost.figures(fused), max_error=max_error,
        max_error_float32=rounded, checked_inputs=tuple("x".join(map(str, x[0].shape)) for x in probes),
        seconds=time.perf_counter() - start,
    )  # fmt: skip
    return fused, log


class _Fixpoint:
    """One run of the rules over one graph."""

    def __init__(
        self,
        rules: Sequence[Rule],
        probe: tuple[Tensor, ...],
        example_inputs: tuple[Tensor, ...],
        cost_model: CostModel | None,
        state: _State,
    ) -> None:
        self.rules, self.probe, self.example, self.cost_model, self.state = rules, probe, example_inputs, cost_model, state

    def run(self, graph_module: fx.GraphModule) -> fx.GraphModule:
        """Apply rules until a whole round changes nothing."""
        shapes.propagate(graph_module, self.probe)
        for _ in range(MAX_ROUNDS):
            changed = False
            for rule in self.rules:
                graph_module, fired = self._pass(rule, graph_module)
                changed |= fired
            if not changed:
                return graph_module
        raise RuntimeError(f"Fusion rules still fire after {MAX_ROUNDS} rounds: {self.state.fired[-3:]}")

    def _pass(self, rule: Rule, graph_module: fx.GraphModule) -> tuple[fx.GraphModule, bool]:
        """Apply one rule wherever it matches now."""
        changed = False
        context = Context(graph_module)
        for name in [n.name for n in graph_module.graph.nodes]:
            node = _find_node(graph_module, name)
            if node is None or (rule.name, name) in self.state.banned:
                continue
            found = rule.find(context, node)
            if isinstance(found, Refuse):
                self._refuse(rule, found.node.name, found.reason)
            elif found is not None:
                graph_module, done = self._apply(rule, context, found)
                changed |= done
                context = Context(graph_module)
        return graph_module, changed

    def _refuse(self, rule: Rule, node: str, reason: str) -> None:
        self.state.refused[(rule.name, node)] = Refusal(rule=rule.name, node=node, reason=reason)

    def _apply(self, rule: Rule, context: Context, match: Match) -> tuple[fx.GraphModule, bool]:
        graph_module = context.graph_module
        name = match.node.name
        undo = _snapshot(graph_module)
        values = _random_values(match)
        expected = _evaluate(graph_module, match.output, values)
        detail = _describe(match)
        output = rule.rewrite(context, match)
        actual = _evaluate(graph_module, output, values, write_shapes=True)
        reason = self._objection(rule, graph_module, undo, check.relative_error(expected, actual))
        if reason:
            self._refuse(rule, name, reason)
            self.state.banned.add((rule.name, name))
            return undo, False
        edit.clean(graph_module)
        self.state.refused.pop((rule.name, name), None)
        self.state.fired.append(Fired(rule=rule.name, node=name, detail=detail))
        return graph_module, True

    def _objection(self, rule: Rule, graph_module: fx.GraphModule, undo: fx.GraphModule, error: float) -> str:
        """Why a rewrite that was applied must be undone; empty when it may stay."""
        if not error <= check.FLOAT64_TOLERANCE:
            return f"undone: the rewrite differs by {error:.3g} (relative, float64)"
        if self.cost_model is None or rule.level != "aggressive":
            return ""
        edit.clean(graph_module)
        before, after = (self._price(g) for g in (undo, graph_module))
        shapes.propagate(graph_module, self.probe)
        shapes.propagate(undo, self.probe)
        if after > before:
            return f"dearer on the target: {after:.4f} ms instead of {before:.4f} ms for the whole network ({self.cost_model.grade})"
        return ""

    def _price(self, graph_module: fx.GraphModule) -> float:
        if self.cost_model is None:
            return 0.0
        shapes.propagate(graph_module, _double(self.example))
        return sum(self.cost_model.price([layer.shape for layer in cost.layer_shapes(graph_module)]))


def _snapshot(graph_module: fx.GraphModule) -> fx.GraphModule:
    """A second graph over the same modules; rewrites never change modules in place, so this is enough to go back."""
    copied = fx.GraphModule(graph_module, _copy_graph(graph_module.graph))
    copied.meta = dict(graph_module.meta)
    return copied.train(graph_module.training)


def _copy_graph(graph: fx.Graph) -> fx.Graph:
    copied = fx.Graph()
    mapping: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        mapping[node] = copied.node_copy(node, lambda n: mapping[n])
    return copied


def _find_node(graph_module: fx.GraphModule, name: str) -> fx.Node | None:
    return next((n for n in graph_module.graph.nodes if n.name == name), None)


def _describe(match: Match) -> str:
    return " + ".join(dict.fromkeys(n.name for n in match.parts.values() if isinstance(n, fx.Node)))


def _random_values(match: Match) -> dict[fx.Node, Tensor]:
    """Random float64 values for the inputs of a region, with the shapes of the probe."""
    values = {}
    for i, node in enumerate(match.inputs):
        generator = torch.Generator().manual_seed(i)
        value = torch.randn(shapes.shape_of(node), generator=generator, dtype=torch.float64)
        values[node] = value.abs() if node in match.nonnegative else value
    return values


@torch.no_grad()
def _evaluate(graph_module: fx.GraphModule, output: fx.Node, values: dict[fx.Node, Tensor], *, write_shapes: bool = False) -> Any:
    """Value of a node when the nodes in ``values`` have the given values."""
    known: dict[fx.Node, Any] = dict(values)

    def load(argument: Any) -> Any:
        return fx.node.map_arg(argument, lambda n: known[n])

    for node in _between(output, set(values)):
        if node.op == "get_attr":
            known[node] = edit.get_attribute(graph_module, str(node.target))
        elif node.op == "call_module":
            known[node] = graph_module.get_submodule(str(node.target))(*load(node.args), **load(node.kwargs))
        else:
            known[node] = node.target(*load(node.args), **load(node.kwargs))  # type: ignore[operator]
        if write_shapes and isinstance(known[node], Tensor):
            node.meta["shape"] = tuple(known[node].shape)
    return known[output]


def _between(output: fx.Node, inputs: set[fx.Node]) -> list[fx.Node]:
    """Nodes that the output needs beyond the inputs, in graph order."""
    needed: set[fx.Node] = set()
    stack = [output]
    while stack:
        node = stack.pop()
        if node in needed or node in inputs:
            continue
        if node.op == "placeholder":
            raise ValueError(f"The region of {output.name} reaches the network's input {node.name}; its inputs are incomplete.")
        needed.add(node)
        stack.extend(node.all_input_nodes)
    return [node for node in output.graph.nodes if node in needed]


def _double(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(x.double() if x.is_floating_point() else x for x in inputs)


def _floating_dtype(graph_module: fx.GraphModule) -> torch.dtype:
    dtypes = {t.dtype for t in graph_module.parameters() if t.is_floating_point()}
    return next(iter(dtypes)) if len(dtypes) == 1 else torch.float32
