import json
import os
from pathlib import Path

import pytest

from fupruner.errors import InputError
from fupruner.records import Requirement
from fupruner.runs.run_folder import RunFolder, write_atomically


def test_folder_is_made_with_the_first_file(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "a" / "run")
    assert not (tmp_path / "a").exists()
    run.write("x.json", Requirement(max_drop=1, satisfied=True))
    assert json.loads((tmp_path / "a" / "run" / "x.json").read_text()) == {"max_drop": 1, "satisfied": True}


def test_folder_in_use_is_refused_untouched(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="is not empty"):
        RunFolder(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_file_in_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="is a file"):
        RunFolder(tmp_path / "file")


def test_failed_write_leaves_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.json"
    write_atomically(path, "old")

    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, "new")
    assert path.read_text() == "old"


def test_events_are_lines_in_order(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.event("first", value=1)
    run.event("second", requirement=Requirement(max_drop=1, satisfied=True))
    lines = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    assert [line["event"] for line in lines] == ["first", "second"]
    assert lines[1]["requirement"] == {"max_drop": 1, "satisfied": True}
