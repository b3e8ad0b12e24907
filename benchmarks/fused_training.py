"""Does a fused network train? CIFAR-10 ResNet-20, one epoch at learning rate 0.01, with and without aggressive fusion.

Measured: validation accuracy before and after one epoch of fine-tuning (SGD, momentum 0.9, weight decay 5e-4, one-cycle schedule of
``fupruner.training``, batch 256, bf16 where the processor has it and float32 elsewhere, no distillation) from the same adapted
checkpoint, of
    unfused       the network as it was trained, with its own norms
    folded        aggressively fused, no norms: what happens without calibration
    calibrated    aggressively fused, calibrated norms on 1,024 training images
    frozen        the same, with reserved filters and the columns that read them held
One run per row and seed (of order and augmentation); mean and spread over the seeds that were run, and the mean difference to the
unfused row over the seeds that both have. Needs ../shared/data (JPEG images and the adapted checkpoint).

    python benchmarks/fused_training.py [--rows unfused calibrated ...] [--seeds 0 1 ...] [--images N] [--out FILE]

--images trains on the first N images alone: less than an epoch, and the result says so.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fupruner.fusion import freeze_reserved, fuse_graph, insert_norms, release_reserved
from fupruner.graph.trace import trace
from fupruner.models.cifar_resnet import resnet20
from fupruner.models.weights import read_checkpoint
from fupruner.training.data import load_data
from fupruner.training.loop import train
from fupruner.training.recipe import supported
from fupruner.training.task import Classification

DATA = Path(__file__).parents[2] / "shared" / "data"
RESULT = Path(__file__).parent / "results" / "fused_training.json"
LEARNING_RATE = 0.01


def network(row: str, task: Classification) -> nn.Module:
    """The network of one row, before training."""
    model = resnet20()
    read_checkpoint(DATA / "checkpoints" / "cifar10_jpeg_resnet20.safetensors").load_into(model)
    if row == "unfused":
        return model
    example = (torch.randn(2, 3, 32, 32),)
    fused, log = fuse_graph(trace(model, example), example, "aggressive")
    assert "add" not in log.after.operators
    if row == "folded":
        return fused
    batches: list[Tensor] = [images for images, _ in task.calibration_batches(1024)]
    calibrated = insert_norms(fused, batches)
    if row == "frozen":
        freeze_reserved(calibrated, columns=True)
    return calibrated


def run(row: str, seed: int, task: Classification) -> dict[str, float]:
    """One epoch of one row with one seed."""
    torch.manual_seed(seed)
    model = network(row, task)
    before, start = task.evaluate(model), time.perf_counter()
    epochs = train(model, task, epochs=1, learning_rate=LEARNING_RATE, seed=seed)
    seconds = time.perf_counter() - start
    if row == "frozen":
        release_reserved(model)  # type: ignore[arg-type]
    return {"before": before, "after": task.evaluate(model), "loss": epochs[-1].loss, "seconds": round(seconds, 1)}


def summary(runs: dict[str, dict[str, float]], unfused: dict[str, dict[str, float]]) -> dict[str, float]:
    """Mean and spread (sample standard deviation; none of a single run) over seeds, and the paired difference to no fusion."""
    after = [one["after"] for one in runs.values()]
    told = {"n": len(after), "mean": statistics.fmean(after)}
    if len(after) > 1:
        told["spread"] = statistics.stdev(after)
    both = [runs[seed]["after"] - unfused[seed]["after"] for seed in runs if seed in unfused]
    if both and runs is not unfused:
        told["to_unfused"] = statistics.fmean(both)
    if len(both) > 1 and runs is not unfused:
        told["to_unfused_spread"] = statistics.stdev(both)
    return told


def main() -> None:
    """Train every row with every seed and write the result after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="*", default=["unfused", "calibrated", "frozen", "folded"])
    parser.add_argument("--seeds", nargs="*", type=int, default=[0])
    parser.add_argument("--images", type=int, default=None)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    data = load_data(str(DATA / "cifar10" / "jpeg"), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    if options.images is not None:
        data = dataclasses.replace(data, train=data.train.part(torch.arange(options.images)))
    result = json.loads(options.out.read_text()) if options.out.exists() else {}
    rows = result.get("by_images", {}).get(str(len(data.train)), {}).get("rows", {})
    for seed in options.seeds:
        for row in options.rows:
            done = run(row, seed, Classification(data, batch_size=256, augment="light", seed=seed))
            rows.setdefault(row, {"seeds": {}})["seeds"][str(seed)] = done
            print(row, seed, done, flush=True)
            write(options.out, result, rows, len(data.train))


def write(out: Path, result: dict[str, Any], rows: dict[str, Any], images: int) -> None:
    """All rows so far, beside those of other numbers of images."""
    unfused = rows.get("unfused", {}).get("seeds", {})
    for row in rows.values():
        row.update(summary(row["seeds"], unfused))
    hardware = {
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "precision": supported("bf16-mixed"),
    }
    result |= {"learning_rate": LEARNING_RATE, "epochs": 1}
    result.setdefault("by_images", {})[str(images)] = {"hardware": hardware, "rows": rows}
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
