"""Coverage of pruning: every torchvision classifier and the timm models of the list, random weights, half of the channels.

Measured per network, one process each: does it trace, how long groups and a uniform plan take (priced by multiply-adds, so that no table
is filled), does the slimmed network equal the gated one (float64 at a small size where the network takes one, else float32), does it take a
training step, does it export, does ONNX Runtime agree with it to 1e-3. ``refused`` networks say why; everything else that does not pass
is a failure. Seconds are processor seconds of the pruning itself on one core, without tracing and checking; memory is the peak of the
process. Norms get random statistics.

    python benchmarks/prune_coverage.py [--only NAME ...] [--skip NAME ...] [--resume] [--out benchmarks/results/prune_coverage]

writes OUT.json after every network and OUT.md at the end. n = 1 run per network.
"""
# ruff: noqa: PLC0415 - networks are imported where they are needed, in processes of their own

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

SECONDS, GIBIBYTES = 600, 14
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
    return model.eval(), torch.randn(1, 3, side, side)


def prune(name: str) -> dict[str, Any]:
    """One row of the table."""
    from fupruner.graph import check, cost, shapes
    from fupruner.graph.trace import trace
    from fupruner.pruning.budget import SizeModel
    from fupruner.pruning.gates import insert_gates
    from fupruner.pruning.importance import l2
    from fupruner.pruning.plan import Planner
    from fupruner.pruning.pricing import Pricer
    from fupruner.pruning.slim import slim

    model, x = make(name)
    graph = trace(model, x)
    started = time.process_time()
    shapes.propagate(graph, (x,))
    network = insert_gates(graph)
    grouped = time.process_time()
    if not network.groups.prunable:
        reasons = sorted(
            {group.frozen for group in network.groups.groups if "output of the network" not in group.frozen}
        )
        return {"refused": f"nothing to prune: {reasons[0]}" if reasons else "nothing to prune"}
    plan = Planner(network, Pricer(network, SizeModel("macs")), "none", 1).uniform(l2(network), 0.5)
    planned = time.process_time()
    network.set(plan.is_open, plan.closed_branches)
    small = slim(network, (x,))
    done = time.process_time()
    before, after = cost.figures(graph), cost.figures(small)
    row = {"groups": grouped - started, "plan": planned - grouped, "slim": done - planned, "macs": before.macs / max(1, after.macs),
           "params": before.params / after.params, "unknown": network.groups.labelling.unknown}  # fmt: skip
    probes = check.probe_inputs((x,), lambda inputs: check.accepts(network.graph_module, inputs), small=96)
    row["error"] = check.largest_error(network.graph_module, small, probes[:1], torch.float64)
    assert row["error"] < 1e-9, f"slimmed and gated differ by {row['error']:.3g}"
    row["onnx"] = _ship(small, x)
    _train(small, x)
    return row


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
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_DATA, (GIBIBYTES * 2**30, GIBIBYTES * 2**30))
    try:
        row = prune(name)
    except Exception as error:
        row = {"failed": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:300]}
    row["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    pipe.send(row)


def measure(name: str) -> dict[str, Any]:
    """Run one network in a process of its own."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_child, args=(name, theirs))
    process.start()
    theirs.close()
    try:
        row = ours.recv() if ours.poll(SECONDS) else {"failed": f"not done after {SECONDS} s"}
    except EOFError:
        row = {"failed": "the process died, out of memory"}
    process.kill()
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
    lines += [f"Groups and plan: median {statistics.median(seconds):.2f} s, worst {max(seconds):.2f} s.  ", ""]
    if skipped:
        lines += ["Skipped for the size of this machine: " + ", ".join(skipped) + ".", ""]
    lines += [
        "| network | macs | params | groups s | plan s | slim s | peak MiB | error | note |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if row in good:
            figures = "{macs:.2f}x | {params:.2f}x | {groups:.2f} | {plan:.2f} | {slim:.2f} | {peak_mib:.0f} | {error:.1e}".format(
                **row
            )
            lines.append(f"| {row['name']} | {figures} | {', '.join(row['unknown'])} |")
        else:
            note = f"refused: {row['refused']}" if "refused" in row else f"failed: {row['failed']}"
            lines.append(f"| {row['name']} | | | | | | {row.get('peak_mib', 0):.0f} | | {note} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Go through the zoo."""
    from fupruner.finish import hardware

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+")
    parser.add_argument("--skip", nargs="+", default=[])
    parser.add_argument("--resume", action="store_true", help="keep the rows that OUT.json has")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "prune_coverage")
    options = parser.parse_args()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    names = [name for name in options.only or networks() if name not in options.skip]
    written = options.out.with_suffix(".json")
    rows: list[dict[str, Any]] = (
        json.loads(written.read_text())["networks"] if options.resume and written.exists() else []
    )
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
