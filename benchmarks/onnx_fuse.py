"""ONNX in and ONNX out: exported torchvision networks through ``fupruner fuse model.onnx --out fused.onnx``, as a user would.

Measured per network (random weights, norms with random statistics): the exit code, the relative difference of the two files in ONNX
Runtime on random images for batch 1 and 3, operators and bytes before and after, processor seconds of the command with its imports.

    python benchmarks/onnx_fuse.py [--only NAME ...] [--resume] [--out benchmarks/results/onnx_fuse]

writes OUT.json after every network. n = 1 run per network.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from coverage import declare_detection_operators, make

NETWORKS = ("resnet18", "resnet50", "mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large", "densenet121", "googlenet", "inception_v3",
            "shufflenet_v2_x1_0", "efficientnet_b0", "regnet_y_400mf", "regnet_x_400mf", "squeezenet1_1", "mnasnet1_0", "convnext_tiny",
            "vgg11_bn", "swin_t", "vit_b_16", "vit_b_32", "maxvit_t")  # fmt: skip
TOLERANCE = 1e-4


def export(name: str, path: Path) -> torch.Tensor:
    """Write a network with a free batch; returns an input of its size."""
    model, x = make(f"torchvision:{name}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (x[:1],),
            str(path),
            dynamo=False,
            input_names=["image"],
            output_names=["logits"],
            dynamic_axes={"image": {0: "batch"}, "logits": {0: "batch"}},
        )
    return x


def run(path: Path, x: np.ndarray) -> np.ndarray:
    """First output of a file in ONNX Runtime, one thread, no graph optimisation."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {session.get_inputs()[0].name: x})[0])


def measure(name: str, folder: Path) -> dict[str, Any]:
    """One row."""
    before, after = folder / "model.onnx", folder / "fused.onnx"
    side = export(name, before).shape[-1]
    start = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "fupruner", "fuse", str(before), "--out", str(after)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    end = resource.getrusage(resource.RUSAGE_CHILDREN)
    row: dict[str, Any] = {
        "name": name,
        "exit_code": done.returncode,
        "seconds": round(end.ru_utime - start.ru_utime, 1),
    }
    if done.returncode != 0:
        return row | {"message": done.stderr[-1000:]}
    errors = []
    for batch in (1, 3):
        x = np.random.default_rng(batch).standard_normal((batch, 3, side, side)).astype(np.float32)
        expected, actual = run(before, x), run(after, x)
        errors.append(float(np.abs(expected - actual).max() / np.abs(expected).max()))
    return row | {
        "errors": errors,
        "equal": max(errors) <= TOLERANCE,
        "operators": [len(onnx.load(str(path), load_external_data=False).graph.node) for path in (before, after)],
        "bytes": [path.stat().st_size for path in (before, after)],
    }


def main() -> None:
    """Run the networks one after another."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--resume", action="store_true", help="keep the rows of OUT.json that are equal")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "onnx_fuse")
    options = parser.parse_args()
    torch.set_num_threads(1)
    declare_detection_operators()
    path = options.out.with_suffix(".json")
    rows = (
        {row["name"]: row for row in json.loads(path.read_text())["rows"]} if options.resume and path.exists() else {}
    )
    for name in options.only or [name for name in NETWORKS if not rows.get(name, {}).get("equal")]:
        with tempfile.TemporaryDirectory() as folder:
            rows[name] = measure(name, Path(folder))
        print(json.dumps(rows[name]), flush=True)
        hardware = {
            "machine": platform.machine(),
            "cores": os.cpu_count(),
            "torch": torch.__version__,
            "onnxruntime": onnxruntime.__version__,
        }
        equal = sum(bool(row.get("equal")) for row in rows.values())
        result = {
            "hardware": hardware,
            "n": 1,
            "tolerance": TOLERANCE,
            "equal": equal,
            "tried": len(rows),
            "rows": list(rows.values()),
        }
        path.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
