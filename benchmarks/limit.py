"""How far from the machine's limit do networks run, and how does latency grow with depth, width and resolution?

ONNX Runtime, one thread, batch 1, random weights. Times are processor seconds of the calling thread (what other processes take from it
does not count), of files run in turn; the median over rounds. GFLOP/s count two operations per multiply-add.

- ``sweep``: matrix products and 1x1 convolutions of several sizes, in float32 and int8. The largest figure of each precision is the
  ``peak``: what this runtime reaches at best on this machine, not what the processor could do.
- ``networks``: torchvision's ResNet-18, ResNet-50, MobileNetV2 at 224, CIFAR ResNet-20 and 56 at 32. ``baseline`` as exported; ``fused``
  at level auto; ``pruned`` by ``fupruner.prune(speedup=2, fusion="auto")``, scores by l2; ``pruned-half`` by ``ratio=0.5``. ``share`` is
  the network's GFLOP/s over the peak's in the same rounds. The multiply-adds are those that the network itself has left, so that time
  saved by doing less does not count, only how well the rest runs.
- ``growth``: one dimension at a time. ``ours`` is fused at level auto with half of every group's channels cut (ratio 0.5, rounded to
  widths that the runtime likes; what costs no time is kept). An asked speed-up would make every row the same by construction.
  What that is comes from the table of layers, whose noise of a few percent decides where a width is on the edge: ResNet-20 at side 96
  kept its first stage and part of the last, at other sides not. ``exponents`` are slopes of log(ms) over log(size), by least squares.

    python benchmarks/limit.py [--only sweep networks depth width ...] [--again]

Rows that are there are kept. About twelve minutes of one core.
"""

from __future__ import annotations

import argparse
import functools
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from prune_coverage import make, zoo
from torch import nn

import fupruner
from fupruner.errors import InputError
from fupruner.finish import hardware
from fupruner.graph import cost, shapes
from fupruner.graph.trace import trace
from fupruner.models import cifar_resnet
from fupruner.targets.base import Target
from fupruner.targets.registry import get_target
from fupruner.targets.runtime import name_feeds, open_session

RESULTS = Path(__file__).parent / "results" / "limit.json"
SQUARES = (128, 256, 384, 512, 768, 1024, 1536, 2048)
POINTWISE = ((64, 56), (128, 28), (256, 28), (256, 14), (512, 14), (512, 28))
NETWORKS = ("cifar:20", "cifar:56", "torchvision:resnet18", "torchvision:resnet50", "torchvision:mobilenet_v2")
FORMS = ("baseline", "fused", "pruned", "pruned-half")
Built = tuple[nn.Module, torch.Tensor]


@dataclass(frozen=True)
class Shipped:
    """A file to be timed, its input, and the millions of multiply-adds of a run."""

    file: Path
    x: np.ndarray
    macs_m: float


def seconds(files: list[Shipped], total: float = 6.0) -> np.ndarray:
    """Processor seconds per run, (rounds, files); each the median of the calls of a slot of at least 20 ms."""
    sessions = [open_session(each.file) for each in files]
    feeds = [name_feeds(session, [each.x]) for session, each in zip(sessions, files, strict=True)]
    runs = [functools.partial(session.run, None, feed) for session, feed in zip(sessions, feeds, strict=True)]
    one = [min(_call(run) for _ in range(4)) for run in runs]
    calls = [max(1, int(np.ceil(0.02 / each))) for each in one]
    rounds = int(np.clip(total / sum(o * (c + 1) for o, c in zip(one, calls, strict=True)), 9, 41))
    return np.array([[_slot(run, count) for run, count in zip(runs, calls, strict=True)] for _ in range(rounds)])


def _slot(run: Callable[[], object], calls: int) -> float:
    run()  # brings its weights back into the caches
    return float(np.median([_call(run) for _ in range(calls)]))


def _call(run: Callable[[], object]) -> float:
    began = time.thread_time()
    run()
    return time.thread_time() - began


def sized(module: nn.Module, x: torch.Tensor) -> float:
    """Millions of multiply-adds of the whole batch."""
    graph = trace(module, (x,))
    shapes.propagate(graph, (x,))
    return len(x) * cost.figures(graph).macs / 1e6


