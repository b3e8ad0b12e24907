"""Least squares for one layer: the change of its weights that brings its outputs closest to wanted ones.

For a layer with inputs x (rows, d) and what is missing at its outputs r (rows, o), the change D (o, d) and c (o,) solves

    min  |D x + c - r|^2 + ridge * mean(diag(G)) * |D|^2,     G = (x - mean x)' (x - mean x)

so nothing missing means no change at all. A grouped convolution is as many independent problems as it has groups.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ROWS = 30_000
"""Positions that are looked at for one layer, spread over all images; at least four for each unknown of an output."""
WIDEST = 2304
"""Unknowns of one output up to which they are solved for together."""


@dataclass
class NormalEquations:
    """Sums over rows, in float64, of one problem per group.

    Attributes:
        xx: (g, d, d) products of inputs.
        xr: (g, d, o) products of inputs with what is missing.
        x, r: (g, d) and (g, o) sums.
        rows: how many there were.
    """

    xx: Tensor | float = 0.0
    xr: Tensor | float = 0.0
    x: Tensor | float = 0.0
    r: Tensor | float = 0.0
    rows: int = 0

    def add(self, x: Tensor, r: Tensor) -> None:
        """Count rows in: inputs ``x`` (rows, g, d), missing ``r`` (rows, g, o)."""
        x, r = x.transpose(0, 1), r.transpose(0, 1)  # (g, rows, d), (g, rows, o)
        self.xx = self.xx + (x.mT @ x).double()
        self.xr = self.xr + (x.mT @ r).double()
        self.x, self.r = self.x + x.sum(1).double(), self.r + r.sum(1).double()
        self.rows += x.shape[1]

    def solve(self, ridge: float) -> tuple[Tensor, Tensor]:
        """The change of weights (g, o, d) and of biases (g, o)."""
        assert isinstance(self.x, Tensor)  # noqa: S101 - rows were counted in
        assert isinstance(self.r, Tensor)  # noqa: S101
        mean_x, mean_r = self.x / self.rows, self.r / self.rows
        gram = self.xx - self.rows * mean_x.unsqueeze(2) * mean_x.unsqueeze(1)
        cross = self.xr - self.rows * mean_x.unsqueeze(2) * mean_r.unsqueeze(1)
        scale = gram.diagonal(dim1=1, dim2=2).mean(1).clamp_min(1e-12)
        gram = gram + (ridge * scale)[:, None, None] * torch.eye(gram.shape[1], dtype=gram.dtype, device=gram.device)
        change = torch.linalg.solve(gram, cross).mT
        return change, mean_r - (change @ mean_x.unsqueeze(2)).squeeze(2)


def solvable(module: nn.Module | None) -> bool:
    """Whether a layer is one that least squares can change: linear, or a convolution over images with zero padding."""
    if isinstance(module, nn.Conv2d):
        return module.padding_mode == "zeros" and not isinstance(module.padding, str)
    return isinstance(module, nn.Linear)


def unknowns(module: Any) -> int:
    """Weights behind one output of a layer."""
    return int(module.weight[0].numel())


def rows_of(module: Any, x: Tensor, r: Tensor, share: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Rows of a layer's problem from a batch.

    Args:
        module: the layer.
        x: input of the layer, (N, C, H, W) or (N, ..., C).
        r: what is missing at its output, (N, O, H', W') or (N, ..., O).
        share: of the positions that are taken, at random.
        generator: draws them.

    Returns:
        Inputs (rows, g, d), d being taps of the kernel by channels, and missing outputs (rows, g, o).
    """
    if isinstance(module, nn.Linear):
        x, r = x.flatten(0, -2), r.flatten(0, -2)
        chosen = _choose(len(x), share, generator)
        return x[chosen].unsqueeze(1), r[chosen].unsqueeze(1)
    image, position = _places(len(x), r.shape[2] * r.shape[3], share, generator)
    windows = _windows(module, x, image, position, r.shape[3]).unflatten(2, (module.groups, -1))  # (rows, taps, g, C/g)
    return windows.movedim(2, 1).flatten(2), r.flatten(2)[image, :, position].unflatten(1, (module.groups, -1))


def weights_of(module: Any, change: Tensor) -> Tensor:
    """What was solved for rows of a layer's problem, (g, o, d), in the shape of its weights."""
    change = change.flatten(0, 1)
    return change if isinstance(module, nn.Linear) else change.unflatten(1, (*module.kernel_size, -1)).movedim(-1, 1)


def _places(images: int, length: int, share: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A share of the positions of each image: which image and which of its positions, (rows,) each."""
    chosen = torch.stack([_choose(length, share, generator) for _ in range(images)])
    return torch.arange(images).repeat_interleave(chosen.shape[1]), chosen.flatten()


def _windows(module: Any, x: Tensor, image: Tensor, position: Tensor, width: int) -> Tensor:
    """What a convolution reads for positions of its output, (rows, taps, C); only these are gathered, since they are few.

    Args:
        module: the convolution.
        x: its input, (N, C, H, W).
        image: of each row.
        position: of each row in the output, counted along lines.
        width: of the output.
    """
    (down, right), (high, wide), (over, beside) = module.stride, module.padding, module.dilation
    padded = F.pad(x, (wide, wide, high, high)).movedim(1, -1).contiguous()
    lines, line = padded.shape[1:3]
    corner = (image * lines + position // width * down) * line + position % width * right
    rows, columns = (torch.arange(size) for size in module.kernel_size)
    taps = (rows[:, None] * over * line + columns * beside).flatten()
    read = padded.flatten(0, 2).index_select(0, (corner[:, None] + taps).flatten())
    return read.view(len(corner), len(taps), -1)


def rows_of_channels(
    module: Any, x: Tensor, wanted: Tensor, share: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Rows for the smaller problem of wide layers: each wanted input channel from the channels that are there.

    Args:
        module: the layer.
        x: (N, C', H, W) or (N, ..., C') what the layer reads now.
        wanted: what of the original's input is missing, (N, C, H, W) or (N, ..., C).
        share: of the positions that are taken, at random.
        generator: draws them.
    """
    if isinstance(module, nn.Conv2d):
        x, wanted = x.movedim(1, -1), wanted.movedim(1, -1)
    x, wanted = x.flatten(0, -2), wanted.flatten(0, -2)
    chosen = _choose(len(x), share, generator)
    return x[chosen].unsqueeze(1), wanted[chosen].unsqueeze(1)


def _choose(length: int, share: float, generator: torch.Generator) -> Tensor:
    if share >= 1:
        return torch.arange(length)
    return torch.randperm(length, generator=generator)[: max(1, round(share * length))]
