from __future__ import annotations

import itertools

import pytest

from fupruner.report import layout
from fupruner.report.layout import GAP_X, HEIGHT, WIDTH, lay_out

CHAIN = {"x": [], "a": ["x"], "b": ["a"], "c": ["b"]}
BRANCHES = {"x": [], "a": ["x"], "b": ["x"], "c": ["x", "a"], "sum": ["a", "b", "c", "x"], "y": ["sum"]}
DENSE = {f"n{i}": [f"n{j}" for j in range(i)] for i in range(12)}


@pytest.mark.parametrize("graph", [CHAIN, BRANCHES, DENSE])
def test_boxes_do_not_overlap_and_readers_are_below(graph: dict[str, list[str]]) -> None:
    found = lay_out(graph)
    assert set(found.boxes) == set(graph)
    for (x1, y1), (x2, y2) in itertools.combinations(found.boxes.values(), 2):
        assert abs(y1 - y2) >= HEIGHT or abs(x1 - x2) >= WIDTH + GAP_X - 1e-6
    for name, reads in graph.items():
        assert all(found.boxes[read][1] + HEIGHT < found.boxes[name][1] for read in reads)
    assert all(
        0 <= x <= found.width - WIDTH + 1e-6 and 0 <= y <= found.height - HEIGHT for x, y in found.boxes.values()
    )
    assert len(found.edges) == sum(map(len, graph.values()))


def test_chain_is_straight() -> None:
    assert len({x for x, _ in lay_out(CHAIN).boxes.values()}) == 1


def test_long_edges_go_around_what_they_pass() -> None:
    found = lay_out({"x": [], "a": ["x"], "sum": ["a", "x"]})
    (around,) = [edge for edge in found.edges if "V" in edge]
    left = found.boxes["a"][0]
    beside = float(around.split("V")[0].split("C")[1].split()[4])
    assert not left <= beside <= left + WIDTH


def test_very_many_long_edges_go_straight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "MOST_PLACEHOLDERS", 3)
    assert not any("V" in edge for edge in lay_out(DENSE).edges)


def test_nothing_and_unknown_names() -> None:
    assert lay_out({}).boxes == {}
    assert lay_out({"a": ["weights"]}).edges == ()
