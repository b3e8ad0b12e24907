"""What turns gradients into steps: momentum alone, or momentum whose kernels take orthogonal steps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

import torch
from torch import Tensor, nn
from torch.optim import SGD

from fupruner.errors import InputError
from fupruner.options import OptimizerName

MOMENTUM = 0.9
KERNEL_MOMENTUM = 0.6
"""Of kernels that take orthogonal steps, as in Jordan's training of small CIFAR-10 networks (github.com/KellerJordan/cifar10-airbench)."""
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
"""Of the quintic Newton-Schulz iteration, from the same author (kellerjordan.github.io/posts/muon)."""

_DENSE = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


def make_optimizer(model: nn.Module, weight_decay: float, name: OptimizerName = "sgd") -> SGD:
    """An optimizer over all parameters that require gradients.

    Args:
        model: what is trained.
        weight_decay: of matrices and kernels alone; those that take orthogonal steps have none, see :class:`Muon`.
        name: ``sgd`` for Nesterov momentum 0.9 everywhere; ``muon`` for orthogonal steps of dense kernels.

    Raises:
        InputError: there is nothing to train, or no optimizer of that name.
    """
    if name not in get_args(OptimizerName):
        raise InputError(f"Unknown optimizer {name!r}.", hint=f"Known: {', '.join(get_args(OptimizerName))}.")
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not trained:
        raise InputError("The model has no parameter that requires a gradient, so there is nothing to train.")
    kernels = {id(kernel) for kernel in _dense_kernels(model)} if name == "muon" else set()
    rest = [parameter for parameter in trained if id(parameter) not in kernels]
    groups: list[dict[str, Any]] = [
        {"params": [parameter for parameter in rest if parameter.ndim > 1], "weight_decay": weight_decay},
        {"params": [parameter for parameter in rest if parameter.ndim <= 1], "weight_decay": 0.0},
        {"params": [p for p in trained if id(p) in kernels], "weight_decay": 0.0, "orthogonal": True},
    ]
    kind = Muon if kernels else SGD
    return kind([group for group in groups if group["params"]], lr=0.0, momentum=MOMENTUM, nesterov=True)


class Muon(SGD):
    """Momentum whose kernels move by orthogonal matrices, sized by the kernels themselves.

    A gradient's momentum is mostly made of a few directions; here a kernel, laid out as a matrix (filters, the rest), takes a step
    whose singular values are all alike (Muon), so that every direction learns. The step's norm is the learning rate times the
    kernel's own norm, as in LARS (arXiv 1708.03888), so one rate suits every layer, and weight decay is not needed. Kernels are those
    of parameter groups marked ``orthogonal``; all others take the steps of SGD.

    ``torch.optim.Muon`` is for matrices alone and refuses kernels of convolutions.
    """

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Take one step with the gradients that are there, or that the closure makes; what an orthogonal kernel had is used up."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for kernel in group["params"] if group.get("orthogonal") else ():
                if kernel.grad is not None:
                    self._turn(kernel, kernel.grad, group["lr"])
                    kernel.grad = None  # so that SGD passes it over
        super().step()
        return loss

    def _turn(self, kernel: Tensor, gradient: Tensor, rate: float) -> None:
        state = self.state[kernel]
        if "kernel_momentum" not in state:
            state["kernel_momentum"] = torch.zeros_like(kernel)
        momentum = state["kernel_momentum"].mul_(KERNEL_MOMENTUM).add_(gradient)
        direction = orthogonal(gradient.add(momentum, alpha=KERNEL_MOMENTUM).flatten(1)).view_as(kernel)
        size = kernel.norm()
        length = torch.where(size > 0, size, 1.0) / direction.norm().clamp_min(torch.finfo(torch.float32).tiny)
        kernel.sub_(direction * (rate * length))


def orthogonal(matrix: Tensor) -> Tensor:
    """About the nearest matrix whose singular values are all 1; a zero matrix stays one.

    The quintic iteration X <- a X + (b A + c A A) X with A = X X^T brings every singular value above a fiftieth of the
    matrix's norm to between 0.4 and 1.4, which is all that a step needs, in few matrix products.

    Args:
        matrix: (rows, columns), float32.
    """
    a, b, c = COEFFICIENTS
    tall = matrix.shape[0] > matrix.shape[1]
    found: Tensor = matrix.T if tall else matrix
    found = found / found.norm().clamp_min(torch.finfo(torch.float32).tiny)
    for _ in range(ITERATIONS):
        gram = found @ found.T
        found = a * found + (b * gram + c * gram @ gram) @ found
    return found.T if tall else found


def _dense_kernels(model: nn.Module) -> Iterator[Tensor]:
    """Weights in which every filter sees every channel: those of depthwise and grouped convolutions are many small matrices."""
    for module in model.modules():
        if isinstance(module, _DENSE) and module.weight.requires_grad and getattr(module, "groups", 1) == 1:
            yield module.weight
