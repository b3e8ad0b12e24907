from __future__ import annotations

from pathlib import Path

import pytest

from fupruner.errors import InputError
from fupruner.report.data import FILES, read_run
from unit.report.builder import build_run


def test_reads_every_file_of_a_finished_run(tmp_path: Path) -> None:
    run = read_run(build_run(tmp_path / "run", layers=12, epochs=4))
    assert run.folder == "run"
    assert run.summary.speedup == 2.0
    assert run.plan is not None
    assert len(run.plan.moves) == 12
    assert run.fusion is not None
    assert run.options["seed"] == 7
    assert [len(history.epochs) for history in run.history] == [4, 4, 4]
    assert len(run.layer_times.before) == 12
    assert [attempt.satisfied for attempt in run.attempts] == [True, True, False]
    assert run.events[2].details() == "number 1"
    assert run.model == "TestNet"
    assert run.decisions[2].reopened == 2


def test_only_the_result_is_needed(tmp_path: Path) -> None:
    folder = build_run(tmp_path / "run")
    for file in folder.iterdir():
        if file.name != "result.json":
            file.unlink()
    run = read_run(folder)
    assert run.plan is None
    assert run.history == ()
    assert run.layer_times.after == ()


def test_unfinished_run_is_named(tmp_path: Path) -> None:
    folder = build_run(tmp_path / "run")
    (folder / "result.json").unlink()
    with pytest.raises(InputError, match="has not finished"):
        read_run(folder)


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no run folder .*nowhere"):
        read_run(tmp_path / "nowhere")


@pytest.mark.parametrize("file", [file for file, _ in FILES.values()])
def test_damaged_file_is_named(tmp_path: Path, file: str) -> None:
    folder = build_run(tmp_path / "run")
    (folder / file).write_text('{"cut off')
    with pytest.raises(InputError, match=f"{file} is damaged"):
        read_run(folder)


def test_wrong_field_is_named(tmp_path: Path) -> None:
    folder = build_run(tmp_path / "run")
    text = (folder / "result.json").read_text().replace('"speedup":2.0', '"speedup":"fast"')
    (folder / "result.json").write_text(text)
    with pytest.raises(InputError, match=r"result.json is damaged: speedup: "):
        read_run(folder)


def test_bytes_that_are_no_text_are_damage(tmp_path: Path) -> None:
    folder = build_run(tmp_path / "run")
    (folder / "plan.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"plan.json is damaged"):
        read_run(folder)
