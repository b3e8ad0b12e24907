"""Checkpoints: whole or not there, the last two kept, and damage is noticed."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch

from fupruner.runs.checkpoints import Checkpoint, Checkpoints


def state(phase: int = 0, step: int = 0, **more: object) -> Checkpoint:
    model = {"weight": torch.full((4, 3), float(step))}
    optimizer = {"state": {0: {"momentum_buffer": torch.ones(4, 3)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
    return Checkpoint(phase=phase, network=0, position=3, step=step, stop=9, model=model, optimizer=optimizer, **more)  # type: ignore[arg-type]


def steps(checkpoints: Checkpoints) -> list[tuple[int, int]]:
    found = [checkpoints.read(path) for path in checkpoints.paths()]
    return [(c.phase, c.step) for c in found if isinstance(c, Checkpoint)]


def test_state_comes_back(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    path = checkpoints.write(state(step=9, losses=(1.5, 2), epochs=[{"loss": 0.1}]))
    found = checkpoints.read(path)
    assert isinstance(found, Checkpoint)
    assert (found.step, found.position, found.losses, found.epochs) == (9, 3, (1.5, 2), [{"loss": 0.1}])
    assert found.is_final
    assert torch.equal(found.model["weight"], torch.full((4, 3), 9.0))
    assert torch.equal(found.optimizer["state"][0]["momentum_buffer"], torch.ones(4, 3))


def test_last_two_are_kept_and_anchors_besides(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for phase, step in ((0, 1), (0, 2), (0, 9)):
        checkpoints.write(state(phase, step))
    assert steps(checkpoints) == [(0, 9), (0, 2)]
    for step in (1, 2, 3):
        checkpoints.write(state(1, step), frozenset({0}))
    assert steps(checkpoints) == [(1, 3), (1, 2), (0, 9)]
    checkpoints.clear()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
def test_damage_is_noticed_before_anything_is_read(tmp_path: Path, damage: str) -> None:
    checkpoints = Checkpoints(tmp_path)
    path = checkpoints.write(state())
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1 if damage == "flip" else 0
    path.write_bytes({"cut": content[:-100], "flip": content, "empty": b""}[damage])
    assert checkpoints.read(path) == f"{path.name} is damaged: its content does not have the digest in its name"


def test_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = Checkpoints(tmp_path)
    kept = [checkpoints.write(state(step=step)) for step in (1, 2)]

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoints.write(state(step=3))
    assert sorted(tmp_path.iterdir()) == sorted(kept)
