"""Curves of accuracy against speed-up: where they reach a level of accuracy, and how far apart they lie; for ``peers.py``.

A curve goes through all networks of a method that were trained in one way, straight from one to the next, those included that came out
worse than a faster one. Beyond the first and the last of them nothing is said.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

DROPS = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0)
Point = tuple[float, float]
"""Speed-up and accuracy in percent."""


def joined(points: Sequence[Point]) -> list[Point]:
    """The points in order of speed-up; of those that are equally fast the best."""
    best: dict[float, float] = {}
    for speedup, accuracy in points:
        best[speedup] = max(accuracy, best.get(speedup, 0.0))
    return sorted(best.items())


def speedup_at(curve: Sequence[Point], accuracy: float) -> float | None:
    """The speed-up at which a curve first falls to a level of accuracy; None where it begins below it or never gets there."""
    if not curve or curve[0][1] < accuracy:
        return None
    for (slow, high), (fast, low) in itertools.pairwise(curve):
        if low <= accuracy:
            return slow if high == low else slow + (fast - slow) * (high - accuracy) / (high - low)
    return None


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


def ways(rows: Sequence[dict[str, Any]], network: str, ours: str) -> list[tuple[str, str]]:
    """What ours learnt from, and with which optimizer; only what was trained in the same way is compared."""
    return sorted({(r["learns"], r["optimizer"]) for r in rows if (r["network"], r["method"]) == (network, ours)})


def curves_of(rows: Sequence[dict[str, Any]], network: str, way: tuple[str, str], ours: str) -> dict[str, list[Point]]:
    """Curves of the methods that were trained in one way, by name, ours first."""
    found = [row for row in rows if (row["network"], (row["learns"], row["optimizer"])) == (network, way)]
    names = sorted({row["method"] for row in found}, key=lambda name: (name != ours, name))
    return {
        name: joined([(row["speedup"], row["accuracy"]) for row in found if row["method"] == name]) for name in names
    }


def summary(rows: Sequence[dict[str, Any]], baselines: dict[str, float], ours: str) -> dict[str, list[dict[str, Any]]]:
    """Levels and areas of all networks.

    Args:
        rows: with network, method, learns, optimizer, speedup and accuracy.
        baselines: accuracy of each network before.
        ours: the method that the others are compared with.
    """
    levels, areas = [], []
    for network, before in baselines.items():
        for way in ways(rows, network, ours):
            curves = curves_of(rows, network, way, ours)
            about = {"network": network, "learns": way[0], "optimizer": way[1]}
            for drop in DROPS:
                reached = {name: speedup_at(curve, before - drop) for name, curve in curves.items()}
                level: dict[str, Any] = {**about, "accuracy": round(before - drop, 2), "drop": drop}
                level |= {name: None if s is None else round(s, 2) for name, s in reached.items()}
                mine = reached.get(ours)
                level |= {f"{ours} over {name}": round(mine / s, 2) if mine and s else None
                          for name, s in reached.items() if name != ours}  # fmt: skip
                if any(reached.values()):
                    levels.append(level)
            for name, curve in curves.items():
                found = None if name == ours else mean_difference(curves[ours], curve)
                if found:
                    areas.append({**about, "than": name, **found})
    return {"speedup_at_equal_accuracy": levels, "points_higher_at_equal_speedup": areas}
