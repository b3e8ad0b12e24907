"""What a run came to, and what it ships."""

from __future__ import annotations

from fupruner.records.base import Record
from fupruner.records.latency import Grade


class Fact(Record):
    """One thing that a device's own tools say about a network.

    Attributes:
        name: what it is about, for example ``stages``.
        value: as written for people, with its unit.
        source: the tool that said it.
    """

    name: str
    value: str
    source: str


class Shipped(Record):
    """What a run ships for its target, and what the device's own tools say about it.

    Attributes:
        files: names of what has to be shipped, the main file first.
        ships, precision: of the target.
        judged_in: the runtime in which accuracy was judged.
        recipe: how the file is run on the device.
        before, after: facts about the original and about the result.
    """

    files: tuple[str, ...]
    ships: str
    precision: str
    judged_in: str
    recipe: str
    before: tuple[Fact, ...] = ()
    after: tuple[Fact, ...] = ()


class Figures(Record):
    """What a network costs and what it is worth; one side of ``result.json``."""

    accuracy: float
    latency_ms: float
    latency_grade: Grade
    macs: int
    params: int


class Requirement(Record):
    """What was asked, and whether the result meets it.

    Attributes:
        max_drop: points of the metric that may be lost.
    """

    max_drop: float
    satisfied: bool


class Judgement(Record):
    """The content of ``judgement.json``: on which validation data the search looked, and on which its answer was judged.

    Attributes:
        divided: whether ``result.json`` has figures of data that the search did not look at.
        searched_baseline: the original's figure on the data that the search looked at.
        searched_final: the kept network's figure there.
        refused: attempts that met the requirement there, but not on the data that the answer is judged by.
    """

    divided: bool
    searched_baseline: float
    searched_final: float
    refused: tuple[int, ...] = ()


class Summary(Record):
    """The content of ``result.json``: the final word on a run.

    Attributes:
        speedup: ratio baseline / final, from interleaved runs where it was measured; else of estimates.
        epochs: epochs of training behind the final network.
        seconds: wall-clock time of the whole run.
        precision: number format of what ships, of the original in ``baseline_precision``.
        drop_error: standard error, in points, of what was lost from baseline to final; None where the task cannot tell it, or
            the original was kept.
    """

    requirement: Requirement
    baseline: Figures
    final: Figures
    speedup: float
    target: str
    epochs: int
    seconds: float
    hardware: str
    version: str
    precision: str = ""
    baseline_precision: str = ""
    drop_error: float | None = None
