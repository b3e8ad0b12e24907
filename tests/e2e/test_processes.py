"""Two processes come to the same network as one; the second keeps quiet and writes nothing."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch

import small_runs as runs
from fupruner.options import Options

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def moves(plan: dict[str, Any]) -> list[tuple[str, str, list[int]]]:
    """What closes together; near ties within a move may come in another order."""
    return [(move["kind"], move["where"], sorted(move["closed"])) for move in plan["moves"]]


def test_one_process_twice_gives_the_same_bits(finished_run: runs.Finished, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert runs.fupruner([*finished_run.command, "--out", str(run)], tmp_path / "log") == 0
    for name in ("plan.json", "decisions.json", "options.toml"):
        assert (run / name).read_bytes() == (finished_run.folder / name).read_bytes(), name
    options = tomllib.loads((run / "options.toml").read_text())
    unset = {name for name, field in Options.model_fields.items() if field.default is None}  # TOML has no null
    assert set(options) | unset == set(Options.model_fields)
    assert (options["seed"], options["ema"]) == (0, 0.9)
    expected = runs.weights_of(finished_run.folder)
    assert all(torch.equal(value, expected[name]) for name, value in runs.weights_of(run).items())


def test_another_seed_gives_other_weights(finished_run: runs.Finished, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert runs.fupruner([*finished_run.command, "--seed", "1", "--out", str(run)], tmp_path / "log") == 0
    found, expected = runs.weights_of(run), runs.weights_of(finished_run.folder)
    assert any(
        value.shape != expected[name].shape or not torch.equal(value, expected[name]) for name, value in found.items()
    )


def test_two_processes_take_the_decisions_of_one(finished_run: runs.Finished, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert runs.together(2, [*finished_run.command, "--out", str(run)], tmp_path / "log") == [0, 0], (
        tmp_path / "log0"
    ).read_text()
    plan, expected = (json.loads((folder / "plan.json").read_text()) for folder in (run, finished_run.folder))
    assert plan["widths_after"] == expected["widths_after"]
    assert moves(plan) == moves(expected)
    wanted = runs.weights_of(finished_run.folder)
    for name, value in runs.weights_of(run).items():
        torch.testing.assert_close(value, wanted[name], rtol=0.02, atol=0.02, msg=name)
    second = (tmp_path / "log1").read_text().splitlines()
    assert [line for line in second if not line.startswith("points")] == []
    assert json.loads((run / "run.json").read_text())["processes"] == 2
