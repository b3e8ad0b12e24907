"""What the tool itself costs: seconds and memory of each stage, and how they grow with the size of a network.

torchvision's ResNet-18, 50, 101, 152, DenseNet-201 and EfficientNet-B0 to B4, random weights, one 224x224 image. Stages: ``trace``;
``fuse`` at level aggressive, every rewrite proved; ``groups``, gates on all that can go; ``plan`` for half of the multiply-adds (scores by
l2, priced by multiply-adds, so that no table of latencies is filled); ``slim``; ``export`` of the slimmed network as ONNX, checked in the
runtime.

Every network runs in a process of its own, forked from one that has imported everything, after a warm-up on CIFAR ResNet-20, whose
seconds (``warm_up``) hold what is paid once per process. Seconds are processor seconds on one core, the median of three runs; MiB are the
peak of resident memory during a stage above what the process held when it began, the largest of the three. ``operators`` are the nodes of
the traced graph that compute something. ``growth`` is the slope of log(seconds) over log(operators), by least squares over the ResNets.

Beside it Torch-Pruning 1.6.1, in a process of its own under the same conditions: ``build`` is DependencyGraph.build_dependency, and
``all_groups`` going through get_all_groups once; what answers both here is ``trace`` and ``groups``, together ``ours_build``.

    pip install --target DIR --no-deps torch-pruning==1.6.1; PYTHONPATH=DIR python benchmarks/tool_cost.py [--only NAME ...] [--again]

Rows that are there are kept. Without Torch-Pruning its columns stay empty. About three minutes of one core.
"""
# ruff: noqa: PLC0415 - what a process needs is imported after it was forked, or next to its use

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from prune_coverage import make, preload

RESULTS = Path(__file__).parent / "results" / "tool_cost.json"
RESNETS = ("resnet18", "resnet50", "resnet101", "resnet152")
NETWORKS = (*RESNETS, "densenet201", *(f"efficientnet_b{i}" for i in range(5)))
STAGES = ("trace", "fuse", "groups", "plan", "slim", "export")
RUNS = 3


class Meter:
    """Processor seconds and peak memory of parts of this process."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}
        self.mib: dict[str, float] = {}

    def run(self, name: str, part: Callable[[], Any]) -> Any:
        """Do a part and note what it took."""
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from now on
        held, began = _resident("VmRSS"), time.process_time()
        result = part()
        self.seconds.setdefault(name, []).append(time.process_time() - began)
        self.mib[name] = max(self.mib.get(name, 0.0), _resident("VmHWM") - held)
        return result


def _resident(field: str) -> float:
    """MiB that the kernel counts for this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def stages(model: Any, x: Any, meter: Meter, runs: int) -> dict[str, Any]:
    """Go through the stages, more than once; sizes of the network."""
    from fupruner.fusion.fuse import fuse_graph
    from fupruner.graph import cost, shapes
    from fupruner.graph.trace import trace
    from fupruner.pruning.budget import SizeModel
    from fupruner.pruning.gates import insert_gates
    from fupruner.pruning.importance import l2
    from fupruner.pruning.plan import Planner
    from fupruner.pruning.pricing import Pricer
    from fupruner.pruning.slim import slim
    from fupruner.targets.registry import get_target

    for _ in range(runs):
        graph = meter.run("trace", lambda: trace(model, x))
        shapes.propagate(graph, (x,))
        network = meter.run("groups", lambda: insert_gates(graph, share_tensors=True))  # noqa: B023 - called at once
        planner = Planner(network, Pricer(network, SizeModel("macs")), "none", 1)
        scores = l2(network)
        plan = meter.run("plan", lambda: planner.for_speedup(scores, 2.0))  # noqa: B023
        network.set(plan.is_open, plan.closed_branches)
        small = meter.run("slim", lambda: slim(network, (x,)))  # noqa: B023
        meter.run("fuse", lambda: fuse_graph(graph, (x,), "aggressive"))  # noqa: B023
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "model.onnx"
            meter.run("export", lambda: get_target("cpu").export(small, (x,), file))  # noqa: B023
    size = cost.figures(graph)
    return {"operators": sum(size.operators.values()), "params_m": size.params / 1e6, "macs_g": size.macs / 1e9}


