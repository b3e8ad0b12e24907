"""The one entry to fusion: a traced graph and a level in, an equivalent graph and a log out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from torch import Tensor, fx

from fupruner.errors import InputError, unknown_name
from fupruner.fusion import engine
from fupruner.fusion.rule import Rule
from fupruner.fusion.rules import select
from fupruner.fusion.rules.shortcut import ShortcutIntoFilters
from fupruner.graph import shapes
from fupruner.graph.cost import is_add
from fupruner.records import FusionLog, Refusal
from fupruner.targets.base import CostModel


def fuse_graph(
    graph_module: fx.GraphModule,
    example_inputs: tuple[Tensor, ...],
    level: str,
    *,
    only: Iterable[str] = (),
    without: Iterable[str] = (),
    cost_model: CostModel | None = None,
    keep: Mapping[str, Sequence[int]] | None = None,
) -> tuple[fx.GraphModule, FusionLog]:
    """Rewrite a graph into an equivalent one; the graph given is not modified.

    Args:
        graph_module: a canonical graph from ``graph.trace``.
        example_inputs: tensors, batch first.
        level: ``none``, ``basic``, ``aggressive``, or ``auto``: every aggressive rewrite that the cost model does not find dearer,
            and the unfused network where nothing else is at least as fast.
        only: names of rules to keep; all of the level when empty.
        without: names of rules to leave out.
        cost_model: of the target; needed by ``auto`` and used by it alone.
        keep: names of residual blocks' Adds whose shortcut is reserved whatever it costs, with the channels that may be carried.

    Raises:
        InputError: an unknown level, rule or block, ``auto`` without a cost model, or too little memory.
        NotEquivalentError: the fused network computes something else, although every single rewrite held.
    """
    if level == "auto" and cost_model is None:
        raise InputError("Fusion level auto needs a cost model.", hint="Name a target, or choose basic or aggressive.")
    rules = _with_keep(graph_module, select(level, only=only, without=without), keep or {})
    with _memory_told(graph_module):
        if level != "auto" or cost_model is None:
            return engine.run(graph_module, example_inputs, rules, level=level)
        return _cheapest(graph_module, example_inputs, rules, cost_model)


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
    graph_module: fx.GraphModule, example_inputs: tuple[Tensor, ...], rules: Sequence[Rule], cost_model: CostModel
) -> tuple[fx.GraphModule, FusionLog]:
    """The fused graph, or one with fewer rules if the cost model finds it slower than the unfused one."""
    prices = engine.Prices(cost_model)
    shapes.propagate(graph_module, example_inputs)
    unfused = prices.of(graph_module)
    dearer: list[Refusal] = []
    for chosen in (rules, [rule for rule in rules if rule.level == "basic"], []):
        fused, log = engine.run(graph_module, example_inputs, chosen, level="auto", cost_model=cost_model)
        price = prices.of(fused)
        if price <= unfused or not chosen:
            break
        names = ", ".join(dict.fromkeys(fired.rule for fired in log.fired))
        reason = f"dearer on the target: {price:.4f} ms instead of {unfused:.4f} ms with {names} ({cost_model.grade})"
        dearer.append(Refusal(rule="auto", node="the whole network", reason=reason))
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
