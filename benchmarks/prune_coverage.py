"""Coverage of pruning: every torchvision classifier and the timm models of the list, random weights, half of the channels.

Measured per network, one process each (forked from one that has imported the zoo): does it trace, how
long groups and a uniform plan take (priced by multiply-adds, so that no table
is filled), does the slimmed network equal the gated one (float64 at a small size where the network takes one, else float32), does it take a
training step, does it export, does ONNX Runtime agree with it to 1e-3. ``refused`` networks say why; everything else that does not pass
is a failure. ``groups``, ``plan`` and ``slim`` are processor seconds of the pruning itself on one core, without tracing and checking;
``seconds`` are those of the whole row, ``phases`` its parts; memory is the peak of the process, which the imports alone fill to some
600 MiB. Norms get random statistics. Networks whose weights alone need gibibytes come last.

    python benchmarks/prune_coverage.py [--only NAME ...] [--skip NAME ...] [--reverse] [--resume] [--again]
        [--out benchmarks/results/prune_coverage]

writes OUT.json after every network and OUT.md at the end; ``--again`` replaces the rows named by ``--only``. n = 1 run per network.
"""
# ruff: noqa: PLC0415 - torchvision is imported through zoo(), everything else next to its use

from __future__ import annotations

import argparse
import gc
import importlib
import json
import multiprocessing
import os
import resource
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault(
    "THP_MEM_ALLOC_ENABLE", "1"
)  # as the command line does, before PyTorch allocates for the first time

import torch

SECONDS, GIBIBYTES = 300, 14
GIANTS = ("vit_l_32", "vit_l_16", "vit_h_14", "regnet_y_128gf")
TIMM_LIST = Path(__file__).parents[2] / "shared" / "data" / "timm_models.txt"


def zoo() -> Any:
    """torchvision, also where its compiled part does not fit this build of torch."""
    global library  # noqa: PLW0603 - its operators live as long as the object does
    try:
        import torchvision
    except RuntimeError:
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import torchvision
    return torchvision


def preload() -> None:
    """Import what every process needs, once."""
    zoo()
    for name in ("timm", "onnx", "onnxruntime", "fupruner", "fupruner.pruning.slim", "fupruner.targets.cpu"):
        importlib.import_module(name)


def networks() -> list[str]:
    """Names of everything that is tried, ``torchvision:NAME`` and ``timm:NAME``."""
    vision = zoo()
    listed = TIMM_LIST.read_text().splitlines() if TIMM_LIST.exists() else []
    timm = [f"timm:{line.strip()}" for line in listed if line.strip() and not line.startswith("#")]
    return [f"torchvision:{name}" for name in vision.models.list_models(module=vision.models)] + timm


def make(name: str) -> tuple[torch.nn.Module, torch.Tensor]:
    """A network with random norm statistics, and an input of the size that it is made for."""
    torch.manual_seed(0)
    source, _, short = name.partition(":")
    vision, side = zoo(), 299 if short == "inception_v3" else 224
    if source == "timm":
        import timm

        model = timm.create_model(short)
        native = int(model.pretrained_cfg["input_size"][-1])
        side = native if model.pretrained_cfg.get("fixed_input_size") else min(native, 256)
    else:
        model = getattr(vision.models, short)()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d | torch.nn.BatchNorm1d) and module.running_var is not None:
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 1.5)
    for title, parameter in model.named_parameters():
        if "bias" in title or float(parameter.detach().abs().max()) > 1e-4:
            continue  # heads, scales and branches that begin at zero would hide every difference
        if parameter.numel() == max(parameter.shape, default=1):  # a vector, or a single scale
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
        else:
            torch.nn.init.normal_(parameter, 0, 0.02)
    return model.eval(), torch.randn(1, 3, side, side)


