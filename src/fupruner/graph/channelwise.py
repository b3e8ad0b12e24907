"""Layers that treat channels differently; only what PyTorch itself does not have.

They export to plain ONNX operators and are traced back into themselves.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ChannelClip(nn.Module):
    """Clips every channel (axis 1) to bounds of its own; infinite bounds let a channel pass unchanged.

    Args:
        low, high: (C,) bounds.
    """

    low: Tensor
    high: Tensor

    def __init__(self, low: Tensor, high: Tensor) -> None:
        super().__init__()
        self.register_buffer("low", low.detach().clone())
        self.register_buffer("high", high.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """Clip ``x`` (N, C, ...)."""
        shape = (1, -1, *[1] * (x.dim() - 2))
        return torch.minimum(torch.maximum(x, self.low.view(shape)), self.high.view(shape))

    def extra_repr(self) -> str:
        """How many channels pass unchanged."""
        free = int((torch.isinf(self.low) & torch.isinf(self.high)).sum())
        return f"{len(self.low)}, free={free}"


class ReservedNorm(nn.Module):
    """A batch norm that leaves some channels alone, in training and in evaluation alike.

    Channels that fusion reserved carry a shortcut: normalising them by batch statistics would change what it carries.

    Args:
        norm: batch norm over all C channels.
        reserved: (C,) which channels pass unchanged.
    """

    reserved: Tensor

    def __init__(self, norm: nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d, reserved: Tensor) -> None:
        super().__init__()
        self.norm = norm
        self.register_buffer("reserved", reserved.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``x`` (N, C, ...)."""
        if self.training:
            return torch.where(self.reserved.view(1, -1, *[1] * (x.dim() - 2)), x, self.norm(x))
        norm = self.norm
        scale, shift = self.affine()
        # in evaluation one plain batch norm, so that a captured graph shows one
        return nn.functional.batch_norm(
            x, torch.zeros_like(shift), torch.ones_like(scale), scale, shift, False, norm.momentum or 0.0, 0.0
        )

    def affine(self, dtype: torch.dtype | None = None) -> tuple[Tensor, Tensor]:
        """Scale and shift (C,) in evaluation: one and zero for reserved channels; computed in ``dtype`` if it is given."""
        norm = self.norm
        assert norm.running_mean is not None  # noqa: S101 - made with statistics
        assert norm.running_var is not None  # noqa: S101
        scale = norm.weight * torch.rsqrt(norm.running_var.to(dtype or norm.running_var.dtype) + norm.eps)
        shift = norm.bias - norm.running_mean * scale
        return torch.where(self.reserved, torch.ones_like(scale), scale), torch.where(
            self.reserved, torch.zeros_like(shift), shift
        )

    def extra_repr(self) -> str:
        """How many channels pass unchanged."""
        return f"reserved={int(self.reserved.sum())}"
