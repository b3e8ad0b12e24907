from __future__ import annotations

from pathlib import Path

import pytest

from fupruner.report.data import read_run
from fupruner.report.drawings import drawings, kind_number, kinds, removed_shares
from fupruner.report.html import render
from unit.report.builder import NASTY, build_run, plan


@pytest.mark.parametrize(
    ("operator", "kind"),
    [
        ("Conv2d", "convolution"), ("ConvTranspose2d", "convolution"), ("Linear", "linear"), ("BatchNorm2d", "norm"),
        ("ReLU6", "activation"), ("PReLU", "activation"), ("AdaptiveAvgPool2d", "pooling"), ("add", "sum or product"),
        ("cat", "concatenation"), ("output", "input or output"), ("permute", "other"),
    ],
)  # fmt: skip
def test_kinds_of_operators(operator: str, kind: str) -> None:
    assert kinds()[kind_number(operator)] == kind


def test_three_networks_with_the_removed_share_of_each_layer(tmp_path: Path) -> None:
    run = read_run(build_run(tmp_path / "run", layers=20))
    drawn = {drawing.name: drawing for drawing in drawings(run)}
    assert list(drawn) == ["before", "fused", "after"]
    assert len(drawn["before"].boxes) > len(drawn["fused"].boxes) > len(drawn["after"].boxes)
    boxes = {box.title.split(":")[0]: box for box in drawn["before"].boxes}
    shares = removed_shares(run.plan)
    assert {boxes[name].removed for name, share in shares.items() if share == 1} == {1.0}
    assert boxes["layer1.1.conv1"].removed == pytest.approx(shares["layer1.1.conv1"])
    assert boxes["x"].removed is None
    assert "operators and" in drawn["fused"].alternative


def test_share_of_a_layer_that_disappears_is_everything() -> None:
    planned = plan(["a", "b", "c"])
    assert removed_shares(planned)["b"] == pytest.approx(8 / planned.widths_before["b"])
    assert removed_shares(None) == {}


def test_names_are_escaped_in_the_drawing(tmp_path: Path) -> None:
    page = render(read_run(build_run(tmp_path / "run")))
    assert "<title>stem.&lt;script&gt;alert(1)&lt;/script&gt;: Conv2d" in page
    assert NASTY not in page


def test_runs_without_graphs_have_no_drawing(tmp_path: Path) -> None:
    folder = build_run(tmp_path / "run")
    for name in ("graphs.json", "graph_after.json"):
        (folder / name).unlink()
    assert drawings(read_run(folder)) == []
    assert 'class="pane"' not in render(read_run(folder))
