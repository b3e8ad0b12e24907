"""Coverage of fusion: every torchvision classification architecture and more than 100 of timm, random weights.

Measured per network, one process each: does it trace, does it fuse, the largest error of every check, operators before and after,
processor seconds of tracing and fusing on one core (libraries are imported before). Norms get random statistics, so that folding
them is not trivial. Two errors count: fused against traced in float64 (the engine's own check) and fused against the model itself
in float32, at the size that the model is made for. Networks whose random weights amplify rounding beyond the tolerance are compared
with what moving their weights by a few units in the last place does (noise).

A virtual machine can take seconds to hand out a gigabyte that it has never used before; system_seconds has that part. Networks that take
longer than 20 s are traced and fused once more in a process that has touched and kept its memory before: warm_seconds.

    python benchmarks/coverage.py [--only NAME ...] [--resume] [--at-most SECONDS] [--out benchmarks/results/coverage]

writes OUT.json and OUT.md after every network. --resume keeps the rows that are right and runs only what is missing, wrong,
refused or failed; --only with --resume replaces the named rows. --at-most ends a batch early. n = 1 run per network.
"""

# ruff: noqa: PLC0415 - networks and what is measured are imported where they are needed, after the limits are set

from __future__ import annotations

import argparse
import ctypes
import json
import multiprocessing
import os
import platform
import resource
import statistics
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

os.environ.setdefault(
    "THP_MEM_ALLOC_ENABLE", "1"
)  # as the command line does, before PyTorch allocates for the first time

import torch

LEVEL = "aggressive"
FLOAT32 = 1e-4
SECONDS = 1200
CPU_SECONDS = 300
SLOW = 20
"""Seconds from which on a network is measured with warm memory too."""
WARM_GIBIBYTES = 8
GIBIBYTES = 14
TIMM_LIST = Path(__file__).parents[2] / "shared" / "data" / "timm_models.txt"
GIANTS = ("regnet_y_128gf", "vit_h_14", "vit_l_", "regnet_y_32gf", "regnet_y_16gf", "regnet_x_32gf", "swin_b", "swin_v2_b",
          "convnext_large", "convnext_base", "nasnetalarge", "pnasnet5large", "vgg", "wide_resnet101")  # fmt: skip
MORE_TIMM = ("resnet10t", "resnet26d", "seresnet50", "hrnet_w18_small_v2", "repvgg_b0", "mobileone_s1", "mobilenetv4_conv_small",
             "ghostnetv2_100",
             "convnextv2_nano", "regnetz_b16", "resnetv2_50", "fastvit_t8")  # fmt: skip


def networks() -> list[str]:
    """Names of everything that is tried, ``torchvision:NAME`` and ``timm:NAME``."""
    import torchvision

    names = [f"torchvision:{name}" for name in torchvision.models.list_models(module=torchvision.models)]
    listed = [line.strip() for line in TIMM_LIST.read_text().splitlines()] if TIMM_LIST.exists() else []
    names += [f"timm:{name}" for name in dict.fromkeys([*listed, *MORE_TIMM]) if name and not name.startswith("#")]
    return sorted(names, key=lambda name: any(giant in name for giant in GIANTS))


def make(name: str) -> tuple[torch.nn.Module, torch.Tensor]:
    """A network with random norm statistics, and an input of the size that it is made for."""
    import timm
    import torchvision

    torch.manual_seed(0)
    source, _, short = name.partition(":")
    side = 299 if short == "inception_v3" else 224
    if source == "timm":
        model = timm.create_model(short)
        side = int(model.pretrained_cfg.get("input_size", (3, side, side))[-1])
    else:
        model = getattr(torchvision.models, short)()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d) and module.running_mean is not None:
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 1.5)
            if module.weight is not None:
                torch.nn.init.uniform_(module.weight, 0.5, 1.5)
                torch.nn.init.normal_(module.bias, 0, 0.2)
        elif isinstance(module, torch.nn.Linear) and not bool(module.weight.any()):
            torch.nn.init.normal_(module.weight, 0, 0.02)  # a head that begins at zero would hide every difference
    return model.eval(), torch.randn(2, 3, side, side)