def prune(name: str) -> dict[str, Any]:
    """One row of the table."""
    from fupruner.graph import cost, shapes
    from fupruner.graph.trace import trace
    from fupruner.pruning.budget import SizeModel
    from fupruner.pruning.gates import insert_gates
    from fupruner.pruning.importance import l2
    from fupruner.pruning.plan import Planner
    from fupruner.pruning.pricing import Pricer
    from fupruner.pruning.slim import slim

    model, x = make(name)
    clock = Phases()
    graph = trace(model, x, borrow=True)
    del model
    clock.stop("trace")
    shapes.propagate(graph, (x,))
    network = insert_gates(graph, share_tensors=True)
    row: dict[str, Any] = {"groups": clock.stop("groups")}
    if not network.groups.prunable:
        reasons = sorted({g.frozen for g in network.groups.groups if "output of the network" not in g.frozen})
        return {"refused": f"nothing to prune: {reasons[0]}" if reasons else "nothing to prune"}
    plan = Planner(network, Pricer(network, SizeModel("macs")), "none", 1).uniform(l2(network), 0.5)
    row["plan"] = clock.stop("plan")
    network.set(plan.is_open, plan.closed_branches)
    probes, wanted, precision = _wanted(network.graph_module, x)
    clock.stop("check")
    small = slim(network, (x,))
    row["slim"] = clock.stop("slim")
    before, after = cost.figures(graph), cost.figures(small)
    row |= {"macs": before.macs / max(1, after.macs), "params": before.params / after.params}
    row["unknown"] = network.groups.labelling.unknown
    del graph, network, plan
    gc.collect()
    row |= _equal(small, probes, wanted, precision)
    clock.stop("check")
    row["onnx"] = _ship(small, x)
    gc.collect()
    clock.stop("ship")
    _train(small, x)
    clock.stop("train")
    return {**row, "seconds": sum(clock.seconds.values()), "phases": clock.seconds}


def _wanted(gated: torch.nn.Module, x: torch.Tensor) -> tuple[list[Any], list[Any], torch.dtype]:
    """What the gated network gives: inputs, outputs and precision; float32 where a network computes parts of itself in float32."""
    from fupruner.graph import check

    probes = check.probe_inputs((x,), lambda inputs: check.accepts(gated, inputs), small=96)[:1]
    try:
        return probes, check.outputs(gated, probes, torch.float64), torch.float64
    except RuntimeError:
        return probes, check.outputs(gated, probes, torch.float32), torch.float32


def _equal(small: torch.nn.Module, probes: list[Any], wanted: list[Any], precision: torch.dtype) -> dict[str, Any]:
    """How far the slimmed network is from that."""
    from fupruner.graph import check

    pairs = zip(wanted, check.outputs(small, probes, precision), strict=True)
    error = max(check.relative_error(a, b) for a, b in pairs)
    most, name = (1e-9, "float64") if precision == torch.float64 else (1e-4, "float32")
    assert error < most, f"slimmed and gated differ by {error:.3g} in {name}"
    return {"error": error, "precision": name}


class Phases:
    """Processor seconds of consecutive parts."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._since = time.process_time()

    def stop(self, name: str) -> float:
        """End the part that is running, and begin the next."""
        now = time.process_time()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._since
        self._since = now
        return self.seconds[name]


def _ship(module: torch.nn.Module, x: torch.Tensor) -> float:
    """Largest relative difference between module and ONNX Runtime."""
    from fupruner.targets.registry import get_target

    with tempfile.TemporaryDirectory() as folder:
        return get_target("cpu").export(module, (x,), Path(folder) / "model.onnx").max_error


def _train(module: torch.nn.Module, x: torch.Tensor) -> None:
    """One step in training mode."""
    module.train()
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-3)
    leaves = torch.utils._pytree.tree_leaves(module(torch.cat([x, x])))
    leaves[0].float().square().mean().backward()
    optimizer.step()


def _child(name: str, pipe: Any) -> None:
    from fupruner.errors import FuPrunerError

    resource.setrlimit(resource.RLIMIT_DATA, (GIBIBYTES * 2**30, GIBIBYTES * 2**30))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    started = time.process_time()
    try:
        row = prune(name)
    except FuPrunerError as error:
        row = {"refused": " ".join(str(error).splitlines())[:300]}
    except Exception as error:
        row = {"failed": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:300]}
    row.setdefault("seconds", time.process_time() - started)
    row["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    pipe.send(row)


def measure(name: str) -> dict[str, Any]:
    """Run one network in a process of its own."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=_child, args=(name, theirs))
    process.start()
    theirs.close()
    try:
        row = ours.recv()
    except EOFError:
        why = f"the process ended: out of memory, or more than {SECONDS} s"
        row = {"failed": why, "seconds": float(SECONDS), "peak_mib": 0.0}
    process.join()
    return {"name": name, **row}


