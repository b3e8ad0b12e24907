"""Measures what int8 brings on this machine's processor: speed beside float32, accuracy, agreement.

CIFAR ResNet-20 as adapted to the JPEG images (``../shared/data``), and networks that ``fupruner optimize`` made of it (``--run FOLDER``,
more than once). Each is exported in float32 and in int8 for every runtime that is installed; int8 is calibrated on 128 training images.

- speed-up: int8 over float32 of the same network, one thread, batch 1, interleaved rounds; the median of ``--repeats`` comparisons.
- accuracy: top-1 on all 5,000 validation images, both halves, of the float32 and of the int8 file, in the runtime.
- agreement: on how many of these images the int8 file picks the class that PyTorch picks in float32.

Results: ``benchmarks/results/int8.json``, with the processor. About three minutes per network.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import fupruner
from fupruner.finish import hardware
from fupruner.fusion.fuse import fuse_graph
from fupruner.graph.trace import trace
from fupruner.models.resolve import load_model
from fupruner.targets.registry import get_target
from fupruner.training.data import load_data

DATA = Path(__file__).parents[2] / "shared" / "data"
RESULTS = Path(__file__).parent / "results" / "int8.json"
RUNTIMES = ("cpu", "openvino-cpu", "litert-cpu")


def main() -> None:
    """Measure every network in every runtime and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, action="append", default=[], help="folder of a finished run")
    parser.add_argument("--runtime", action="append", choices=RUNTIMES)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--no-original", action="store_true", help="measure the runs alone")
    given = parser.parse_args()
    torch.set_num_threads(1)
    known = load_model("fupruner:resnet20", DATA / "checkpoints" / "cifar10_jpeg_resnet20.safetensors")
    images = load_data(str(DATA / "cifar10" / "jpeg"), image_shape=known.input_shape, mean=known.mean, std=known.std)
    train, held = images.train, images.validation
    calibration = train.normalise(train.images[:128])
    x, labels = held.normalise(held.images), held.labels
    networks = {} if given.no_original else {"original": known.module}
    networks |= {folder.name: fupruner.load(folder) for folder in given.run}
    rows = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else []
    for name, module in networks.items():
        for runtime in given.runtime or RUNTIMES:
            row = {"network": name, **measure(module, runtime, calibration, x, labels, given.repeats)}
            print(json.dumps(row))
            rows = [r for r in rows if (r["network"], r["runtime"]) != (name, runtime)] + [row]
            RESULTS.write_text(json.dumps({"hardware": hardware(), "images": len(x), "rows": rows}, indent=1) + "\n")


def measure(
    module: nn.Module, runtime: str, calibration: Tensor, x: Tensor, labels: Tensor, repeats: int
) -> dict[str, Any]:
    """Speed-up, accuracies in percent and agreement of one network in one runtime."""
    example = (x[:2],)
    network, _ = fuse_graph(trace(module, example), example, "basic")
    with torch.no_grad():
        expected = torch.cat([network(part) for part in x.split(250)]).argmax(1)
    target = get_target(runtime, "int8").adapted(network, lambda: calibration)
    assert target.reference is not None
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{name}{target.suffix}" for name in ("float32", "int8")]
        target.reference.export(network, example, files[0])
        error = target.export(network, example, files[1]).max_error
        answers = [target.predict(file, x) for file in files]
        compared = [target.compare(files, example) for _ in range(repeats)]
    found = [answer.argmax(1) for answer in answers if isinstance(answer, Tensor)]
    accuracy = [100 * float((each == labels).float().mean()) for each in found]
    agreement = [100 * float((each == expected).float().mean()) for each in found]
    return {
        "runtime": runtime,
        "source": compared[0].measurements[0].source,
        "float32_ms": float(np.median([c.measurements[0].latency_ms for c in compared])),
        "int8_ms": float(np.median([c.measurements[1].latency_ms for c in compared])),
        "speedup": float(np.median([c.speedups[1] for c in compared])),
        "speedup_least": min(c.speedups[1] for c in compared),
        "speedup_most": max(c.speedups[1] for c in compared),
        "accuracy_float32": accuracy[0],
        "accuracy_int8": accuracy[1],
        "agreement_float32": agreement[0],
        "agreement_int8": agreement[1],
        "max_error_int8": error,
    }


if __name__ == "__main__":
    main()