def measure(name: str) -> dict[str, Any]:
    """Trace and fuse one network."""
    from fupruner.errors import FuPrunerError
    from fupruner.fusion.fuse import fuse_graph
    from fupruner.graph.check import relative_error, rounding_noise
    from fupruner.graph.trace import trace

    model, x = make(name)
    row: dict[str, Any] = {"name": name, "side": x.shape[-1], "traced": False, "fused": False}
    start, system = time.process_time(), os.times().system
    try:
        graph = trace(model, x, borrow=True)
        row |= {"traced": True, "trace_seconds": round(time.process_time() - start, 2)}
        middle = time.process_time()
        fused, log = fuse_graph(graph, (x,), LEVEL)
        row |= {"fused": True, "fuse_seconds": round(time.process_time() - middle, 2)}
        row |= {"system_seconds": round(os.times().system - system, 2)}
    except FuPrunerError as refusal:
        return row | {"refused": str(refusal)}
    with torch.no_grad():
        expected = model(x)
        error = relative_error(expected, fused(x))
    noise = rounding_noise(model, (x,), expected) if error > FLOAT32 else 0.0
    before, after = Counter(log.before.operators), Counter(log.after.operators)
    return row | {
        "error_float64": log.max_error,
        "error_float32": error,
        "noise_float32": noise,
        "dynamic_batch": bool(graph.meta.get("dynamic_batch")),
        "operators": [sum(before.values()), sum(after.values())],
        "removed": dict(sorted((before - after).items())),
        "norms": [sum(c for k, c in counts.items() if k.startswith("BatchNorm")) for counts in (before, after)],
        "adds": [before["add"], after["add"]],
        "macs": [log.before.macs, log.after.macs],
        "fired": dict(Counter(f.rule for f in log.fired)),
        "refusals": dict(Counter(r.rule for r in log.refused)),
        "reasons": sorted({f"{r.rule}: {r.reason}" for r in log.refused})[:3],
        "undone": [f"{r.rule} at {r.node}: {r.reason}" for r in log.refused if "undone" in r.reason],
    }


def warm_up() -> None:
    """Touch memory, and have the allocator (of glibc) keep what is freed."""
    libc = ctypes.CDLL(None)
    libc.mallopt(-4, 0)  # M_MMAP_MAX: no mapping of its own for large blocks
    libc.mallopt(-1, -1)  # M_TRIM_THRESHOLD: nothing goes back to the kernel
    blocks = [torch.ones(2**25) for _ in range(WARM_GIBIBYTES * 8)]
    del blocks


def child(name: str, connection: Any, *, warm: bool) -> None:
    """Measure in a process of its own, within limits."""
    resource.setrlimit(resource.RLIMIT_AS, (GIBIBYTES << 30, GIBIBYTES << 30))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if warm:
        warm_up()
    try:
        connection.send(measure(name))
    except BaseException as error:
        connection.send(
            {"name": name, "traced": False, "fused": False, "failed": f"{type(error).__name__}: {str(error)[:300]}"}
        )


def row_of(name: str) -> dict[str, Any]:
    """One row, of a slow network with what it takes in warm memory."""
    row = run(name)
    if row["fused"] and row["trace_seconds"] + row["fuse_seconds"] > SLOW:
        again = run(name, warm=True)
        row["warm_seconds"] = round(again["trace_seconds"] + again["fuse_seconds"], 2)
    return row


