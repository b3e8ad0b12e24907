"""Counting operators of well-known architectures after fusion."""

from __future__ import annotations

from collections import Counter
from types import ModuleType

import pytest
import torch
from torch import nn

from fupruner.fusion.fuse import fuse_graph
from fupruner.graph.trace import trace
from fupruner.records import FusionLog
from helpers import FLOAT32, FLOAT64, randomize


def fuse(model: nn.Module, side: int = 64) -> FusionLog:
    randomize(model)
    x = torch.randn(2, 3, side, side)
    log = fuse_graph(trace(model, x), (x,), "aggressive")[1]
    assert log.max_error <= FLOAT64
    assert log.max_error_float32 <= FLOAT32
    assert not [r for r in log.refused if r.reason.startswith("undone")]
    return log


def left(log: FusionLog, kind: str) -> int:
    return sum(count for name, count in log.after.operators.items() if name.startswith(kind))


def test_resnet18_has_no_add_and_no_norm_left(zoo: ModuleType) -> None:
    log = fuse(zoo.models.resnet18())
    assert left(log, "add") == left(log, "BatchNorm") == 0
    assert left(log, "Conv2d") == 17


def test_repvgg_has_one_conv_per_block(zoo: ModuleType) -> None:
    timm = pytest.importorskip("timm")
    log = fuse(timm.create_model("repvgg_a0"))
    assert left(log, "add") == left(log, "BatchNorm") == 0
    assert left(log, "Conv2d") == left(log, "ReLU") == 22


def test_mobilenet_v2_has_no_add_left_and_project_and_expand_merged(zoo: ModuleType) -> None:
    log = fuse(zoo.models.mobilenet_v2())
    assert left(log, "add") == left(log, "BatchNorm") == 0
    assert Counter(f.rule for f in log.fired)["conv-after-conv-wide"] >= 16


@pytest.mark.parametrize(
    ("name", "norms", "side"),
    [
        pytest.param("densenet121", 62, 64, id="DenseNet: pre-activation norms behind a concatenation stay"),
        pytest.param("googlenet", 0, 64, id="GoogLeNet"),
        pytest.param("inception_v3", 0, 96, id="Inception v3"),
        pytest.param("shufflenet_v2_x0_5", 0, 64, id="ShuffleNet v2"),
        pytest.param("regnet_y_400mf", 0, 64, id="RegNet"),
        pytest.param("efficientnet_b0", 0, 64, id="EfficientNet"),
        pytest.param("timm:mobileone_s0", 0, 64, id="MobileOne"),
        pytest.param("timm:res2net50_14w_8s", 0, 64, id="Res2Net"),
        pytest.param("convnext_tiny", 0, 64, id="ConvNeXt"),
    ],
)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_norms_are_folded_and_refusals_explained(zoo: ModuleType, name: str, norms: int, side: int) -> None:
    if name.startswith("timm:"):
        model = pytest.importorskip("timm").create_model(name[5:])
    else:
        model = getattr(zoo.models, name)(**({"init_weights": False} if name in ("googlenet", "inception_v3") else {}))
    log = fuse(model, side)
    assert left(log, "BatchNorm") == norms
    assert all(r.node and len(r.reason) > 10 for r in log.refused)
    if norms:
        explained = {r.node for r in log.refused if r.rule in ("affine-before-layer", "norm-after-layer")}
        assert len(explained) >= norms
