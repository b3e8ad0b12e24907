"""How far a student's outputs lie from a teacher's: what distillation minimises. Several outputs count alike."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from fupruner.errors import InputError
from fupruner.training.outputs import Outputs, as_tuple

TEMPERATURE = 4.0

Distance = Callable[[Outputs, Outputs], Tensor]
"""From the student's and the teacher's outputs to a scalar, 0 where they agree."""


def distillation_loss(student: Outputs, teacher: Outputs, temperature: float = TEMPERATURE) -> Tensor:
    """How far softened predictions lie apart: the Kullback-Leibler divergence from the teacher's to the student's.

    Args:
        student: logits (N, classes, ...): one row of classes per sample, or per position of a map.
        teacher: the same.
        temperature: logits are divided by it; the result is multiplied by its square, which keeps gradients in size.

    Returns:
        Mean over samples and positions in nats, a scalar; 0 where the logits agree up to a constant.

    Raises:
        InputError: the outputs have no axis of classes, or are not as many.
    """
    return _mean(lambda own, soft: _divergence(own, soft, temperature), student, teacher)


def relative_error(student: Outputs, teacher: Outputs) -> Tensor:
    """Mean squared difference, as a share of the teacher's mean square: 1 for a student that always says 0.

    For outputs that are no logits: boxes, depths, embeddings, images.

    Args:
        student: of any shape.
        teacher: the same.

    Raises:
        InputError: the outputs are not as many.
    """
    return _mean(
        lambda own, aim: F.mse_loss(own, aim) / aim.square().mean().clamp_min(torch.finfo(aim.dtype).tiny),
        student,
        teacher,
    )


def _divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    if student.dim() < 2:
        raise InputError(
            f"Outputs of shape {tuple(student.shape)} have no axis of classes.",
            hint="Distil with training.distance.relative_error, or with a distance of your own.",
        )
    soft = F.log_softmax(teacher / temperature, dim=1)
    own = F.log_softmax(student / temperature, dim=1)
    rows = max(1, own.numel() // own.shape[1])
    return F.kl_div(own, soft, reduction="sum", log_target=True) * (temperature**2 / rows)


def _mean(distance: Callable[[Tensor, Tensor], Tensor], student: Outputs, teacher: Outputs) -> Tensor:
    own, aims = as_tuple(student), as_tuple(teacher)
    if len(own) != len(aims):
        raise InputError(f"The student gives {len(own)} outputs, the teacher {len(aims)}.")
    return torch.stack([distance(a.float(), b.float()) for a, b in zip(own, aims, strict=True)]).mean()
