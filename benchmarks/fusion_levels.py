"""Where does fusion help a plan? CIFAR-10 ResNets pruned with every fusion level.

For each target, level and asked speed-up: a plan (Fisher scores on 1,024 training images, branches weighed jointly; ``optimize`` refines
it part by part), cut, compensated by least squares on 512 training images, and fused at that level. Given are the accuracy
on the first 2,000 validation images before any training, the predicted speed-up over the unfused original, multiply-adds (and those
of the same function with its shortcuts as Adds), Adds and identity filters of the fused network (of those that all gated shortcuts
carried), and whole blocks that are gone. Nothing is timed: the costs of cpu are a table of layers timed on this machine, those of ncs2
are estimates, and macs counts multiply-adds. ``--epochs`` adds what ``optimize`` comes to after so many epochs, on all 5,000 validation
images (the two halves together). One seed per row.

    python benchmarks/fusion_levels.py [--depth 20] [--targets cpu ncs2] [--levels none auto] [--speedups 1.5 2] [--epochs 1]
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from counting import announce
from torch import fx

import fupruner
from fupruner.finish import hardware
from fupruner.fusion.fuse import fuse_graph
from fupruner.graph import cost, shapes
from fupruner.graph.trace import trace
from fupruner.models.resolve import load_model
from fupruner.options import Options
from fupruner.pruning.compensate import compensate
from fupruner.pruning.factors import scaled
from fupruner.pruning.importance import fisher
from fupruner.pruning.prepare import fuse_as_planned, make_planner
from fupruner.pruning.slim import slim
from fupruner.pruning.trade import WEIGHTS, best_factors, compensated_loss
from fupruner.targets.base import Target
from fupruner.targets.registry import get_target
from fupruner.training.data import load_data
from fupruner.training.task import Classification

DATA = Path(__file__).parents[2] / "shared" / "data"
RESULT = Path(__file__).parent / "results" / "fusion_levels.json"
LEVELS = ("none", "basic", "aggressive", "auto")
IMAGES = 2000
INPUTS = (torch.randn(1, 3, 32, 32),)


def accuracy(module: fx.GraphModule, task: Classification) -> float:
    """Top-1 accuracy in percent on the first validation images."""
    batches = list(task.data.validation.batches(250))[: IMAGES // 250]
    with torch.inference_mode():
        return 100 * sum(int((module(x).argmax(1) == y).sum()) for x, y in batches) / IMAGES


def planned(graph: fx.GraphModule, task: Classification, target: Target, level: str, asked: float) -> dict[str, Any]:
    """One row before any training."""
    cost_model = target.cost_model()
    _, log = fuse_graph(graph, INPUTS, level, cost_model=cost_model)
    network, planner = make_planner(graph, INPUTS, target, log)
    scores = fisher(network, task, 1024)
    factors = best_factors(planner, scores, asked, compensated_loss(network, graph, task), plans=len(WEIGHTS))
    plan = planner.for_speedup(scaled(planner, scores, factors), asked)
    network.set(plan.is_open, plan.closed_branches)
    inputs = [task.inputs(batch) for batch in task.calibration_batches(512)]
    small = compensate(network, slim(network, INPUTS), graph, inputs).eval()
    fused, _ = fuse_as_planned(network, small, INPUTS, level, cost_model)
    size = cost.figures(fused)
    convs = sum(module.out_channels for module in fused.modules() if isinstance(module, torch.nn.Conv2d))
    widths = sum(n for name, n in plan.record.widths_after.items() if name != "linear")
    return {
        "predicted": plan.record.baseline_ms / plan.record.predicted_ms, "untrained": accuracy(fused, task), "macs": size.macs,
        "macs_with_adds": cost.figures(small).macs, "adds": size.operators.get("add", 0), "identity_filters": convs - widths,
        "of": sum(plan.record.carried_before.values()),
        "blocks_gone": len(plan.closed_branches & {branch.name for branch, _ in network.branches}),
    }  # fmt: skip


def trained(depth: int, task: Classification, target: str, level: str, asked: float, epochs: int) -> dict[str, Any]:
    """What ``optimize`` comes to: accuracy on both halves of the validation data."""
    with tempfile.TemporaryDirectory() as folder:
        result = fupruner.optimize(
            model(depth), INPUTS, task, target=target, speedup=asked, epochs=epochs, fusion=level, out=f"{folder}/run"
        )
        halves = json.loads(Path(folder, "run", "judgement.json").read_text())
    both = (halves["searched_final"] + result.final.accuracy) / 2
    return {
        "epochs": epochs,
        "optimizer": Options().optimizer,
        "accuracy": both,
        "speedup": result.speedup,
        "trained_macs": result.final.macs,
    }


def model(depth: int) -> torch.nn.Module:
    """The adapted checkpoint."""
    weights = DATA / "checkpoints" / f"cifar10_jpeg_resnet{depth}.safetensors"
    return load_model(f"fupruner:resnet{depth}", weights=weights).module.eval()


def main() -> None:
    """Fill in the rows that were asked for, and keep the others."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depth", type=int, default=20)
    parser.add_argument("--targets", nargs="+", default=("cpu", "ncs2", "macs"))
    parser.add_argument("--levels", nargs="+", default=LEVELS)
    parser.add_argument("--speedups", nargs="+", type=float, default=(1.5, 2.0))
    parser.add_argument("--epochs", type=int, default=0)
    options = parser.parse_args()
    torch.manual_seed(0)
    described = tempfile.TemporaryDirectory()
    announce(Path(described.name))
    task = Classification(load_data(str(DATA / "cifar10" / "jpeg")), 128, "light")
    graph = trace(model(options.depth), INPUTS)
    shapes.propagate(graph, INPUTS)
    network = f"resnet{options.depth}"
    rows: list[dict[str, Any]] = json.loads(RESULT.read_text())["results"] if RESULT.exists() else []
    for name in options.targets:
        for asked in options.speedups:
            for level in options.levels:
                key = {"network": network, "target": name, "asked": asked, "level": level}
                known = next((row for row in rows if row.items() >= key.items()), None)
                row = key | planned(graph, task, get_target(name), level, asked)
                row |= {
                    k: v
                    for k, v in (known or {}).items()
                    if k in ("epochs", "optimizer", "accuracy", "speedup", "trained_macs")
                }
                if options.epochs:
                    row |= trained(options.depth, task, name, level, asked, options.epochs)
                rows = sorted(
                    [*(r for r in rows if r is not known), row],
                    key=lambda r: (r["network"], r["target"], r["asked"], LEVELS.index(r["level"])),
                )
                print({k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()}, flush=True)
                facts = {
                    "baseline": accuracy(graph, task),
                    "hardware": hardware(),
                    "torch": torch.__version__,
                    "results": rows,
                }
                RESULT.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
