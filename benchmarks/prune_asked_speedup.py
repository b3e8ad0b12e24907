"""Is an asked speed-up kept? Plans for 1.5, 2 and 3 times, measured, planned again where off, measured once more.

Measured: torchvision's ResNet-18, ResNet-50 and MobileNetV2 and timm's repvgg_a0 and efficientnet_b0 at 224, fupruner:resnet56 at 32
(random weights, scores by l2), batch 1, one thread, ONNX Runtime on this machine's processor, timed in turn with the baseline. ``again``
is the speed-up of the returned network in a measurement of its own that played no part in choosing it.

    python benchmarks/prune_asked_speedup.py [--model NAME ...] [--out benchmarks/results/prune_asked_speedup.json]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from prune_coverage import make

from fupruner.errors import InputError
from fupruner.finish import hardware
from fupruner.graph import shapes
from fupruner.graph.trace import trace
from fupruner.models.resolve import load_model
from fupruner.pruning.gates import insert_gates
from fupruner.pruning.importance import l2
from fupruner.pruning.plan import Planner
from fupruner.pruning.pricing import Pricer
from fupruner.pruning.verify import measured_speedup, verified_plan
from fupruner.targets.registry import get_target

MODELS = (
    "torchvision:resnet18",
    "torchvision:resnet50",
    "torchvision:mobilenet_v2",
    "fupruner:resnet56",
    "timm:repvgg_a0",
    "timm:efficientnet_b0",
)
SPEEDUPS = (1.5, 2.0, 3.0)


def measure(name: str, folder: Path) -> dict[str, Any]:
    """Rows of the table for one network."""
    ours = name.startswith("fupruner:")
    model, x = (load_model(name).module, torch.randn(1, 3, 32, 32)) if ours else make(name)
    inputs, target, file = (x,), get_target("cpu"), folder / "baseline.onnx"
    graph = trace(model, inputs)
    shapes.propagate(graph, inputs)
    target.export(graph, inputs, file)
    network = insert_gates(graph, share_tensors=True)
    planner = Planner(network, Pricer(network, target.cost_model()), target.name, target.alignment)
    importance, rows = l2(network), []
    for asked in SPEEDUPS:
        started = time.perf_counter()
        try:
            found = verified_plan(planner, importance, asked, target, file, inputs)
        except InputError as error:
            rows.append({"asked": asked, "refused": str(error).splitlines()[0]})
            continue
        again = measured_speedup(target, file, found.module, inputs)
        seconds = time.perf_counter() - started
        rows.append({"asked": asked, "measured": found.speedup, "again": again, "rounds": [vars(r) for r in found.rounds],
                     "branches": len(found.plan.closed_branches), "seconds": seconds})  # fmt: skip
    return {"model": name, "rows": rows}


def main() -> None:
    """Measure, print the table, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", default=MODELS)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "prune_asked_speedup.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = []
    for name in options.model:
        with tempfile.TemporaryDirectory() as folder:
            results.append(measure(name, Path(folder)))
        for row in results[-1]["rows"]:
            print(name, {key: round(v, 2) if isinstance(v, float) else v for key, v in row.items()}, flush=True)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        facts = {"hardware": hardware(), "torch": torch.__version__, "threads": 1, "results": results}
        options.out.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
