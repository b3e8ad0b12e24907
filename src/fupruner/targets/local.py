"""What runtimes on this machine have in common: networks timed in turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from fupruner.records import Comparison, Measurement
from fupruner.targets.timing import Rounds, interleave, quartile_range


def compared(target: str, source: str, runs: Sequence[Callable[[], object]], threads: int) -> Comparison:
    """Time networks in interleaved rounds; speed-ups are relative to the first.

    Args:
        target: the target's name.
        source: the runtime, as written beside the figures.
        runs: each runs a network once, at batch 1.
        threads: that the runtime was given.
    """
    return from_rounds(target, source, interleave(runs), threads)


def from_rounds(target: str, source: str, rounds: Rounds, threads: int) -> Comparison:
    """Interleaved timings as a comparison: medians over the rounds, ratios within them."""
    ratios = rounds.times[:, :1] / rounds.times
    return Comparison(
        measurements=tuple(
            Measurement(
                latency_ms=float(np.median(rounds.times[:, i])),
                spread=quartile_range(rounds.times[:, i]),
                grade="measured",
                source=source,
                target=target,
                threads=threads,
                runs=len(rounds.times) * rounds.repeats[i],
            )
            for i in range(rounds.times.shape[1])
        ),
        speedups=tuple(float(np.median(column)) for column in ratios.T),
        spreads=tuple(quartile_range(column) for column in ratios.T),
    )
