"""Prune an object detector: backbone, neck and heads of convolutions alone, as YOLO networks are built, on shapes drawn here.

Run it with ``python examples/detector.py``. It trains the detector, then lets ``fupruner.optimize`` make it fast while its mean average
precision (mAP at an overlap of 0.5) is kept. A detector of your own takes the same road: bring its loss and its figure as a
``CustomTask``. Nothing is downloaded. Results go to ``runs/detector``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import fupruner
from fupruner.training.loop import train
from fupruner.training.task import Predict

CLASSES = 2  # discs, squares
SIZE = 48
STRIDES = (4, 8)
LARGE = 7.0
"""Shapes of a radius from here on are found on the coarse grid, smaller ones on the fine grid."""


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution, norm, SiLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(outputs), nn.SiLU()
    )


class Split(nn.Module):
    """Half of the channels goes through a residual bottleneck; all stages are concatenated and mixed."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = conv(inputs, outputs, 1)
        self.inner = nn.Sequential(conv(outputs // 2, outputs // 2), conv(outputs // 2, outputs // 2))
        self.last = conv(outputs // 2 * 3, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Keep the size of a map."""
        left, right = self.first(x).chunk(2, 1)
        return self.last(torch.cat([left, right, right + self.inner(right)], 1))


class Pooling(nn.Module):
    """The same maximum over ever larger neighbourhoods, concatenated."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.last = conv(width, width // 2, 1), conv(width * 3 // 2, width, 1)
        self.pool = nn.MaxPool2d(3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Keep the size of a map."""
        x = self.first(x)
        wide = self.pool(x)
        return self.last(torch.cat([x, wide, self.pool(wide)], 1))


class Detector(nn.Module):
    """Two grids of cells; each cell gives the distances of a box's four sides and a score per class."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.stem = conv(3, width, stride=2)
        self.fine = nn.Sequential(conv(width, 2 * width, stride=2), Split(2 * width, 2 * width))
        self.coarse = nn.Sequential(
            conv(2 * width, 4 * width, stride=2), Split(4 * width, 4 * width), Pooling(4 * width)
        )
        self.up = nn.Upsample(scale_factor=2.0)
        self.neck = Split(6 * width, 2 * width)
        self.heads = nn.ModuleList(
            nn.Sequential(conv(inputs, 2 * width), nn.Conv2d(2 * width, 4 + CLASSES, 1))
            for inputs in (2 * width, 4 * width)
        )

    def forward(self, images: Tensor) -> Tensor:
        """From images (N, 3, H, W) to cells (N, 4 + CLASSES, cells), the fine grid first."""
        fine = self.fine(self.stem(images))
        coarse = self.coarse(fine)
        fine = self.neck(torch.cat([self.up(coarse), fine], 1))
        return torch.cat([head(x).flatten(2) for head, x in zip(self.heads, (fine, coarse), strict=True)], 2)


def grid() -> tuple[Tensor, Tensor]:
    """Centres (cells, 2) and strides (cells,) of all cells, in pixels."""
    centres, strides = [], []
    for stride in STRIDES:
        middle = (torch.arange(SIZE // stride) + 0.5) * stride
        y, x = torch.meshgrid(middle, middle, indexing="ij")
        centres.append(torch.stack([x.flatten(), y.flatten()], 1))
        strides.append(torch.full((x.numel(),), float(stride)))
    return torch.cat(centres), torch.cat(strides)


CENTRES, PITCH = grid()


def boxes(cells: Tensor) -> Tensor:
    """Boxes (N, cells, 4) as left, top, right, bottom, in pixels."""
    sides = F.softplus(cells[:, :4]).transpose(1, 2) * 2 * PITCH[:, None].to(cells)
    centres = CENTRES.to(cells)
    return torch.cat([centres - sides[..., :2], centres + sides[..., 2:]], -1)


def overlap(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of boxes (..., 4)."""
    sides = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0)
    areas = [(box[..., 2:] - box[..., :2]).clamp(min=0).prod(-1) for box in (a, b)]
    both = sides.prod(-1)
    return both / (areas[0] + areas[1] - both + 1e-6)


def scenes(count: int, seed: int) -> TensorDataset:
    """Noisy images (count, 3, SIZE, SIZE) of a disc and a square, their boxes (count, CLASSES, 4) and radii (count, CLASSES)."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(count, 3, SIZE, SIZE, generator=generator) * 0.3
    y, x = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    truth, radii = [], []
    for kind in range(CLASSES):
        radius = torch.randint(4, 11, (count, 1, 1), generator=generator)
        centres = torch.randint(10, SIZE - 10, (count, 2, 1, 1), generator=generator)
        dx, dy = (x - centres[:, 0]).abs(), (y - centres[:, 1]).abs()
        inside = (dx**2 + dy**2 <= radius**2) if kind == 0 else (torch.maximum(dx, dy) <= radius)
        images += inside[:, None] * (torch.rand(count, 3, 1, 1, generator=generator) + 0.5)
        middle, half = centres[:, :, 0, 0] + 0.5, radius[:, :, 0] + 0.5
        truth.append(torch.cat([middle - half, middle + half], 1))
        radii.append(radius[:, 0, 0].float())
    return TensorDataset(images, torch.stack(truth, 1), torch.stack(radii, 1))


def owners(truth: Tensor, radii: Tensor) -> Tensor:
    """The cell (N, CLASSES) that has to find a shape: that which its centre lies in, on the grid for its size."""
    middle = (truth[..., :2] + truth[..., 2:]) / 2
    far = (middle[:, :, None] - CENTRES).abs().amax(-1)
    wrong = (radii >= LARGE)[:, :, None] != (STRIDES[1] == PITCH)
    return (far + 1e6 * wrong).argmin(-1)


def loss(model: Predict, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Loss of each image (N,): cross-entropy of the scores, and how far the boxes of owning cells miss."""
    images, truth, radii = batch
    cells = model(images)
    cell = owners(truth, radii).to(cells.device)
    wanted = torch.zeros_like(cells[:, 4:]).scatter_(2, cell[:, :, None], 1.0)
    scores = F.binary_cross_entropy_with_logits(cells[:, 4:], wanted, reduction="none").sum((1, 2))
    found = boxes(cells).gather(1, cell[:, :, None].expand(-1, -1, 4))
    return scores + (1 - overlap(found, truth.to(cells))).sum(1)


def average_precision(scores: Tensor, right: Tensor, objects: int) -> float:
    """Area below the curve of precision against recall, which never rises."""
    right = right[scores.argsort(descending=True)].float()
    precision = right.cumsum(0) / torch.arange(1, len(right) + 1)
    envelope = precision.flip(0).cummax(0).values.flip(0)
    return float((envelope * right).sum() / objects)


def mean_average_precision(model: Predict, data: TensorDataset, kept: int = 10) -> float:
    """In percent, at an overlap of 0.5, the mean over the classes; each image has one object of each class."""
    cells, truth = [], []
    for images, boxed, _ in DataLoader(data, batch_size=64):
        cells.append(model(images).float().cpu())
        truth.append(boxed)
    every, objects = torch.cat(cells), torch.cat(truth)
    found, precisions = boxes(every), []
    for kind in range(CLASSES):
        scores, best = every[:, 4 + kind].topk(kept)
        box = found.gather(1, best[:, :, None].expand(-1, -1, 4))
        between = overlap(box[:, :, None], box[:, None])
        doubled = (between > 0.5).tril(-1)
        alone = torch.ones_like(scores, dtype=torch.bool)
        for rank in range(1, kept):  # a box gives way to a better one that it overlaps and that stays
            alone[:, rank] = ~(doubled[:, rank] & alone).any(1)
        hit = (overlap(box, objects[:, kind, None]) >= 0.5) & alone
        first = hit & (hit.cumsum(1) == 1)
        precisions.append(average_precision(scores[alone], first[alone], len(objects)))
    return 100 * sum(precisions) / CLASSES


def detection_task(images: int) -> fupruner.CustomTask:
    """Everything that ``optimize`` has to know: batches, a loss, a figure to keep."""
    validation, held_out = scenes(256, seed=1), scenes(256, seed=2)
    return fupruner.CustomTask(
        DataLoader(scenes(images, seed=0), batch_size=32, shuffle=True, drop_last=True),
        loss=loss,
        evaluate=lambda model: mean_average_precision(model, validation),
        judge=lambda model: mean_average_precision(model, held_out),
        metric=fupruner.Metric(name="mAP", unit="%"),
    )


def main(out: Path, *, images: int = 2048, epochs: int = 8) -> fupruner.RunResult:
    """Train, optimize, and return the result."""
    torch.manual_seed(0)
    model, task = Detector(), detection_task(images)
    train(model, task, epochs=epochs, learning_rate=0.02)
    print(f"Trained: {task.metric.name} {task.metric.text(task.evaluate(model))}.")
    result = fupruner.optimize(
        model, torch.zeros(1, 3, SIZE, SIZE), task, speedup=1.4, max_drop=5.0, epochs=max(1, epochs // 2), learning_rate=0.01, out=out,
    )  # fmt: skip
    print(
        f"{result.speedup:.2f}x faster, {task.metric.name} {task.metric.text(result.baseline.accuracy)} -> "
        f"{task.metric.text(result.final.accuracy)}. Report: {out / 'report.html'}"
    )
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/detector"))
    main(parser.parse_args().out)
