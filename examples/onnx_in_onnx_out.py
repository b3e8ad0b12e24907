"""An ONNX file in, a faster ONNX file out: nothing is known about the network but the file and some labelled images.

Run it with ``python examples/onnx_in_onnx_out.py``. It first makes a file to start from, a small network trained on the digits of
scikit-learn; with a file of your own, ``shrink`` is all there is. Nothing is trained after pruning: what is left of each layer
takes over what was cut, by least squares.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import onnxruntime
import torch
import torch.nn.functional as F
from plain_loop import digits, fit, network
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

import fupruner
from fupruner.training.task import Predict


def loss(model: Predict, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Cross-entropy of each image of a batch."""
    return F.cross_entropy(model(batch[0]), batch[1], reduction="none")


def accuracy(file: Path, data: TensorDataset) -> float:
    """Part of the images that the file recognises, in percent, in ONNX Runtime."""
    images, labels = next(iter(DataLoader(data, batch_size=len(data))))
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    (scores,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    return 100 * float(np.mean(scores.argmax(1) == labels.numpy()))


def shrink(given: Path, shipped: Path, images: TensorDataset, speedup: float) -> None:
    """Prune the network of a file, and write it to another one; the file is checked as it is written."""
    example = images[0][0][None]
    loader = DataLoader(images, batch_size=96)
    task = fupruner.CustomTask(loader, loss=loss, evaluate=lambda _: 0.0)  # nothing is trained, so nothing is evaluated
    pruned = fupruner.prune(given, example, speedup=speedup, data=task, fusion="auto")
    fupruner.export(pruned.module, example, shipped)


def main(folder: Path, *, epochs: int = 4) -> tuple[float, float, float]:
    """Make a file, shrink it, and compare: accuracy before and after, and the speed-up."""
    torch.manual_seed(0)
    train, validation = digits()
    model = network()
    fit(model, train, epochs)
    folder.mkdir(parents=True, exist_ok=True)
    given, shipped = folder / "digits.onnx", folder / "pruned.onnx"
    fupruner.export(model, train[0][0][None], given)
    shrink(given, shipped, train, speedup=1.4)
    before, after = accuracy(given, validation), accuracy(shipped, validation)
    times = [fupruner.measure(file, train[0][0][None]) for file in (given, shipped)]
    speedup = times[0].latency_ms / times[1].latency_ms
    print(f"{speedup:.2f}x faster, accuracy {before:.2f} % -> {after:.2f} %. Written: {shipped}")
    return before, after, speedup


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/onnx"))
    main(parser.parse_args().out)
