"""Accuracy without any training: one-shot plans for CIFAR ResNets with and without compensation, next to Torch-Pruning.

Measured: for asked speed-ups of 1.2, 1.5 and 2, held to what ONNX Runtime measures on this machine's processor (batch 1, one thread, in
turn with the baseline), top-1 accuracy on validation images of (1) the slimmed network, (2) with batch norms re-estimated, (3) compensated
by least squares; scores by the empirical Fisher of the gates, those of branches multiplied by what five plans, judged as a whole, decide
(``fupruner prune`` judges eight; seconds of that: ``weighing``). Calibration uses 512 training images. The checkpoints were trained on JPEG
images. Seconds are those of a machine that may be shared.

Torch-Pruning (GroupTaylorImportance on the same 512 images, uniform ratios in steps of 0.05, widths as they come or rounded to 8) starts
from the same weights; it cannot cut the zero-padded shortcuts, so they are equivalent 1x1 convolutions there, while its speed-up counts
from the original as ours does. Of each kind of widths the smallest ratio is taken whose measured speed-up is at least 0.97 of ours.

    pip install torch-pruning                                       # for the comparison alone
    python benchmarks/prune_oneshot.py [--depth 20 56] [--images 2000] [--out benchmarks/results/prune_oneshot.json]
"""

# ruff: noqa: PLC0415 - Torch-Pruning is needed here alone
from __future__ import annotations

import argparse
import copy
import importlib.metadata
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fupruner.finish import hardware
from fupruner.graph import shapes
from fupruner.graph.trace import trace
from fupruner.models.cifar_resnet import BasicBlock
from fupruner.models.resolve import load_model
from fupruner.pruning.compensate import compensate
from fupruner.pruning.factors import scaled
from fupruner.pruning.gates import insert_gates
from fupruner.pruning.importance import fisher
from fupruner.pruning.plan import Planner
from fupruner.pruning.pricing import Pricer
from fupruner.pruning.trade import WEIGHTS, best_factors, compensated_loss
from fupruner.pruning.verify import verified_plan
from fupruner.targets.base import Target
from fupruner.targets.registry import get_target
from fupruner.training.data import load_data
from fupruner.training.norms import reestimate_norms
from fupruner.training.task import Classification

DATA = Path(__file__).parents[2] / "shared" / "data"
SPEEDUPS = (1.2, 1.5, 2.0)
CALIBRATION = 512
RATIOS = [round(0.05 * i, 2) for i in range(1, 13)]
ENOUGH = 0.97
Rows = list[dict[str, Any]]


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


