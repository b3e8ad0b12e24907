"""What planning for the Neural Compute Stick 2 with fusion ``auto`` makes of CIFAR ResNet-20, against planning with fusion ``none``.

For each level and asked speed-up: a plan by per-channel Fisher scores (512 training images), cut, what is left made up for by least squares
(512 images), fused at the level, exported, compiled by the vendor's own compiler with no stick attached. **Nothing is trained**, so
that levels are compared by their plans alone; accuracy is that of the exported file in emulated half precision on ``--images``
validation images (2,000). Per row: accuracy, stages and cost as the compiler makes them, estimated milliseconds (not measured: no
stick was there), agreement of the file with PyTorch. At the end: at the accuracy of each other row, what ``none`` needs, linearly
between its rows.

    python benchmarks/ncs2_levels.py [--level NAME ...] [--speedup S ...]

Results: ``benchmarks/results/ncs2_levels.json``. About half a minute per row.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fupruner.attempt import calibration_inputs
from fupruner.errors import InputError
from fupruner.fusion.fuse import fuse_graph
from fupruner.graph import shapes
from fupruner.graph.trace import trace
from fupruner.models.resolve import load_model
from fupruner.pruning.compensate import compensate
from fupruner.pruning.factors import scaled
from fupruner.pruning.importance import criterion
from fupruner.pruning.prepare import make_planner
from fupruner.pruning.slim import slim
from fupruner.pruning.trade import WEIGHTS, best_factors, compensated_loss
from fupruner.targets.registry import get_target
from fupruner.training.data import load_data
from fupruner.training.task import Classification

DATA = Path(__file__).parents[2] / "shared" / "data"
RESULTS = Path(__file__).parent / "results" / "ncs2_levels.json"
SPEEDUPS = (1.0, 1.2, 1.4, 1.6, 1.8)


def main() -> None:
    """Measure every level at every speed-up, write the rows and what they say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--level", action="append", choices=("none", "auto", "aggressive"))
    parser.add_argument("--speedup", type=float, action="append")
    parser.add_argument("--images", type=int, default=2000)
    given = parser.parse_args()
    torch.set_num_threads(1)
    known = load_model("fupruner:resnet20", DATA / "checkpoints" / "cifar10_jpeg_resnet20.safetensors")
    images = load_data(str(DATA / "cifar10" / "jpeg"), image_shape=known.input_shape, mean=known.mean, std=known.std)
    task, held = Classification(images), images.validation
    x, labels = held.normalise(held.images[: given.images]), held.labels[: given.images]
    rows = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else []
    for level in given.level or ("none", "auto", "aggressive"):
        for speedup in given.speedup or SPEEDUPS:
            try:
                row = measure(known.module, task, level, speedup, x, labels)
            except InputError as error:
                row = {"level": level, "asked": speedup, "refused": str(error).splitlines()[0]}
            print(json.dumps(row), flush=True)
            rows = [r for r in rows if (r["level"], r["asked"]) != (level, speedup)] + [row]
            RESULTS.write_text(
                json.dumps({"rows": rows, "at_equal_accuracy": at_equal_accuracy(rows)}, indent=1) + "\n"
            )
    for line in at_equal_accuracy(rows):
        print(json.dumps(line))


def measure(
    module: torch.nn.Module, task: Classification, level: str, speedup: float, x: Tensor, labels: Tensor
) -> dict[str, Any]:
    """One plan, cut and compiled; a speed-up of 1 asks for fusion alone."""
    target, inputs = get_target("ncs2"), (x[:1],)
    graph = trace(module, inputs)
    shapes.propagate(graph, inputs)
    model = target.cost_model()
    small, fusion = fuse_graph(graph, inputs, level, cost_model=model)
    predicted = 1.0
    if speedup > 1:
        network, planner = make_planner(graph, inputs, target, fusion)
        scores = criterion("fisher")(network, task, 512)
        factors = best_factors(planner, scores, speedup, compensated_loss(network, graph, task), plans=len(WEIGHTS))
        scores = scaled(planner, scores, factors)
        plan = planner.for_speedup(scores, speedup)
        predicted = plan.record.baseline_ms / plan.record.predicted_ms
        network.set(plan.is_open, plan.closed_branches)
        cut = compensate(network, slim(network, inputs), graph, calibration_inputs(task))
        small, _ = fuse_graph(cut, inputs, level, cost_model=model)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        target.export(small, inputs, file)
        found = target.predict(file, x)
        facts = {fact.name: fact.value for fact in target.inspect(file)}
        estimated = target.compare([file], inputs).measurements[0].latency_ms
    assert isinstance(found, Tensor)
    with torch.no_grad():
        expected = small.eval()(x).argmax(1)
    return {
        "level": level, "asked": speedup, "predicted": predicted, "estimated_ms": estimated,
        "accuracy": 100 * float((found.argmax(1) == labels).float().mean()),
        "agreement": 100 * float((found.argmax(1) == expected).float().mean()),
        "stages": _number(facts.get("stages")), "stages_predicted": _number(facts.get("stages predicted")),
        "compiler_cost": _number(facts.get("compiler cost")), "by_layer": facts.get("stages by layer", ""),
    }  # fmt: skip


def _number(text: str | None) -> int | None:
    match = re.match(r"\d+", text or "")
    return int(match[0]) if match else None


def at_equal_accuracy(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each row of ``auto`` and ``aggressive``: the estimated time, stages and cost of ``none`` at the same accuracy."""
    plain = sorted((r for r in rows if r["level"] == "none" and "refused" not in r), key=lambda r: r["accuracy"])
    lines = []
    for row in rows:
        if row["level"] == "none" or "refused" in row or len(plain) < 2:
            continue
        if not plain[0]["accuracy"] <= row["accuracy"] <= plain[-1]["accuracy"]:
            continue
        axis = [r["accuracy"] for r in plain]
        line = {"level": row["level"], "asked": row["asked"], "accuracy": row["accuracy"]}
        for key in ("estimated_ms", "stages", "compiler_cost"):
            if row[key] is not None and all(r[key] is not None for r in plain):
                line[key], line[f"none_{key}"] = (
                    row[key],
                    float(np.interp(row["accuracy"], axis, [r[key] for r in plain])),
                )
        lines.append(line)
    return lines


if __name__ == "__main__":
    main()
