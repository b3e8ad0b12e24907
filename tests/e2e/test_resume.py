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
from safetensors.torch import save_file

import runs
from fupruner.models.resolve import load_model
from fupruner.training.data import load_data
from fupruner.training.loop import train
from fupruner.training.task import Classification

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

MODEL = "fupruner:digits_resnet"
SPEEDUP = ["--speedup", "1.5"]


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command without ``--out``."""
    torch.manual_seed(0)
    loaded = load_model(MODEL)
    data = load_data("digits", image_shape=loaded.input_shape, mean=loaded.mean, std=loaded.std)
    train(loaded.module, Classification(data, batch_size=64), epochs=1, learning_rate=0.1, precision="32-true")
    weights = tmp_path_factory.mktemp("weights") / "digits.safetensors"
    save_file(loaded.module.state_dict(), weights)
    options = [word for pair in runs.OPTIONS.items() for word in pair]
    return ["optimize", MODEL, "--weights", str(weights), "--data", "digits", *options]


@pytest.fixture(scope="module")
def whole(arguments: list[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """A run that nothing happened to, and how many points it has."""
    folder = tmp_path_factory.mktemp("whole")
    assert runs.fupruner([*arguments, *SPEEDUP, "--out", str(folder / "run")], folder / "log") == 0, log(folder)
    return folder / "run", int(log(folder).split()[-1])


def log(folder: Path) -> str:
    return (folder / "log").read_text()


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    return dict(torch.export.load(str(run / "model.pt2")).state_dict)


def require_equal(run: Path, expected: Path) -> None:
    """The same plan to the last bit, the same decisions, the same weights, and a log in which nothing is told twice."""
    for name in ("plan.json", "decisions.json", "options.toml", "attempts.json"):
        assert (run / name).read_bytes() == (expected / name).read_bytes(), name
    found, wanted = weights_of(run), weights_of(expected)
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


def test_killed_again_and_again_it_comes_to_the_same_network(
    arguments: list[str], whole: tuple[Path, int], tmp_path: Path
) -> None:
    expected, points = whole
    run = tmp_path / "run"
    killed = runs.fupruner([*arguments, *SPEEDUP, "--out", str(run)], tmp_path / "log", at=points // 4)
    assert killed == -signal.SIGKILL
    for at in (3, points // 5, points // 4, 7):
        code = runs.fupruner(["resume", str(run)], tmp_path / "log", at=at)
        assert code == -signal.SIGKILL, log(tmp_path)
    assert runs.fupruner(["resume", str(run)], tmp_path / "log") == 0, log(tmp_path)
    require_equal(run, expected)


def test_finished_run_is_left_as_it_is(whole: tuple[Path, int], tmp_path: Path) -> None:
    before = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in whole[0].iterdir()}
    assert runs.fupruner(["resume", str(whole[0])], tmp_path / "log") == 0
    assert "is finished" in log(tmp_path)
    assert before == {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in whole[0].iterdir()}


def test_ctrl_c_ends_cleanly_and_resume_goes_on(arguments: list[str], whole: tuple[Path, int], tmp_path: Path) -> None:
    expected, points = whole
    run = tmp_path / "run"
    code = runs.fupruner(
        [*arguments, *SPEEDUP, "--out", str(run)], tmp_path / "log", at=points // 2, sign=signal.SIGINT
    )
    assert code == 130, log(tmp_path)
    assert f"Go on with: fupruner resume {run}" in log(tmp_path)
    assert "Traceback" not in log(tmp_path)
    assert events(run)[-1] == "interrupted"
    assert runs.fupruner(["resume", str(run)], tmp_path / "log") == 0, log(tmp_path)
    require_equal(run, expected)


@pytest.mark.parametrize("damage", ["newest", "all"])
def test_damaged_checkpoint_is_said_and_an_older_one_is_used(
    arguments: list[str], whole: tuple[Path, int], tmp_path: Path, damage: str
) -> None:
    expected, points = whole
    run = tmp_path / "run"
    runs.fupruner([*arguments, *SPEEDUP, "--out", str(run)], tmp_path / "log", at=4 * points // 5)
    files = sorted(run.glob("checkpoint-*"), reverse=True)
    assert len(files) >= 3
    for file in files[: 1 if damage == "newest" else None]:
        content = bytearray(file.read_bytes())
        content[len(content) // 3] ^= 4
        file.write_bytes(content[: -(len(content) // 5)])
    assert runs.fupruner(["resume", str(run)], tmp_path / "log") == 0, log(tmp_path)
    assert f"{files[0].name} is damaged" in log(tmp_path)
    require_equal(run, expected)


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    for folder, words in ((tmp_path / "nowhere", "There is no run folder"), (tmp_path, "is no run that can go on")):
        assert runs.fupruner(["resume", str(folder)], tmp_path / "log") == 2
        assert words in log(tmp_path)


def test_another_model_than_the_run_was_begun_with_is_refused(
    arguments: list[str], whole: tuple[Path, int], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole[0], run)
    (run / "result.json").unlink()
    origin = json.loads((run / "run.json").read_text())
    origin["source"]["weights"] = None
    (run / "run.json").write_text(json.dumps(origin))
    assert runs.fupruner(["resume", str(run)], tmp_path / "log") == 2
    assert re.search("is not the one that the run was begun with", log(tmp_path))
