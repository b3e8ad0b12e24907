"""What does each part contribute? One option changed at a time, at an equal measured speed-up of 2, on ResNet-20.

``fupruner optimize --speedup 2.0`` on JPEG CIFAR-10 from the checkpoint of ../shared/data, one epoch, all other options at their defaults
(``value`` of the first row); each row changes one factor. Accuracy is top-1 of the exported file in ONNX Runtime on all 5,000
validation images, before and after; speed-up is measured in ONNX Runtime, one thread, batch 1, in turn with the unpruned network. n = 1
run per row: the row of another seed shows how far apart equal settings come out. ``one shot`` decides all gates before the first step and
then trains as many steps as the others, with the same learning rates; ``plans=5`` corrects the scores of branches, all alike, but of no
single part.

    python benchmarks/ablation.py [--rows default fusion=none ...] [--epochs 1] [--runs runs/ablation] [--out FILE]

On one core a row takes about 3 minutes. Rows that are there are kept. Needs ../shared/data.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from pathlib import Path
from typing import Any

from cifar_speedups import optimized

from fupruner.finish import hardware

DEPTH, SPEEDUP = 20, "2.0"
VARIANTS: dict[str, tuple[str, ...]] = {
    "default": (),
    "fusion=none": ("--fusion", "none"),
    "importance=l2": ("--importance", "l2"),
    "decisions=one shot": ("--set", "decisions=1", "--set", "pruning_share=0.001", "--set", "warmup=0.15"),
    "compensation=off": ("--set", "compensate=false"),
    "distillation=off": ("--set", "distill=false"),
    "distillation=logits only": ("--set", "distill_features=0"),
    "importance=random": ("--importance", "random"),
    "fusion=aggressive": ("--fusion", "aggressive"),
    "optimizer=sgd": ("--set", "optimizer=sgd"),
    "plans=5": ("--set", "plans=5"),
    "fusion=basic": ("--fusion", "basic"),
    "importance=taylor": ("--importance", "taylor"),
    "seed=1": ("--seed", "1"),
}
"""Options by row; the most telling rows first. The default is fusion auto, importance fisher, five decisions, all else on."""


def measured(name: str, epochs: int, runs: Path) -> dict[str, Any]:
    """One row of the table; where the speed-up was refused, it says so."""
    factor, _, value = name.partition("=")
    row: dict[str, Any] = {"factor": factor, "value": value or "auto, fisher, five decisions, all on", "epochs": epochs}
    folder = runs / f"resnet{DEPTH}-e{epochs}-{name.replace('=', '-').replace(' ', '-')}"
    more = VARIANTS[name] if factor == "seed" else ("--seed", "0", *VARIANTS[name])
    try:
        optimized(DEPTH, folder, "--speedup", SPEEDUP, "--max-drop", "10.0", "--epochs", str(epochs), *more)
    except subprocess.CalledProcessError as error:
        return row | {"note": f"refused, exit code {error.returncode}"}
    result, judged = (json.loads((folder / f"{name}.json").read_text()) for name in ("result", "judgement"))
    before, after = result["baseline"], result["final"]
    of_all = (before["accuracy"] + judged["searched_baseline"]) / 2, (after["accuracy"] + judged["searched_final"]) / 2
    return row | {
        "speedup": round(result["speedup"], 3), "accuracy_before": round(of_all[0], 2), "accuracy_after": round(of_all[1], 2),
        "drop": round(of_all[0] - of_all[1], 2), "macs": after["macs"], "params": after["params"], "seconds": round(result["seconds"]),
    }  # fmt: skip


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--runs", type=Path, default=Path("runs/ablation"))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "ablation.json")
    options = parser.parse_args()
    order = [name.partition("=")[::2] for name in VARIANTS]
    for name in options.rows:
        rows = json.loads(options.out.read_text())["rows"] if options.out.exists() else []
        factor, _, value = name.partition("=")
        if any(r["factor"] == factor and r["epochs"] == options.epochs and value in ("", r["value"]) for r in rows):
            continue
        rows.append(measured(name, options.epochs, options.runs))
        rows.sort(key=lambda r: next(i for i, (f, v) in enumerate(order) if f == r["factor"] and v in ("", r["value"])))
        print(json.dumps(rows), flush=True)
        facts = {"hardware": hardware(), "network": f"resnet{DEPTH}", "asked": float(SPEEDUP), "seed": 0}
        options.out.write_text(json.dumps({**facts, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
