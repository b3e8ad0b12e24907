"""Drawings of a network before fusion, after fusion and after pruning; the template turns them into SVG."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fupruner.records import GraphNode, GraphRecord, Plan
from fupruner.report import words
from fupruner.report.data import RunReport
from fupruner.report.layout import HEIGHT, WIDTH, lay_out
from fupruner.report.plotting import shorten

KINDS: dict[str, tuple[str, ...]] = {
    "convolution": ("conv",),
    "linear": ("linear", "matmul", "bmm", "addmm", "einsum"),
    "norm": ("norm",),
    "pooling": ("pool", "mean"),
    "sum or product": ("add", "sub", "mul", "div"),
    "concatenation": ("cat", "stack"),
    "activation": ("elu", "relu", "gelu", "silu", "mish", "swish", "sigmoid", "tanh", "softmax", "softplus", "clip", "clamp", "prelu"),
    "input or output": ("input", "output"),
}  # fmt: skip
OTHER = "other"
LABEL = 23
"""Characters that fit into a box."""
MARGIN = 6.0


@dataclass(frozen=True)
class Box:
    """One operator.

    Attributes:
        kind: number of its kind in ``kinds``; decides the colour.
        removed: share of its output channels that pruning removes, or None where channels are not its own.
        title: the whole story in one line.
    """

    x: float
    y: float
    kind: int
    label: str
    detail: str
    title: str
    removed: float | None


@dataclass(frozen=True)
class Drawing:
    """A network."""

    name: str
    title: str
    alternative: str
    width: float
    height: float
    boxes: tuple[Box, ...]
    edges: tuple[str, ...]


def kinds() -> tuple[str, ...]:
    """Kinds of operators, in the order of their colours."""
    return (*KINDS, OTHER)


def kind_number(kind: str) -> int:
    """Number of the kind that an operator belongs to."""
    name = kind.lower()
    for number, parts in enumerate(KINDS.values()):
        if any(part in name for part in parts):
            return number
    return len(KINDS)


def drawings(run: RunReport) -> list[Drawing]:
    """Draw what the run has graphs of."""
    stages = (
        ("before", "Before fusion", run.graphs.before),
        ("fused", "After fusion", run.graphs.fused),
        ("after", "After pruning", run.graph_after),
    )
    return [draw(name, title, graph, run.plan) for name, title, graph in stages if graph is not None]


def removed_shares(plan: Plan | None) -> dict[str, float]:
    """Share of the output channels of each layer that a plan removes."""
    if plan is None:
        return {}
    return {name: 1 - plan.widths_after.get(name, 0) / width for name, width in plan.widths_before.items() if width}


def draw(name: str, title: str, graph: GraphRecord, plan: Plan | None) -> Drawing:
    """Draw one network; channels that the plan removes are marked."""
    layout, shares = lay_out({node.name: node.inputs for node in graph.nodes}), removed_shares(plan)
    boxes = tuple(_box(node, layout.boxes[node.name], shares) for node in graph.nodes)
    pruned = sum(1 for box in boxes if box.removed)
    alternative = (
        f"{title}: {words.plural(len(boxes), 'operator')} and {words.plural(len(layout.edges), 'connection')}; "
        f"pruning removes channels of {pruned} of them. The table below lists the same."
    )
    return Drawing(name, title, alternative, layout.width, layout.height, boxes, layout.edges)


def _box(node: GraphNode, place: tuple[float, float], shares: Mapping[str, float]) -> Box:
    removed = shares.get(node.layer) if node.layer else None
    shape = "×".join(map(str, node.shape))  # noqa: RUF001
    facts = [node.kind, shape, f"{words.count(node.params)} parameters" if node.params else "", _share(removed)]
    return Box(
        x=place[0],
        y=place[1],
        kind=kind_number(node.kind),
        label=shorten(node.layer or node.name, LABEL),
        detail=shorten(" ".join(part for part in (node.kind, shape) if part), LABEL + 5),
        title=f"{node.layer or node.name}: {', '.join(fact for fact in facts if fact)}",
        removed=removed,
    )


def _share(removed: float | None) -> str:
    return "" if removed is None else f"{removed:.0%} of its channels removed"


def table_rows(graph: GraphRecord, plan: Plan | None) -> list[tuple[str, ...]]:
    """List the operators of a network: name, kind, what it reads, shape, share removed."""
    shares = removed_shares(plan)
    return [
        (
            node.layer or node.name,
            node.kind,
            ", ".join(node.inputs),
            "×".join(map(str, node.shape)),  # noqa: RUF001
            f"{shares[node.layer]:.0%}" if node.layer in shares else "",
        )
        for node in graph.nodes
    ]


SIZE = (WIDTH, HEIGHT)
