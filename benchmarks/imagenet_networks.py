"""ImageNet networks without training: fused at every level and pruned in one shot, on this machine and on devices.

torchvision's ResNet-18, 34, 50, 101 and MobileNetV2 at 224. Weights are random: no accuracy is stated here. Norms get random scales and
shifts and the statistics of 100 images of the ImageNet sample; the last layer is centred and scaled so that over these images every
class has mean logit 0 and the logits a deviation of 2.5, so that images fall into many classes and a small error could change one.

- ``measured``: files in ONNX Runtime, one thread, batch 1, processor seconds of runs in turn (see ``limit.py``); ``speedup`` is the median
  of the ratios to ``none`` within rounds. ``pruned 1.5`` and ``2`` are ``fupruner.prune(speedup=..., fusion="auto")``, scores by l2;
  ``in_prune`` is the speed-up that it measured itself.
- ``agreement``: how many of the 500 images of the sample (training images, prepared at 256 and cut to 224) the fused file puts into
  the class that PyTorch finds with the original, in percent; ``classes`` are how many classes occur, ``margin`` the median distance of
  the two largest logits, ``error`` the largest difference of a logit. A network that is the same as that of a lower level shares its
  figures.
- ``devices``: estimates of the cost models; nothing ran on a device, and nothing was exported (MobileNetV2 at level aggressive has
  per-channel clips, which the Edge TPU lacks: there the export refuses it). ``auto`` asks that device's model. Plans for 1.5 and 2 times
  are made for the device, cut, fused at level auto and priced again. ``adds`` are element-wise additions that are left.

    python benchmarks/imagenet_networks.py [--only NAME ...] [--part measured devices] [--again]

Rows that are there are kept. n = 1 network with random weights per architecture. About 25 minutes of one core.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from limit import Shipped, seconds
from prune_coverage import zoo
from torch import Tensor, fx, nn

import fupruner
from fupruner.errors import FuPrunerError, InputError
from fupruner.finish import hardware
from fupruner.fusion.fuse import fuse_graph
from fupruner.graph import cost, shapes
from fupruner.graph.trace import trace
from fupruner.models.resolve import IMAGENET_MEAN, IMAGENET_STD
from fupruner.pruning.importance import l2
from fupruner.pruning.prepare import fuse_as_planned, make_planner
from fupruner.pruning.slim import slim
from fupruner.targets.cost_model import CostModel
from fupruner.targets.registry import get_target
from fupruner.training.data import load_data

SAMPLE = Path(__file__).parents[2] / "shared" / "data" / "imagenet_sample"
RESULTS = Path(__file__).parent / "results" / "imagenet_networks.json"
NETWORKS = ("resnet18", "resnet34", "resnet50", "resnet101", "mobilenet_v2")
DEVICES = ("ncs2", "ncs", "edge-tpu", "jetson-tx2", "jetson-nano")
LEVELS = ("none", "basic", "aggressive", "auto")
SPEEDUPS = (1.5, 2.0)
SPREAD = 2.5


def sample() -> Tensor:
    """The images (500, 3, 224, 224), normalised."""
    data = load_data(str(SAMPLE), image_shape=(3, 224, 224), mean=IMAGENET_MEAN, std=IMAGENET_STD)
    return torch.cat([split.normalise(split.images) for split in (data.train, data.validation)])


def network(name: str, images: Tensor) -> nn.Module:
    """Random weights, norms with the statistics of images, logits that tell images apart."""
    torch.manual_seed(0)
    module = getattr(zoo().models, name)()
    norms = [each for each in module.modules() if isinstance(each, nn.BatchNorm2d)]
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, 0, 0.2)
        norm.momentum = None  # the mean over all batches
    head = module.fc if hasattr(module, "fc") else module.classifier[-1]
    with torch.no_grad():
        for part in images[:100].split(25):
            module.train()(part)
        logits = predicted(module.eval(), images[:100])
        scale = SPREAD / (logits - logits.mean(0)).std()
        head.bias.sub_(logits.mean(0)).mul_(scale)
        head.weight.mul_(scale)
    return module


def predicted(module: nn.Module, images: Tensor) -> Tensor:
    """Logits of images, in PyTorch."""
    with torch.inference_mode():
        return torch.cat([module(part) for part in images.split(25)]).clone()


def forms(module: nn.Module, x: Tensor) -> list[tuple[str, nn.Module, float | None]]:
    """Networks to measure: fused at each level and pruned; the speed-up that pruning measured itself."""
    found: list[tuple[str, nn.Module, float | None]] = [("none", module, None)]
    for level in LEVELS[1:]:
        found.append((level, fupruner.fuse(module, x, level=level).module, None))
    for asked in SPEEDUPS:
        try:
            result = fupruner.prune(module, x, speedup=asked, fusion="auto")
        except InputError as error:
            print(f"pruned {asked:g}: {str(error).splitlines()[0]}", flush=True)
        else:
            found.append((f"pruned {asked:g}", result.module, result.speedup))
    return found


def measured(name: str, images: Tensor) -> list[dict[str, Any]]:
    """Speed and agreement on this machine."""
    module, x, target = network(name, images), images[:1], get_target("cpu")
    original, rows, known = predicted(module, images), [], list[tuple[fx.GraphModule, dict[str, Any]]]()
    top = original.topk(2).values
    spread = {"classes": len(original.argmax(1).unique()), "margin": float((top[:, 0] - top[:, 1]).median())}
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for form, made, own in forms(module, x):
            file = Path(folder) / f"{form}.onnx"
            target.export(made, (x,), file)
            graph = traced(made, x)
            size = cost.figures(graph)
            files.append(Shipped(file, x.numpy(), size.macs / 1e6))
            row = {
                "network": name,
                "form": form,
                "macs_m": size.macs / 1e6,
                "params_m": size.params / 1e6,
                "adds": adds(graph),
            }
            if form in LEVELS[1:]:
                found = next((figures for other, figures in known if same(other, graph)), None)
                if found is None:
                    answer = target.predict(file, images)
                    agreement = 100 * float((answer.argmax(1) == original.argmax(1)).float().mean())
                    found = {"agreement": agreement, "error": float((answer - original).abs().max()), **spread}
                    known.append((graph, found))
                row |= found
            rows.append(row | {"in_prune": own})
        times = seconds(files, 30.0)
    for i, row in enumerate(rows):
        row |= {
            "ms": 1e3 * float(np.median(times[:, i])),
            "speedup": float(np.median(times[:, 0] / times[:, i])),
            "grade": "measured",
        }
    return rows


def same(first: fx.GraphModule, second: fx.GraphModule) -> bool:
    """Whether two graphs are the same operators with the same weights."""
    ours, theirs = first.state_dict(), second.state_dict()
    return first.code == second.code and all(torch.equal(value, theirs[name]) for name, value in ours.items())


def traced(module: nn.Module, x: Tensor) -> fx.GraphModule:
    """A graph with shapes."""
    graph = trace(module, (x,))
    shapes.propagate(graph, (x,))
    return graph


def adds(graph: fx.GraphModule) -> int:
    """Element-wise additions of a graph."""
    return sum(cost.is_add(node) for node in graph.graph.nodes)


def estimate(model: CostModel, graph: fx.GraphModule) -> float:
    """Milliseconds of a run."""
    return model.overhead_ms + sum(model.price([layer.shape for layer in cost.layer_shapes(graph)]))


def devices(name: str, images: Tensor) -> list[dict[str, Any]]:
    """Estimates for every device."""
    module, inputs, rows = network(name, images), (images[:1],), []
    graph = traced(module, images[:1])
    for device in DEVICES:
        target = get_target(device).adapted(graph, None)
        model = target.cost_model()
        base = estimate(model, graph)
        logs = {}

        def row(form: str, made: fx.GraphModule, **more: Any) -> dict[str, Any]:
            shapes.propagate(made, inputs)
            ms = estimate(model, made)  # noqa: B023 - called at once
            speedup, grade = base / ms, model.grade  # noqa: B023
            size = cost.figures(made)
            return {"network": name, "device": device, "form": form, "macs_m": size.macs / 1e6, "adds": adds(made), "ms": ms,  # noqa: B023
                    "speedup": speedup, "grade": grade, **more}  # fmt: skip

        for level in LEVELS:
            fused, logs[level] = fuse_graph(graph, inputs, level, cost_model=model if level == "auto" else None)
            rows.append(row(level, fused))
        gated, planner = make_planner(graph, inputs, target, logs["auto"], share_tensors=True)
        for asked in SPEEDUPS:
            try:
                plan = planner.for_speedup(l2(gated), asked)
                gated.set(plan.is_open, plan.closed_branches)
                made, _ = fuse_as_planned(gated, slim(gated, inputs), inputs, "auto", model)
                record = plan.record
                rows.append(row(f"pruned {asked:g}", made, planned=record.baseline_ms / record.predicted_ms))
            except FuPrunerError as error:
                rows.append(
                    {
                        "network": name,
                        "device": device,
                        "form": f"pruned {asked:g}",
                        "refused": str(error).splitlines()[0],
                    }
                )
    return rows


PARTS: dict[str, Callable[[str, Tensor], list[dict[str, Any]]]] = {"measured": measured, "devices": devices}


def main() -> None:
    """Measure what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=NETWORKS, default=NETWORKS)
    parser.add_argument("--part", nargs="+", choices=tuple(PARTS), default=tuple(PARTS))
    parser.add_argument("--again", action="store_true", help="measure what is there once more")
    given = parser.parse_args()
    torch.set_num_threads(1)
    images = sample()
    for part in given.part:
        for name in given.only:
            if not given.again and any(row["network"] == name for row in read()[part]):
                continue
            rows = PARTS[part](name, images)
            for row in rows:
                print({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}, flush=True)
            found = read()  # another process may have added rows
            kept = [row for row in found[part] if row["network"] != name]
            found[part] = sorted([*kept, *rows], key=lambda row: NETWORKS.index(row["network"]))
            facts = {"hardware": hardware(), "images": len(images), **found}
            RESULTS.write_text(json.dumps(facts, indent=1) + "\n")


def read() -> dict[str, list[dict[str, Any]]]:
    """Rows that are there, by part."""
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    return {part: found.get(part, []) for part in PARTS}


if __name__ == "__main__":
    main()
