"""Times of networks and of their layers, and how far they can be trusted."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from fupruner.records.base import Record

Grade = Literal["measured", "table", "estimated"]


class Measurement(Record):
    """A latency and how far it can be trusted.

    Attributes:
        latency_ms: median over the runs.
        spread: distance between the quartiles of the runs, in milliseconds; 0 for an estimate.
        grade: ``measured`` on the device, ``table`` (sum of per-layer times measured on it) or ``estimated``.
        source: the runtime with its version, or where an estimate's constants come from.
        target: the target's name.
        threads: threads the runtime was given.
        runs: timed runs behind the median.
    """

    latency_ms: float
    spread: float
    grade: Grade
    source: str
    target: str
    threads: int = 1
    runs: int = 0


class Comparison(Record):
    """Several networks timed in turn in one process, so that drifts of the machine hit all of them alike; or all estimated.

    Attributes:
        measurements: one per network, in the order given, all of one grade.
        speedups: median over rounds of (latency of the first / latency of this one); the first is 1.
        spreads: distance between the quartiles of those ratios.
    """

    measurements: tuple[Measurement, ...]
    speedups: tuple[float, ...]
    spreads: tuple[float, ...]

    @model_validator(mode="after")
    def _one_grade(self) -> Comparison:
        """A ratio of a measurement to an estimate would mean nothing."""
        grades = sorted({measurement.grade for measurement in self.measurements})
        if len(grades) > 1:
            raise ValueError(f"latencies of different grades cannot be compared: {', '.join(grades)}")
        return self


class LayerTime(Record):
    """Time of one operator of a network in the target's runtime, or an estimate of it."""

    name: str
    kind: str
    ms: float
    grade: Grade = "measured"
