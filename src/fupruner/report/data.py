"""A finished run, read back from its folder as one record."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from fupruner.errors import InputError
from fupruner.records import FusionLog, History, LayerTime, Plan, Record, Summary

Content = TypeVar("Content")


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


class Event(Record):
    """One line of the run's log; what belongs to the event is kept as it is."""

    model_config = ConfigDict(frozen=True, extra="allow")

    time: str
    event: str

    def details(self) -> str:
        """Write everything besides time and name in one line."""
        return ", ".join(f"{name} {value}" for name, value in (self.model_extra or {}).items())


class RunReport(Record):
    """Everything a run folder says about the run; parts that an interrupted or older run lacks are empty."""

    folder: str
    summary: Summary
    plan: Plan | None = None
    fusion: FusionLog | None = None
    options: dict[str, object] = Field(default_factory=dict)
    history: tuple[History, ...] = ()
    layer_times: LayerTimes = LayerTimes()
    events: tuple[Event, ...] = ()
    attempts: tuple[Attempt, ...] = ()


def read_run(folder: Path) -> RunReport:
    """Read the records of a run folder.

    Raises:
        InputError: the run has not finished, or one of its files cannot be read.
    """
    if not folder.is_dir():
        raise InputError(f"There is no run folder {folder}.")
    if not (folder / "result.json").exists():
        raise InputError(f"The run in {folder} has not finished: it has no result.json.", hint="Wait for it to end.")
    return RunReport(
        folder=folder.resolve().name,
        summary=_read(folder / "result.json", _json(Summary)),
        plan=_optional(folder / "plan.json", _json(Plan), None),
        fusion=_optional(folder / "fusion.json", _json(FusionLog), None),
        options=_optional(folder / "options.toml", tomllib.loads, {}),
        history=_optional(folder / "history.json", _json(tuple[History, ...]), ()),
        layer_times=_optional(folder / "layer_times.json", _json(LayerTimes), LayerTimes()),
        events=_optional(folder / "events.jsonl", _events, ()),
        attempts=_optional(folder / "attempts.json", _json(tuple[Attempt, ...]), ()),
    )


def _json(kind: type[Content]) -> Callable[[str], Content]:
    return TypeAdapter(kind).validate_json


def _events(text: str) -> tuple[Event, ...]:
    return tuple(Event.model_validate(json.loads(line)) for line in text.splitlines() if line.strip())


def _optional(path: Path, parse: Callable[[str], Content], missing: Content) -> Content:
    return _read(path, parse) if path.exists() else missing


def _read(path: Path, parse: Callable[[str], Content]) -> Content:
    try:
        return parse(path.read_text(encoding="utf-8"))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "content"
        raise InputError(f"{path} is damaged: {where}: {first['msg']}.") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is damaged: {error}.") from None
