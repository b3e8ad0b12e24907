from __future__ import annotations

import json
from pathlib import Path

import pytest

from fupruner.records import Judgement, LayerTime
from fupruner.report.charts import MOST_OPERATORS, charts, front, times
from fupruner.report.data import read_run
from fupruner.report.plotting import Chart, Point, shorten
from fupruner.report.sections import story
from unit.report.builder import DECISIONS, LONG, NASTY, build_run


def drawn(tmp_path: Path, layers: int = 20) -> dict[str, Chart]:
    return charts(read_run(build_run(tmp_path / "run", layers=layers)))


def trace(chart: Chart, name: str) -> dict[str, list[float]]:
    return next(each for each in chart.data if each["name"] == name)


def test_front_keeps_what_nothing_beats() -> None:
    points = [
        Point("slow", 3, 90),
        Point("best", 1, 91),
        Point("fast", 0.5, 80),
        Point("equal", 1, 91),
        Point("tie", 0.5, 79),
    ]
    assert [point.name for point in front(points)] == ["fast", "best"]


def test_front_of_nothing_is_empty() -> None:
    assert front([]) == []


def test_trade_off_shows_every_network_once(tmp_path: Path) -> None:
    chart = drawn(tmp_path)["trade-off"]
    assert len(trace(chart, "attempt, requirement met")["x"]) == 2
    assert len(trace(chart, "attempt, requirement not met")["x"]) == 1
    assert trace(chart, "baseline")["y"] == [91.0]
    assert trace(chart, "accuracy required")["y"] == [90.0, 90.0]


def test_networks_are_drawn_by_speedups_and_not_by_milliseconds_of_different_times(tmp_path: Path) -> None:
    run = read_run(build_run(tmp_path / "run"))
    slower = tuple(a.model_copy(update={"latency_ms": 1.3 * a.latency_ms}) for a in run.attempts)
    chart = charts(run.model_copy(update={"attempts": slower}))["trade-off"]
    met = [attempt for attempt in run.attempts if attempt.satisfied]
    original = run.summary.baseline.latency_ms
    assert trace(chart, "attempt, requirement met")["x"] == pytest.approx([original / a.speedup for a in met])
    assert trace(chart, "kept")["x"] == pytest.approx([original / run.summary.speedup])


def test_widths_has_a_bar_per_layer_and_marks_what_is_gone(tmp_path: Path) -> None:
    chart = drawn(tmp_path, layers=60)["widths"]
    assert len(trace(chart, "before")["x"]) == len(trace(chart, "after")["x"]) == 60
    assert [text for text in trace(chart, "after")["text"] if text] == ["removed"] * trace(chart, "after")["x"].count(0)
    assert chart.height > 60 * 12


def test_curves_have_a_point_per_epoch_and_attempt(tmp_path: Path) -> None:
    found = drawn(tmp_path)
    assert sum(len(each["x"]) for each in found["accuracy"].data if each["name"].startswith("attempt")) == 18


def test_gates_have_a_point_per_decision_and_attempt(tmp_path: Path) -> None:
    chart = drawn(tmp_path)["gates"]
    assert [len(each["x"]) for each in chart.data] == [DECISIONS] * 6
    assert trace(chart, "attempt 2, closed")["y"] == [18] * DECISIONS
    assert trace(chart, "attempt 2, reopened")["y"] == list(range(DECISIONS))


def test_gates_of_a_run_without_recorded_decisions_are_drawn_by_epoch(tmp_path: Path) -> None:
    run = read_run(build_run(tmp_path / "run"))
    old = run.model_copy(update={"history": tuple(h.model_copy(update={"decisions": ()}) for h in run.history)})
    chart = charts(old)["gates"]
    assert [len(each["x"]) for each in chart.data] == [6] * 6
    assert "epoch" in chart.title


def test_layers_are_called_by_their_names_and_changes_of_layout_are_one_bar() -> None:
    layers = [
        LayerTime(name="/layer1.0.conv1/Conv", kind="FusedConv", ms=1.0), LayerTime(name="ReorderInput_7", kind="ReorderInput", ms=0.1),
        LayerTime(name="/add_tensor/Add", kind="Add", ms=0.2), LayerTime(name="ReorderOutput", kind="ReorderOutput", ms=0.2),
    ]  # fmt: skip
    before = times(layers, layers[:1]).data[0]
    assert before["hovertext"] == ["layer1.0.conv1", "changes of memory layout", "add_tensor/Add"]
    assert before["x"] == [1.0, pytest.approx(0.3), 0.2]


def test_many_operators_leave_the_slowest() -> None:
    layers = [LayerTime(name=f"op{i}", kind="Conv", ms=i) for i in range(200)]
    bars = times(layers, ()).data[0]
    assert len(bars["x"]) == MOST_OPERATORS
    assert min(bars["x"]) == 200 - MOST_OPERATORS


def test_no_text_of_a_chart_is_markup(tmp_path: Path) -> None:
    for chart in drawn(tmp_path).values():
        assert "<script" not in json.dumps(chart.figure())


def test_shorten_keeps_both_ends() -> None:
    short = shorten(LONG)
    assert len(short) == 22
    assert short.startswith("backbon")
    assert short.endswith("conv_project")
    assert shorten("conv1") == "conv1"
    assert shorten(NASTY) != NASTY


def test_attempts_are_drawn_beside_figures_of_the_same_images(tmp_path: Path) -> None:
    folder = build_run(tmp_path / "run")
    assert "did not look at" not in story(read_run(folder))
    judgement = Judgement(divided=True, searched_baseline=77.0, searched_final=76.0)
    (folder / "judgement.json").write_text(judgement.model_dump_json())
    run = read_run(folder)
    chart = charts(run)["trade-off"]
    assert (trace(chart, "baseline")["y"], trace(chart, "kept")["y"]) == ([77.0], [76.0])
    assert trace(chart, "accuracy required")["y"] == [76.0, 76.0]
    assert "did not look at" in story(run)
    assert "but not there" not in story(run)


@pytest.mark.parametrize(("refused", "words"), [((2,), "Attempt 2 met"), ((5, 3, 1), "Attempts 1, 3, 5 met")])
def test_attempts_that_did_not_hold_elsewhere_are_named(refused: tuple[int, ...], words: str, tmp_path: Path) -> None:
    folder = build_run(tmp_path / "run")
    judgement = Judgement(divided=True, searched_baseline=77.0, searched_final=76.0, refused=refused)
    (folder / "judgement.json").write_text(judgement.model_dump_json())
    assert f"{words} the requirement in the search, but not there." in story(read_run(folder))
