from __future__ import annotations

import itertools
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from fupruner.errors import InputError
from fupruner.report.data import read_run
from fupruner.report.html import render, write_report
from unit.report.builder import NASTY, build_run


class Outline(HTMLParser):
    """Collects what the tests ask about, so that nothing is searched for in the text of Plotly."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text = ""
        self.inside = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.inside = tag

    def handle_data(self, data: str) -> None:
        if self.inside == "script":
            self.scripts.append(data)
        else:
            self.text += data

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)


def outline(page: str) -> Outline:
    parser = Outline()
    parser.feed(page)
    return parser


@pytest.fixture
def page(tmp_path: Path) -> Outline:
    return outline(render(read_run(build_run(tmp_path / "run"))))


def test_page_is_whole_and_small_enough(tmp_path: Path) -> None:
    path = write_report(build_run(tmp_path / "run", layers=60))
    assert path.stat().st_size < 8_000_000
    assert path.read_text().rstrip().endswith("</html>")


def test_nothing_is_loaded_from_elsewhere(page: Outline) -> None:
    loaded = [attrs.get("src") or attrs.get("href") for _, attrs in page.tags]
    assert [each for each in loaded if each and not each.startswith(("#", "data:"))] == []


def test_names_from_models_are_text(page: Outline) -> None:
    assert NASTY in page.text
    assert page.count("script") == 3  # figures, Plotly, ours
    assert not any(script.strip() == "alert(1)" for script in page.scripts)


def test_headline_and_verdict_are_in_words(page: Outline) -> None:
    assert "2.00x faster on cpu, accuracy 91.00 % → 90.40 %" in page.text
    assert "Requirement met: at most 1 point of accuracy may be lost" in page.text


def test_requirement_not_met_is_said(tmp_path: Path) -> None:
    found = outline(render(read_run(build_run(tmp_path / "run", satisfied=False))))
    assert "✗ Requirement NOT met" in found.text


def test_headings_tables_and_charts_are_accessible(page: Outline) -> None:
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(later - earlier <= 1 for earlier, later in itertools.pairwise(levels))
    assert all("scope" in attrs for tag, attrs in page.tags if tag == "th")
    assert page.count("caption") == page.count("table")
    images = [attrs for _, attrs in page.tags if attrs.get("role") == "img"]
    assert len(images) == 5 + 3  # charts and drawings
    assert all(attrs["aria-label"] for attrs in images)


def test_every_move_refusal_and_option_is_there(page: Outline) -> None:
    for text in ("0–3, 9", "carried value may be negative", "learning_rate", "made-up figures", "fupruner.load"):  # noqa: RUF001
        assert text in page.text


def test_what_the_devices_tools_say_is_there(page: Outline) -> None:
    for text in (
        "40 & more",
        "29 & more",
        "made-up compiler",
        "Accuracy was judged in a made-up runtime",
        "run model.onnx",
        "model.blob",
    ):
        assert text in page.text


def test_original_kept_is_said_in_words(tmp_path: Path) -> None:
    run = read_run(build_run(tmp_path / "run"))
    same = run.summary.model_copy(update={"final": run.summary.baseline, "speedup": 1.0})
    text = outline(render(run.model_copy(update={"summary": same}))).text
    assert "No faster network found for cpu" in text
    assert "the original is kept" in text


def test_run_with_a_result_only_still_has_a_page(tmp_path: Path) -> None:
    folder = build_run(tmp_path / "run")
    for file in folder.iterdir():
        if file.name != "result.json":
            file.unlink()
    found = outline(render(read_run(folder)))
    assert sum(attrs.get("role") == "img" for _, attrs in found.tags) == 1


def test_unfinished_run_gets_no_page(tmp_path: Path) -> None:
    folder = build_run(tmp_path / "run")
    (folder / "result.json").unlink()
    with pytest.raises(InputError):
        write_report(folder)
    assert not (folder / "report.html").exists()


def test_failed_write_leaves_the_old_page_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = build_run(tmp_path / "run")
    (folder / "report.html").write_text("old")
    before = sorted(folder.iterdir())

    def refuse(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="disk full"):
        write_report(folder)
    assert sorted(folder.iterdir()) == before
    assert (folder / "report.html").read_text() == "old"
