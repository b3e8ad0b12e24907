"""Learning from another network's feature maps: at the end of each stage, where both networks have the same channels.

A stage is what works at one resolution. Its last layer holds all that the rest of the network will see, so a pruned network
that reproduces it there has lost nothing up to there, and it is told so long before the logits tell (FitNets,
arXiv 1412.6550). Channels that the student no longer has are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from fupruner.graph.shapes import shape_of

Hints = Mapping[str, Tensor | None]
"""Names of layers that teacher and student have in common, each with the indices of the teacher's channels that the student
still has, in the student's order; None where it has all."""


def stage_ends(graph_module: fx.GraphModule) -> tuple[str, ...]:
    """Names of the last layer at each resolution, in graph order; maps of one pixel do not count.

    Args:
        graph_module: a graph whose shapes were propagated; maps are (N, C, H, W).
    """
    last: dict[tuple[int, ...], str] = {}
    for node in graph_module.graph.nodes:
        if node.op != "call_module":
            continue
        shape = shape_of(node)
        if len(shape) == 4 and max(shape[2:]) > 1:
            last[shape[2:]] = str(node.target)
    return tuple(dict.fromkeys(last.values()))


@contextmanager
def recorded(module: nn.Module, names: Iterable[str]) -> Iterator[dict[str, Tensor]]:
    """A dictionary that holds what the named layers gave in the latest forward pass."""
    outputs: dict[str, Tensor] = {}

    def keep(name: str, _: nn.Module, __: object, output: Tensor) -> None:
        outputs[name] = output

    handles = [module.get_submodule(name).register_forward_hook(partial(keep, name)) for name in names]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


@dataclass(frozen=True)
class FeatureLoss:
    """How far a student's maps lie from a teacher's.

    Attributes:
        student: maps (N, C', H, W) by layer, as ``recorded`` fills them in.
        teacher: maps (N, C, H, W) by layer.
        hints: which layers, and which of the teacher's channels.
    """

    student: Mapping[str, Tensor]
    teacher: Mapping[str, Tensor]
    hints: Hints

    def __call__(self) -> Tensor:
        """Mean squared error divided by the teacher's mean square, summed over the layers; a scalar, 0 where maps agree."""
        return torch.stack([self._of(name, kept) for name, kept in self.hints.items()]).sum()

    def _of(self, name: str, kept: Tensor | None) -> Tensor:
        wanted = self.teacher[name].detach().float()
        if kept is not None:
            wanted = wanted[:, kept]
        return F.mse_loss(self.student[name].float(), wanted) / wanted.square().mean().clamp_min(1e-12)
