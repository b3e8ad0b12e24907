"""Prune inside a training loop of your own: plain PyTorch on handwritten digits.

Run it with ``python examples/plain_loop.py``. The loop is an ordinary one; the four lines marked with ``pruning`` make the
network small and fast while it is fine-tuned. Nothing is downloaded: the digits come with scikit-learn.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset, random_split

import fupruner

EXAMPLE = torch.zeros(1, 1, 8, 8)


def digits() -> tuple[TensorDataset, TensorDataset]:
    """Training and validation images (N, 1, 8, 8), scaled to 0 to 1, with labels."""
    found = load_digits()
    images = torch.tensor(found.images, dtype=torch.float32)[:, None] / 16
    data = TensorDataset(images, torch.tensor(found.target))
    return random_split(data, [1440, len(data) - 1440], torch.Generator().manual_seed(0))


def network(width: int = 64) -> nn.Module:
    """Three convolutions and a classifier."""
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
        nn.Conv2d(width, width, 3, 2, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, padding=1, bias=False), nn.BatchNorm2d(2 * width), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, 10),
    )  # fmt: skip


def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Mean cross-entropy of a batch."""
    images, labels = batch
    return F.cross_entropy(model(images), labels)


@torch.no_grad()
def accuracy(model: nn.Module, data: TensorDataset) -> float:
    """Part of the images that is recognised, in percent."""
    images, labels = next(iter(DataLoader(data, batch_size=len(data))))
    return 100 * float((model(images).argmax(1) == labels).float().mean())


def fit(model: nn.Module, train: TensorDataset, epochs: int) -> None:
    """Train a network the ordinary way, before anything is pruned."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for _ in range(epochs):
        for batch in DataLoader(train, batch_size=48, shuffle=True):
            loss(model, batch).backward()
            optimizer.step()
            optimizer.zero_grad()
    model.eval()


def fine_tune(model: nn.Module, train: TensorDataset, validation: TensorDataset, epochs: int) -> fupruner.LoopResult:
    """Fine-tune and prune in one loop; the teacher is the network as it was."""
    teacher = copy.deepcopy(model)
    loader = DataLoader(train, batch_size=48, shuffle=True)
    pruning = fupruner.PruningCallback(  # pruning: gates, and when they close
        model, EXAMPLE, loss=loss, calibration=DataLoader(train, batch_size=96), speedup=1.5,
        total_steps=epochs * len(loader), deadline=0.4, calibration_images=384,
    )  # fmt: skip
    student = pruning.module  # train this, not the model
    optimizer = torch.optim.SGD(student.parameters(), lr=0.02, momentum=0.9)
    for _ in range(epochs):
        student.train()
        for images, labels in loader:
            outputs = student(images)
            with torch.no_grad():
                soft = teacher(images).softmax(1)
            (F.cross_entropy(outputs, labels) + F.cross_entropy(outputs, soft)).backward()
            optimizer.step()
            optimizer.zero_grad()
            pruning.on_step()  # pruning: decides the gates where it is time to
        student.eval()
        epoch = pruning.on_epoch(accuracy(student, validation))  # pruning: recorded for the result
        print(f"epoch {epoch.epoch}: accuracy {epoch.metric:.2f} %, {epoch.closed} gates closed")
    return pruning.finish()  # pruning: cut, fuse, time


def main(*, epochs: int = 4) -> tuple[float, float, fupruner.LoopResult]:
    """Train, fine-tune and prune; accuracy before and after, and the result."""
    torch.manual_seed(0)
    train, validation = digits()
    model = network()
    fit(model, train, epochs)
    before = accuracy(model, validation)
    result = fine_tune(model, train, validation, epochs)
    after = accuracy(result.module, validation)
    print(f"{result.speedup:.2f}x faster, accuracy {before:.2f} % -> {after:.2f} %")
    return before, after, result


if __name__ == "__main__":
    main()
