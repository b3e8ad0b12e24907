"""What tests share: comparing two networks, the named tolerances, networks with non-trivial norm statistics."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from fupruner.fusion.fuse import fuse_graph
from fupruner.graph.text import kind_of
from fupruner.graph.trace import trace
from fupruner.records import FusionLog

FLOAT64 = 1e-9
"""Largest relative difference in float64 of networks that compute the same function."""
FLOAT32 = 1e-4
"""The same in float32, after weights were rounded once."""


def relative_difference(expected: Any, actual: Any) -> float:
    """Largest absolute difference over all outputs, relative to the largest output."""
    left, left_spec = pytree.tree_flatten(expected)
    right, right_spec = pytree.tree_flatten(actual)
    assert left_spec == right_spec
    worst = 0.0
    for a, b in zip(left, right, strict=True):
        assert a.shape == b.shape, f"{tuple(a.shape)} became {tuple(b.shape)}"
        assert torch.isfinite(b).all()
        worst = max(worst, float((a - b).abs().max()) / max(float(a.abs().max()), 1e-30))
    return worst


@torch.no_grad()
def assert_same_function(expected: nn.Module, actual: nn.Module, *inputs: Tensor, tolerance: float = FLOAT64) -> None:
    """Both networks, in eval mode and float64, give the same on the inputs."""
    left, right = (copy.deepcopy(m).double().eval() for m in (expected, actual))
    double = tuple(x.double() if x.is_floating_point() else x for x in inputs)
    difference = relative_difference(left(*double), right(*double))
    assert difference <= tolerance, f"outputs differ by {difference:.3g}"


@torch.no_grad()
def randomize(model: nn.Module) -> nn.Module:
    """Give norms statistics and affine weights, and convolutions biases, that are not the trivial ones."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
            if module.running_mean is not None and module.running_var is not None:
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.5, 1.5)
            if module.weight is not None:
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.3)
        elif isinstance(module, nn.Conv2d) and module.bias is not None:
            module.bias.normal_(0, 0.3)
    return model.eval()


def fused(
    model: nn.Module, x: Tensor, level: str = "aggressive", *others: Tensor, **options: Any
) -> tuple[fx.GraphModule, FusionLog]:
    """Trace and fuse a model in float64, and check the result on the example, on another batch size and on ``others``."""
    randomize(model).double()
    x = x.double() if x.is_floating_point() else x
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    result, log = fuse_graph(trace(model, x), (x,), level, **options)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items()), (
        "the model given was changed"
    )
    for tried in (x, torch.cat([x, x.flip(0), x]), *others):
        assert_same_function(model, result, tried)
    return result, log


def kinds(graph_module: fx.GraphModule) -> Counter[str]:
    """Layers and operators by type."""
    return Counter(
        kind_of(graph_module, node) for node in graph_module.graph.nodes if node.op in ("call_module", "call_function")
    )


def fired(log: FusionLog) -> Counter[str]:
    """Rules that fired, with counts."""
    return Counter(f.rule for f in log.fired)


def reasons(log: FusionLog, rule: str) -> str:
    """Everything that a rule refused, in one string."""
    return "\n".join(r.reason for r in log.refused if r.rule == rule)
