"""Does every exported file pick the class that PyTorch picks? Real images, every target that can be exported to here.

CIFAR ResNet-20 as adapted to the JPEG images, and networks that ``fupruner optimize`` made of it (``--run FOLDER``), exported for each
target and number format, int8 calibrated on 128 training images, judged on the first ``--images`` validation images (500) where the target
judges: the runtime itself, or half precision emulated. Asked: 99.5 % agreement in floating point, 97 % in int8. For the sticks the vendor's
compiler's stages and cost are noted where it is installed.

    python benchmarks/exports_agree.py [--target NAME ...] [--run FOLDER ...] [--images N]

Results: ``benchmarks/results/exports_agree.json``. About a minute per network for all targets.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import fupruner
from fupruner.fusion.fuse import fuse_graph
from fupruner.graph.trace import trace
from fupruner.models.resolve import load_model
from fupruner.targets.registry import get_target
from fupruner.training.data import load_data

DATA = Path(__file__).parents[2] / "shared" / "data"
RESULTS = Path(__file__).parent / "results" / "exports_agree.json"
SHIPPED = (
    ("cpu", "float32"), ("cpu", "int8"), ("openvino-cpu", "float32"), ("openvino-cpu", "int8"), ("litert-cpu", "float32"),
    ("litert-cpu", "int8"), ("edge-tpu", "int8"), ("jetson-nano", "float16"), ("jetson-tx2", "float16"), ("ncs", "float16"),
    ("ncs2", "float16"),
)  # fmt: skip
ASKED = {"float32": 99.5, "float16": 99.5, "int8": 97.0}


def main() -> None:
    """Export and judge every network for every target; write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", action="append", choices=sorted({name for name, _ in SHIPPED}))
    parser.add_argument("--run", type=Path, action="append", default=[], help="folder of a finished run")
    parser.add_argument("--images", type=int, default=500)
    given = parser.parse_args()
    torch.set_num_threads(1)
    known = load_model("fupruner:resnet20", DATA / "checkpoints" / "cifar10_jpeg_resnet20.safetensors")
    images = load_data(str(DATA / "cifar10" / "jpeg"), image_shape=known.input_shape, mean=known.mean, std=known.std)
    calibration = images.train.normalise(images.train.images[:128])
    x = images.validation.normalise(images.validation.images[: given.images])
    networks = {"resnet20": known.module, **{folder.name: fupruner.load(folder) for folder in given.run}}
    rows = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else []
    for name, module in networks.items():
        for target, ship in SHIPPED:
            if given.target and target not in given.target:
                continue
            row = {"network": name, "target": target, "ships": ship, **judge(module, target, ship, calibration, x)}
            print(json.dumps(row), flush=True)
            rows = [r for r in rows if (r["network"], r["target"], r["ships"]) != (name, target, ship)] + [row]
            RESULTS.write_text(json.dumps({"rows": rows}, indent=1) + "\n")


def judge(module: nn.Module, name: str, ship: str, calibration: Tensor, x: Tensor) -> dict[str, Any]:
    """Agreement of one file with its module, in percent of the images."""
    example = (x[:2],)
    network, _ = fuse_graph(trace(module, example), example, "basic")
    with torch.no_grad():
        expected = network(x).argmax(1)
    target = get_target(name, ship).adapted(network, lambda: calibration)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"model{target.suffix}"
        error = target.export(network, example, file).max_error
        found = target.predict(file, x)
        said = "; ".join(f"{fact.name}: {fact.value}" for fact in target.inspect(file))
    assert isinstance(found, Tensor)
    agreement = 100 * float((found.argmax(1) == expected).float().mean())
    return {
        "judged_in": target.judged_in, "images": len(x), "agreement": agreement, "asked": ASKED[ship], "met": agreement >= ASKED[ship],
        "max_error": error, "tools_say": said,
    }  # fmt: skip


if __name__ == "__main__":
    main()
