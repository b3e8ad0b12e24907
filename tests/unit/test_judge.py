"""The answer of a search is judged on data that the search did not look at; luck there is not rewarded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from fupruner.attempt import Setting
from fupruner.judge import judge
from fupruner.options import Options
from fupruner.progress import Silent
from fupruner.records import Figures


def figures(accuracy: float) -> Figures:
    return Figures(accuracy=accuracy, latency_ms=1.0, latency_grade="measured", macs=1, params=1)


class Original(nn.Module):
    """A network in float32; as a function it gives its accuracy."""

    accuracy = 91.0

    def forward(self, _: Any) -> float:
        return self.accuracy


@dataclass
class Judge:
    """Gives each file the accuracy in its name."""

    asked: int = 0

    def score(self, predict: Any) -> float:
        self.asked += 1
        return float(predict(torch.zeros(1)))

    def drop_error(self, before: Any, after: Any) -> float:
        """Tells which two it was asked about."""
        return float(before(torch.zeros(1))) - float(after(torch.zeros(1)))


def outcome(number: int, speedup: float, looked: float, judged: float) -> Any:
    history = SimpleNamespace(attempt=number)
    return SimpleNamespace(
        history=history, speedup=speedup, figures=figures(looked), file=Path(str(judged)), baseline_ms=2.0
    )


class Given(SimpleNamespace):
    """What the judge reads of a setting."""

    original = Setting.original


def setting(*, judged: bool = True, precision: str = "float32", **options: Any) -> Any:
    task = Judge()
    return Given(
        task=task, judge=Judge() if judged else task, options=Options(max_drop=1.0, **options), progress=Silent(),
        baseline_file=Path("90.0"), graph=Original(),
        target=SimpleNamespace(predict=lambda file, x: str(file), precision=precision, reference=None),
    )  # fmt: skip


def test_a_candidate_that_does_not_hold_gives_way_to_the_next() -> None:
    lucky, sound = outcome(2, 2.0, 89.9, 88.0), outcome(1, 1.5, 89.5, 89.2)
    verdict = judge(setting(), figures(90.2), [lucky, sound])
    assert verdict.best is sound
    assert verdict.satisfied
    assert (verdict.baseline.accuracy, verdict.final.accuracy) == (90.0, 89.2)
    assert verdict.baseline.latency_ms == 2.0
    assert verdict.judgement.refused == (2,)
    assert (verdict.judgement.searched_baseline, verdict.judgement.searched_final) == (90.2, 89.5)
    assert verdict.judgement.divided


def test_the_error_of_what_was_lost_is_that_of_the_answer_beside_what_the_user_has() -> None:
    candidates = [outcome(2, 2.0, 89.9, 88.0), outcome(1, 1.5, 89.5, 89.2)]
    assert judge(setting(), figures(90.2), candidates).drop_error == pytest.approx(90.0 - 89.2)
    quantised = setting(precision="int8")
    assert judge(quantised, figures(91.2), [outcome(1, 1.5, 90.5, 90.1)]).drop_error == pytest.approx(91.0 - 90.1)
    assert judge(setting(), figures(90.2), []).drop_error is None


def test_where_none_holds_the_original_is_kept() -> None:
    verdict = judge(setting(), figures(90.2), [outcome(1, 1.5, 89.9, 88.9)])
    assert verdict.best is None
    assert verdict.satisfied
    assert verdict.final == verdict.baseline
    assert judge(setting(), figures(90.2), []).best is None


@pytest.mark.parametrize(("judged", "satisfied"), [(89.1, True), (88.9, False)])
def test_an_asked_speedup_is_judged_and_kept(judged: float, satisfied: bool) -> None:
    only = outcome(1, 2.0, 89.9, judged)
    verdict = judge(setting(speedup=2.0), figures(90.2), [only])
    assert verdict.best is only
    assert verdict.satisfied is satisfied


def test_without_other_data_nothing_is_asked_again() -> None:
    given = setting(judged=False)
    verdict = judge(given, figures(90.2), [outcome(1, 1.5, 89.5, 0.0)])
    assert verdict.final.accuracy == 89.5
    assert given.judge.asked == 0
    assert not verdict.judgement.divided


def test_what_is_quantised_is_held_against_the_float_original() -> None:
    verdict = judge(setting(precision="int8"), figures(91.2), [outcome(1, 1.5, 90.5, 90.1)])
    assert (verdict.baseline.accuracy, verdict.final.accuracy, verdict.satisfied) == (91.0, 90.1, True)


@pytest.mark.parametrize(("judged", "float_original"), [(True, 91.0), (False, 91.2)])
def test_a_quantised_original_that_is_kept_has_to_hold_too(judged: bool, float_original: float) -> None:
    verdict = judge(setting(precision="int8", judged=judged), figures(91.2), [])
    assert verdict.best is None
    assert (verdict.baseline.accuracy, verdict.final.accuracy) == (float_original, 90.0)
    assert verdict.satisfied == (float_original - 90.0 <= 1.0)


@pytest.mark.parametrize(("quantised", "satisfied"), [("90.2", True), ("89.9", False)])
def test_original_that_ships_in_int8_beside_float32_is_judged_and_timed_anew(
    quantised: str, satisfied: bool, tmp_path: Path
) -> None:
    given = setting(precision="int8")
    times = [SimpleNamespace(latency_ms=3.0), SimpleNamespace(latency_ms=1.5)]
    given.folder, given.example_inputs = tmp_path, ()
    given.target.reference = SimpleNamespace()
    given.target.suffix, given.target.export = ".onnx", lambda *_: None
    given.target.predict = lambda file, _: quantised if file.stem == "attempt-0" else "0"
    given.target.compare = lambda files, *_, **__: SimpleNamespace(measurements=times, speedups=(1.0, 2.0))
    verdict = judge(given, figures(91.2), [])
    assert verdict.best is None
    assert (verdict.baseline.accuracy, verdict.baseline.latency_ms) == (91.0, 3.0)
    assert (verdict.final.accuracy, verdict.final.latency_ms, verdict.speedup) == (float(quantised), 1.5, 2.0)
    assert verdict.satisfied is satisfied
