"""Peers from the same checkpoint, with the same epochs, in the same runtime: what does each lose at which measured speed-up?

CIFAR residual networks on JPEG CIFAR-10, from the checkpoints of ../shared/data. Accuracy is top-1 of the exported file in ONNX Runtime
on all 5,000 validation images (standard error about half a point; less between networks judged on the same images). Speed-up is over the
unpruned network in ONNX Runtime, one thread, batch 1, in turn with it; the median of three such comparisons, ``spread`` is their range.
All networks ship with norms folded. n = 1 training per row, seed 0.

Methods. All train for the same number of steps, with the same batches, augmentation, learning rates, weight decay and ``optimizer``, that
of ours unless ``--optimizer sgd`` is given; only what was trained in the same way is compared.
``fupruner``: ``fupruner optimize`` with its defaults; the steps in which it prunes are part of its steps. ``fupruner-one-shot``: the same,
but all gates are decided before the first step.
``torch-pruning`` 1.6.1: one shot, then all the steps. Zero-padded shortcuts are equivalent 1x1 convolutions there, since it cannot cut
the original; its scores come from 512 training images. For each asked speed-up the smallest ratio is taken that gives it, and of the
settings (importance: Taylor or magnitude; widths: multiples of 8, of 16, or any; ratio: uniform or global) the one with the best accuracy
after 60 steps on all validation images, which is in its favour: see ``search``. For ResNet-56 the setting is the one found on ResNet-20.
``uniform``: every width scaled alike to multiples of 8, the filters with the largest l2 norms kept; ``search`` has new weights beside it.
``fastnas``: ModelOpt 0.47 searches widths (multiples of 8) within a share of the multiply-adds, judging by 1,000 validation images.
``learns``: from ``labels``; from the original's ``logits`` too; or from its ``maps`` at the ends of the stages as well, as ours does.

A curve runs straight through all networks of a method that were trained in the same way, those included that came out worse than a
faster one, and is never drawn on beyond them: an empty cell means that it begins below a level or does not fall to it. A level counts
where a curve first falls to it; levels that no curve has are left out. The area between two curves, over the logarithm of the speed-up
where both are known, is given as its mean height.

    pip install torch-pruning==1.6.1 nvidia-modelopt==0.47.0 torchprofile==0.0.4  # for the comparison alone
    python benchmarks/peers.py --depth 20 --search 2.0 --rows fupruner@2.0 torch-pruning:maps@2.0 uniform:maps@2.0 fastnas:maps@0.45

A row is METHOD[:LEARNS]@SPEEDUP (for fastnas: share of the multiply-adds). Rows and searches that are there are kept. On one core a row
takes about 5 minutes for ResNet-20, 20 for ResNet-56; OMP_NUM_THREADS says on how many cores networks are trained, --runs and --out where
files go. Needs ../shared/data.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any, get_args

import torch
from ablation import VARIANTS
from cifar_speedups import optimized
from peer_curves import summary
from peer_networks import SETTINGS, Bench, Setting, smallest, timed
from prune_oneshot import ENOUGH

from fupruner.finish import hardware
from fupruner.options import OptimizerName, Options

OURS = "fupruner"
STEPS = 60
"""Of a training that only ranks settings."""
KEPT = 3
"""Settings, the best ones at ``FIRST``, that are tried at other speed-ups."""
FIRST = 2.0
LEARNS = {"maps": (), "logits": VARIANTS["distillation=logits only"], "labels": VARIANTS["distillation=off"]}
"""What ours is told so that it learns as the others of a row do."""
SHARES = [round(0.05 * i, 2) for i in range(20, 3, -1)]
NOT_COMPARED = {
    "TinyNN": "TinyNeuralNetwork is not on PyPI; the package named tinynn there is another project, without pruning",
}
Row = dict[str, Any]


class Results:
    """The file of results: read before and written after every change, so that two runs can fill it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> dict[str, Any]:
        """All that is there."""
        empty: dict[str, Any] = {"baselines": {}, "rows": [], "search": []}
        return json.loads(self.path.read_text()) if self.path.exists() else empty

    def add(self, kind: str, row: Row) -> None:
        """Write a row of ``rows`` or ``search``, and what follows from all rows."""
        found = self.read()
        found[kind].append(row)
        self._write(found)
        print(json.dumps(row), flush=True)

    def baseline(self, network: str, accuracy: float) -> None:
        """Write what a network has before."""
        found = self.read()
        found["baselines"][network] = accuracy
        self._write(found)

    def _write(self, found: dict[str, Any]) -> None:
        facts = {"hardware": hardware(), "torch": torch.__version__, "threads": 1, "images": 5000}
        order = ("baselines", "speedup_at_equal_accuracy", "points_higher_at_equal_speedup", "rows", "search")
        found["rows"].sort(key=lambda r: (r["network"], r["method"], r["learns"], r["optimizer"], r["speedup"]))
        found |= summary(found["rows"], found["baselines"], OURS)
        text = json.dumps({**facts, **{key: found[key] for key in order}, "not_compared": NOT_COMPARED}, indent=1)
        draft = self.path.with_suffix(f".{os.getpid()}")
        draft.write_text(text + "\n")
        draft.replace(self.path)


