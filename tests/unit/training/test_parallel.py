"""Processes that train together: what goes wrong in one of them is raised in all, so that none waits for it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import small_runs as runs
from fupruner import pipeline
from fupruner.errors import DataError, InputError, TrainingError
from fupruner.training.data import ImageData, Split
from fupruner.training.parallel import World, join
from fupruner.training.stream import stream
from fupruner.training.task import Classification


class Broken:
    """A task whose second image only one process cannot read."""

    steps_per_epoch = 3

    def train_parts(self, epoch: int, start: int, rank: int, size: int) -> Iterator[tuple[Any, int]]:
        yield torch.ones(2), 4
        if rank == 1:
            raise DataError("dog.png cannot be decoded.", hint="Repair it.")
        yield torch.ones(2), 4

    def inputs(self, batch: torch.Tensor) -> torch.Tensor:
        return batch


def _learn(place: dict[str, str], folder: str) -> None:
    os.environ.update(place)
    world, steps = join(), 0
    try:
        for _ in stream(Broken(), 0, 3, world):  # type: ignore[arg-type]
            steps += 1
    except DataError as error:
        (Path(folder) / str(world.rank)).write_text(f"{steps}: {error.args[0]} {error.hint}")


def test_an_error_in_one_process_is_raised_in_all(tmp_path: Path) -> None:
    started = [runs.context().Process(target=_learn, args=(place, str(tmp_path))) for place in runs.places(2)]  # type: ignore[attr-defined]
    for process in started:
        process.start()
    for process in started:
        process.join(60)
    assert [process.exitcode for process in started] == [0, 0]
    assert [(tmp_path / str(rank)).read_text() for rank in range(2)] == ["1: dog.png cannot be decoded. Repair it."] * 2


def test_alone_nothing_is_exchanged() -> None:
    assert World().together(lambda: 3) == 3
    with pytest.raises(TrainingError, match="no batch"):
        World().together(_refuse)


def test_a_batch_that_cannot_be_divided_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "join", lambda: World(0, 6, 6))
    split = Split(torch.zeros(8, 3, 9, 9, dtype=torch.uint8), torch.arange(8), (0.5,) * 3, (0.25,) * 3)
    task = Classification(ImageData(split, split, tuple("abcdefgh"), (0.5,) * 3, (0.25,) * 3), 5)
    with pytest.raises(InputError, match="A batch of 5 cannot be divided over 6 processes"):
        pipeline.optimize(nn.Conv2d(3, 8, 3), torch.zeros(1, 3, 9, 9), task, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def _refuse() -> None:
    raise TrainingError("no batch")
