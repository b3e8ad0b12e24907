"""Cost models of devices against latencies that others published.

Measured here: nothing on a device. Each row is a network whose latency somebody published (source beside it), at batch 1 and the
stated input size. Estimated: the sum of the layers' estimates by this package's cost model, with its fitted constants taken from the other
rows only (leave one out); a second column has the constants that ship. Printed per device: median absolute error and Spearman's
rank correlation of the leave-one-out column, and the constants that a fit to all rows gives.

    python benchmarks/cost_models.py [--device NAME ...] [--out benchmarks/results/cost_models]

Architectures come from torchvision and timm (tests/requirements-zoo.txt), with random weights: they do not matter here. n = 1 published
figure per row. About four minutes of one core.
"""

# ruff: noqa: PLC0415 - networks are imported where they are needed

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from published_latencies import PUBLISHED, Row
from scipy.optimize import minimize
from scipy.stats import spearmanr
from torch import nn

from fupruner.graph.cost import layer_shapes
from fupruner.graph.layer_shape import LayerShape
from fupruner.graph.shapes import propagate
from fupruner.graph.trace import trace
from fupruner.targets.edge_tpu import cost as edge
from fupruner.targets.jetson import cost as jetson
from fupruner.targets.myriad import cost as myriad

Rows = Sequence[tuple[str, Row]]
Predict = Callable[[str, str], float]


def mobilenet_v1(width: float = 1.0) -> nn.Module:
    """MobileNetV1 as TensorFlow's model garden has it."""

    def block(inputs: int, outputs: int, kernel: int, stride: int, groups: int) -> list[nn.Module]:
        conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        return [conv, nn.BatchNorm2d(outputs), nn.ReLU6()]

    now = int(32 * width)
    layers = block(3, now, 3, 2, 1)
    for after, stride in (
        (64, 1),
        (128, 2),
        (128, 1),
        (256, 2),
        (256, 1),
        (512, 2),
        *[(512, 1)] * 5,
        (1024, 2),
        (1024, 1),
    ):
        layers += [*block(now, now, 3, stride, now), *block(now, int(after * width), 1, 1, 1)]
        now = int(after * width)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(now, 1001))


@cache
def torchvision_models() -> Any:
    """Models of torchvision, also where its compiled part does not fit this build of torch (see tests/conftest.py)."""
    try:
        import torchvision
    except RuntimeError:
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _LIBRARIES.append(library)
        import torchvision
    return torchvision.models


_LIBRARIES: list[torch.library.Library] = []


def cifar_resnet18(models: Any) -> nn.Module:
    """ResNet-18 for images of 32x32: a 3x3 convolution of stride 1 in front, no pool, ten classes."""
    network = models.resnet18(num_classes=10)
    network.conv1, network.maxpool = nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.Identity()
    return network


def make(name: str) -> nn.Module:
    """A network with random weights."""
    if name.startswith("mobilenet_v1"):
        return mobilenet_v1({"025": 0.25, "05": 0.5}.get(name.removeprefix("mobilenet_v1_"), 1.0))
    models = torchvision_models()
    if name == "cifar_resnet18":
        return cifar_resnet18(models)
    if name in ("inception_v4", "inception_resnet_v2") or name.startswith("resnetv2"):
        import timm

        return timm.create_model(name)
    if name == "mobileone_s0":
        import timm
        from timm.utils.model import reparameterize_model

        return reparameterize_model(timm.create_model(name))
    settings: dict[str, Any] = {
        "googlenet": {"init_weights": False, "aux_logits": False},
        "inception_v3": {"init_weights": False},
    }
    return getattr(models, name)(**settings.get(name, {}))


@cache
def layers_of(network: str) -> tuple[LayerShape, ...]:
    """Layers of a network, norms merged; ``NAME@SIZE`` for an input size other than 224."""
    name, _, size = network.partition("@")
    image = torch.randn(1, 3, int(size or 224), int(size or 224))
    graph = trace(make(name).eval(), (image,))
    propagate(graph, (image,))
    return tuple(layer.shape for layer in layer_shapes(graph))


