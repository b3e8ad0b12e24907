"""How a network learns, apart from what it learns from and how fast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from fupruner.options import OptimizerName
from fupruner.training.distill import FEATURE_WEIGHT
from fupruner.training.features import Hints

Precision = Literal["bf16-mixed", "32-true"]


@dataclass(frozen=True)
class Recipe:
    """What stays the same over a training.

    Attributes:
        weight_decay: of matrices and kernels; norms and biases have none. Used by a fresh optimizer.
        precision: arithmetic; bf16 becomes float32 where the processor would only emulate it.
        seed: of dropout; order and augmentation have the task's.
        teacher: a network of the same outputs to learn from as well; it is not changed.
        hints: layers whose maps are learnt from the teacher too, see ``training.features``; without a teacher of no effect.
        hint_weight: of the maps' distance in the loss at first, see ``training.distill``.
        ema: decay of the average over the weights of all steps that is judged and kept, see ``training.average``; 0 for none.
        optimizer: name of a fresh one, see ``training.optimizers``.
    """

    weight_decay: float = 5e-4
    precision: Precision = "bf16-mixed"
    seed: int = 0
    teacher: nn.Module | None = None
    hints: Hints | None = None
    hint_weight: float = FEATURE_WEIGHT
    ema: float = 0.0
    optimizer: OptimizerName = "sgd"


def supported(precision: Precision) -> Precision:
    """The precision itself, or float32 in place of a bf16 that the processor would only emulate."""
    has_kernels = torch.backends.mkldnn.is_available()
    native = torch.cuda.is_available() or (has_kernels and torch.ops.mkldnn._is_mkldnn_bf16_supported())
    if precision == "bf16-mixed" and not native:
        return "32-true"
    return precision
