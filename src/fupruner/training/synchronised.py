"""Batch norms over the whole batch where several processes hold a part of it each, on any device.

Without this every process would normalise by its own part, and the network would depend on how many processes there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fupruner.training.parallel import World


@contextmanager
def synchronised_norms(model: nn.Module, world: World) -> Iterator[None]:
    """While this lasts, batch norms in training mode take mean and variance over all processes' parts of the batch."""
    if world.size == 1:
        yield
        return
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    for norm in norms:
        vars(norm)["forward"] = _over_all(norm, norm.forward)
    try:
        yield
    finally:
        for norm in norms:
            del vars(norm)["forward"]


def _over_all(norm: _BatchNorm, alone: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def forward(x: Tensor) -> Tensor:
        if not norm.training:
            return alone(x)
        axes = [axis for axis in range(x.dim()) if axis != 1]
        shape = [-1 if axis == 1 else 1 for axis in range(x.dim())]
        values = x.float()
        count = float(_Sum.apply(values.new_tensor(values.numel() / values.shape[1])))
        mean = _Sum.apply(values.sum(axes)) / count
        centred = values - mean.view(shape)
        variance = _Sum.apply(centred.square().sum(axes)) / count
        _update(norm, mean.detach(), variance.detach() * (count / max(1.0, count - 1)))
        scale = torch.rsqrt(variance + norm.eps)
        if norm.weight is not None:
            scale = scale * norm.weight
        result = centred * scale.view(shape)
        if norm.bias is not None:
            result = result + norm.bias.view(shape)
        normalised: Tensor = result.to(x.dtype)
        return normalised

    return forward


@torch.no_grad()
def _update(norm: _BatchNorm, mean: Tensor, variance: Tensor) -> None:
    """Move the running statistics as the norm itself would."""
    if norm.running_mean is None or norm.running_var is None:
        return
    assert norm.num_batches_tracked is not None  # noqa: S101 - kept wherever statistics are
    norm.num_batches_tracked.add_(1)
    momentum = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
    norm.running_mean.lerp_(mean, momentum)
    norm.running_var.lerp_(variance, momentum)


class _Sum(torch.autograd.Function):
    """Sum over the processes; so is its gradient, because the loss is."""

    @staticmethod
    def forward(_context: Any, value: Tensor) -> Tensor:
        total = value.detach().clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(_context: Any, gradient: Tensor) -> Tensor:
        total = gradient.detach().clone().contiguous()
        dist.all_reduce(total)
        return total
