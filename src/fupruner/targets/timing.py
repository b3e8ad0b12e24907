"""Times several callables in turn, so that whatever disturbs the machine disturbs all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fupruner.progress import counted

Run = Callable[[], object]


@dataclass(frozen=True)
class Rounds:
    """Interleaved timings.

    Attributes:
        times: milliseconds per call, shape (rounds, callables); each is the median of one slot's calls.
        repeats: timed calls per slot, one entry per callable.
    """

    times: npt.NDArray[np.float64]
    repeats: tuple[int, ...]


def interleave(
    runs: Sequence[Run],
    *,
    slot_seconds: float = 0.02,
    total_seconds: float = 3.0,
    least_rounds: int = 9,
    most_rounds: int = 101,
) -> Rounds:
    """Time callables in rounds A B C A B C ...

    A slot calls one callable once untimed, to bring its weights back into the caches, and then as often as fills
    ``slot_seconds``. The median of these calls stands for the slot, so that a call that was interrupted by another
    process does not count. Ratios are to be taken within a round.

    Args:
        runs: what to time.
        slot_seconds: least timed work per callable and round.
        total_seconds: rounds are added until about this much time is used.
        least_rounds: never fewer rounds.
        most_rounds: never more rounds.
    """
    single = [_warm_up(run) for run in runs]
    repeats = tuple(max(1, int(np.ceil(slot_seconds / seconds))) for seconds in single)
    round_seconds = sum(seconds * (count + 1) for seconds, count in zip(single, repeats, strict=True))
    rounds = int(np.clip(total_seconds / round_seconds, least_rounds, most_rounds))
    times = [
        [_slot(run, count) for run, count in zip(runs, repeats, strict=True)]
        for _ in counted(range(rounds), "measure, rounds", rounds)
    ]
    return Rounds(np.asarray(times), repeats)


def quartile_range(values: npt.NDArray[np.float64]) -> float:
    """Distance between the quartiles."""
    low, high = np.percentile(values, [25, 75])
    return float(high - low)


def _warm_up(run: Run, calls: int = 3) -> float:
    """Call a few times; the fastest call's seconds."""
    run()
    return max(1e-7, min(_seconds(run) for _ in range(calls)))


def _slot(run: Run, repeats: int) -> float:
    run()
    return float(np.median([_seconds(run) for _ in range(repeats)])) * 1e3


def _seconds(run: Run) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
