"""Bring a task that is not classification: semantic segmentation of shapes that are drawn here.

Run it with ``python examples/segmentation.py``. It trains a small encoder-decoder, then lets ``fupruner.optimize`` make it
fast while its mean intersection over union (mean IoU) is kept. Nothing is downloaded. Results go to ``runs/segmentation``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import fupruner
from fupruner.training.distance import distillation_loss
from fupruner.training.loop import train
from fupruner.training.task import Predict

CLASSES = 3  # ground, discs, squares
SIZE = 32


class EncoderDecoder(nn.Module):
    """Two steps down, a residual block, two steps up with skip connections. Gives logits (N, CLASSES, H, W)."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.stem = layer(3, width)
        self.down1 = layer(width, 2 * width, stride=2)
        self.down2 = layer(2 * width, 4 * width, stride=2)
        self.middle = nn.Sequential(layer(4 * width, 4 * width), layer(4 * width, 4 * width))
        self.up1 = layer(6 * width, 2 * width)
        self.up2 = layer(3 * width, width)
        self.head = nn.Conv2d(width, CLASSES, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Segment images (N, 3, H, W)."""
        fine = self.stem(images)
        half = self.down1(fine)
        coarse = self.down2(half)
        coarse = coarse + self.middle(coarse)
        half = self.up1(torch.cat([F.interpolate(coarse, scale_factor=2.0), half], 1))
        fine = self.up2(torch.cat([F.interpolate(half, scale_factor=2.0), fine], 1))
        return self.head(fine)


def layer(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """Convolution, norm, activation."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


def shapes(count: int, seed: int) -> TensorDataset:
    """Noisy images (count, 3, SIZE, SIZE) of a disc and a square each, with the class of every pixel."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(count, 3, SIZE, SIZE, generator=generator) * 0.5
    masks = torch.zeros(count, SIZE, SIZE, dtype=torch.long)
    y, x = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    for kind in (1, 2):
        centres = torch.randint(6, SIZE - 6, (count, 2, 1, 1), generator=generator)
        radius = torch.randint(4, 8, (count, 1, 1), generator=generator)
        colour = torch.rand(count, 3, 1, 1, generator=generator) + 0.5
        dy, dx = (y - centres[:, 0]).abs(), (x - centres[:, 1]).abs()
        inside = (dx**2 + dy**2 <= radius**2) if kind == 1 else (torch.maximum(dx, dy) <= radius)
        masks[inside] = kind
        images += inside[:, None] * colour
    return TensorDataset(images, masks)


def loss(model: Predict, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Mean cross-entropy over all pixels of a batch."""
    images, masks = batch
    return F.cross_entropy(model(images), masks)


def mean_iou(model: Predict, data: TensorDataset) -> float:
    """Intersection over union in percent, the mean over the classes."""
    found, masks = [], []
    for image_batch, mask_batch in DataLoader(data, batch_size=64):
        found.append(model(image_batch).argmax(1).cpu())
        masks.append(mask_batch)
    predicted, truth = torch.cat(found), torch.cat(masks)
    ious = []
    for kind in range(CLASSES):
        both = (predicted == kind) & (truth == kind)
        either = (predicted == kind) | (truth == kind)
        ious.append(both.sum() / either.sum())
    return 100 * float(torch.stack(ious).mean())


def segmentation_task(images: int) -> fupruner.CustomTask:
    """Everything that ``optimize`` has to know: batches, a loss, a figure to keep, and how to learn from the original."""
    validation = shapes(256, seed=1)
    return fupruner.CustomTask(
        DataLoader(shapes(images, seed=0), batch_size=32, shuffle=True, drop_last=True),
        loss=loss,
        evaluate=lambda model: mean_iou(model, validation),
        metric=fupruner.Metric(name="mean IoU", unit="%"),
        distance=distillation_loss,  # the outputs are logits, one row of classes per pixel
    )


def main(out: Path, *, images: int = 1024, epochs: int = 4) -> fupruner.RunResult:
    """Train, optimize, and return the result."""
    torch.manual_seed(0)
    model, task = EncoderDecoder(), segmentation_task(images)
    train(model, task, epochs=epochs, learning_rate=0.1)
    print(f"Trained: {task.metric.name} {task.metric.text(task.evaluate(model))}.")
    result = fupruner.optimize(
        model, torch.zeros(1, 3, SIZE, SIZE), task, speedup=1.5, max_drop=3.0, epochs=max(1, epochs // 2), out=out
    )
    print(
        f"{result.speedup:.2f}x faster, {task.metric.name} {task.metric.text(result.baseline.accuracy)} -> "
        f"{task.metric.text(result.final.accuracy)}. Report: {out / 'report.html'}"
    )
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/segmentation"))
    main(parser.parse_args().out)