def predict_ncs2(pace: myriad.Pace) -> Predict:
    """Milliseconds of a network with given paces."""
    return lambda _, network: (
        sum(myriad.parts(layer).total(pace) for layer in layers_of(network)) + myriad.MyriadX.overhead_ms
    )


def fit_ncs2(rows: Rows) -> tuple[myriad.Pace, Predict]:
    """Least absolute deviations of logarithms of the two paces: the rows come from two sources that do not quite agree."""
    sums = np.array(
        [
            np.sum([[p.engine, p.depthwise, p.rest] for p in map(myriad.parts, layers_of(row.network))], axis=0)
            for _, row in rows
        ]
    )
    published = np.array([row.ms for _, row in rows])

    def loss(values: Any) -> float:
        engine, depthwise = np.exp(values)
        return float(np.abs(np.log(sums @ [engine, depthwise, 1.0] / published)).sum())

    found = minimize(loss, np.log([1.0, 1.0]), method="Nelder-Mead", options={"xatol": 1e-4, "fatol": 1e-6})
    engine, depthwise = (float(value) for value in np.exp(found.x))
    pace = myriad.Pace(engine, depthwise)
    return pace, predict_ncs2(pace)


@cache
def edge_parts(network: str) -> Any:
    """Runs, kB of input, GMAC, 10^6 activations, MiB streamed: what the five constants are multiplied by."""
    layers = layers_of(network)
    size = sum(map(edge.weight_bytes, layers)) / edge.MIB
    moved = sum(map(edge.elements, layers)) / 1e6
    sent = sum(map(edge.image_bytes, layers[:8])) / 1e3
    return np.array([1.0, sent, sum(layer.macs for layer in layers) / 1e9, moved, max(0.0, size - edge.ON_CHIP)])


def predict_edge(pace: edge.Pace) -> Predict:
    """Milliseconds of a network with given constants."""
    return lambda _, network: float(edge_parts(network) @ [pace.run, pace.sent, pace.gmac, pace.moved, pace.streamed])


EDGE_EXPECTED = np.log([0.5, 0.004, 1.0, 0.05, 2.3])


def fit_edge(rows: Rows) -> tuple[edge.Pace, Predict]:
    """Least absolute deviations of logarithms: some rows are far off whatever the constants, and must not pull the others."""

    def loss(values: Any) -> float:
        errors = sum(abs(np.log(edge_parts(row.network) @ np.exp(values) / row.ms)) for _, row in rows)
        return float(errors + 2 * WEIGHT * np.sum((values - EDGE_EXPECTED) ** 2))

    options = {"maxiter": 4000, "xatol": 1e-4, "fatol": 1e-6}
    starts = (EDGE_EXPECTED + shift for shift in (0.0, 0.3, -0.3))
    best = min(
        (minimize(loss, start, method="Nelder-Mead", options=options) for start in starts), key=lambda r: float(r.fun)
    )
    pace = edge.Pace(*(float(value) for value in np.exp(best.x)))
    return pace, predict_edge(pace)


JETSONS = {"jetson-tx2": jetson.TX2, "jetson-nano": jetson.NANO}
EXPECTED = np.log([0.8, 0.55, 0.004, 0.6, 25e-6, 25e-6])
"""Where a fit starts, and is held to with little weight: what such devices usually reach."""
WEIGHT = 0.01


def jetson_paces(values: Sequence[float]) -> dict[str, jetson.Pace]:
    """Both devices share the efficiencies of TensorRT's kernels; launches differ, the published ones are of different versions."""
    winograd, other, depthwise, traffic, tx2, nano = (float(v) for v in values)
    return {
        "jetson-tx2": jetson.Pace(winograd, other, depthwise, traffic, tx2),
        "jetson-nano": jetson.Pace(winograd, other, depthwise, traffic, nano),
    }


def predict_jetson(paces: dict[str, jetson.Pace]) -> Predict:
    """Milliseconds of a network with given paces."""
    return lambda device, network: (
        1e3 * sum(jetson.seconds(layer, JETSONS[device], paces[device]) for layer in layers_of(network))
    )


