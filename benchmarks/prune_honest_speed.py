"""Is a pruned network as much faster as it is smaller? Uniform plans at five ratios, latency beside multiply-adds.

Measured: ResNet-18, ResNet-50 and MobileNetV2 of torchvision (random weights: times do not depend on them) at 224, batch 1, one thread,
ONNX Runtime on this machine's processor. Each network is timed in turn with its five pruned forms in one process, so that drifts of the
machine hit all of them alike; speed-ups are medians over rounds (n in the results), of those the median over ``--repeats`` comparisons,
``lowest`` and ``highest`` their range: on a machine that others use too, single comparisons are off by a tenth and more. ``honest`` is
latency speed-up over multiply-add speed-up; 0.9 and more is the aim, and no latency speed-up below 1.

    python benchmarks/prune_honest_speed.py [--model NAME ...] [--repeats 5] [--out benchmarks/results/prune_honest_speed.json]
"""

# ruff: noqa: PLC0415 - torchvision may need a hand before it can be imported
from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from fupruner.finish import hardware
from fupruner.graph import cost, shapes
from fupruner.graph.trace import trace
from fupruner.pruning.gates import insert_gates
from fupruner.pruning.importance import l2
from fupruner.pruning.plan import Planner
from fupruner.pruning.pricing import Pricer
from fupruner.pruning.slim import slim
from fupruner.targets.registry import get_target

MODELS = ("resnet18", "resnet50", "mobilenet_v2")
RATIOS = (0.1, 0.2, 0.3, 0.4, 0.5)


def torchvision_models() -> Any:
    """The model zoo, also where torchvision's compiled part does not fit this build of torch."""
    global library  # noqa: PLW0603 - its operators live as long as the object does
    try:
        import torchvision
    except RuntimeError:
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import torchvision
    return torchvision.models


def measure(name: str, folder: Path, repeats: int) -> dict[str, Any]:
    """Rows of the table for one network."""
    torch.manual_seed(0)
    model, inputs, target = (
        getattr(torchvision_models(), name)().eval(),
        (torch.randn(1, 3, 224, 224),),
        get_target("cpu"),
    )
    graph = trace(model, inputs)
    shapes.propagate(graph, inputs)
    network = insert_gates(graph, share_tensors=True)
    started = time.perf_counter()
    planner = Planner(network, Pricer(network, target.cost_model()), target.name, target.alignment)
    importance, files, rows = l2(network), [folder / "baseline.onnx"], []
    target.export(graph, inputs, files[0])
    before = cost.figures(graph)
    for ratio in RATIOS:
        plan = planner.uniform(importance, ratio)
        network.set(plan.is_open, plan.closed_branches)
        small = slim(network, inputs)
        files.append(folder / f"{ratio}.onnx")
        target.export(small, inputs, files[-1])
        predicted = plan.record.baseline_ms / plan.record.predicted_ms
        rows.append({"ratio": ratio, "macs": before.macs / cost.figures(small).macs, "predicted": predicted})
    planned = time.perf_counter() - started
    comparisons = [target.compare(files, inputs) for _ in range(repeats)]
    for i, row in enumerate(rows, 1):
        speedups = [comparison.speedups[i] for comparison in comparisons]
        speedup = statistics.median(speedups)
        row.update(latency=speedup, lowest=min(speedups), highest=max(speedups), honest=speedup / row["macs"])
    baseline = comparisons[0].measurements[0]
    return {
        "model": name,
        "baseline_ms": baseline.latency_ms,
        "runs": baseline.runs,
        "repeats": repeats,
        "seconds_planning": planned,
        "rows": rows,
    }


def main() -> None:
    """Measure, print the table, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", default=MODELS)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "prune_honest_speed.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    known = json.loads(options.out.read_text())["results"] if options.out.exists() else []
    results = [result for result in known if result["model"] not in options.model]
    for name in options.model:
        with tempfile.TemporaryDirectory() as folder:
            results.append(measure(name, Path(folder), options.repeats))
        print(f"{name}: baseline {results[-1]['baseline_ms']:.2f} ms, {results[-1]['runs']} runs")
        for row in results[-1]["rows"]:
            print(
                "  ratio {ratio:.1f}  macs {macs:.2f}x  latency {latency:.2f}x (predicted {predicted:.2f}x)  honest {honest:.2f}".format(
                    **row
                )
            )
        options.out.parent.mkdir(parents=True, exist_ok=True)
        facts = {"hardware": hardware(), "torch": torch.__version__, "python": platform.python_version(), "threads": 1}
        options.out.write_text(json.dumps({**facts, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
