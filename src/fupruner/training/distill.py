"""Learning from another network's outputs beside the labels."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fupruner.training.features import FeatureLoss
from fupruner.training.task import Predict, Task

TEMPERATURE = 4.0
SOFT_SHARE = 0.9
FEATURE_WEIGHT = 5.0

Objective = Callable[[Predict, Any], Tensor]
"""From a model and a batch to the scalar that training minimises."""


def distillation_loss(student: Tensor, teacher: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """How far softened predictions lie apart: the Kullback-Leibler divergence from the teacher's to the student's.

    Args:
        student: logits (N, classes).
        teacher: logits (N, classes).
        temperature: logits are divided by it; the result is multiplied by its square, which keeps gradients in size.

    Returns:
        Mean over samples in nats, a scalar; 0 where the logits agree up to a constant.
    """
    soft = F.log_softmax(teacher.float() / temperature, dim=-1)
    own = F.log_softmax(student.float() / temperature, dim=-1)
    return F.kl_div(own, soft, reduction="batchmean", log_target=True) * temperature**2


def distilled(
    task: Task,
    teacher: Predict,
    *,
    temperature: float = TEMPERATURE,
    soft_share: float = SOFT_SHARE,
    features: FeatureLoss | None = None,
    feature_weight: float = FEATURE_WEIGHT,
) -> Objective:
    """A task's loss mixed with the distance from a teacher's outputs and feature maps, on the same augmented inputs.

    Args:
        task: gives the hard part of the loss.
        teacher: see :func:`frozen_copy`.
        temperature: see :func:`distillation_loss`.
        soft_share: weight of the soft part; the hard part has the rest.
        features: distance of the maps of the forward pass just made; none if None.
        feature_weight: what it is multiplied by before it is added.
    """

    def objective(model: Predict, batch: Any) -> Tensor:
        outputs: list[Tensor] = []

        def recorded(inputs: Tensor) -> Tensor:
            outputs.append(model(inputs))
            return outputs[-1]

        hard = task.loss(recorded, batch)
        with torch.no_grad():
            target = teacher(task.inputs(batch))
        soft = distillation_loss(outputs[0], target, temperature)
        loss = soft_share * soft + (1 - soft_share) * hard
        return loss if features is None else loss + feature_weight * features()

    return objective


def frozen_copy(teacher: nn.Module, device: torch.device | str) -> nn.Module:
    """A copy of a network that only predicts, laid out for speed; the given one is left alone."""
    copied = copy.deepcopy(teacher).requires_grad_(False)
    for module in copied.modules():
        module.training = False  # eval() is refused by modules of exported programs
    return copied.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]
