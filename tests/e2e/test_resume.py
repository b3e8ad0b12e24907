"""Runs that are killed, stopped, starved of disk or damaged, and go on to the network that they would have come to."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import signal
from pathlib import Path

import pytest
import torch

import small_runs as runs
from fupruner.runs.checkpoints import Checkpoint, Checkpoints

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def log(folder: Path) -> str:
    return (folder / "log").read_text()


def require_equal(run: Path, expected: Path) -> None:
    """The same plan to the last bit, the same decisions, the same weights, and a log in which nothing is told twice."""
    for name in ("plan.json", "decisions.json", "options.toml", "attempts.json"):
        assert (run / name).read_bytes() == (expected / name).read_bytes(), name
    found, wanted = runs.weights_of(run), runs.weights_of(expected)
    assert list(found) == list(wanted)
    for name, value in found.items():
        assert torch.equal(value, wanted[name]), name
    history, before = (json.loads((folder / "history.json").read_text())[0]["epochs"] for folder in (run, expected))
    for measured in ("seconds", "images_per_second"):
        for epoch in [*history, *before]:
            epoch.pop(measured)
    assert history == before
    names = [event for event in events(run) if event not in ("resumed", "interrupted")]
    assert names == events(expected)
    assert not list(run.glob("checkpoint-*")) + list(run.glob(".*"))


def events(run: Path) -> list[str]:
    return [json.loads(line)["event"] for line in (run / "events.jsonl").read_text().splitlines()]


def test_killed_again_and_again_it_comes_to_the_same_network(finished_run: runs.Finished, tmp_path: Path) -> None:
    expected, points = finished_run.folder, finished_run.points
    run = tmp_path / "run"
    killed = runs.fupruner([*finished_run.command, "--out", str(run)], tmp_path / "log", at=points // 4)
    assert killed == -signal.SIGKILL
    for at in (3, points // 5, points // 4, 7):
        code = runs.fupruner(["resume", str(run)], tmp_path / "log", at=at)
        assert code == -signal.SIGKILL, log(tmp_path)
    assert runs.fupruner(["resume", str(run)], tmp_path / "log") == 0, log(tmp_path)
    require_equal(run, expected)


def test_killed_run_that_ships_in_int8_comes_to_the_same_network(finished_run: runs.Finished, tmp_path: Path) -> None:
    expected, run, command = tmp_path / "expected", tmp_path / "run", [*finished_run.command, "--ship", "int8"]
    assert runs.fupruner([*command, "--out", str(expected)], tmp_path / "log") in (0, 1), log(tmp_path)
    points = int(log(tmp_path).split()[-1])
    assert runs.fupruner([*command, "--out", str(run)], tmp_path / "log", at=points // 3) == -signal.SIGKILL
    assert runs.fupruner(["resume", str(run)], tmp_path / "log") in (0, 1), log(tmp_path)
    require_equal(run, expected)


def test_finished_run_is_left_as_it_is(finished_run: runs.Finished, tmp_path: Path) -> None:
    before = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in finished_run.folder.iterdir()}
    assert runs.fupruner(["resume", str(finished_run.folder)], tmp_path / "log") == 0
    assert "is finished" in log(tmp_path)
    assert before == {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in finished_run.folder.iterdir()
    }


def test_ctrl_c_ends_cleanly_and_resume_goes_on(finished_run: runs.Finished, tmp_path: Path) -> None:
    expected, points = finished_run.folder, finished_run.points
    run = tmp_path / "run"
    code = runs.fupruner(
        [*finished_run.command, "--out", str(run)], tmp_path / "log", at=points // 2, sign=signal.SIGINT
    )
    assert code == 130, log(tmp_path)
    assert f"Go on with: fupruner resume {run}" in log(tmp_path)
    assert "Traceback" not in log(tmp_path)
    assert events(run)[-1] == "interrupted"
    assert runs.fupruner(["resume", str(run)], tmp_path / "log") == 0, log(tmp_path)
    require_equal(run, expected)


@pytest.mark.parametrize("damage", ["newest", "all"])
def test_damaged_checkpoint_is_said_and_an_older_one_is_used(
    finished_run: runs.Finished, tmp_path: Path, damage: str
) -> None:
    expected, points = finished_run.folder, finished_run.points
    run = tmp_path / "run"
    runs.fupruner([*finished_run.command, "--out", str(run)], tmp_path / "log", at=4 * points // 5)
    files = sorted(run.glob("checkpoint-*"), reverse=True)
    assert len(files) >= 3
    for file in files[: 1 if damage == "newest" else None]:
        content = bytearray(file.read_bytes())
        content[len(content) // 3] ^= 4
        file.write_bytes(content[: -(len(content) // 5)])
    assert runs.fupruner(["resume", str(run)], tmp_path / "log") == 0, log(tmp_path)
    assert f"{files[0].name} is damaged" in log(tmp_path)
    require_equal(run, expected)


@pytest.mark.parametrize("what", ["first checkpoint", "report"])
def test_full_disk_is_said_and_with_room_the_run_goes_on(
    finished_run: runs.Finished, tmp_path: Path, what: str
) -> None:
    run, sizes = tmp_path / "run", {path.name: path.stat().st_size for path in finished_run.folder.iterdir()}
    room = 2_000_000 if what == "first checkpoint" else (sizes.pop("report.html") + max(sizes.values())) // 2
    assert runs.fupruner([*finished_run.command, "--out", str(run)], tmp_path / "log", largest_file=room) == 2
    words = " ".join(log(tmp_path).split())
    assert "The disk is full" in words
    assert f"Make room, then: fupruner resume {run}" in words
    assert ("Best so far: " in words) == (what == "report")
    assert "Traceback" not in words
    assert not list(run.glob(".*.tmp"))
    assert runs.fupruner(["resume", str(run)], tmp_path / "log") == 0, log(tmp_path)
    require_equal(run, finished_run.folder)


def test_loss_that_is_no_number_stops_the_run_and_keeps_the_last_good_state(
    finished_run: runs.Finished, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    command = [*finished_run.command, "--learning-rate", "1e30", "--set", "decisions=1", "--out", str(run)]
    assert runs.fupruner(command, tmp_path / "log") == 2, log(tmp_path)
    words = " ".join(log(tmp_path).split())
    assert re.search(r"The loss became (nan|inf) in epoch 0, step \d+ \(learning rate", words)
    kept = re.search(r"The last good state is kept in (\S+\.pt)\.", words)
    assert kept
    assert "Lower the learning rate" in words
    assert "Traceback" not in words
    found = Checkpoints(run).read(Path(kept[1]))
    assert isinstance(found, Checkpoint)
    assert all(bool(torch.isfinite(value.float()).all()) for value in found.model.values())
    assert events(run)[-1] == "failed"
    assert runs.fupruner(["resume", str(run)], tmp_path / "log") == 2
    assert " ".join(log(tmp_path).split()).count("The loss became") == 2


def test_attempt_that_diverges_is_given_up_and_the_run_goes_on(finished_run: runs.Finished, tmp_path: Path) -> None:
    words = list(finished_run.command)
    at = words.index("--speedup")
    command = [*words[:at], *words[at + 2 :], "--set", "attempts=3"]
    expected, run = tmp_path / "expected", tmp_path / "run"
    assert runs.fupruner([*command, "--out", str(expected)], tmp_path / "log", diverging=2) == 0, log(tmp_path)
    assert log(tmp_path).count("The loss became nan in epoch 1") == 1
    assert [row["attempt"] for row in json.loads((expected / "attempts.json").read_text())] == [1, 3]
    points = int(log(tmp_path).split()[-1])
    for at in (3 * points // 5, points // 4):
        words = [*command, "--out", str(run)] if not run.exists() else ["resume", str(run)]
        assert runs.fupruner(words, tmp_path / "log", at=at, diverging=2) == -signal.SIGKILL, log(tmp_path)
    assert runs.fupruner(["resume", str(run)], tmp_path / "log", diverging=2) == 0, log(tmp_path)
    require_equal(run, expected)


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    for folder, words in ((tmp_path / "nowhere", "There is no run folder"), (tmp_path, "is no run that can go on")):
        assert runs.fupruner(["resume", str(folder)], tmp_path / "log") == 2
        assert words in log(tmp_path)


def test_another_model_than_the_run_was_begun_with_is_refused(finished_run: runs.Finished, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished_run.folder, run)
    (run / "result.json").unlink()
    origin = json.loads((run / "run.json").read_text())
    origin["source"]["weights"] = None
    (run / "run.json").write_text(json.dumps(origin))
    assert runs.fupruner(["resume", str(run)], tmp_path / "log") == 2
    assert re.search("is not the one that the run was begun with", log(tmp_path))
