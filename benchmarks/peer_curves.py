"""Curves of accuracy against speed-up: where they reach a level of accuracy, and how far apart they lie; for ``peers.py``.

A curve goes through the networks of a method that no other network of it beats in both, straight from one to the next. Beyond the
first and the last of them nothing is said.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

DROPS = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0)
Point = tuple[float, float]
"""Speed-up and accuracy in percent."""


def front(points: Sequence[Point]) -> list[Point]:
    """The points that no other one beats in both, the slowest first; accuracy falls along them."""
    kept: list[Point] = []
    for point in sorted(points, key=lambda p: (-p[0], -p[1])):
        if not kept or point[1] > kept[-1][1]:
            kept.append(point)
    return kept[::-1]


def speedup_at(curve: Sequence[Point], accuracy: float) -> float | None:
    """The speed-up at which a curve has a level of accuracy; None where the level lies beyond its ends."""
    if not curve or not curve[-1][1] <= accuracy <= curve[0][1]:
        return None
    speeds, levels = zip(*reversed(curve), strict=True)
    return float(np.interp(accuracy, levels, speeds))


def mean_difference(one: Sequence[Point], other: Sequence[Point]) -> dict[str, float] | None:
    """Area between two curves over the logarithm of the speed-up, divided by its width: points of accuracy, where both are known."""
    if not one or not other:
        return None
    first, last = max(one[0][0], other[0][0]), min(one[-1][0], other[-1][0])
    if first >= last:
        return None
    at = np.linspace(math.log(first), math.log(last), 1001)
    heights = [np.interp(at, [math.log(s) for s, _ in c], [a for _, a in c]) for c in (one, other)]
    return {"from": round(first, 2), "to": round(last, 2), "points": round(float((heights[0] - heights[1]).mean()), 2)}


def summary(rows: Sequence[dict[str, Any]], baselines: dict[str, float], ours: str) -> dict[str, list[dict[str, Any]]]:
    """Levels and areas of all networks.

    Args:
        rows: with network, method, speedup and accuracy.
        baselines: accuracy of each network before.
        ours: the method that the others are compared with.
    """
    levels, areas = [], []
    for network, before in baselines.items():
        methods = sorted({row["method"] for row in rows if row["network"] == network}, key=lambda m: (m != ours, m))
        curves = {m: front([(r["speedup"], r["accuracy"]) for r in rows if (r["network"], r["method"]) == (network, m)])
                  for m in methods}  # fmt: skip
        for drop in DROPS:
            reached = {method: speedup_at(curve, before - drop) for method, curve in curves.items()}
            level: dict[str, Any] = {"network": network, "accuracy": round(before - drop, 2), "drop": drop}
            level |= {method: None if s is None else round(s, 2) for method, s in reached.items()}
            mine = reached.get(ours)
            level |= {f"{ours} over {method}": round(mine / s, 2) if mine and s else None
                      for method, s in reached.items() if method != ours}  # fmt: skip
            levels.append(level)
        for method in methods:
            found = None if method == ours else mean_difference(curves.get(ours, []), curves[method])
            if found:
                areas.append({"network": network, "than": method, **found})
    return {"speedup_at_equal_accuracy": levels, "points_higher_at_equal_speedup": areas}