def fit_jetson(rows: Rows) -> tuple[dict[str, jetson.Pace], Predict]:
    """Least squares of logarithms over both devices."""

    def loss(values: Any) -> float:
        predict = predict_jetson(jetson_paces(np.exp(values)))
        errors = sum(np.log(predict(device, row.network) / row.ms) ** 2 for device, row in rows)
        return float(errors + WEIGHT * np.sum((values - EXPECTED) ** 2))

    found = minimize(loss, EXPECTED, method="Nelder-Mead", options={"maxiter": 900, "xatol": 1e-2, "fatol": 1e-4})
    paces = jetson_paces(np.exp(found.x))
    return paces, predict_jetson(paces)


FAMILIES: dict[str, tuple[tuple[str, ...], Callable[[Rows], tuple[Any, Predict]], Predict]] = {
    "neural compute stick 2": (("ncs2",), fit_ncs2, predict_ncs2(myriad.Pace())),
    "edge tpu": (("edge-tpu",), fit_edge, predict_edge(edge.Pace())),
    "jetson": (
        ("jetson-tx2", "jetson-nano"),
        fit_jetson,
        predict_jetson({"jetson-tx2": jetson.TX2_PACE, "jetson-nano": jetson.NANO_PACE}),
    ),
}


def evaluate(
    devices: Sequence[str], fit: Callable[[Rows], tuple[Any, Predict]], shipped: Predict
) -> list[dict[str, Any]]:
    """Leave-one-out and shipped estimates of every published row; rows of the same network are left out together."""
    rows = [(device, row) for device in devices for row in PUBLISHED[device]]
    results = []
    for device, row in rows:
        others = [(d, r) for d, r in rows if not (d == device and r.network == row.network)]
        left_out = fit(others)[1](device, row.network)
        results.append(
            {
                "device": device, "network": row.network, "published_ms": row.ms, "leave_one_out_ms": left_out,
                "error": left_out / row.ms - 1, "shipped_ms": shipped(device, row.network), "source": row.source,
            }
        )  # fmt: skip
    print("fit to all rows:", fit(rows)[0])
    return results


def show(results: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Print the table; median error and rank correlation per device."""
    summary = {}
    for device in dict.fromkeys(r["device"] for r in results):
        rows = [r for r in results if r["device"] == device]
        print(f"\n{device}\n{'network':22} {'published':>9} {'left out':>9} {'error':>7} {'shipped':>8}  source")
        for r in rows:
            times = f"{r['published_ms']:9.2f} {r['leave_one_out_ms']:9.2f} {100 * r['error']:+6.0f}% {r['shipped_ms']:8.2f}"
            print(f"{r['network']:22} {times}  {r['source']}")
        median = float(np.median([abs(r["error"]) for r in rows]))
        rank = float(spearmanr([r["leave_one_out_ms"] for r in rows], [r["published_ms"] for r in rows]).statistic)
        summary[device] = {"median_error": median, "rank_correlation": rank, "rows": len(rows)}
        print(f"median error {100 * median:.0f}%, rank correlation {rank:.2f}, n = {len(rows)}")
    return summary


def ncs_rows() -> list[dict[str, Any]]:
    """The older stick: two rows determine two constants, so nothing can be left out and no error is claimed."""
    model = myriad.Myriad2()
    return [
        {"device": "ncs", "network": row.network, "published_ms": row.ms, "source": row.source,
         "shipped_ms": model.overhead_ms + sum(model.price(layers_of(row.network)))}
        for row in PUBLISHED["ncs"]
    ]  # fmt: skip


def main() -> None:
    """Print the tables and write them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", nargs="*", default=None, help="only these")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "cost_models")
    arguments = parser.parse_args()
    results: list[dict[str, Any]] = []
    for devices, fit, shipped in FAMILIES.values():
        if arguments.device is None or set(devices) & set(arguments.device):
            results += evaluate(devices, fit, shipped)
    summary = show(results)
    older = ncs_rows() if arguments.device is None or "ncs" in arguments.device else []
    for r in older:
        print(
            f"ncs {r['network']:18} published {r['published_ms']:.1f}, shipped {r['shipped_ms']:.1f} ms; no error is claimed"
        )
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.with_suffix(".json").write_text(
        json.dumps({"summary": summary, "rows": results, "ncs": older}, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
