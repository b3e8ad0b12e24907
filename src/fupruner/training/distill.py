"""Learning from another network's outputs beside the labels."""

from __future__ import annotations

import copy
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from fupruner.training.features import FeatureLoss
from fupruner.training.modes import stop_training
from fupruner.training.outputs import lay_flat
from fupruner.training.task import Predict, Task

SOFT_SHARE = 0.9
FEATURE_WEIGHT = 5.0


class Objective(Protocol):
    """What training minimises."""

    def __call__(self, model: Predict, batch: Any, left: float = 1.0) -> Tensor:
        """A scalar, from a batch and the share of the training that is still to come."""


def distilled(
    task: Task,
    teacher: Predict,
    *,
    soft_share: float = SOFT_SHARE,
    features: FeatureLoss | None = None,
    feature_weight: float = FEATURE_WEIGHT,
) -> Objective:
    """A task's loss mixed with the distance from a teacher's outputs and feature maps, on the same augmented inputs.

    Args:
        task: gives the hard part of the loss, and the distance between outputs.
        teacher: see :func:`frozen_copy`.
        soft_share: weight of the soft part; the hard part has the rest.
        features: distance of the maps of the forward pass just made; none if None.
        feature_weight: what it is multiplied by at first before it is added. It falls in a straight line to 0 at the end: maps
            tell most while much is broken, and later they keep a smaller network from going about it in its own way.
    """

    def objective(model: Predict, batch: Any, left: float = 1.0) -> Tensor:
        outputs: list[Any] = []

        def recorded(inputs: Tensor) -> Any:
            outputs.append(model(inputs))
            return outputs[-1]

        hard = task.loss(recorded, batch)
        with torch.no_grad():
            target = teacher(task.inputs(batch))
        soft = task.distance(lay_flat(outputs[0]), lay_flat(target))
        loss = soft_share * soft + (1 - soft_share) * hard
        return loss if features is None else loss + left * feature_weight * features()

    return objective


def frozen_copy(teacher: nn.Module, device: torch.device | str) -> nn.Module:
    """A copy of a network that only predicts, laid out for speed; the given one is left alone."""
    copied = copy.deepcopy(teacher).requires_grad_(False)
    stop_training(copied)
    return copied.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]