def ours(name: str) -> dict[str, Any]:
    """One network through all stages."""
    import torch

    from fupruner.models.resolve import load_model

    torch.set_num_threads(1)
    first, meter = Meter(), Meter()
    stages(load_model("fupruner:resnet20").module, torch.randn(1, 3, 32, 32), first, 1)
    row = stages(*make(f"torchvision:{name}"), meter, RUNS)
    for stage in STAGES:
        row[stage] = statistics.median(meter.seconds[stage])
    row |= {f"{stage}_mib": meter.mib[stage] for stage in STAGES}
    return row | {"warm_up": sum(sum(times) for times in first.seconds.values())}


def theirs(name: str) -> dict[str, Any]:
    """Torch-Pruning's graph of the same network."""
    try:
        import torch_pruning
    except ImportError:
        return {}
    import torch

    from fupruner.models.resolve import load_model

    def build(model: Any, x: Any, meter: Meter) -> None:
        for _ in range(RUNS):
            graph = meter.run(
                "build", lambda: torch_pruning.DependencyGraph().build_dependency(model, example_inputs=x)
            )
            meter.run("all_groups", lambda: sum(1 for _ in graph.get_all_groups()))  # noqa: B023 - called at once

    torch.set_num_threads(1)
    build(load_model("fupruner:resnet20").module, torch.randn(1, 3, 32, 32), Meter())
    meter = Meter()
    build(*make(f"torchvision:{name}"), meter)
    seconds = {f"torch_pruning_{part}": statistics.median(times) for part, times in meter.seconds.items()}
    return seconds | {"torch_pruning_build_mib": meter.mib["build"]}


def alone(work: Callable[[str], dict[str, Any]], name: str) -> dict[str, Any]:
    """What a function gives in a process of its own."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()

    def child() -> None:
        there.send(work(name))

    process = context.Process(target=child)
    process.start()
    there.close()
    result: dict[str, Any] = here.recv()
    process.join()
    return result


def growth(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Exponents of the number of operators, per stage, over the ResNets."""
    chosen = [row for row in rows if row["network"] in RESNETS]
    if len(chosen) < 3:
        return {}
    columns = [*STAGES, *(key for key in ("torch_pruning_build",) if all(key in row for row in chosen))]
    operators = np.log([row["operators"] for row in chosen])
    return {key: float(np.polyfit(operators, np.log([row[key] for row in chosen]), 1)[0]) for key in columns}


def tables(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Seconds and memory apart, so that each fits on a page."""
    seconds = [{key: value for key, value in row.items() if not key.endswith("_mib")} for row in rows]
    mib = [{key: value for key, value in row.items() if key == "network" or key.endswith("_mib")} for row in rows]
    return {"seconds": seconds, "memory": mib}


def read() -> list[dict[str, Any]]:
    """Rows that are there."""
    if not RESULTS.exists():
        return []
    found = json.loads(RESULTS.read_text())
    return [{**first, **second} for first, second in zip(found["seconds"], found["memory"], strict=True)]


def main() -> None:
    """Fill in the rows that are missing."""
    from fupruner.finish import hardware

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=NETWORKS, default=NETWORKS)
    parser.add_argument("--again", action="store_true", help="measure what is there once more")
    given = parser.parse_args()
    preload()
    rows = read()
    for name in given.only:
        if not given.again and any(row["network"] == name for row in rows):
            continue
        row = {"network": name, **alone(ours, name), **alone(theirs, name)}
        row["ours_build"] = row["trace"] + row["groups"]
        print({key: round(v, 3) if isinstance(v, float) else v for key, v in row.items()}, flush=True)
        rows = sorted([*(r for r in rows if r["network"] != name), row], key=lambda r: NETWORKS.index(r["network"]))
        facts = {"hardware": hardware(), **tables(rows), "growth": growth(rows)}
        RESULTS.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
