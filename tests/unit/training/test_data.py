"""Batches: normalised, repeatable from any index, augmented as asked."""

from __future__ import annotations

import pytest
import torch

from fupruner.training.augment import AUGMENTATIONS, Augmentation, draw, gather
from fupruner.training.data import Split, calibration, load_data
from fupruner.training.seeds import generator, mix


@pytest.fixture(scope="module")
def split() -> Split:
    images = torch.randint(0, 256, (50, 3, 8, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return Split(images, torch.arange(50), mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))


def test_batches_are_normalised(split):
    images, labels = next(split.batches(4))
    expected = (split.images[:4] / 255 - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / torch.tensor(
        [0.5, 0.6, 0.7]
    ).view(3, 1, 1)
    torch.testing.assert_close(images, expected)
    assert labels.tolist() == [0, 1, 2, 3]


def test_every_image_comes_once_unless_the_rest_is_dropped(split):
    assert [len(labels) for _, labels in split.batches(16)] == [16, 16, 16, 2]
    seen = torch.cat([labels for _, labels in split.batches(16, shuffle=True, seed=1)])
    assert seen.sort().values.tolist() == list(range(50))
    assert [len(labels) for _, labels in split.batches(16, drop_last=True)] == [16, 16, 16]
    assert [len(labels) for _, labels in split.batches(60, drop_last=True)] == [50]


def test_batches_repeat_by_seed_and_epoch_and_differ_between_them(split):
    def run(**options):
        return list(split.batches(16, shuffle=True, augment="standard", **options))

    for (a, b), (c, d) in zip(run(seed=3, epoch=2), run(seed=3, epoch=2), strict=True):
        assert torch.equal(a, c)
        assert torch.equal(b, d)
    assert not torch.equal(run(seed=3, epoch=2)[0][1], run(seed=3, epoch=1)[0][1])
    assert not torch.equal(run(seed=3, epoch=2)[0][1], run(seed=4, epoch=2)[0][1])


@pytest.mark.parametrize("start", [1, 3, 4])
def test_starting_later_gives_the_same_batches(split, start):
    options = {"shuffle": True, "augment": "standard", "seed": 1, "epoch": 5}
    whole, rest = list(split.batches(16, **options)), list(split.batches(16, start=start, **options))
    assert len(rest) == len(whole) - start
    assert all(torch.equal(a[0], b[0]) for a, b in zip(whole[start:], rest, strict=True))


def varied(images, chosen, augmentation):
    height, width = images.shape[2:]
    return gather(images, chosen, draw(len(chosen), (height, width), augmentation, generator(0)))


def test_no_augmentation_leaves_images_alone(split):
    chosen = torch.tensor([7, 3])
    assert torch.equal(varied(split.images, chosen, AUGMENTATIONS["none"]), split.images[chosen])


def test_light_augmentation_mirrors_about_half_and_nothing_else(split):
    chosen = torch.arange(50).repeat(8)
    found = varied(split.images, chosen, AUGMENTATIONS["light"])
    original = split.images[chosen]
    mirrored = (found == original.flip(3)).flatten(1).all(1)
    kept = (found == original).flatten(1).all(1)
    assert (mirrored | kept).all()
    assert 160 < mirrored.sum() < 240


def test_shift_moves_images_and_mirrors_the_border(split):
    image = split.images[:1]
    padded = torch.nn.functional.pad(image.float(), (1, 1, 2, 2), mode="reflect").byte()
    windows = {padded[0, :, y : y + 8, x : x + 6].numpy().tobytes() for y in range(5) for x in range(3)}
    found = varied(image, torch.zeros(400, dtype=torch.int64), Augmentation(shift=0.25))
    assert {window.numpy().tobytes() for window in found} == windows


def test_digits_are_shifted_but_never_mirrored():
    augmentation = AUGMENTATIONS[load_data("digits").augment]
    assert not augmentation.flip
    assert int(8 * augmentation.shift) == 1


def test_calibration_draws_without_repetition_the_same_each_time(split):
    images, labels = calibration(split, 20, seed=0)
    assert images.shape == (20, 3, 8, 6)
    assert labels.unique().numel() == 20
    assert torch.equal(calibration(split, 20, seed=0)[0], images)
    assert not torch.equal(calibration(split, 20, seed=1)[1], labels)
    assert torch.equal(calibration(split, 5, seed=0)[1], labels[:5])
    torch.testing.assert_close(images, split.normalise(split.images[labels]))
    assert len(calibration(split, 500, seed=0)[0]) == 50


def test_statistics_come_from_the_training_images_where_the_model_has_none():
    data = load_data("digits")
    images = torch.cat([images for images, _ in data.train.batches(100)])
    assert abs(float(images.mean())) < 1e-3
    assert abs(float(images.std()) - 1) < 1e-3


def test_seeds_mix_in_order():
    assert mix(1, 2) != mix(2, 1)
    assert mix(0) != mix(0, 0, 1)
    assert 0 <= mix(5, 6, 7) < 2**63


def test_strong_augmentation_blanks_a_square_of_each_image():
    images = torch.arange(64, dtype=torch.uint8).repeat(200).view(200, 1, 8, 8)
    chosen = torch.arange(200)
    blanked = varied(images, chosen, Augmentation(cutout=1 / 4))
    changed = (blanked != images).flatten(1).sum(1)
    assert blanked.dtype == torch.uint8
    assert int(changed.max()) <= 4  # two pixels by two
    assert int(changed.min()) >= 1
    assert blanked[blanked != images].unique().tolist() == [31]  # the image's mean
    assert changed.float().mean() > 3
    assert AUGMENTATIONS["strong"].cutout > 0
