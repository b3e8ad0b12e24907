"""A finished run, read back from its folder as one record."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from fupruner.errors import InputError
from fupruner.records import (
    DecisionRecord,
    Figures,
    FusionLog,
    GraphRecord,
    History,
    Judgement,
    LayerTime,
    Metric,
    Plan,
    Record,
    Shipped,
    Summary,
)


class Attempt(Record):
    """One speed-up that was tried, and what came of it."""

    attempt: int
    asked_speedup: float
    speedup: float
    accuracy: float
    drop: float
    satisfied: bool
    latency_ms: float
    macs: int
    params: int


class LayerTimes(Record):
    """Time per operator in the target's runtime, before and after."""

    before: tuple[LayerTime, ...] = ()
    after: tuple[LayerTime, ...] = ()


class Graphs(Record):
    """The network as it came, and fused."""

    before: GraphRecord | None = None
    fused: GraphRecord | None = None


class Event(Record):
    """One line of the run's log; what belongs to the event is kept as it is."""

    model_config = ConfigDict(frozen=True, extra="allow")

    time: str
    event: str

    def details(self) -> str:
        """Write everything besides time and name in one line."""
        return ", ".join(f"{name} {value}" for name, value in (self.model_extra or {}).items())


class ShippedFile(Record):
    """A file of the run folder and its size in bytes."""

    name: str
    size: int


class RunReport(Record):
    """Everything a run folder says about the run; parts that an interrupted or older run lacks are empty."""

    folder: str
    summary: Summary
    metric: Metric = Metric()
    judgement: Judgement | None = None
    plan: Plan | None = None
    fusion: FusionLog | None = None
    fusion_after: FusionLog | None = None
    options: dict[str, object] = Field(default_factory=dict)
    history: tuple[History, ...] = ()
    layer_times: LayerTimes = LayerTimes()
    events: tuple[Event, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    versions: dict[str, str] = Field(default_factory=dict)
    decisions: tuple[DecisionRecord, ...] = ()
    shipped: Shipped | None = None
    graphs: Graphs = Graphs()
    graph_after: GraphRecord | None = None
    files: tuple[ShippedFile, ...] = ()

    @property
    def is_judged_elsewhere(self) -> bool:
        """Whether the result has figures of validation data that the search did not look at."""
        return self.judgement is not None and self.judgement.divided

    @property
    def looked_at(self) -> tuple[Figures, Figures]:
        """The original and the kept network on the data that the search looked at, to draw beside its attempts."""
        before, after = self.summary.baseline, self.summary.final
        if self.judgement is None:
            return before, after
        return (
            before.model_copy(update={"accuracy": self.judgement.searched_baseline}),
            after.model_copy(update={"accuracy": self.judgement.searched_final}),
        )

    def drawn_at(self, speedup: float) -> float:
        """Milliseconds at which a network is drawn: the original's, divided by the speed-up over it that was timed in turn.

        Its own milliseconds were measured at another time, and a machine is not equally fast at all times.
        """
        return self.summary.baseline.latency_ms / speedup

    @property
    def model(self) -> str:
        """What the log calls the model, or an empty string."""
        named = (str((event.model_extra or {}).get("model", "")) for event in self.events if event.event == "started")
        return next(named, "")


def _events(text: str) -> list[object]:
    return [json.loads(line) for line in text.splitlines() if line.strip()]


FILES: dict[str, tuple[str, Callable[[str], object]]] = {
    "summary": ("result.json", TypeAdapter(Summary).validate_json),
    "metric": ("metric.json", TypeAdapter(Metric).validate_json),
    "judgement": ("judgement.json", TypeAdapter(Judgement).validate_json),
    "plan": ("plan.json", TypeAdapter(Plan).validate_json),
    "fusion": ("fusion.json", TypeAdapter(FusionLog).validate_json),
    "fusion_after": ("fusion_after.json", TypeAdapter(FusionLog).validate_json),
    "options": ("options.toml", tomllib.loads),
    "history": ("history.json", TypeAdapter(tuple[History, ...]).validate_json),
    "layer_times": ("layer_times.json", TypeAdapter(LayerTimes).validate_json),
    "events": ("events.jsonl", lambda text: TypeAdapter(tuple[Event, ...]).validate_python(_events(text))),
    "decisions": ("decisions.json", TypeAdapter(tuple[DecisionRecord, ...]).validate_json),
    "shipped": ("shipped.json", TypeAdapter(Shipped).validate_json),
    "graphs": ("graphs.json", TypeAdapter(Graphs).validate_json),
    "graph_after": ("graph_after.json", TypeAdapter(GraphRecord).validate_json),
    "versions": ("versions.json", TypeAdapter(dict[str, str]).validate_json),
    "attempts": ("attempts.json", TypeAdapter(tuple[Attempt, ...]).validate_json),
}
"""What each file of a run folder holds, and how it is read."""


def read_run(folder: Path) -> RunReport:
    """Read the records of a run folder; only ``result.json`` has to be there.

    Raises:
        InputError: the run has not finished, or one of its files cannot be read.
    """
    if not folder.is_dir():
        raise InputError(f"There is no run folder {folder}.")
    if not (folder / "result.json").exists():
        raise InputError(f"The run in {folder} has not finished: it has no result.json.", hint="Wait for it to end.")
    found = {name: _read(folder / file, parse) for name, (file, parse) in FILES.items() if (folder / file).exists()}
    files = tuple(
        ShippedFile(name=path.name, size=path.stat().st_size) for path in sorted(folder.iterdir()) if path.is_file()
    )
    return RunReport.model_validate({"folder": folder.resolve().name, "files": files, **found})


def _read(path: Path, parse: Callable[[str], object]) -> object:
    try:
        return parse(path.read_text(encoding="utf-8"))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "content"
        raise InputError(f"{path} is damaged: {where}: {first['msg']}.") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is damaged: {error}.") from None
