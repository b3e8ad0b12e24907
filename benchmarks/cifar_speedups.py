"""What do fusion and an asked speed-up cost on CIFAR-10, for every target? Residual networks, with the command that users type.

Measured per row of ``rows``, n = 1 run each: top-1 accuracy before and after in the runtime that judges for the target, on the half of
the validation images that nothing looked at while training and on the half that may be looked at; the speed-up over the original as it
ships (``measured`` in ONNX Runtime, one thread, batch 1, in turn with it; for devices ``estimated`` by their cost model, never
measured there); multiply-adds and parameters. ``drop`` is over both halves, 5,000 images: its standard error is about 0.4 points.
The networks start from checkpoints that were adapted to these JPEG images (ResNet-32 and -44 here: two epochs, rate 0.02, batch 256), and
train with the defaults of ``fupruner optimize``; rows of ``sgd`` are from before Muon was the default optimizer of recovery, and maps
were learnt at full weight to the end then. ``seconds`` are those of runs of which some shared the machine with other work.
``fastest_within`` names, per network and target, the fastest network that loses at most so many points over all 5,000 images. ``fused``
has the networks as each level of fusion alone leaves them, which costs no accuracy; their latencies are predictions of the cost model.

    python benchmarks/cifar_speedups.py [--rows 56x2.0 20x1.5@ncs2 20x2.0@cpu:int8] [--epochs 3] [--seed 0] [--runs runs/cifar_speedups]

A row is DEPTHxSPEEDUP[@TARGET[:SHIP]]; epochs are 3 for ResNet-56 and 2 for ResNet-20 unless given. A run that is in RUNS already is read
or gone on with. On one core a row takes 5 (ResNet-20, bf16) to 45 minutes (ResNet-56 without bf16). Needs ../shared/data.
``python site_hooks/readme.py`` then puts what is within reach into the README.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from fupruner.fusion.engine import Prices
from fupruner.fusion.fuse import fuse_graph
from fupruner.graph import shapes
from fupruner.graph.trace import trace
from fupruner.models.resolve import load_model
from fupruner.targets.registry import get_target
from fupruner.training.data import load_data
from fupruner.training.loop import train
from fupruner.training.task import Classification

DATA = Path(__file__).parents[2] / "shared" / "data"
EPOCHS = {20: 2, 56: 3}
TARGETS = ("cpu", "ncs2", "ncs", "edge-tpu", "jetson-tx2", "jetson-nano")
LEVELS = ("none", "basic", "aggressive", "auto")
DEPTHS = (20, 32, 44, 56)
REQUIREMENTS = (0.5, 1.0, 2.0)
MAX_DROP = 1.0
"""Goes into the report's verdict alone, since rows ask for a speed-up."""


@dataclass(frozen=True)
class Asked:
    """What a row is of."""

    depth: int
    speedup: float
    target: str = "cpu"
    ship: str = "auto"

    @classmethod
    def of(cls, text: str) -> Asked:
        """Read DEPTHxSPEEDUP[@TARGET[:SHIP]]."""
        what, _, where = text.partition("@")
        depth, _, speedup = what.partition("x")
        target, _, ship = where.partition(":")
        return cls(int(depth), float(speedup), target or "cpu", ship or "auto")

    def folder(self, epochs: int, seed: int) -> str:
        """Name of the run's folder."""
        more = [name for name, usual in ((self.target, "cpu"), (self.ship, "auto")) if name != usual]
        return "-".join([f"resnet{self.depth}-x{self.speedup}-e{epochs}-s{seed}", *more])


def optimized(depth: int, folder: Path, *more: str) -> Path:
    """A folder that holds a finished run of ``fupruner optimize`` with these options; it is begun, gone on with or left alone."""
    if (folder / "result.json").exists():
        return folder
    command = [sys.executable, "-m", "fupruner"]
    if folder.exists():
        command += ["resume", str(folder)]
    else:
        weights = checkpoint(depth, folder.parent)
        command += ["optimize", f"fupruner:resnet{depth}", "--weights", str(weights), "--data", str(DATA / "cifar10" / "jpeg"),
                    "--out", str(folder), *more]  # fmt: skip
    done = subprocess.run(command, check=False)
    if done.returncode not in (0, 1):  # 1: the requirement is not met, which is a result
        done.check_returncode()
    return folder


def checkpoint(depth: int, runs: Path) -> Path:
    """Weights adapted to these images: the given ones, or the published ones after two epochs here."""
    name = f"cifar10_jpeg_resnet{depth}.safetensors"
    given, own = DATA / "checkpoints" / name, runs / name
    if given.exists():
        return given
    if not own.exists():
        loaded = load_model(
            f"fupruner:resnet{depth}", weights=DATA / "checkpoints" / f"cifar10_resnet{depth}.safetensors"
        )
        images = load_data(str(DATA / "cifar10" / "jpeg"), image_shape=(3, 32, 32), mean=loaded.mean, std=loaded.std)
        train(loaded.module, Classification(images, 256, "light"), epochs=2, learning_rate=0.02)
        save_file(loaded.module.state_dict(), own)
    return own