def search(bench: Bench, results: Results, speedup: float) -> None:
    """Train settings of Torch-Pruning for a few steps, and uniformly scaled networks with their old and with new weights."""
    about = {"network": bench.name, "optimizer": bench.options.optimizer, "asked": speedup}
    for setting, (ratio, fast) in _candidates(bench, results, speedup):
        found = {**about, "setting": str(setting), "ratio": ratio, "speedup": round(fast, 3)}
        _try(bench, results, found, lambda s=setting, r=ratio: bench.narrow(bench.torch_pruned(s, r)))
    if speedup != FIRST:
        return
    share, fast = widest(bench, speedup)
    for scratch in (False, True):
        setting = "uniform, new weights" if scratch else "uniform, l2"
        found = {**about, "setting": setting, "ratio": share, "speedup": round(fast, 3)}
        _try(bench, results, found, lambda s=scratch: bench.scaled(share, scratch=s))


def _tried(bench: Bench, results: Results) -> list[Row]:
    """Short trainings with the same optimizer."""
    return [row for row in results.read()["search"] if row["optimizer"] == bench.options.optimizer]


def _candidates(bench: Bench, results: Results, speedup: float) -> list[tuple[Setting, tuple[float, float]]]:
    """All settings at the first speed-up; at others, of those that reach it, the best ones at the first."""
    reached = smallest(bench, SETTINGS, speedup)
    if speedup == FIRST:
        return list(reached.items())
    first = [row for row in _tried(bench, results) if (row["network"], row["asked"]) == (bench.name, FIRST)]
    known = {row["setting"]: row["accuracy"] for row in first}
    return sorted(reached.items(), key=lambda item: -known.get(str(item[0]), 0.0))[:KEPT]


def _try(bench: Bench, results: Results, found: Row, make: Any) -> None:
    """One short training, unless it is known; the same network for another asked speed-up is not trained again."""
    named = [r for r in _tried(bench, results) if all(r[k] == found[k] for k in ("network", "setting", "ratio"))]
    if any(r["asked"] == found["asked"] for r in named):
        return
    if named:
        results.add("search", {**named[0], "asked": found["asked"]})
        return
    file = bench.folder / "tried.onnx"
    bench.ship(bench.train(make(), "maps", STEPS), file)
    results.add("search", {**found, "steps": STEPS, "accuracy": bench.accuracy(file)})


def widest(bench: Bench, speedup: float) -> tuple[float, float]:
    """The largest share of the widths that gives a speed-up, and what it gives."""
    makers = {str(share): lambda s=share: bench.scaled(s).graph for share in SHARES}
    speeds = timed(bench, makers, bench.folder / f"{bench.name}-scaled.json")
    enough = [(share, speeds[str(share)]) for share in SHARES if speeds[str(share)] >= ENOUGH * speedup]
    if not enough:
        raise SystemExit(f"Uniform scaling gives at most {max(speeds.values()):.2f}x, not {speedup}x.")
    return enough[0]


