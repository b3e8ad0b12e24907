"""Random small networks: what people build from convolutions, in combinations that nobody has built."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from helpers import randomize

SHARED_ACTIVATION = nn.ReLU()
"""One module that any number of layers call."""

Draw = Callable[[st.SearchStrategy[object]], object]


class Residual(nn.Module):
    """branch(x) + shortcut(x), with an activation behind it."""

    def __init__(self, branch: nn.Module, shortcut: nn.Module, activation: nn.Module) -> None:
        super().__init__()
        self.branch, self.shortcut, self.activation = branch, shortcut, activation

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.branch(x) + self.shortcut(x))


class Branches(nn.Module):
    """Branches of one input, added or concatenated."""

    def __init__(self, branches: list[nn.Module], how: str) -> None:
        super().__init__()
        self.branches, self.how = nn.ModuleList(branches), how

    def forward(self, x: Tensor) -> Tensor:
        outputs = [branch(x) for branch in self.branches]
        if self.how == "cat":
            return torch.cat(outputs, 1)
        total = outputs[0]
        for output in outputs[1:]:
            total = total + output
        return total


class ZeroPadded(nn.Module):
    """The parameter-free shortcut of CIFAR networks."""

    def __init__(self, stride: int, extra: int) -> None:
        super().__init__()
        self.stride, self.extra = stride, extra

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.pad(
            x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.extra // 2, self.extra - self.extra // 2)
        )


class Arithmetic(nn.Module):
    """Scale and shift by constants."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.rand(channels, 1, 1) + 0.5)
        self.register_buffer("shift", torch.randn(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (x * self.scale - self.shift) / 2


class Shuffle(nn.Module):
    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        return (
            x.unflatten(1, (self.groups, -1)).transpose(1, 2).flatten(1, 2) if self.groups > 1 else torch.flip(x, [1])
        )


class Twice(nn.Module):
    """One module called two times."""

    def __init__(self, module: nn.Module, between: nn.Module) -> None:
        super().__init__()
        self.module, self.between = module, between

    def forward(self, x: Tensor) -> Tensor:
        return self.module(self.between(self.module(x)))


class Upsample(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.interpolate(x, scale_factor=2, mode="nearest")


class Lifted(nn.Module):
    """A module for sequences (1) or volumes (3), run on images."""

    def __init__(self, module: nn.Module, dims: int) -> None:
        super().__init__()
        self.module, self.dims = module, dims

    def forward(self, x: Tensor) -> Tensor:
        if self.dims == 3:
            return self.module(x.unsqueeze(2)).squeeze(2)
        return self.module(x.flatten(2)).unflatten(2, (x.shape[2], x.shape[3]))


def _activation(draw: Draw) -> nn.Module:
    kinds = [
        nn.ReLU(),
        nn.ReLU(),
        nn.ReLU(inplace=True),
        nn.ReLU6(),
        nn.SiLU(),
        nn.LeakyReLU(0.1),
        nn.PReLU(),
        nn.Identity(),
        nn.Hardtanh(-0.5, 1.5),
        nn.Hardswish(),
    ]
    kinds.append(SHARED_ACTIVATION)
    return draw(st.sampled_from(kinds))  # type: ignore[return-value]


def _flag(draw: Draw) -> bool:
    return bool(draw(st.booleans()))


def _pick(draw: Draw, *values: int) -> int:
    return int(draw(st.sampled_from(values)))  # type: ignore[call-overload]


def _conv(
    draw: Draw, channels: int, out: int, *, stride: int = 1, kernel: int | None = None, same: bool = True
) -> nn.Module:
    """A convolution of any kind that keeps the image's size if ``same``."""
    kernel = kernel or _pick(draw, 1, 3, 3, 3, 5)
    dilation = _pick(draw, 1, 1, 2) if kernel == 3 else 1
    divisors = [g for g in (1, 1, 2, channels) if channels % g == 0 and out % g == 0]
    groups = _pick(draw, *divisors)
    padding = dilation * (kernel // 2) if same else _pick(draw, 0, 1)
    mode = (
        str(draw(st.sampled_from(["zeros", "zeros", "zeros", "reflect", "circular", "replicate"])))
        if padding == 1
        else "zeros"
    )
    conv = nn.Conv2d(channels, out, kernel, stride, padding, dilation, groups, bias=_flag(draw), padding_mode=mode)
    if same and stride == 1 and mode == "zeros" and _pick(draw, 0, 0, 0, 1):
        conv.padding = "same"
    layers: list[nn.Module] = [conv]
    if _flag(draw):
        layers.append(nn.BatchNorm2d(out, affine=_pick(draw, 1, 1, 0) == 1))
    return nn.Sequential(*layers)


def _plain(draw: Draw, channels: int) -> tuple[nn.Module, int]:
    out = _pick(draw, 2, 4, 6)
    layers = [_conv(draw, channels, out, stride=_pick(draw, 1, 1, 2)), _activation(draw)]
    if _pick(draw, 0, 0, 1):
        layers.insert(0, nn.BatchNorm2d(channels))
    return nn.Sequential(*layers), out


def _basic(draw: Draw, channels: int) -> tuple[nn.Module, int]:
    """A basic block with an identity, projecting or zero-padded shortcut, or a block of any number of convolutions."""
    stride = _pick(draw, 1, 1, 2)
    out = channels if stride == 1 and _flag(draw) else channels + _pick(draw, 0, 2)
    middle = _pick(draw, 2, 4, 2 * channels)
    layers = [_conv(draw, channels, middle, stride=stride), _activation(draw)]
    if _pick(draw, 0, 0, 1):
        layers += [_conv(draw, middle, middle), _activation(draw)]
    layers.append(_conv(draw, middle, out))
    if out == channels and stride == 1:
        shortcut: nn.Module = nn.Identity() if _pick(draw, 1, 1, 0) else nn.BatchNorm2d(channels)
    elif _flag(draw):
        shortcut = ZeroPadded(stride, out - channels)
    else:
        shortcut = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))
    return nn.Sequential(_activation(draw), Residual(nn.Sequential(*layers), shortcut, _activation(draw))), out


def _preactivation(draw: Draw, channels: int) -> tuple[nn.Module, int]:
    layers = [nn.BatchNorm2d(channels), nn.ReLU(), _conv(draw, channels, 4), nn.ReLU(), _conv(draw, 4, channels)]
    return nn.Sequential(
        _conv(draw, channels, channels), Residual(nn.Sequential(*layers), nn.Identity(), nn.Identity())
    ), channels


def _inverted(draw: Draw, channels: int) -> tuple[nn.Module, int]:
    wide = 2 * channels
    expand = [nn.Conv2d(channels, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU6()]
    depthwise = [nn.Conv2d(wide, wide, 3, 1, 1, groups=wide, bias=False), nn.BatchNorm2d(wide), nn.ReLU6()]
    branch = nn.Sequential(*expand, *depthwise, nn.Conv2d(wide, channels, 1), nn.BatchNorm2d(channels))
    return Residual(branch, nn.Identity(), nn.Identity()), channels


def _parallel(draw: Draw, channels: int) -> tuple[nn.Module, int]:
    stride, how = _pick(draw, 1, 1, 2), str(draw(st.sampled_from(["sum", "cat"])))
    count = _pick(draw, 2, 3)
    branches: list[nn.Module] = [_conv(draw, channels, channels, stride=stride) for _ in range(count)]
    if how == "cat" and _flag(draw):
        branches = [nn.Sequential(branch, nn.ReLU()) for branch in branches]
    if stride == 1:
        branches += [nn.BatchNorm2d(channels)] if _flag(draw) else []
        branches += [nn.Identity()] if _pick(draw, 0, 0, 1) else []
    return Branches(branches, how), channels * (len(branches) if how == "cat" else 1)


def _pooled(draw: Draw, channels: int) -> tuple[nn.Module, int]:
    pools = [nn.AvgPool2d(2), nn.AvgPool2d(3, 1, 1), nn.AvgPool2d(3, 2, 1, count_include_pad=False), nn.AvgPool2d(2, ceil_mode=True),
             nn.MaxPool2d(3, 2, 1), nn.MaxPool2d(2, 1), nn.AvgPool2d(2, divisor_override=3)]  # fmt: skip
    pool: nn.Module = draw(st.sampled_from(pools))  # type: ignore[assignment]
    layers = [_conv(draw, channels, channels, kernel=_pick(draw, 1, 1, 3)), pool, _activation(draw)]
    if _flag(draw):
        layers.insert(0, layers.pop(1))
    return nn.Sequential(*layers), channels


def _transposed(draw: Draw, channels: int) -> tuple[nn.Module, int]:
    """A transposed convolution that keeps or doubles the image, between things that fold into it or must not."""
    stride = _pick(draw, 1, 2)
    out = _pick(draw, 2, 4)
    groups = _pick(draw, *[g for g in (1, 2) if channels % g == 0 and out % g == 0])
    up = nn.ConvTranspose2d(channels, out, 3, stride, 1, stride - 1, groups=groups, bias=_flag(draw))
    layers: list[nn.Module] = [up, nn.BatchNorm2d(out) if _flag(draw) else Arithmetic(out), _activation(draw)]
    if _flag(draw):
        layers.insert(0, nn.BatchNorm2d(channels) if _flag(draw) else _conv(draw, channels, channels, kernel=1))
    layers.append(nn.MaxPool2d(stride))
    return nn.Sequential(*layers), out


def _other_ranks(draw: Draw, channels: int) -> tuple[nn.Module, int]:
    """Convolutions over sequences and volumes, with norms on either side."""
    conv: Any
    norm: Any
    dims, conv, norm = (1, nn.Conv1d, nn.BatchNorm1d) if _flag(draw) else (3, nn.Conv3d, nn.BatchNorm3d)
    groups = _pick(draw, 1, channels)
    layers = [conv(channels, channels, 3, 1, 1, groups=groups, bias=_flag(draw)), norm(channels)]
    if _flag(draw):
        layers.reverse()
    layers += [nn.ReLU(), conv(channels, channels, 1)]
    return Lifted(nn.Sequential(*layers), dims), channels


def _asymmetric(draw: Draw, channels: int) -> tuple[nn.Module, int]:
    kernels: list[tuple[tuple[int, int], tuple[int, int]]] = [((3, 3), (1, 1)), ((1, 3), (0, 1)), ((3, 1), (1, 0))]
    branches: list[nn.Module] = [
        nn.Sequential(nn.Conv2d(channels, channels, kernel, 1, padding, bias=False), nn.BatchNorm2d(channels))
        for kernel, padding in kernels[_pick(draw, 0, 1) :]
    ]
    return Branches(branches, "sum"), channels


def _normed(draw: Draw, channels: int) -> tuple[nn.Module, int]:
    """Norms without running statistics, which nothing may fold."""
    norms = [
        nn.GroupNorm(1, channels),
        nn.InstanceNorm2d(channels, affine=True),
        nn.BatchNorm2d(channels, track_running_stats=False),
    ]
    return nn.Sequential(_conv(draw, channels, channels), norms[_pick(draw, 0, 1, 2)], _activation(draw)), channels


def _odd(draw: Draw, channels: int) -> tuple[nn.Module, int]:
    """The rest: shuffles, arithmetic, shared modules, upsampling, chains without activations, padding that changes sizes."""
    pair = [
        _conv(draw, channels, channels, kernel=_pick(draw, 1, 3), same=_flag(draw)),
        _conv(draw, channels, channels, kernel=1),
    ]
    if _flag(draw):
        pair.reverse()
    choices: list[nn.Module] = [
        nn.Sequential(Shuffle(2 if channels % 2 == 0 else 1), _conv(draw, channels, channels, kernel=1)),
        nn.Sequential(_conv(draw, channels, channels), Shuffle(1), nn.Hardswish()),
        nn.Sequential(Arithmetic(channels), _conv(draw, channels, channels)),
        nn.Sequential(_conv(draw, channels, channels), Arithmetic(channels)),
        Twice(_conv(draw, channels, channels), _activation(draw)),
        nn.Sequential(Upsample(), _conv(draw, channels, channels), nn.MaxPool2d(2)),
        nn.Sequential(*pair),
        nn.Sequential(nn.Dropout(0.5), nn.ReLU(), nn.ReLU6(), nn.MaxPool2d(1)),
    ]
    return choices[_pick(draw, *range(len(choices)))], channels


_BLOCKS = (_plain, _plain, _basic, _basic, _preactivation, _inverted, _parallel, _parallel, _pooled, _odd, _odd, _transposed, _other_ranks,
           _asymmetric, _normed)  # fmt: skip


@st.composite
def networks(draw: Draw) -> tuple[nn.Module, Tensor]:
    """A network in eval mode and float64, and an input with two images."""
    torch.manual_seed(_pick(draw, *range(1000)))
    channels = first = _pick(draw, 2, 3, 4)
    blocks: list[nn.Module] = []
    for _ in range(_pick(draw, 1, 2, 3)):
        block, channels = draw(st.sampled_from(_BLOCKS))(draw, channels)  # type: ignore[operator]
        blocks.append(block)
        if channels > 24:
            break
    if _flag(draw):
        blocks += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(), nn.Linear(channels, 3)]
    side = _pick(draw, 11, 12, 13, 16)
    return randomize(nn.Sequential(*blocks)).double(), torch.randn(
        2, first, side, side + _pick(draw, 0, 1, 3), dtype=torch.float64
    )
