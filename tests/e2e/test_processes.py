"""Two processes come to the same network as one; the second keeps quiet and writes nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

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
    return ["optimize", MODEL, "--weights", str(weights), "--data", "digits", "--speedup", "1.5", *options]


@pytest.fixture(scope="module")
def alone(arguments: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    assert runs.fupruner([*arguments, "--out", str(folder / "run")], folder / "log") == 0
    return folder / "run"


def moves(plan: dict[str, Any]) -> list[tuple[str, str, list[int]]]:
    """What closes together; near ties within a move may come in another order."""
    return [(move["kind"], move["where"], sorted(move["closed"])) for move in plan["moves"]]


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    return dict(torch.export.load(str(run / "model.pt2")).state_dict)


def test_one_process_twice_gives_the_same_bits(arguments: list[str], alone: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert runs.fupruner([*arguments, "--out", str(run)], tmp_path / "log") == 0
    for name in ("plan.json", "decisions.json", "options.toml"):
        assert (run / name).read_bytes() == (alone / name).read_bytes(), name
    expected = weights_of(alone)
    assert all(torch.equal(value, expected[name]) for name, value in weights_of(run).items())


def test_another_seed_gives_other_weights(arguments: list[str], alone: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert runs.fupruner([*arguments, "--seed", "1", "--out", str(run)], tmp_path / "log") == 0
    found, expected = weights_of(run), weights_of(alone)
    assert any(
        value.shape != expected[name].shape or not torch.equal(value, expected[name]) for name, value in found.items()
    )


def test_two_processes_take_the_decisions_of_one(arguments: list[str], alone: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert runs.together(2, [*arguments, "--out", str(run)], tmp_path / "log") == [0, 0], (
        tmp_path / "log0"
    ).read_text()
    plan, expected = (json.loads((folder / "plan.json").read_text()) for folder in (run, alone))
    assert plan["widths_after"] == expected["widths_after"]
    assert moves(plan) == moves(expected)
    wanted = weights_of(alone)
    for name, value in weights_of(run).items():
        torch.testing.assert_close(value, wanted[name], rtol=0.02, atol=0.02, msg=name)
    second = (tmp_path / "log1").read_text().splitlines()
    assert [line for line in second if not line.startswith("points")] == []
    assert json.loads((run / "run.json").read_text())["processes"] == 2
