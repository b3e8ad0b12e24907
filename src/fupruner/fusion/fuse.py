"""The one entry to fusion: a traced graph and a level in, an equivalent graph and a log out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, fx

from fupruner.errors import InputError, NotEquivalentError, unknown_name
from fupruner.fusion import engine
from fupruner.fusion.rule import Rule
from fupruner.fusion.rules import select
from fupruner.fusion.rules.shortcut import ShortcutIntoFilters
from fupruner.graph import shapes
from fupruner.graph.cost import is_add
from fupruner.records import FusionLog, Refusal
from fupruner.targets.cost_model import CostModel

WHOLE = "the whole network"
"""The place that a refusal names when no single node is to blame."""

Run = Callable[[Sequence[Rule]], tuple[fx.GraphModule, FusionLog]]


def fuse_graph(
    graph_module: fx.GraphModule,
    example_inputs: tuple[Tensor, ...],
    level: str,
    *,
    only: Iterable[str] = (),
    without: Iterable[str] = (),
    cost_model: CostModel | None = None,
    keep: Mapping[str, Sequence[int]] | None = None,
    calibration: Sequence[tuple[Tensor, ...]] = (),
) -> tuple[fx.GraphModule, FusionLog]:
    """Rewrite a graph into an equivalent one; the graph given is not modified.

    Every rewrite is proved where it is made, and the network as a whole at the end. Should the whole differ although every rewrite
    held, its aggressive rewrites are undone, then all of them, and the log says so.

    Args:
        graph_module: a canonical graph from ``graph.trace``.
        example_inputs: tensors, batch first.
        level: ``none``, ``basic``, ``aggressive``, or ``auto``: every aggressive rewrite that the cost model does not find dearer,
            and the unfused network where nothing else is at least as fast.
        only: names of rules to keep; all of the level when empty.
        without: names of rules to leave out.
        cost_model: of the target; needed by ``auto`` and used by it alone.
        keep: names of residual blocks' Adds whose shortcut is reserved whatever it costs, with the channels that may be carried.
        calibration: inputs of the user's own, on which the whole is proved besides random ones.

    Raises:
        InputError: an unknown level, rule or block, ``auto`` without a cost model, calibration inputs that the network does not
            take, or too little memory.
    """
    if level == "auto" and cost_model is None:
        raise InputError("Fusion level auto needs a cost model.", hint="Name a target, or choose basic or aggressive.")
    rules = _with_keep(graph_module, select(level, only=only, without=without), keep or {})

    def run(chosen: Sequence[Rule]) -> tuple[fx.GraphModule, FusionLog]:
        model = cost_model if level == "auto" else None
        settings: dict[str, Any] = {"level": level, "cost_model": model, "calibration": calibration}
        return engine.run(graph_module, example_inputs, chosen, **settings)

    with _memory_told(graph_module):
        if level != "auto" or cost_model is None:
            return _proved(run, rules)
        shapes.propagate(graph_module, example_inputs)
        return _cheapest(run, rules, engine.Prices(cost_model), graph_module)


def _proved(run: Run, rules: Sequence[Rule]) -> tuple[fx.GraphModule, FusionLog]:
    """The fused graph; with fewer rules where the whole differs although every rewrite held."""
    undone: list[Refusal] = []
    for chosen in _fewer_and_fewer(rules):
        try:
            fused, log = run(chosen)
        except NotEquivalentError as failure:
            reason = f"undone, although every single rewrite held: {failure}"
            undone.append(Refusal(rule=", ".join(rule.name for rule in chosen), node=WHOLE, reason=reason))
            continue
        break
    return fused, log.model_copy(update={"refused": (*undone, *log.refused)})


def _fewer_and_fewer(rules: Sequence[Rule]) -> Iterator[Sequence[Rule]]:
    yield rules
    yield [rule for rule in rules if rule.level == "basic"]
    yield []


def adds_into_filters(log: FusionLog) -> frozenset[str]:
    """Names of the Adds whose shortcuts became filters of their block."""
    return frozenset(fired.node for fired in log.fired if fired.rule == ShortcutIntoFilters.name)


@contextmanager
def _memory_told(graph_module: fx.GraphModule) -> Iterator[None]:
    """Say in words that memory ran out.

    Raises:
        InputError: in place of the allocator's own error.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as failure:
        if not isinstance(failure, MemoryError) and "alloc" not in str(failure):
            raise
        size = sum(p.numel() * p.element_size() for p in graph_module.parameters()) / 2**30
        raise InputError(
            f"Memory ran out while fusing a network with {size:.1f} GiB of weights.",
            hint="Rewrites are proved in float64, which takes about six times the weights. Free some memory, or fuse on a larger machine.",
        ) from None


def _cheapest(
    run: Run, rules: Sequence[Rule], prices: engine.Prices, graph_module: fx.GraphModule
) -> tuple[fx.GraphModule, FusionLog]:
    """The fused graph, or one with fewer rules if the cost model finds it slower than the unfused one."""
    unfused = prices.of(graph_module)
    dearer: list[Refusal] = []
    for chosen in _fewer_and_fewer(rules):
        fused, log = _proved(run, chosen)
        price = prices.of(fused)
        if price <= unfused or not chosen:
            break
        names = ", ".join(dict.fromkeys(fired.rule for fired in log.fired))
        reason = f"dearer on the target: {price:.4f} ms instead of {unfused:.4f} ms with {names} ({prices.grade})"
        dearer.append(Refusal(rule="auto", node=WHOLE, reason=reason))
    return fused, log.model_copy(update={"refused": (*dearer, *log.refused)})


def _with_keep(graph_module: fx.GraphModule, rules: list[Rule], keep: Mapping[str, Sequence[int]]) -> list[Rule]:
    """Tell the rule for shortcuts which blocks to reserve in any case."""
    if not keep:
        return rules
    adds = {node.name for node in graph_module.graph.nodes if is_add(node) or "add" in node.name}
    for name in keep:
        if name not in adds:
            raise unknown_name("residual block", name, adds)
    chosen = ShortcutIntoFilters({name: tuple(channels) for name, channels in keep.items()})
    return [chosen if isinstance(rule, ShortcutIntoFilters) else rule for rule in rules]
