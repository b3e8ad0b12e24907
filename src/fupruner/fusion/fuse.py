"""Fusion as the rest of the package sees it: one function."""

from __future__ import annotations

from torch import Tensor, fx

from fupruner.fusion import engine, rules
from fupruner.records import FusionLog
from fupruner.targets.base import CostModel


def fuse_graph(
    graph_module: fx.GraphModule,
    example_inputs: tuple[Tensor, ...],
    level: str,
    *,
    only: tuple[str, ...] = (),
    without: tuple[str, ...] = (),
    cost_model: CostModel | None = None,
) -> tuple[fx.GraphModule, FusionLog]:
    """Fuse a copy of a graph with the rules of a level; ``auto`` needs a cost model to ask."""
    chosen = rules.select(level, only=only, without=without)
    return engine.run(
        graph_module, example_inputs, chosen, level=level, cost_model=cost_model if level == "auto" else None
    )
