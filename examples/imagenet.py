"""ImageNet in crops of random sizes, by loaders of PyTorch: ResNet-18 or another network of torchvision made faster.

FOLDER holds one folder per class below ``train`` and below ``val``, and stays on disk. One GPU, or several:

    python examples/imagenet.py FOLDER --weights resnet18.pth --out runs/resnet18
    torchrun --nproc-per-node 8 examples/imagenet.py FOLDER --weights resnet18.pth --out runs/resnet18

Every process reads whole batches and learns from its part of them: give ``--workers`` what the machine has. Needs torchvision.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

import fupruner
from fupruner.models.resolve import IMAGENET_MEAN, IMAGENET_STD, load_model
from fupruner.options import Options, read_options
from fupruner.training.distance import distillation_loss
from fupruner.training.task import Predict

OPTIONS = Path(__file__).with_name("imagenet.toml")


def loss(model: Predict, batch: list[Tensor]) -> Tensor:
    """Mean cross-entropy of a batch."""
    images, labels = batch
    return F.cross_entropy(model(images), labels)


def accuracy(model: Predict, batches: DataLoader[Any]) -> float:
    """Top-1 accuracy in percent."""
    correct = count = 0
    for images, labels in batches:
        correct += int((model(images).argmax(1).cpu() == labels).sum())
        count += len(labels)
    return 100 * correct / count


def imagenet(folder: Path, batch_size: int, workers: int, size: int = 224) -> fupruner.CustomTask:
    """Random crops to learn from, central ones for calibration, one half of ``val`` for the search and the other for the verdict."""
    from torchvision import transforms  # noqa: PLC0415 - only this example needs it
    from torchvision.datasets import ImageFolder  # noqa: PLC0415

    tensor = [transforms.ToTensor(), transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD)]
    varied = transforms.Compose([transforms.RandomResizedCrop(size), transforms.RandomHorizontalFlip(), *tensor])
    plain = transforms.Compose([transforms.Resize(size * 8 // 7), transforms.CenterCrop(size), *tensor])

    def loader(data: Dataset[Any], **more: Any) -> DataLoader[Any]:
        return DataLoader(data, batch_size=batch_size, num_workers=workers, **more)

    held_out = ImageFolder(str(folder / "val"), plain)
    order = torch.randperm(len(held_out), generator=torch.Generator().manual_seed(0)).tolist()
    halves = [loader(Subset(held_out, sorted(part))) for part in (order[::2], order[1::2])]
    return fupruner.CustomTask(
        loader(ImageFolder(str(folder / "train"), varied), shuffle=True, drop_last=True),
        loss=loss,
        evaluate=lambda model: accuracy(model, halves[0]),
        judge=lambda model: accuracy(model, halves[1]),
        metric=fupruner.Metric(),
        calibration=loader(
            ImageFolder(str(folder / "train"), plain), shuffle=True
        ),  # folders are in the order of classes
        distance=distillation_loss,
    )


def main(
    folder: Path, out: Path, *, name: str = "torchvision:resnet18", weights: Path | None = None, options: Options | None = None,
    workers: int = 8, size: int = 224,
) -> fupruner.RunResult:  # fmt: skip
    """Optimize and return the result."""
    options = options or read_options(OPTIONS)
    task = imagenet(folder, options.batch_size, workers, size)
    model = load_model(name, weights).module
    return fupruner.optimize(model, torch.zeros(1, 3, size, size), task, out=out, **options.model_dump())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="torchvision:resnet18")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--options", type=Path, default=OPTIONS)
    parser.add_argument("--workers", type=int, default=8)
    given = parser.parse_args()
    with fupruner.show_progress():
        main(
            given.folder, given.out, name=given.model, weights=given.weights, options=read_options(given.options),
            workers=given.workers,
        )  # fmt: skip
