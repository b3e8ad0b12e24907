"""The CIFAR residual networks: shapes at any size, capture by torch.export, the checkpoints of the original."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from fupruner.models import cifar_resnet
from fupruner.models.digits import digits_resnet
from fupruner.models.resolve import load_model
from fupruner.training.data import ImageData, Split, load_data
from fupruner.training.task import Classification


@pytest.mark.parametrize(
    ("build", "layers", "params"),
    [
        (cifar_resnet.resnet20, 20, 269_722),
        (cifar_resnet.resnet32, 32, 464_154),
        (cifar_resnet.resnet44, 44, 658_586),
        (cifar_resnet.resnet56, 56, 853_018),
        (cifar_resnet.resnet110, 110, 1_727_962),
    ],
)
def test_depth_and_size_are_those_of_the_paper(build, layers, params):
    model = build()
    weighted = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    assert len(weighted) == layers
    assert sum(parameter.numel() for parameter in model.parameters()) == params


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (7, 5), (1, 1)])
def test_any_height_and_width_works(size):
    assert cifar_resnet.resnet20(num_classes=7).eval()(torch.randn(2, 3, *size)).shape == (2, 7)


def test_shortcut_takes_every_second_pixel_and_pads_channels_on_both_sides():
    block = cifar_resnet.BasicBlock(2, 6, stride=2).eval()
    nn.init.zeros_(block.bn2.weight)  # the branch gives nothing
    x = torch.rand(1, 2, 5, 4)
    out = block(x)
    assert torch.equal(out[:, 2:4], x[:, :, ::2, ::2])
    assert out[:, :2].abs().sum() == 0
    assert out[:, 4:].abs().sum() == 0


@pytest.mark.parametrize(("model", "shape"), [(cifar_resnet.resnet20(), (3, 32, 32)), (digits_resnet(), (1, 8, 8))])
def test_exports_with_a_dynamic_batch_and_size(model, shape):
    model = model.eval()
    sizes = {0: torch.export.Dim("n"), 2: torch.export.Dim("h", min=8), 3: torch.export.Dim("w", min=8)}
    exported = torch.export.export(model, (torch.randn(2, *shape),), dynamic_shapes=(sizes,)).module()
    x = torch.randn(5, shape[0], 13, 10)
    torch.testing.assert_close(exported(x), model(x))


def test_digits_network_maps_digits_to_ten_logits():
    model = digits_resnet().eval()
    assert model(torch.randn(3, 1, 8, 8)).shape == (3, 10)
    assert model(torch.randn(3, 1, 9, 11)).shape == (3, 10)


@pytest.mark.data
@pytest.mark.parametrize("depth", [20, 32, 44, 56])
def test_published_checkpoint_loads_by_name(shared_data: Path, depth):
    path = shared_data / f"checkpoints/cifar10_resnet{depth}.safetensors"
    loaded = load_model(f"fupruner:resnet{depth}", path)
    fresh = load_model(f"fupruner:resnet{depth}")
    assert not torch.equal(loaded.module.conv1.weight, fresh.module.conv1.weight)
    assert loaded.input_shape == (3, 32, 32)
    assert loaded.mean == (0.485, 0.456, 0.406)


@pytest.mark.data
def test_adapted_checkpoint_predicts_the_images(shared_data: Path):
    path = shared_data / "checkpoints/cifar10_jpeg_resnet20.safetensors"
    model = load_model("fupruner:resnet20", path)
    source = str(shared_data / "cifar10/jpeg/validation.parquet")
    data = load_data(source, image_shape=model.input_shape, mean=model.mean, std=model.std)
    assert data.classes[3] == "cat"
    first = Split(data.train.images[:500], data.train.labels[:500], data.mean, data.std)
    accuracy = Classification(ImageData(first, first, data.classes, data.mean, data.std)).evaluate(model.module)
    assert accuracy > 80
