"""Real images and a real checkpoint: what the tool says about them must hold outside of it too."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import fupruner
from fupruner.graph import check
from fupruner.models.resolve import load_model
from fupruner.training.data import ImageData, load_data

pytestmark = [pytest.mark.data, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def images(shared_data: Path) -> ImageData:
    """The validation images, read as both splits: reading the training images would only take time."""
    model = load_model("fupruner:resnet20")
    source = str(shared_data / "cifar10" / "jpeg" / "validation.parquet")
    return load_data(source, image_shape=model.input_shape, mean=model.mean, std=model.std)


@pytest.fixture(scope="module")
def resnet20(shared_data: Path) -> torch.nn.Module:
    return load_model("fupruner:resnet20", shared_data / "checkpoints" / "cifar10_jpeg_resnet20.safetensors").module


def test_fused_network_agrees_on_real_images(resnet20: torch.nn.Module, images: ImageData) -> None:
    split = images.validation
    batch = split.normalise(split.images[:100])
    fused = fupruner.fuse(resnet20, batch[:2], level="aggressive")
    assert fused.log.after.operators.get("add", 0) == 0
    assert fused.log.after.operators.get("BatchNorm2d", 0) == 0
    assert check.largest_error(resnet20, fused.module, [(batch,)], torch.float32) < check.FLOAT32_TOLERANCE
    with torch.no_grad():
        assert torch.equal(fused.module(batch).argmax(1), resnet20(batch).argmax(1))


def test_pruned_network_is_smaller_and_still_recognises_images(resnet20: torch.nn.Module, images: ImageData) -> None:
    from fupruner.training.task import Classification

    task = Classification(images)
    pruned = fupruner.prune(resnet20, torch.randn(1, 3, 32, 32), speedup=1.2, data=task)
    assert pruned.plan.baseline_ms / pruned.plan.predicted_ms >= 1.2
    with torch.no_grad():
        split = images.validation
        right = pruned.module(split.normalise(split.images)).argmax(1) == split.labels
    assert float(right.float().mean()) > 0.5
