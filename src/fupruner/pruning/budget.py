"""Budgets: what a plan has to stay within, and what layers cost in that currency."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from fupruner.errors import InputError, unknown_name
from fupruner.graph.layer_shape import LayerShape
from fupruner.records import Grade
from fupruner.targets.cost_model import CostModel

BudgetKind = Literal["speedup", "latency_ms", "macs", "params", "bytes"]
BYTES = {"float32": 4, "float16": 2, "int8": 1}


@dataclass(frozen=True)
class Budget:
    """What to stay within.

    Attributes:
        kind: ``speedup`` over the baseline's predicted time, ``latency_ms`` predicted at batch 1, ``macs`` (multiply-adds at
            batch 1), ``params``, or ``bytes`` of weights as shipped (what has to fit on the chip).
        value: at most so much; at least so much for ``speedup``.

    Raises:
        InputError: the kind is unknown, or the value is out of range.
    """

    kind: BudgetKind
    value: float

    def __post_init__(self) -> None:
        if self.kind not in get_args(BudgetKind):
            raise unknown_name("budget", self.kind, get_args(BudgetKind))
        if not (math.isfinite(self.value) and self.value > (1 if self.kind == "speedup" else 0)):
            least = "more than 1" if self.kind == "speedup" else "positive"
            raise InputError(f"The budget {self.kind} is {self.value}; it must be {least}.")

    def limit(self, baseline: float) -> float:
        """The most that a plan may cost, in the currency of the budget."""
        return baseline / self.value if self.kind == "speedup" else self.value

    @property
    def of_time(self) -> bool:
        """Whether the target's cost model is asked."""
        return self.kind in ("speedup", "latency_ms")

    def __str__(self) -> str:
        return f"speed-up {self.value:.3f}" if self.kind == "speedup" else f"{self.kind} {self.value:g}"


class SizeModel(CostModel):
    """Prices layers by size instead of time: multiply-adds, parameters or bytes of weights.

    Args:
        kind: ``macs``, ``params`` or ``bytes``.
        precision: of weights as shipped, for bytes.
    """

    grade: Grade = "estimated"
    source = "counted"

    def __init__(self, kind: str, precision: str = "float32") -> None:
        self.kind, self.width = kind, BYTES.get(precision, 4)

    def price(self, layers: Sequence[LayerShape]) -> list[float]:
        """Size of each layer, in the order given."""
        if self.kind == "macs":
            return [float(layer.macs) for layer in layers]
        return [float(weights(layer) * (self.width if self.kind == "bytes" else 1)) for layer in layers]


def weights(layer: LayerShape) -> int:
    """Weights and biases of a layer, norms folded."""
    if layer.kind == "linear":
        return layer.out_shape[-1] * (layer.in_shape[-1] + 1)
    if layer.kind not in ("conv", "conv_transpose"):
        return 0
    return math.prod(layer.kernel) * layer.in_shape[0] * layer.out_shape[0] // layer.groups + layer.out_shape[0]