def ship(module: nn.Module, x: torch.Tensor, file: Path, target: Target | None = None) -> Shipped:
    """Write a file."""
    (target or get_target("cpu")).export(module, (x,), file)
    return Shipped(file, x.numpy(), sized(module, x))


def candidates() -> Iterator[tuple[str, nn.Module, torch.Tensor]]:
    """What may reach the peak."""
    for n in SQUARES:
        yield f"matmul {n}x{n}x{n}", nn.Linear(n, n), torch.randn(n, n)
    for channels, side in POINTWISE:
        yield (
            f"conv1x1 {channels}, {side}x{side}",
            nn.Conv2d(channels, channels, 1),
            torch.randn(1, channels, side, side),
        )


def sweep(folder: Path) -> list[dict[str, Any]]:
    """GFLOP/s of candidates, by precision."""
    rows = []
    for precision in ("float32", "int8"):
        target = get_target("cpu", precision)
        files = [
            ship(module.eval(), x, folder / f"{precision}{i}.onnx", target)
            for i, (_, module, x) in enumerate(candidates())
        ]
        times = np.median(seconds(files, 25.0), axis=0).tolist()
        names = [name for name, _, _ in candidates()]
        rows += [
            {"operator": name, "precision": precision, "ms": 1e3 * t, "gflops": 2e-3 * each.macs_m / t}
            for name, t, each in zip(names, times, files, strict=True)
        ]
    return rows


def best(rows: list[dict[str, Any]], precision: str) -> dict[str, Any]:
    """The fastest candidate."""
    return max((row for row in rows if row["precision"] == precision), key=lambda row: row["gflops"])


