"""What a sweep writes to ``sweep.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from fupruner.errors import InputError
from fupruner.records import Comparison, Figures, Grade, Metric, Record, Summary
from fupruner.runs.run_folder import write_atomically
from fupruner.sweeping.space import Value

FILE = "sweep.json"
"""What marks the folder of a sweep."""

Method = Literal["grid", "search"]


class Trial(Record):
    """One run of a sweep.

    Attributes:
        number: counted from 0 in the order in which trials began.
        folder: of the run, below the folder of the sweep.
        values: of the options that vary.
        reason: why it failed, or an empty string.
        worker: host and process that it ran on.
        accuracy: the metric of the shipped network; None where the trial failed, as for all that follows.
        latency_ms: of the shipped network at batch 1.
        speedup: over the original, measured in turns with it.
        satisfied: whether the trial's own requirement is met.
    """

    number: int
    folder: str
    values: dict[str, Value]
    reason: str = ""
    worker: str = ""
    accuracy: float | None = None
    latency_ms: float | None = None
    latency_grade: Grade | None = None
    speedup: float | None = None
    macs: int | None = None
    params: int | None = None
    satisfied: bool | None = None
    seconds: float | None = None


class Sweep(Record):
    """A sweep as far as it has come.

    Attributes:
        planned: trials that it will have in all.
        together: whether all latencies were taken in turns at the end; if not, each was taken in its own run.
        front: numbers of the trials that no other one beats in both metric and speed, fastest first.
        seconds: that the trials took, added up.
    """

    model: str
    target: str
    metric: Metric
    method: Method
    varied: tuple[str, ...]
    planned: int
    trials: tuple[Trial, ...]
    front: tuple[int, ...] = ()
    baseline: Figures | None = None
    together: bool = False
    seconds: float = 0.0
    hardware: str = ""
    version: str = ""

    @property
    def done(self) -> tuple[Trial, ...]:
        """Trials that gave a network."""
        return tuple(trial for trial in self.trials if not trial.reason)


def finished(trial: Trial, summary: Summary) -> Trial:
    """A trial with the figures of its run."""
    final = summary.final
    return trial.model_copy(
        update={
            "accuracy": final.accuracy,
            "latency_ms": final.latency_ms,
            "latency_grade": final.latency_grade,
            "speedup": summary.speedup,
            "macs": final.macs,
            "params": final.params,
            "satisfied": summary.requirement.satisfied,
            "seconds": summary.seconds,
        }
    )


def timed(trial: Trial, comparison: Comparison, place: int) -> Trial:
    """A trial with the latency that it had in turns with all others."""
    measurement = comparison.measurements[place]
    return trial.model_copy(
        update={
            "latency_ms": measurement.latency_ms,
            "latency_grade": measurement.grade,
            "speedup": comparison.speedups[place],
        }
    )


def pareto_front(trials: Sequence[Trial]) -> tuple[int, ...]:
    """Numbers of the trials that no other one beats: none is at least as good in both and better in one. Fastest first."""
    best, front = float("-inf"), []
    known = [
        (t.latency_ms, t.accuracy, t.number) for t in trials if t.latency_ms is not None and t.accuracy is not None
    ]
    for _, accuracy, number in sorted(known, key=lambda each: (each[0], -each[1], each[2])):
        if accuracy > best:
            best = accuracy
            front.append(number)
    return tuple(front)


def write_sweep(record: Sweep, folder: Path) -> None:
    """Write the record of a sweep."""
    write_atomically(folder / FILE, json.dumps(record.model_dump(mode="json"), indent=2) + "\n")


def read_sweep(folder: Path) -> Sweep:
    """Read the record of a sweep.

    Raises:
        InputError: there is none, or it is damaged.
    """
    try:
        return Sweep.model_validate_json((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"The sweep in {folder} cannot be read: {str(error).splitlines()[0]}.") from None


def shown(values: Mapping[str, Any]) -> str:
    """Write options and their values in one line."""
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in values.items()
    )
