"""Places the operators of a network: one row per depth, few crossings, long edges led around what they pass.

The usual four steps for layered drawings: rows by longest path, place-holders where an edge passes a row, order within
rows by the mean of neighbours, then positions that pull towards neighbours and never overlap.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 172.0, 36.0
"""Size of a box."""
GAP_X, GAP_Y = 16.0, 20.0
LANE = 10.0
"""Width of a place-holder."""
SWEEPS = 6
MOST_PLACEHOLDERS = 6000
"""Beyond this many, long edges go straight: the drawing of a densely connected network would otherwise take minutes."""

Point = tuple[float, float]


@dataclass(frozen=True)
class Layout:
    """Where boxes and edges go.

    Attributes:
        boxes: upper left corner by name.
        edges: an SVG path per edge, in order of the readers.
    """

    width: float
    height: float
    boxes: dict[str, Point]
    edges: tuple[str, ...]


def lay_out(inputs: Mapping[str, Sequence[str]]) -> Layout:
    """Place a graph.

    Args:
        inputs: for each node what it reads, in an order in which the graph can run; names that are no nodes are ignored.
    """
    edges = [(read, name) for name, reads in inputs.items() for read in dict.fromkeys(reads) if read in inputs]
    row = _rows(inputs)
    chains = _chains(edges, row)
    rows, above, below = _grid(inputs, row, chains)
    for sweep in range(SWEEPS):
        _order(rows, above if sweep % 2 == 0 else below, downwards=sweep % 2 == 0)
    middle = _positions(rows, above, below)
    left = min((middle[key] - _width(key) / 2 for key in middle), default=0.0)
    width = max((middle[key] + _width(key) / 2 for key in middle), default=0.0) - left
    top = {name: row[name] * (HEIGHT + GAP_Y) for name in inputs}
    paths = tuple(_path([(middle[key] - left, _row_of(key, row)) for key in chain]) for chain in chains)
    boxes = {name: (middle[name] - WIDTH / 2 - left, top[name]) for name in inputs}
    return Layout(width, max(top.values(), default=0.0) + HEIGHT, boxes, paths)


Key = str | tuple[str, str, int]
"""A node, or the place-holder of an edge in a row."""


def _rows(inputs: Mapping[str, Sequence[str]]) -> dict[str, int]:
    row: dict[str, int] = {}
    for name, reads in inputs.items():
        row[name] = 1 + max((row[read] for read in reads if read in row), default=-1)
    return row


def _chains(edges: Sequence[tuple[str, str]], row: Mapping[str, int]) -> list[list[Key]]:
    """Each edge as the keys that it passes."""
    passed = sum(row[end] - row[start] - 1 for start, end in edges)
    led = passed <= MOST_PLACEHOLDERS
    return [
        [start, *((start, end, r) for r in range(row[start] + 1, row[end]) if led), end]
        for start, end in edges
    ]  # fmt: skip


def _grid(
    inputs: Mapping[str, Sequence[str]], row: Mapping[str, int], chains: Sequence[Sequence[Key]]
) -> tuple[list[list[Key]], dict[Key, list[Key]], dict[Key, list[Key]]]:
    rows: list[list[Key]] = [[] for _ in range(1 + max(row.values(), default=-1))]
    above: dict[Key, list[Key]] = defaultdict(list)
    below: dict[Key, list[Key]] = defaultdict(list)
    for name in inputs:
        rows[row[name]].append(name)
    for chain in chains:
        for key in chain[1:-1]:
            rows[_row_of(key, row)].append(key)
        for upper, lower in itertools.pairwise(chain):
            above[lower].append(upper)
            below[upper].append(lower)
    return rows, above, below


def _row_of(key: Key, row: Mapping[str, int]) -> int:
    return row[key] if isinstance(key, str) else key[2]


def _order(rows: list[list[Key]], neighbours: Mapping[Key, Sequence[Key]], *, downwards: bool) -> None:
    """Sort each row by the mean place of its neighbours in the row before."""
    place: dict[Key, float] = {key: i / max(1, len(row)) for row in rows for i, key in enumerate(row)}
    for row in rows if downwards else reversed(rows):
        row.sort(key=lambda key: _mean([place[each] for each in neighbours.get(key, ())], place[key]))
        place.update({key: i / max(1, len(row)) for i, key in enumerate(row)})


def _positions(
    rows: Sequence[Sequence[Key]], above: Mapping[Key, Sequence[Key]], below: Mapping[Key, Sequence[Key]]
) -> dict[Key, float]:
    """Middles of all boxes: towards their neighbours, as far as those beside them let them."""
    middle: dict[Key, float] = {key: 0.0 for row in rows for key in row}
    for row in rows:
        middle.update(_spread(row, [0.0] * len(row)))
    for _ in range(SWEEPS):
        for ordered, neighbours in ((rows, above), (list(reversed(rows)), below)):
            for row in ordered:
                wanted = [_mean([middle[each] for each in neighbours.get(key, ())], middle[key]) for key in row]
                middle.update(_spread(row, wanted))
    return middle


def _spread(row: Sequence[Key], wanted: Sequence[float]) -> dict[Key, float]:
    """Keep the order and the gaps: the mean of pushing everything rightwards and everything leftwards."""
    gaps = [(_width(a) + _width(b)) / 2 + GAP_X for a, b in itertools.pairwise(row)]
    right, left = list(wanted), list(wanted)
    for i, gap in enumerate(gaps):
        right[i + 1] = max(right[i + 1], right[i] + gap)
    for i in range(len(gaps) - 1, -1, -1):
        left[i] = min(left[i], left[i + 1] - gaps[i])
    return {key: (a + b) / 2 for key, a, b in zip(row, right, left, strict=True)}


def _width(key: Key) -> float:
    return WIDTH if isinstance(key, str) else LANE


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def _path(points: Sequence[tuple[float, int]]) -> str:
    """Straight down through a row, curved between two rows."""
    x, row = points[0]
    parts = [f"M{x:.0f} {row * (HEIGHT + GAP_Y) + HEIGHT:.0f}"]
    for i, (x_next, row_next) in enumerate(points[1:], 1):
        start, end = row * (HEIGHT + GAP_Y) + HEIGHT, row_next * (HEIGHT + GAP_Y)
        bend = (end - start) / 2
        parts.append(f"C{x:.0f} {start + bend:.0f} {x_next:.0f} {end - bend:.0f} {x_next:.0f} {end:.0f}")
        if i < len(points) - 1:
            parts.append(f"V{end + HEIGHT:.0f}")
        x, row = x_next, row_next
    return "".join(parts)