def facts(asked: Asked, seed: int, folder: Path) -> dict[str, Any]:
    """One row of the table."""
    result, judged, shipped = (
        json.loads((folder / f"{name}.json").read_text()) for name in ("result", "judgement", "shipped")
    )
    learnt_with = tomllib.loads((folder / "options.toml").read_text()).get("optimizer", "sgd")
    before, after = result["baseline"], result["final"]
    held, searched = before["accuracy"] - after["accuracy"], judged["searched_baseline"] - judged["searched_final"]
    row = {
        "network": f"resnet{asked.depth}", "target": asked.target, "ships": result["precision"], "asked": asked.speedup, "seed": seed,
        "epochs": result["epochs"], "optimizer": learnt_with, "speedup": round(result["speedup"], 3),
        "drop": round((held + searched) / 2, 2), "drop_held_out": round(held, 2), "drop_searched": round(searched, 2),
        "accuracy_before": before["accuracy"], "accuracy_after": after["accuracy"], "grade": after["latency_grade"],
    }  # fmt: skip
    for side, figures in (("before", before), ("after", after)):
        row |= {
            f"ms_{side}": round(figures["latency_ms"], 4),
            f"macs_{side}": figures["macs"],
            f"params_{side}": figures["params"],
        }
        row |= {f"{fact['name']}, {side}": fact["value"] for fact in shipped[side] if "stages" in fact["name"]}
    return row | {"seconds": round(result["seconds"]), "hardware": result["hardware"]}


def fused() -> Iterator[dict[str, Any]]:
    """Networks as fusion alone leaves them."""
    x = (torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)),)
    for depth in DEPTHS:
        graph = trace(load_model(f"fupruner:resnet{depth}").module.eval(), x)
        for target in TARGETS:
            model = get_target(target).cost_model()
            prices, row = Prices(model), {"network": f"resnet{depth}", "target": target, "grade": model.grade}
            for level in LEVELS:
                made, log = fuse_graph(graph, x, level, cost_model=model)
                shapes.propagate(made, x)
                row |= {f"{level}_ms": round(prices.of(made), 4)}
                row |= {f"{level}_macs": log.after.macs, f"{level}_params": log.after.params}
            yield row


def fastest_within(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Per network, target and format, the fastest of the rows that loses at most so many points; none is None."""

    def named(row: dict[str, Any]) -> tuple[str, str, str]:
        return row["network"], row["target"], row["ships"]

    for (network, target, ships), group in groupby(sorted(rows, key=named), named):
        found = list(group)
        row: dict[str, Any] = {"network": network, "target": target, "ships": ships, "grade": found[0]["grade"]}
        for points in REQUIREMENTS:
            speeds = [each["speedup"] for each in found if each["drop"] <= points]
            row[f"within_{points:g}_points"] = max(speeds, default=None)
        yield row | {"tried": ", ".join(str(speedup) for speedup in sorted(each["speedup"] for each in found))}


def main() -> None:
    """Run what is missing, and write all rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="*", default=["56x2.0", "56x3.0", "20x2.0"])
    parser.add_argument("--fused", action="store_true", help="make the table of fused networks anew")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", type=Path, default=Path("runs/cifar_speedups"))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "cifar_speedups.json")
    options = parser.parse_args()
    known = json.loads(options.out.read_text()) if options.out.exists() else {"fused": [], "rows": []}
    table, rows = list(fused()) if options.fused else known["fused"], known["rows"]
    for asked in map(Asked.of, options.rows):
        epochs = options.epochs or EPOCHS.get(asked.depth, 3)
        folder = options.runs / asked.folder(epochs, options.seed)
        more = (
            "--target",
            asked.target,
            "--ship",
            asked.ship,
            "--speedup",
            str(asked.speedup),
            "--max-drop",
            str(MAX_DROP),
        )
        optimized(asked.depth, folder, *more, "--epochs", str(epochs), "--seed", str(options.seed))
        found = facts(asked, options.seed, folder)
        keys = ("network", "target", "ships", "asked", "epochs", "optimizer", "seed")
        rows = [*(row for row in rows if any(row[key] != found[key] for key in keys)), found]
        print(json.dumps(found), flush=True)
    rows.sort(key=lambda row: tuple(row[key] for key in ("network", "target", "ships", "speedup")))
    written = {"fastest_within": list(fastest_within(rows)), "rows": rows, "fused": table}
    options.out.write_text(json.dumps(written, indent=1) + "\n")


if __name__ == "__main__":
    main()
