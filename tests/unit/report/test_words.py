from __future__ import annotations

import pytest

from fupruner.records import Requirement
from fupruner.report import words
from unit.report.builder import fusion, layer_names, summary


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1.00 k"),
        (272_474, "272 k"),
        (41_190_000, "41.2 M"),
        (4.1e9, "4.10 G"),
        (999_900, "1.00 M"),
    ],
)
def test_count(number: float, text: str) -> None:
    assert words.count(number) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.00123, "0.00123 ms"),
        (0.0736, "0.0736 ms"),
        (0.41, "0.410 ms"),
        (1, "1.00 ms"),
        (12.34, "12.3 ms"),
        (321, "321 ms"),
    ],
)
def test_milliseconds(value: float, text: str) -> None:
    assert words.milliseconds(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(42.4, "42 s"), (59.6, "1 min 0 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")]
)
def test_duration(seconds: float, text: str) -> None:
    assert words.duration(seconds) == text


def test_change_without_a_before_is_empty() -> None:
    assert words.change(0, 3) == ""
    assert words.change(4, 3) == "-25.0 %"


@pytest.mark.parametrize(
    ("indices", "text"),
    [((), ""), ((3,), "3"), ((0, 1, 2, 9), "0–2, 9"), ((5, 4, 8, 7), "4–5, 7–8")],  # noqa: RUF001
)
def test_ranges(indices: tuple[int, ...], text: str) -> None:
    assert words.ranges(indices) == text


def test_verdict_says_what_was_asked_and_what_came() -> None:
    assert (
        words.verdict(summary()) == "Requirement met: at most 1 point of accuracy may be lost; 0.60 points were lost."
    )
    assert words.verdict(summary(satisfied=False)).startswith("Requirement NOT met")


def test_verdict_of_a_gain() -> None:
    met = summary()
    better = met.model_copy(
        update={
            "final": met.final.model_copy(update={"accuracy": 91.5}),
            "requirement": Requirement(max_drop=0.5, satisfied=True),
        }
    )
    assert "at most 0.5 points of accuracy may be lost; 0.50 points were gained" in words.verdict(better)


def test_how_much_may_be_chance_is_said_where_it_is_known() -> None:
    assert words.certainty(summary()) == ()
    (line,) = words.certainty(summary().model_copy(update={"drop_error": 0.512}))
    assert line.startswith("The change in accuracy has a standard error of 0.51 points")


def test_latency_always_has_its_grade() -> None:
    rows = {row[0]: row for row in words.before_after(summary())}
    assert rows["Latency"][1:3] == ("1.00 ms (measured)", "0.500 ms (measured)")


def test_speedup_that_was_not_measured_says_so() -> None:
    made = summary()
    estimated = {
        side: getattr(made, side).model_copy(update={"latency_grade": "estimated"}) for side in ("baseline", "final")
    }
    rows = {row[0]: row for row in words.before_after(made.model_copy(update=estimated))}
    assert rows["Speed-up"][2].endswith("x (estimated)")
    assert words.speedup(made).endswith("x")


def test_operators_that_vanish_are_counted() -> None:
    rows = {row[0]: row for row in words.operators(fusion(layer_names(5)))}
    assert rows["BatchNorm2d"] == ("BatchNorm2d", "20", "0", "-20")
    assert rows["all operators"] == ("all operators", "49", "29", "-20")
