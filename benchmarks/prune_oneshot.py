"""Accuracy without any training: one-shot plans for CIFAR ResNets, with and without compensation.

Measured: for predicted speed-ups of 1.2, 1.5 and 2 on this machine's processor, top-1 accuracy on validation images of (1) the slimmed
network, (2) with batch norms re-estimated, (3) compensated by least squares; scores by the empirical Fisher of the gates. Calibration
uses 512 training images. The checkpoints were trained on JPEG images. Seconds are those of a machine that may be shared.

    python benchmarks/prune_oneshot.py [--depth 20 56] [--images 2000] [--out benchmarks/results/prune_oneshot.json]
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fupruner.finish import hardware
from fupruner.graph import shapes
from fupruner.graph.trace import trace
from fupruner.models.resolve import load_model
from fupruner.pruning.compensate import compensate
from fupruner.pruning.gates import insert_gates
from fupruner.pruning.importance import fisher
from fupruner.pruning.plan import Planner
from fupruner.pruning.pricing import Pricer
from fupruner.pruning.slim import slim
from fupruner.targets.registry import get_target
from fupruner.training.data import load_data
from fupruner.training.norms import reestimate_norms
from fupruner.training.task import Classification

DATA = Path(__file__).parents[2] / "shared" / "data"
SPEEDUPS = (1.2, 1.5, 2.0)
CALIBRATION = 512


def accuracy(module: nn.Module, task: Classification, images: int) -> float:
    """Top-1 accuracy in percent on the first validation images."""
    module.eval()
    split, correct = task.data.validation, 0
    with torch.inference_mode():
        for index, (x, y) in enumerate(split.batches(250)):
            if index * 250 >= images:
                break
            correct += int((module(x).argmax(1) == y).sum())
    return 100.0 * correct / min(images, len(split))


def measure(depth: int, images: int) -> dict[str, Any]:
    """Rows of the table for one network."""
    weights = DATA / "checkpoints" / f"cifar10_jpeg_resnet{depth}.safetensors"
    model = load_model(f"fupruner:resnet{depth}", weights=weights).module
    task, inputs, target = (
        Classification(load_data(str(DATA / "cifar10" / "jpeg"))),
        (torch.randn(1, 3, 32, 32),),
        get_target("cpu"),
    )
    graph = trace(model, inputs)
    shapes.propagate(graph, inputs)
    network = insert_gates(graph)
    planner = Planner(network, Pricer(network, target.cost_model()), target.name, target.alignment)
    importance = fisher(network, task, CALIBRATION)
    calibration = [task.inputs(batch) for batch in task.calibration_batches(CALIBRATION)]
    rows = []
    for speedup in SPEEDUPS:
        plan = planner.for_speedup(importance, speedup)
        network.set(plan.is_open, plan.closed_branches)
        small = slim(network, inputs)
        normed = copy.deepcopy(small)
        reestimate_norms(normed, calibration)
        started = time.perf_counter()
        made_up = compensate(network, small, graph, calibration)
        seconds = time.perf_counter() - started
        none, norms, least_squares = (accuracy(module, task, images) for module in (small, normed, made_up))
        rows.append({"speedup": plan.record.baseline_ms / plan.record.predicted_ms, "branches": len(plan.closed_branches), "none": none,
                     "norms": norms, "compensated": least_squares, "seconds": seconds})  # fmt: skip
        print("  {speedup:.2f}x, {branches} blocks gone: {none:.1f}".format(**rows[-1]), end="")
        print(" -> norms {norms:.1f}, compensated {compensated:.1f} ({seconds:.0f} s)".format(**rows[-1]))
    return {"model": f"resnet{depth}", "baseline": accuracy(graph, task, images), "images": images, "rows": rows}


def main() -> None:
    """Measure, print the table, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depth", nargs="+", type=int, default=(20, 56))
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "prune_oneshot.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = []
    for depth in options.depth:
        print(f"resnet{depth}")
        results.append(measure(depth, options.images))
        print(f"  baseline {results[-1]['baseline']:.1f}")
        options.out.parent.mkdir(parents=True, exist_ok=True)
        facts = {
            "hardware": hardware(),
            "torch": torch.__version__,
            "calibration_images": CALIBRATION,
            "results": results,
        }
        options.out.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
