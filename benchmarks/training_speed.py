"""Does our training loop cost anything? Images per second of it, over those of a bare PyTorch loop.

Method: the same network (ResNet-20, random weights), batch size, precision, optimizer and layout in both. The bare loop is given batches
that lie ready in memory; ours draws, augments and normalises its own and reports each step. They take turns (A B A B ...), each turn a few
steps; the ratio is taken turn by turn, from the processor's seconds (all threads), so that other work on the machine counts little.
A second pair adds distillation: the bare loop then runs the teacher and the same loss. In a third, ours recovers as ``optimize`` does, with
orthogonal steps (Muon), and the bare loop still has momentum alone.

    python benchmarks/training_speed.py [--turns 7] [--steps 12] [--threads 1] [--out benchmarks/results/training_speed.json]

One to five minutes, depending on the processor. n = turns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fupruner.finish import hardware
from fupruner.models.cifar_resnet import resnet20
from fupruner.options import OptimizerName
from fupruner.training.data import ImageData, Split
from fupruner.training.distill import distilled, frozen_copy
from fupruner.training.loop import train_steps
from fupruner.training.optimizers import make_optimizer
from fupruner.training.recipe import Recipe, supported
from fupruner.training.schedule import Schedule
from fupruner.training.task import Classification

BATCH = 128
RATE = 1e-3


def made_up_images(count: int) -> Classification:
    """Noise with labels, as CIFAR-10 lies in memory."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, 10, (count,), generator=generator)
    mean, std = (0.5,) * 3, (0.25,) * 3
    split = Split(images, labels, mean, std)
    return Classification(ImageData(split, split, tuple("0123456789"), mean, std), batch_size=BATCH, augment="standard")


def bare(task: Classification, steps: int, precision: str, *, distill: bool) -> Callable[[], float]:
    """A turn of the bare loop: seconds per call."""
    model = resnet20().to(memory_format=torch.channels_last).train()
    optimizer, batches = make_optimizer(model, 5e-4), list(task.train_batches(0))[:steps]
    teacher = frozen_copy(resnet20(), "cpu")
    half = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed")

    def predict(inputs: Tensor) -> Tensor:
        with half:
            return teacher(inputs)

    loss_of: Any = distilled(task, predict) if distill else task.loss

    def turn() -> float:
        start = time.process_time()
        for batch in batches:
            for group in optimizer.param_groups:
                group["lr"] = RATE
            with half:
                loss = loss_of(model, batch)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return time.process_time() - start

    return turn


def ours(
    task: Classification, steps: int, precision: Any, *, distill: bool, optimizer: OptimizerName
) -> Callable[[], float]:
    """A turn of our loop: seconds per call."""
    model, teacher = resnet20(), resnet20()
    stepper = make_optimizer(model, 5e-4, optimizer)
    schedule = Schedule.over(task.steps_per_epoch, RATE)
    recipe = Recipe(precision=precision, teacher=teacher if distill else None)

    def turn() -> float:
        start = time.process_time()
        train_steps(model, task, schedule, stop=steps, optimizer=stepper, recipe=recipe)
        return time.process_time() - start

    return turn


def compare(task: Classification, turns: int, steps: int, *, distill: bool, optimizer: OptimizerName) -> dict[str, Any]:
    """Interleaved turns of both loops."""
    precision = supported("bf16-mixed")
    first = bare(task, steps, precision, distill=distill)
    second = ours(task, steps, precision, distill=distill, optimizer=optimizer)
    first(), second()  # kernels are chosen, memory is taken
    pairs = [(first(), second()) for _ in range(turns)]
    ratios = [a / b for a, b in pairs]
    images = BATCH * steps
    return {
        "distillation": distill, "optimizer": optimizer, "precision": precision, "turns": turns, "steps": steps,
        "bare_images_per_second": images / statistics.median(a for a, _ in pairs),
        "our_images_per_second": images / statistics.median(b for _, b in pairs),
        "ratio": statistics.median(ratios), "ratio_min": min(ratios), "ratio_max": max(ratios),
    }  # fmt: skip


def main() -> None:
    """Compare with and without distillation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "training_speed.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    task = made_up_images(BATCH * (options.steps + 1))
    pairs: tuple[tuple[bool, OptimizerName], ...] = ((False, "sgd"), (True, "sgd"), (True, "muon"))
    rows = [compare(task, options.turns, options.steps, distill=distill, optimizer=name) for distill, name in pairs]
    for row in rows:
        print(json.dumps(row))
    facts = {
        "hardware": hardware(),
        "torch": torch.__version__,
        "threads": options.threads,
        "batch_size": BATCH,
        "rows": rows,
    }
    options.out.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
