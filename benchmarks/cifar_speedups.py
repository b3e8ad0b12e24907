"""What does an asked speed-up cost on CIFAR-10? Dynamic pruning of residual networks for ``cpu``, with the command that users type.

Measured per row, n = 1 run each: top-1 accuracy of the exported file in ONNX Runtime before and after, on the half of the validation
images that nothing looked at while training and on the half that may be looked at; the speed-up in ONNX Runtime (one thread, batch 1,
in turn with the baseline); multiply-adds and parameters. ``drop`` is over both halves, 5,000 images: its standard error is about half a
point. The networks start from checkpoints that were adapted to these JPEG images, and train with the defaults of ``fupruner optimize``.

    python benchmarks/cifar_speedups.py [--rows 56x2.0 56x3.0 20x2.0] [--seed 0] [--runs runs/cifar_speedups] [--out FILE]

A row is DEPTHxSPEEDUP; epochs are 3 for ResNet-56 and 2 for ResNet-20. A run that is in RUNS already is read or gone on with. On one
core without bf16 a row takes 15 to 45 minutes. Needs ../shared/data.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

DATA = Path(__file__).parents[2] / "shared" / "data"
EPOCHS, ALLOWED = {20: 2, 56: 3}, {"56x2.0": 0.5, "56x3.0": 2.0, "20x2.0": 1.5}


def run(row: str, seed: int, runs: Path) -> Path:
    """The folder of a finished run."""
    depth, speedup = row.split("x")
    epochs = EPOCHS[int(depth)]
    folder = runs / f"resnet{depth}-x{speedup}-e{epochs}-s{seed}"
    more = ("--speedup", speedup, "--epochs", str(epochs), "--seed", str(seed))
    return optimized(int(depth), folder, "--max-drop", str(ALLOWED.get(row, 1.0)), *more)


def optimized(depth: int, folder: Path, *more: str) -> Path:
    """A folder that holds a finished run of ``fupruner optimize`` with these options; it is begun, gone on with or left alone."""
    if (folder / "result.json").exists():
        return folder
    command = [sys.executable, "-m", "fupruner"]
    if folder.exists():
        command += ["resume", str(folder)]
    else:
        checkpoint = DATA / "checkpoints" / f"cifar10_jpeg_resnet{depth}.safetensors"
        command += ["optimize", f"fupruner:resnet{depth}", "--weights", str(checkpoint), "--data", str(DATA / "cifar10" / "jpeg"),
                    "--out", str(folder), *more]  # fmt: skip
    done = subprocess.run(command, check=False)
    if done.returncode not in (0, 1):  # 1: the requirement is not met, which is a result
        done.check_returncode()
    return folder


def facts(row: str, seed: int, folder: Path) -> dict[str, Any]:
    """One row of the table."""
    result = json.loads((folder / "result.json").read_text())
    judged = json.loads((folder / "judgement.json").read_text())
    before, after = result["baseline"], result["final"]
    held, searched = before["accuracy"] - after["accuracy"], judged["searched_baseline"] - judged["searched_final"]
    return {
        "network": f"resnet{row.split('x', maxsplit=1)[0]}", "asked": float(row.split("x")[1]), "seed": seed, "epochs": result["epochs"],
        "speedup": round(result["speedup"], 3), "drop": round((held + searched) / 2, 2), "drop_held_out": round(held, 2),
        "drop_searched": round(searched, 2), "accuracy_before": before["accuracy"], "accuracy_after": after["accuracy"],
        "macs": [before["macs"], after["macs"]], "params": [before["params"], after["params"]],
        "seconds": round(result["seconds"]), "hardware": result["hardware"],
    }  # fmt: skip


def main() -> None:
    """Run what is missing, and write all rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", default=["56x2.0", "56x3.0", "20x2.0"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", type=Path, default=Path("runs/cifar_speedups"))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "cifar_speedups.json")
    options = parser.parse_args()
    rows = json.loads(options.out.read_text())["rows"] if options.out.exists() else []
    for row in options.rows:
        found = facts(row, options.seed, run(row, options.seed, options.runs))
        same = [(each["network"], each["asked"], each["seed"]) for each in rows]
        key = (found["network"], found["asked"], found["seed"])
        rows = [*(each for each, named in zip(rows, same, strict=True) if named != key), found]
        print(json.dumps(found), flush=True)
        options.out.write_text(json.dumps({"target": "cpu", "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