def run(name: str, *, warm: bool = False) -> dict[str, Any]:
    """The child's row, or what became of it."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=child, args=(name, there), kwargs={"warm": warm})
    start = time.perf_counter()
    process.start()
    there.close()
    try:
        row = (
            here.recv()
            if here.poll(SECONDS)
            else {"name": name, "traced": False, "fused": False, "failed": f"no result in {SECONDS} s"}
        )
    except EOFError:
        row = {
            "name": name,
            "traced": False,
            "fused": False,
            "failed": f"the process died (over {CPU_SECONDS} processor seconds or {GIBIBYTES} GiB)",
        }
    process.kill()
    process.join()
    return row | {"wall_seconds": round(time.perf_counter() - start, 1)}


def is_right(row: dict[str, Any]) -> bool:
    """Whether the network was handled and errors are within tolerance, or within what rounding its random weights does."""
    return row["fused"] and (row["error_float32"] <= FLOAT32 or row["error_float32"] <= 20 * row["noise_float32"])


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Counts per source, mismatches, and seconds."""
    counted = {}
    for source in ("torchvision", "timm"):
        mine = [row for row in rows if row["name"].startswith(source)]
        counted[source] = {"tried": len(mine), "right": sum(map(is_right, mine)), "refused": [r["name"] for r in mine if "refused" in r],
                           "failed": [r["name"] for r in mine if "failed" in r]}  # fmt: skip
    seconds = [row["trace_seconds"] + row["fuse_seconds"] for row in rows if row["fused"]]
    wrong = [row["name"] for row in rows if row["fused"] and not is_right(row)]
    chaotic = [row["name"] for row in rows if row["fused"] and is_right(row) and row["error_float32"] > FLOAT32]
    return counted | {
        "mismatches": wrong,
        "undone": [row["name"] for row in rows if row.get("undone")],
        "held_to_rounding_noise": chaotic,
        "median_seconds": statistics.median(seconds or [0]),
        "worst_seconds": max(seconds, default=0),
        "warm_seconds": {row["name"]: row["warm_seconds"] for row in rows if "warm_seconds" in row},
    }


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as a Markdown table."""
    lines = [
        "| network | traced | fused | error f64 | error f32 | operators | norms | adds | seconds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if not row["fused"]:
            words = str(row.get("refused", row.get("failed"))).splitlines()[0].replace("|", "/")
            lines.append(f"| {row['name']} | {'yes' if row['traced'] else 'no'} | no: {words} | | | | | | |")
            continue
        pairs = [" -> ".join(map(str, row[key])) for key in ("operators", "norms", "adds")]
        seconds = f"{row['trace_seconds'] + row['fuse_seconds']:.1f}"
        seconds += f" ({row['warm_seconds']:.1f} warm)" if "warm_seconds" in row else ""
        lines.append(
            f"| {row['name']} | yes | yes | {row['error_float64']:.1e} | {row['error_float32']:.1e} | {' | '.join(pairs)} | {seconds} |"
        )
    return "\n".join(lines) + "\n"


_LIBRARIES: list[torch.library.Library] = []


def declare_detection_operators() -> None:
    """Let torchvision's Python part be imported where its compiled part does not fit the build of torch."""
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _LIBRARIES.append(library)


def load_libraries() -> None:
    """Import once, before networks are measured, what tracing, fusing and making networks import on first use."""
    import timm  # noqa: F401

    from fupruner.fusion.fuse import fuse_graph
    from fupruner.graph.capture import capture
    from fupruner.graph.trace import trace

    x = torch.zeros(2, 1, 4, 4)
    fuse_graph(trace(torch.nn.Conv2d(1, 1, 1), x), (x,), LEVEL)
    capture(torch.nn.Conv2d(1, 1, 1), (x,))


def write(out: Path, rows: dict[str, dict[str, Any]]) -> None:
    """All rows so far, as JSON and as Markdown; never a half-written file."""
    hardware = {
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "torch": torch.__version__,
        "threads": 1,
    }
    order = [name for name in networks() if name in rows]
    listed = [rows[name] for name in [*order, *(name for name in rows if name not in order)]]
    result = {"hardware": hardware, "level": LEVEL, "n": 1, "summary": summary(listed), "rows": listed}
    told = summary(listed) | {"not_run_yet": [name for name in networks() if name not in rows]}
    result["summary"] = told
    words = f"# Coverage of fusion\n\n```\n{json.dumps(told, indent=1)}\n```\n\n{table(listed)}"
    for suffix, text in ((".json", json.dumps(result, indent=1) + "\n"), (".md", words)):
        partial = out.with_suffix(suffix + ".partial")
        partial.write_text(text)
        partial.replace(out.with_suffix(suffix))


def arguments() -> argparse.Namespace:
    """What to run, and where to write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--resume", action="store_true", help="keep the right rows that OUT.json holds")
    parser.add_argument("--at-most", type=float, default=float("inf"), help="start no network after so many seconds")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "coverage")
    return parser.parse_args()


def main() -> None:
    """Run all networks, giants last: the files are written after each."""
    options = arguments()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    declare_detection_operators()
    load_libraries()
    start = time.monotonic()
    rows: dict[str, dict[str, Any]] = {}
    if options.resume and options.out.with_suffix(".json").exists():
        rows = {row["name"]: row for row in json.loads(options.out.with_suffix(".json").read_text())["rows"]}
    for name in options.only or [name for name in networks() if name not in rows or not is_right(rows[name])]:
        if time.monotonic() - start > options.at_most:
            break
        rows[name] = row_of(name)
        told = ("name", "fused", "error_float32", "trace_seconds", "fuse_seconds", "warm_seconds", "refused", "failed")
        print(json.dumps({key: rows[name].get(key) for key in told}), flush=True)
        write(options.out, rows)
    print(json.dumps(summary(list(rows.values())), indent=1))


if __name__ == "__main__":
    main()