class Convolved(nn.Module):
    """A residual block whose zero-padded shortcut is an equivalent 1x1 convolution."""

    def __init__(self, block: BasicBlock) -> None:
        super().__init__()
        self.conv1, self.bn1, self.conv2, self.bn2 = block.conv1, block.bn1, block.conv2, block.bn2
        channels, before = block.conv1.in_channels, block.new_channels // 2
        self.shortcut = nn.Conv2d(channels, block.conv1.out_channels, 1, block.stride, bias=False)
        with torch.no_grad():
            self.shortcut.weight.zero_()
            self.shortcut.weight[before + torch.arange(channels), torch.arange(channels)] = 1

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) like the original block."""
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(out + self.shortcut(x))


def with_convolved_shortcuts(model: nn.Module) -> nn.Module:
    """A copy in which every layer is one that Torch-Pruning can cut."""
    copied = copy.deepcopy(model)
    for stage in (copied.layer2, copied.layer3):
        stage[0] = Convolved(stage[0])
    return copied.eval()


def with_gradients(model: nn.Module, batches: list[Any]) -> nn.Module:
    """The network with the gradients of the loss over all batches in place, which Torch-Pruning scores by."""
    for images, labels in batches:
        F.cross_entropy(model(images), labels, reduction="sum").backward()
    return model


def theirs(
    model: nn.Module, x: Tensor, ratio: float, rounded: int | None, importance: str = "taylor", *, everywhere: bool = False
) -> nn.Module:  # fmt: skip
    """What Torch-Pruning makes of a network that has gradients; ``everywhere`` ranks the channels of all layers together."""
    import torch_pruning

    scores = {
        "taylor": torch_pruning.importance.GroupTaylorImportance,
        "magnitude": torch_pruning.importance.GroupMagnitudeImportance,
    }

    copied = copy.deepcopy(model)
    for parameter, original in zip(copied.parameters(), model.parameters(), strict=True):
        parameter.grad = None if original.grad is None else original.grad.clone()
    torch_pruning.pruner.MetaPruner(
        copied, x, importance=scores[importance](), pruning_ratio=ratio, ignored_layers=[copied.linear], round_to=rounded,
        global_pruning=everywhere,
    ).step()  # fmt: skip
    copied.zero_grad()
    return copied.eval()


def compare(
    model: nn.Module, task: Classification, baseline: Path, target: Target, reached: list[float], images: int
) -> Rows:
    """Rows of Torch-Pruning: the smallest ratios that are as fast as ours."""
    batches, folder = list(task.calibration_batches(CALIBRATION)), baseline.parent
    calibration, x = [task.inputs(batch) for batch in batches], torch.randn(1, 3, 32, 32)
    start, found, files = with_gradients(with_convolved_shortcuts(model), batches), [], [baseline]
    for rounded in (None, 8):
        for ratio in RATIOS:
            module = theirs(start, x, ratio, rounded)
            size = sum(p.numel() for p in module.parameters())
            if (rounded, size) not in [(r, s) for r, _, s, _ in found]:
                found.append((rounded, ratio, size, module))
                files.append(folder / f"{rounded}-{ratio}.onnx")
                target.export(module, (x,), files[-1])
    speedups, rows = target.compare(files, (x,)).speedups[1:], []
    for wanted in reached:
        for rounded in (None, 8):
            enough = [(ratio, module, s) for (r, ratio, _, module), s in zip(found, speedups, strict=True)
                      if r == rounded and s >= ENOUGH * wanted]  # fmt: skip
            row: dict[str, Any] = {"as_fast_as": wanted, "rounded_to": rounded}
            if enough:
                ratio, module, speedup = min(enough, key=lambda e: e[0])
                normed = copy.deepcopy(module)
                reestimate_norms(normed, calibration)
                row |= {"ratio": ratio, "speedup": speedup, "none": accuracy(module, task, images)}
                row["norms"] = accuracy(normed, task, images)
            rows.append(row)
            print(
                "  torch-pruning", {k: round(v, 2) if isinstance(v, float) else v for k, v in row.items()}, flush=True
            )
    return rows


def ours(graph: Any, task: Classification, baseline: Path, target: Target, images: int) -> Rows:
    """Rows of our plans."""
    inputs = (torch.randn(1, 3, 32, 32),)
    network = insert_gates(graph, share_tensors=True)
    planner = Planner(network, Pricer(network, target.cost_model()), target.name, target.alignment)
    importance = fisher(network, task, CALIBRATION)
    calibration = [task.inputs(batch) for batch in task.calibration_batches(CALIBRATION)]
    rows = []
    for asked in SPEEDUPS:
        started = time.perf_counter()
        factors = best_factors(planner, importance, asked, compensated_loss(network, graph, task), plans=len(WEIGHTS))
        weighing = time.perf_counter() - started
        found = verified_plan(planner, scaled(planner, importance, factors), asked, target, baseline, inputs)
        small: Any = found.module
        normed = copy.deepcopy(small)
        reestimate_norms(normed, calibration)
        started = time.perf_counter()
        made_up = compensate(network, small, graph, calibration)
        seconds = time.perf_counter() - started
        none, norms, least_squares = (accuracy(module, task, images) for module in (small, normed, made_up))
        rows.append({"asked": asked, "speedup": found.speedup, "branches": len(found.plan.closed_branches), "none": none,
                     "norms": norms, "compensated": least_squares, "seconds": seconds,
                     "weight": max(factors.values(), default=1.0), "weighing": weighing})  # fmt: skip
        print("  {speedup:.2f}x, {branches} blocks gone: {none:.1f}".format(**rows[-1]), end="")
        print(" -> norms {norms:.1f}, compensated {compensated:.1f} ({seconds:.0f} s)".format(**rows[-1]), flush=True)
    return rows


def measure(depth: int, images: int, folder: Path) -> dict[str, Any]:
    """Rows of the table for one network."""
    weights = DATA / "checkpoints" / f"cifar10_jpeg_resnet{depth}.safetensors"
    model = load_model(f"fupruner:resnet{depth}", weights=weights).module.eval()
    task, inputs, target = (
        Classification(load_data(str(DATA / "cifar10" / "jpeg"))),
        (torch.randn(1, 3, 32, 32),),
        get_target("cpu"),
    )
    graph = trace(model, inputs)
    shapes.propagate(graph, inputs)
    baseline = folder / "baseline.onnx"
    target.export(graph, inputs, baseline)
    rows = ours(graph, task, baseline, target, images)
    others = compare(model, task, baseline, target, [row["speedup"] for row in rows], images)
    before = accuracy(graph, task, images)
    return {"model": f"resnet{depth}", "baseline": before, "images": images, "rows": rows, "torch_pruning": others}


def main() -> None:
    """Measure, print the table, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depth", nargs="+", type=int, default=(20, 56))
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "prune_oneshot.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    known = json.loads(options.out.read_text())["results"] if options.out.exists() else []
    for depth in options.depth:
        print(f"resnet{depth}")
        with tempfile.TemporaryDirectory() as folder:
            result = measure(depth, options.images, Path(folder))
        print(f"  baseline {result['baseline']:.1f}")
        known = sorted(
            [*(r for r in known if r["model"] != result["model"]), result], key=lambda r: int(r["model"][6:])
        )
        options.out.parent.mkdir(parents=True, exist_ok=True)
        facts = {
            "hardware": hardware(),
            "torch": torch.__version__,
            "torch_pruning": importlib.metadata.version("torch-pruning"),
            "calibration_images": CALIBRATION,
            "results": known,
        }
        options.out.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
