"""Does the cost model of the Neural Compute Stick 2 schedule networks as the vendor's compiler does?

Each network is written as it ships and compiled by the Myriad compiler of OpenVINO 2021.4.2 for a Myriad X, with no stick attached: the
stages of its schedule and its count of engine cycles per pixel (``compiler cost``) stand beside what the cost model predicts from the
layers alone. CIFAR ResNets and torchvision ResNets at 224, as they come and with shortcuts fused into filters, random weights. Nothing
is timed, so one run is enough.

    fupruner targets --install ncs2        # once
    python benchmarks/myriad_stages.py [--out benchmarks/results/myriad_stages.json]

About three minutes of one core.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from cost_models import torchvision_models
from torch import nn

from fupruner.fusion.fuse import fuse_graph
from fupruner.graph.trace import trace
from fupruner.models.resolve import load_model
from fupruner.targets.myriad.compiler import compile_file
from fupruner.targets.myriad.stages import layer_stages, total_stages
from fupruner.targets.onnx_device import write_fixed
from fupruner.targets.onnx_layers import file_layers

CIFAR = ("resnet20", "resnet32", "resnet44", "resnet56")
IMAGENET = ("resnet18", "resnet34", "resnet50")


def compare(module: nn.Module, x: torch.Tensor, folder: Path) -> dict[str, Any]:
    """Stages and cost, predicted and compiled."""
    file = folder / "network.onnx"
    write_fixed(module, (x,), file, 11)
    layers = [layer.shape for layer in file_layers(file)]
    compiled = compile_file(file, "VPU_MYRIAD_2480").graph
    return {
        "stages_predicted": total_stages(layers), "stages_compiled": len(compiled.stages),
        "cost_predicted": sum(layer_stages(layer).cost for layer in layers), "cost_compiled": compiled.cost,
    }  # fmt: skip


def main() -> None:
    """Compile everything and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "myriad_stages.json")
    options = parser.parse_args()
    rows = []
    for name in (*CIFAR, *(f"torchvision:{each}" for each in IMAGENET)):
        large = name.startswith("torchvision:")
        x = torch.randn(1, 3, *((224, 224) if large else (32, 32)))
        model = getattr(torchvision_models(), name[12:])() if large else load_model(f"fupruner:{name}").module
        graph = trace(model.eval(), x)
        for level in ("basic", "aggressive"):
            with tempfile.TemporaryDirectory() as folder:
                row = {"network": name, "fusion": level, **compare(fuse_graph(graph, (x,), level)[0], x, Path(folder))}
            rows.append(row)
            print(json.dumps(row), flush=True)
    options.out.write_text(
        json.dumps({"compiler": "OpenVINO 2021.4.2, VPU_MYRIAD_2480", "rows": rows}, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