def chosen(bench: Bench, results: Results, speedup: float) -> tuple[Setting, float]:
    """The setting of Torch-Pruning that the search found for a speed-up, and its ratio for this network."""
    tried = [r for r in _tried(bench, results) if r["asked"] == speedup and not r["setting"].startswith("uniform")]
    own = [r for r in tried if r["network"] == bench.name]
    if not tried:
        raise SystemExit(f"No setting is known at {speedup}x; look for one first: --depth 20 --search {speedup}")
    best = max(own or tried, key=lambda r: r["accuracy"])
    setting = next(s for s in SETTINGS if str(s) == best["setting"])
    return setting, best["ratio"] if own else smallest(bench, [setting], speedup)[setting][0]


def measure(bench: Bench, results: Results, method: str, learns: str, value: float, runs: Path) -> Row:
    """One row of the table."""
    epochs, seed = bench.options.epochs, bench.options.seed
    file = bench.folder / f"{bench.name}-{method}-{learns}-{value}-s{seed}.onnx"
    if method.startswith(OURS):
        taught = "" if learns == "maps" else f"-{learns}"
        folder = runs / f"{bench.name}-x{value}-e{epochs}-s{seed}{method.removeprefix(OURS)}{taught}"
        more = ("--max-drop", "5.0", "--speedup", str(value), "--epochs", str(epochs), "--seed", str(seed))
        more += () if method == OURS else VARIANTS["decisions=one shot"]
        more += LEARNS[learns] + ("--set", f"optimizer={bench.options.optimizer}")
        optimized(int(bench.name.removeprefix("resnet")), folder, *more)
        result = json.loads((folder / "result.json").read_text())
        final = result["final"]
        measured = bench.judged(folder / "model.onnx") | {k: final[k] for k in ("macs", "params")}
        measured |= {"seconds": round(result["seconds"])}
        return {"setting": "defaults" if method == OURS else "one decision, before the first step", **measured}
    if method == "torch-pruning":
        setting, ratio = chosen(bench, results, value)
        narrow, text = bench.narrow(bench.torch_pruned(setting, ratio)), f"{setting}, ratio {ratio}"
    elif method == "uniform":
        share, _ = widest(bench, value)
        narrow, text = bench.scaled(share), f"share {share}"
    else:
        narrow, text = bench.narrow(bench.fastnas(value)), f"{value:.0%} of multiply-adds"
    return {"setting": text, **bench.row(narrow, learns, file)}


def main() -> None:
    """Measure what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depth", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--optimizer", choices=get_args(OptimizerName), default=Options().optimizer)
    parser.add_argument("--search", nargs="+", type=float, default=[], metavar="SPEEDUP")
    parser.add_argument("--rows", nargs="+", default=[], metavar="METHOD[:LEARNS]@VALUE")
    parser.add_argument("--runs", type=Path, default=Path("runs/peers"))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "peers.json")
    options = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    results = Results(options.out)
    bench = Bench(options.depth, options.epochs, options.seed, options.runs / "files", options.optimizer)
    if bench.name not in results.read()["baselines"]:
        results.baseline(bench.name, bench.accuracy(bench.baseline))
    before = results.read()["baselines"][bench.name]
    for speedup in options.search:
        search(bench, results, speedup)
    for text in options.rows:
        named, _, value = text.partition("@")
        method, _, learns = named.partition(":")
        key = {"network": bench.name, "method": method, "learns": learns or "maps", "asked": float(value),
               "optimizer": options.optimizer, "epochs": options.epochs, "seed": options.seed}  # fmt: skip
        if any(all(row[name] == key[name] for name in key) for row in results.read()["rows"]):
            continue
        row = {**key, **measure(bench, results, method, key["learns"], key["asked"], options.runs)}
        results.add("rows", {**row, "drop": round(before - row["accuracy"], 2)})


if __name__ == "__main__":
    main()
