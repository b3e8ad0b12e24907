from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from torch import nn

from fupruner.cli.pictures import read_images, statistics
from fupruner.errors import InputError
from fupruner.models.resolve import IMAGENET_MEAN, IMAGENET_STD, LoadedModel


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of pictures of different sizes."""
    for number in range(8):
        place = tmp_path / "images" / f"class-{number % 2}"
        place.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20 + number, 16), (40 * (number % 2) + 10, 60, 200)).save(place / f"{number}.png")
    return tmp_path / "images"


UNKNOWN = LoadedModel(nn.Identity(), "mine:build")


def test_statistics_are_read() -> None:
    assert statistics("imagenet") == (IMAGENET_MEAN, IMAGENET_STD)
    assert statistics("0.5, 0.4:0.2,1") == ((0.5, 0.4), (0.2, 1.0))


@pytest.mark.parametrize("text", ["", "0.5", "0.5,0.5:0.2", "a:b", "0.5:0", "0.5:-1", "nan:1", "1:2:3"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"--mean-std .*must be imagenet"):
        statistics(text)


def test_what_the_user_says_counts(folder: Path) -> None:
    images = read_images(UNKNOWN, str(folder), {}, "3x12x10", "imagenet")
    assert images.train.images.shape[1:] == (3, 12, 10)
    assert (images.mean, images.std) == (IMAGENET_MEAN, IMAGENET_STD)
    assert not [note for note in images.notes if "--" in note]
    known = LoadedModel(nn.Identity(), "timm:x", (3, 8, 8), (0.1, 0.1, 0.1), (1.0, 1.0, 1.0))
    assert read_images(known, str(folder), {}, "3x12x10").train.images.shape[1:] == (3, 12, 10)
    assert read_images(known, str(folder), {}, None, "imagenet").mean == IMAGENET_MEAN
    assert read_images(known, str(folder), {}).mean == (0.1, 0.1, 0.1)


def test_a_guess_is_told(folder: Path) -> None:
    notes = "\n".join(read_images(UNKNOWN, str(folder), {}).notes)
    assert "--input-shape says what the network takes" in notes
    assert "--mean-std says what the network was trained with" in notes
