"""The last word on a search: its answer is judged on validation data that it did not look at."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fupruner.attempt import Outcome, Setting
from fupruner.records import Figures, Judgement
from fupruner.training.task import drop_error


@dataclass(frozen=True)
class Verdict:
    """What the judge says.

    Attributes:
        best: the fastest network that meets the requirement, or the one that was asked for; None where none does.
        satisfied: whether the requirement is met.
        baseline: the original, on the judge's data; timed in turn with the best.
        final: the best, likewise.
        judgement: which data was looked at, for the record.
        speedup: of the original as it ships, where none is best: not 1 where it is quantised on the way.
        drop_error: standard error of what was lost from baseline to final; None where it is not known, or none is best.
    """

    best: Outcome | None
    satisfied: bool
    baseline: Figures
    final: Figures
    judgement: Judgement
    speedup: float = 1.0
    drop_error: float | None = None


def judge(setting: Setting, baseline: Figures, candidates: list[Outcome]) -> Verdict:
    """Judge the answer of a search on data that it did not look at.

    A candidate that does not hold there gives way to the next, so that luck on the data of the search is not rewarded.

    Args:
        setting: of the run.
        baseline: the original, on the data that the search looked at.
        candidates: see ``search.search``, the best first.
    """
    asked, before = setting.options.speedup is not None, _original(setting, baseline)
    refused: list[int] = []

    def judgement(looked_at: Figures) -> Judgement:
        return Judgement(
            divided=setting.judge is not setting.task, searched_baseline=baseline.accuracy, searched_final=looked_at.accuracy,
            refused=tuple(refused),
        )  # fmt: skip

    for outcome in candidates:
        after = _judged(setting, outcome.figures, outcome.file)
        satisfied = before.accuracy - after.accuracy <= setting.options.max_drop
        if satisfied or asked:
            timed = before.model_copy(update={"latency_ms": outcome.baseline_ms})
            error = _drop_error(setting, outcome.file)
            return Verdict(outcome, satisfied, timed, after, judgement(outcome.figures), drop_error=error)
        refused.append(outcome.history.attempt)
        setting.progress.note(
            f"attempt {outcome.history.attempt} ({outcome.speedup:.2f}x) does not hold on validation data that the search did not look at"
        )
    before, shipped, speedup = _kept(setting, before)
    satisfied = before.accuracy - shipped.accuracy <= setting.options.max_drop
    return Verdict(None, satisfied, before, shipped, judgement(baseline), speedup)


def _kept(setting: Setting, before: Figures) -> tuple[Figures, Figures, float]:
    """The original where nothing better was found: as the user has it, as it ships (quantised, it has to hold like any other), speed-up."""
    target, file = setting.target, setting.baseline_file
    if target.precision != "int8":
        return before, before, 1.0
    now, then, speedup = before.latency_ms, before.latency_ms, 1.0
    if target.reference is not None:
        file = setting.folder / f"attempt-0{target.suffix}"
        target.export(setting.graph, setting.example_inputs, file)
        timed = target.compare([setting.baseline_file, file], setting.example_inputs, threads=setting.options.threads)
        (now, then), speedup = (m.latency_ms for m in timed.measurements), timed.speedups[1]
    accuracy = setting.judge.score(lambda x: target.predict(file, x))
    shipped = before.model_copy(update={"accuracy": accuracy, "latency_ms": then})
    return before.model_copy(update={"latency_ms": now}), shipped, speedup


def _original(setting: Setting, baseline: Figures) -> Figures:
    """What the user has now, on the judge's data."""
    if setting.judge is setting.task:
        return baseline
    with setting.original() as predict:
        return baseline.model_copy(update={"accuracy": setting.judge.score(predict)})


def _drop_error(setting: Setting, file: Path) -> float | None:
    """Of a shipped file beside what the user has now."""
    with setting.original() as before:
        return drop_error(setting.judge, before, lambda x: setting.target.predict(file, x))


def _judged(setting: Setting, figures: Figures, file: Path) -> Figures:
    if setting.judge is setting.task:
        return figures
    return figures.model_copy(update={"accuracy": setting.judge.score(lambda x: setting.target.predict(file, x))})