def cifar(depth: int, width: float = 1.0, side: int = 32) -> Built:
    """A CIFAR residual network with all widths multiplied, norms with random statistics."""
    torch.manual_seed(0)
    with mock.patch.object(cifar_resnet, "WIDTHS", tuple(round(width * each) for each in (16, 32, 64))):
        return _lively(cifar_resnet.CifarResNet((depth - 2) // 6)), torch.randn(1, 3, side, side)


def mobilenet(width: float) -> Built:
    """MobileNetV2 with all widths multiplied."""
    torch.manual_seed(0)
    return _lively(zoo().models.mobilenet_v2(width_mult=width)), torch.randn(1, 3, 224, 224)


def resnet18(side: int) -> Built:
    """ResNet-18 for images of another size."""
    return make("torchvision:resnet18")[0], torch.randn(1, 3, side, side)


def _lively(module: nn.Module) -> nn.Module:
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean.normal_(0, 0.2)
            norm.running_var.uniform_(0.5, 1.5)
    return module.eval()


def named(name: str) -> Built:
    """One of the networks."""
    source, _, rest = name.partition(":")
    return cifar(int(rest)) if source == "cifar" else make(name)


def made(form: str, module: nn.Module, x: torch.Tensor) -> nn.Module:
    """The network in one of its forms."""
    if form == "baseline":
        return module
    if form == "fused":
        return fupruner.fuse(module, x, level="auto").module
    asked: dict[str, Any] = {"speedup": 2.0} if form == "pruned" else {"ratio": 0.5}
    return fupruner.prune(module, x, fusion="auto", **asked).module


def shares(name: str, peak: dict[str, Any], folder: Path) -> list[dict[str, Any]]:
    """GFLOP/s of a network's forms, beside the peak's in the same rounds."""
    module, x = named(name)
    reference = next((m.eval(), i) for n, m, i in candidates() if n == peak["operator"])
    files, forms, rows = [ship(*reference, folder / "peak.onnx")], [], []
    for form in FORMS:
        try:
            files.append(ship(made(form, module, x), x, folder / f"{form}.onnx"))
        except InputError as error:
            rows.append({"network": name, "form": form, "refused": str(error).splitlines()[0]})
        else:
            forms.append(form)
    times = seconds(files, 20.0)
    rates = np.array([2e-3 * each.macs_m for each in files]) / times
    for i, form in enumerate(forms, 1):
        rows.append(
            {"network": name, "form": form, "macs_m": files[i].macs_m, "ms": 1e3 * float(np.median(times[:, i])),
             "gflops": float(np.median(rates[:, i])), "share": float(np.median(rates[:, i] / rates[:, 0])),
             "speedup": float(np.median(times[:, 1] / times[:, i]))}
        )  # fmt: skip
    return rows


SERIES: dict[str, tuple[Callable[[Any], Built], tuple[float, ...]]] = {
    "CIFAR ResNet, depth": (cifar, (20, 32, 44, 56, 110)),
    "CIFAR ResNet-20, width": (lambda width: cifar(20, width), (0.5, 1.0, 1.5, 2.0)),
    "CIFAR ResNet-56, width": (lambda width: cifar(56, width), (0.5, 1.0, 1.5, 2.0)),
    "MobileNetV2, width": (mobilenet, (0.5, 1.0, 1.5, 2.0)),
    "CIFAR ResNet-20, side": (lambda side: cifar(20, 1.0, side), (32, 48, 64, 96)),
    "CIFAR ResNet-56, side": (lambda side: cifar(56, 1.0, side), (32, 48, 64, 96)),
    "ResNet-18, side": (resnet18, (160, 192, 224, 256)),
}


def series(name: str, folder: Path) -> list[dict[str, Any]]:
    """Latencies along one dimension, all sizes in the same rounds."""
    build, sizes = SERIES[name]
    files = []
    for size in sizes:
        module, x = build(size)
        for form in ("baseline", "pruned-half"):
            files.append(ship(made(form, module, x), x, folder / f"{form}{size}.onnx"))
    times = seconds(files, 30.0)
    rows = []
    for i, size in enumerate(sizes):
        before, after = times[:, 2 * i], times[:, 2 * i + 1]
        rows.append(
            {"series": name, "size": size, "macs_m": files[2 * i].macs_m, "ms": 1e3 * float(np.median(before)),
             "ours_macs_m": files[2 * i + 1].macs_m, "ours_ms": 1e3 * float(np.median(after)),
             "speedup": float(np.median(before / after))}
        )  # fmt: skip
    return rows


def exponents(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Slopes of log(ms) over log(size) of each series."""
    lines = []
    for name in dict.fromkeys(row["series"] for row in rows):
        ours = [row for row in rows if row["series"] == name]
        sizes = np.log([row["size"] for row in ours])
        slopes = {
            key: float(np.polyfit(sizes, np.log([row[key] for row in ours]), 1)[0])
            for key in ("macs_m", "ms", "ours_macs_m", "ours_ms")
        }
        lines.append({"series": name, **slopes})
    return lines


def main() -> None:
    """Measure what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", help="parts whose name holds one of these words", default=[""])
    parser.add_argument("--again", action="store_true", help="measure what is there once more")
    given = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    found = {"sweep": [], "networks": [], "growth": [], **found, "hardware": hardware()}

    def fill(part: str, key: str, name: str, measure: Callable[[Path], list[dict[str, Any]]]) -> None:
        there = any(key == "" or row[key] == name for row in found[part])
        if not any(word in f"{part} {name}" for word in given.only) or (there and not given.again):
            return
        with tempfile.TemporaryDirectory() as folder:
            rows = measure(Path(folder))
        found[part] = [row for row in found[part] if key and row[key] != name] + rows
        found["peak"] = {p: best(found["sweep"], p) for p in ("float32", "int8")}
        found["exponents"] = exponents(found["growth"])
        for row in rows:
            print({k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()}, flush=True)
        order = ("hardware", "peak", "networks", "exponents", "growth", "sweep")
        RESULTS.write_text(json.dumps({name: found[name] for name in order}, indent=1) + "\n")

    fill("sweep", "", "", sweep)
    for name in NETWORKS:
        fill("networks", "network", name, lambda folder, name=name: shares(name, found["peak"]["float32"], folder))
    for name in SERIES:
        fill("growth", "series", name, lambda folder, name=name: series(name, folder))


if __name__ == "__main__":
    main()