def table(rows: list[dict[str, Any]], skipped: list[str]) -> str:
    """The results as Markdown."""
    good = [row for row in rows if "onnx" in row]
    lines = ["# Coverage of pruning", ""]
    for source in ("torchvision", "timm"):
        ours = [row for row in rows if row["name"].startswith(source)]
        lines.append(
            f"{source}: {sum('onnx' in row for row in ours)} of {len(ours)} pruned by half, equal, trained and shipped.  "
        )
    seconds = [row["groups"] + row["plan"] for row in good] or [0.0]
    whole = [row["seconds"] for row in good if "seconds" in row] or [0.0]
    lines += [f"Whole rows: median {statistics.median(whole):.1f} s, worst {max(whole):.1f} s.  "]
    lines += [f"Groups and plan: median {statistics.median(seconds):.2f} s, worst {max(seconds):.2f} s.  ", ""]
    if skipped:
        lines += ["Skipped for the size of this machine: " + ", ".join(skipped) + ".", ""]
    lines += [
        "| network | macs | params | groups s | plan s | slim s | all s | peak MiB | error | note |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if row in good:
            form = "{macs:.2f}x | {params:.2f}x | {groups:.2f} | {plan:.2f} | {slim:.2f} | {seconds:.1f} | {peak_mib:.0f} | {error:.1e}"
            note = ", ".join(row["unknown"]) + (" (float32)" if row.get("precision") == "float32" else "")
            lines.append(f"| {row['name']} | {form.format(**row)} | {note} |")
        else:
            note = f"refused: {row['refused']}" if "refused" in row else f"failed: {row['failed']}"
            lines.append(f"| {row['name']} | | | | | | {row['seconds']:.1f} | {row['peak_mib']:.0f} | | {note} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Go through the zoo."""
    from fupruner.finish import hardware

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+")
    parser.add_argument("--skip", nargs="+", default=[])
    parser.add_argument("--reverse", action="store_true", help="last network first")
    parser.add_argument(
        "--again", action="store_true", help="measure the rows named by --only once more, keep the others"
    )
    parser.add_argument("--resume", action="store_true", help="keep the rows that OUT.json has")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "prune_coverage")
    options = parser.parse_args()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    preload()
    names = [name for name in options.only or networks() if name not in options.skip]
    names = sorted(reversed(names) if options.reverse else names, key=lambda name: name.endswith(GIANTS))
    written = options.out.with_suffix(".json")
    keep = (options.resume or options.again) and written.exists()
    rows: list[dict[str, Any]] = json.loads(written.read_text())["networks"] if keep else []
    if options.again:
        rows = [row for row in rows if row["name"] not in names]
    known = {row["name"] for row in rows}
    for name in names:
        if name in known:
            continue
        rows.append(measure(name))
        print(json.dumps(rows[-1]), flush=True)
        facts = {
            "hardware": hardware(),
            "torch": torch.__version__,
            "ratio": 0.5,
            "skipped": options.skip,
            "networks": rows,
        }
        written.write_text(json.dumps(facts, indent=1) + "\n")
    options.out.with_suffix(".md").write_text(table(rows, options.skip))


if __name__ == "__main__":
    main()
