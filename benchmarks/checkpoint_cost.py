"""What does a checkpoint cost? Seconds and bytes of writing one, beside the time of a training step.

Method: ResNet-20 (0.27 M parameters) and a stack of convolutions of 25 M train a few steps of 128 images, so that the optimizer has
its momentum; then the state is written as a run writes it (digest, fsync, atomic move), again and again, into a temporary folder.
Within an epoch a run writes one every 60 seconds, or more seldom where writing is slow; ``share`` is what that takes of the time:
the seconds of a write over those from one to the next. At the end of each epoch one more is written.

    python benchmarks/checkpoint_cost.py [--writes 9] [--steps 3] [--threads 1] [--out benchmarks/results/checkpoint_cost.json]

n = writes. Under a minute or two.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import nn
from training_speed import BATCH, made_up_images

from fupruner.finish import hardware
from fupruner.models.cifar_resnet import resnet20
from fupruner.options import Options
from fupruner.runs.checkpoints import Checkpoint, Checkpoints
from fupruner.runs.resumable import SHARE
from fupruner.training.loop import train_steps
from fupruner.training.optimizers import make_optimizer
from fupruner.training.schedule import Schedule


def large() -> nn.Module:
    """Convolutions with 25 M parameters on maps of 4x4."""
    widths = [3, *[640] * 8]
    convolutions = [nn.Conv2d(a, b, 3, 8 if a == 3 else 1, padding=1) for a, b in pairwise(widths)]
    layers = [layer for conv in convolutions for layer in (conv, nn.ReLU())]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(640, 10))


def cost(name: str, model: nn.Module, steps: int, writes: int) -> dict[str, Any]:
    """Train a little, then write the state again and again."""
    task, optimizer = made_up_images(BATCH * (steps + 2)), make_optimizer(model, 5e-4)
    ended = [time.perf_counter()]
    schedule = Schedule.over(steps + 2, 1e-3)
    train_steps(
        model, task, schedule, stop=steps + 1, optimizer=optimizer, on_step=[lambda *_: ended.append(time.perf_counter())]
    )  # fmt: skip
    step = statistics.median(b - a for a, b in pairwise(ended[1:]))
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Checkpoints(Path(folder))
        for number in range(writes):
            began = time.perf_counter()
            path = checkpoints.write(
                Checkpoint(0, 0, 0, number, writes, dict(model.state_dict()), optimizer.state_dict())
            )
            seconds.append(time.perf_counter() - began)
            size = path.stat().st_size
    took = statistics.median(seconds)
    every = max(Options().checkpoint_every, took / SHARE)
    return {
        "network": name, "parameters": sum(p.numel() for p in model.parameters()), "bytes": size, "writes": writes, "seconds": took,
        "seconds_min": min(seconds), "seconds_max": max(seconds), "step_seconds": step, "share": took / (took + every),
    }  # fmt: skip


def main() -> None:
    """Measure both networks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--writes", type=int, default=9)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "checkpoint_cost.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    rows = [
        cost(name, model, options.steps, options.writes)
        for name, model in (("ResNet-20", resnet20()), ("25 M", large()))
    ]
    for row in rows:
        print(json.dumps(row))
    facts = {
        "hardware": hardware(),
        "torch": torch.__version__,
        "threads": options.threads,
        "batch_size": BATCH,
        "rows": rows,
    }
    options.out.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
