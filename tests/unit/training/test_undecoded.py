"""Images that memory does not hold decoded give the same batches as those that it holds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fupruner.errors import DataError
from fupruner.training import data as training_data
from fupruner.training import decode
from fupruner.training.augment import AUGMENTATIONS
from fupruner.training.data import ImageData, calibration, load_data
from fupruner.training.decode import Undecoded
from fupruner.training.task import Classification
from image_files import write_table

COUNT, LIMIT = 23, 2000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for split, count in (("train", COUNT), ("val", 8)):
        for index in range(count):
            place = tmp_path / split / "ab"[index % 2]
            place.mkdir(parents=True, exist_ok=True)
            pixels = random.integers(0, 256, (12 + index, 15, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(place / f"{index:02}.png")
    return tmp_path


@pytest.fixture
def both(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[ImageData, ImageData]:
    """In memory, and not."""
    shape = (3, 12, 12)
    held = load_data(str(folder), image_shape=shape)
    monkeypatch.setattr(decode, "_MEMORY_LIMIT", LIMIT)
    left = load_data(str(folder), image_shape=shape)
    assert isinstance(held.train.images, torch.Tensor)
    assert isinstance(left.train.images, Undecoded)
    return held, left


@pytest.mark.parametrize("augment", AUGMENTATIONS)
@pytest.mark.parametrize("start", [0, 2])
def test_batches_are_the_same(both: tuple[ImageData, ImageData], augment: str, start: int) -> None:
    options = {"shuffle": True, "seed": 1, "epoch": 2, "augment": augment, "start": start}
    held, left = (list(images.train.batches(5, **options)) for images in both)
    assert len(held) == len(left) == 5 - start
    for (a, b), (c, d) in zip(held, left, strict=True):
        assert torch.equal(a, c)
        assert torch.equal(b, d)


def test_parts_shapes_and_calibration_are_the_same(both: tuple[ImageData, ImageData]) -> None:
    held, left = (images.train for images in both)
    assert len(held) == len(left) == COUNT
    assert held.image_shape == left.image_shape == (3, 12, 12)
    for a, b in zip(calibration(held, 7, 3), calibration(left, 7, 3), strict=True):
        assert torch.equal(a, b)
    some = torch.tensor([4, 0, 9])
    part = left.part(some)
    assert isinstance(part.images, Undecoded)
    assert torch.equal(part.images[torch.arange(3)], held.images[some])
    assert torch.equal(part.labels, held.labels[some])


def test_a_task_divides_and_judges_in_the_same_way(both: tuple[ImageData, ImageData]) -> None:
    def of_brightness(x: torch.Tensor) -> torch.Tensor:
        return torch.stack([x.mean((1, 2, 3)), -x.mean((1, 2, 3))], 1)

    scores = [[part.score(of_brightness) for part in Classification(images).divided()] for images in both]
    assert scores[0] == scores[1]


def test_statistics_are_those_of_the_pixels_taken_from_images_all_over(
    both: tuple[ImageData, ImageData], monkeypatch: pytest.MonkeyPatch
) -> None:
    held, left = both
    assert (held.mean, held.std) == (left.mean, left.std)
    pixels = held.train.images / 255
    torch.testing.assert_close(torch.tensor(held.mean), pixels.mean((0, 2, 3)))
    torch.testing.assert_close(torch.tensor(held.std), pixels.std((0, 2, 3)), rtol=1e-3, atol=0)
    monkeypatch.setattr(training_data, "_STATISTICS_FROM", 3)
    chosen = held.train.images[[0, 11, 22]] / 255
    torch.testing.assert_close(torch.tensor(training_data._statistics(left.train.images)[0]), chosen.mean((0, 2, 3)))


@pytest.mark.parametrize("value", [0, 77, 255])
def test_a_constant_channel_keeps_its_scale(value: int) -> None:
    (mean,), (std,) = training_data._statistics(torch.full((6, 1, 5, 5), value, dtype=torch.uint8))
    assert (mean, std) == (value / 255, 1.0)


def test_a_process_decodes_its_part_of_a_batch_alone(
    both: tuple[ImageData, ImageData], monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[int] = []
    pixels = decode._pixels
    monkeypatch.setattr(
        decode, "_pixels", lambda split, index, shape: [decoded.append(index), pixels(split, index, shape)][1]
    )
    held, left = (Classification(data, 6, "strong", seed=1) for data in both)
    whole = [images for images, _ in held.train_batches(2)]
    parts = list(left.train_parts(2, 0, 1, 4))
    assert [samples for _, samples in parts] == [6, 6, 6]
    assert all(torch.equal(part[0], images[1::4]) for (part, _), images in zip(parts, whole, strict=True))
    assert len(decoded) == 3 * 2


def test_it_is_said_what_stays_encoded(both: tuple[ImageData, ImageData]) -> None:
    held, left = both
    assert held.notes == ()
    assert [note.split(" images in ")[0] for note in left.notes] == [str(COUNT), "8"]
    assert all("decoded when they are needed" in note for note in left.notes)


@pytest.mark.parametrize("break_it", [lambda file: file.write_bytes(b"no image"), lambda file: file.unlink()])
def test_an_image_that_went_bad_is_named_when_its_turn_comes(
    folder: Path, monkeypatch: pytest.MonkeyPatch, break_it: Callable[[Path], None]
) -> None:
    monkeypatch.setattr(decode, "_MEMORY_LIMIT", LIMIT)
    images = load_data(str(folder), image_shape=(3, 12, 12))
    last = images.train.images.split.images[COUNT - 1]
    break_it(Path(last))
    batches = images.train.batches(6)
    assert len([next(batches) for _ in range(3)]) == 3
    with pytest.raises(DataError) as caught:
        next(batches)
    assert last in str(caught.value)
    assert "fupruner resume" in caught.value.hint


def test_a_table_stays_encoded_where_memory_holds_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = str(write_table(tmp_path / "train.parquet", [0, 1] * 10))
    held = load_data(table, image_shape=(3, 32, 32))
    monkeypatch.setattr(decode, "_MEMORY_LIMIT", 5000)
    left = load_data(table, image_shape=(3, 32, 32))
    assert isinstance(left.train.images, Undecoded)
    assert torch.equal(left.train.images[torch.arange(16)], held.train.images)
    assert dataclasses.replace(left, notes=()).classes == held.classes
