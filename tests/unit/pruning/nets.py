"""Small networks, each with one structure that pruning has to understand."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from fupruner.graph import shapes
from fupruner.graph.trace import trace
from fupruner.pruning.gates import GatedNetwork, insert_gates


def randomise(model: nn.Module) -> nn.Module:
    """Give norms statistics that are far from the identity."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.3)
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
    return model.eval()


def graph_of(model: nn.Module, *shape: int) -> fx.GraphModule:
    x = torch.randn(2, *shape)
    graph = trace(randomise(model), x)
    shapes.propagate(graph, (x,))
    return graph


def gated(model: nn.Module, *shape: int) -> GatedNetwork:
    return insert_gates(graph_of(model, *shape))


def conv(i: int, o: int, k: int = 3, **more: int) -> nn.Conv2d:
    return nn.Conv2d(i, o, k, padding=k // 2, **more)


class Chain(nn.Module):
    """conv, norm, relu, conv, norm, relu, pool, linear."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.a, self.na, self.b, self.nb = (
            conv(3, width),
            nn.BatchNorm2d(width),
            conv(width, 2 * width),
            nn.BatchNorm2d(2 * width),
        )
        self.fc = nn.Linear(2 * width, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.nb(self.b(F.relu(self.na(self.a(x))))))
        return self.fc(x.mean((2, 3)))


class Residual(nn.Module):
    """A stem and two residual blocks on one stream."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.stem = conv(3, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                conv(width, width), nn.BatchNorm2d(width), nn.ReLU(), conv(width, width), nn.BatchNorm2d(width)
            )
            for _ in range(2)
        )
        self.fc = nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        for block in self.blocks:
            x = F.relu(x + block(x))
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


class PreActivation(nn.Module):
    """Norm and ReLU before the convolution: a closed channel would become a constant behind the norm."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.n1, self.a, self.n2, self.b = (
            conv(3, 16),
            nn.BatchNorm2d(16),
            conv(16, 8),
            nn.BatchNorm2d(8),
            conv(8, 16),
        )
        self.fc = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.b(F.relu(self.n2(self.a(F.relu(self.n1(x))))))
        return self.fc(x.mean((2, 3)))


class SqueezeExcite(nn.Module):
    """A sigmoid gate per channel: zero goes to one half, but it multiplies a zero."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.down, self.up, self.b = conv(3, 16), nn.Conv2d(16, 8, 1), nn.Conv2d(8, 16, 1), conv(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.a(x))
        scale = torch.sigmoid(self.up(F.relu(self.down(F.adaptive_avg_pool2d(x, 1)))))
        return self.b(x * scale)


class Shuffle(nn.Module):
    """Split, depthwise branch, concat, channel shuffle."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.point, self.depth, self.last = (
            conv(3, 16),
            nn.Conv2d(8, 8, 1),
            conv(8, 8, groups=8),
            nn.Conv2d(16, 4, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        a, b = F.relu(self.stem(x)).chunk(2, dim=1)
        x = torch.cat([a, F.relu(self.depth(self.point(b)))], 1)
        n, c, h, w = x.shape
        return self.last(x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w))


class Grouped(nn.Module):
    """A grouped convolution between two dense ones, and a flatten into a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.g, self.up, self.fc = (
            conv(3, 16),
            conv(16, 32, groups=4),
            nn.ConvTranspose2d(32, 8, 2, stride=2),
            nn.Linear(8 * 64, 6),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.relu(self.up(F.relu(self.g(F.relu(self.a(x)))))).flatten(1))


class ZeroPadded(nn.Module):
    """The parameter-free shortcut of the CIFAR networks."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b, self.fc = conv(3, 8), conv(8, 16, stride=2), conv(16, 16), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        y = self.b(F.relu(self.a(x))) + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4))
        return self.fc(F.relu(y).mean((2, 3)))


class Twice(nn.Module):
    """One convolution called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.last = conv(3, 8), conv(8, 8), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.relu(self.a(F.relu(self.a(F.relu(self.stem(x)))))))


class PixelShuffle(nn.Module):
    """Four channels make one."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = conv(3, 32), conv(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(F.pixel_shuffle(F.relu(self.a(x)), 2))


class Scaled(nn.Module):
    """A bias and a scale that are plain parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = conv(3, 16), conv(16, 4)
        self.scale, self.shift = nn.Parameter(torch.randn(16, 1, 1)), nn.Parameter(torch.randn(1, 16, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.tanh(self.a(x) * self.scale + self.shift))


class FewGroups(nn.Module):
    """Two groups of eight channels, and a transposed convolution of two groups."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.g = conv(3, 16), conv(16, 32, groups=2)
        self.up, self.last = nn.ConvTranspose2d(32, 16, 2, stride=2, groups=2), conv(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.relu(self.up(F.relu(self.g(F.relu(self.a(x)))))))


class GroupNormed(nn.Module):
    """Norms over groups of channels on a residual stream."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.na, self.b, self.nb, self.last = (
            conv(3, 16),
            nn.GroupNorm(4, 16),
            conv(16, 16),
            nn.GroupNorm(8, 16),
            conv(16, 4),
        )
        for norm in (self.na, self.nb):
            nn.init.normal_(norm.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.na(self.a(x)))
        return self.last(x + self.nb(self.b(x)))


class Attention(nn.Module):
    """Four heads of six channels from one linear layer, by hand or fused, on tokens that a norm freezes."""

    def __init__(self, fused: bool = True) -> None:
        super().__init__()
        self.patches, self.norm, self.fused = nn.Conv2d(3, 24, 2, 2), nn.LayerNorm(24), fused
        self.qkv, self.proj, self.up, self.down, self.fc = (
            nn.Linear(a, b) for a, b in ((24, 72), (24, 24), (24, 48), (48, 24), (24, 5))
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        n, t, c = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(n, t, 3, 4, 6).permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v) if self.fused else _cosine(q, k, v)
        x = x + self.proj(y.transpose(1, 2).reshape(n, t, c))
        return self.fc((x + self.down(F.gelu(self.up(self.norm(x))))).mean(1))


class PackedAttention(nn.Module):
    """PyTorch's own attention: tokens first, queries, keys and values unflattened from one linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.norm = nn.Conv2d(3, 24, 2, 2), nn.LayerNorm(24)
        self.attention, self.fc = nn.MultiheadAttention(24, 4, batch_first=True), nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.patches(x).flatten(2).transpose(1, 2))
        return self.fc((x + self.attention(x, x, x, need_weights=False)[0]).mean(1))


def _cosine(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (F.normalize(q, dim=-1) @ k.transpose(-2, -1)).softmax(-1) @ v


class CosineAttention(Attention):
    """The same with normalised queries and plain products."""

    def __init__(self) -> None:
        super().__init__(fused=False)


class PoolWithIndices(nn.Module):
    """A pool that returns a tuple, of which the first part is used."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = conv(3, 16), nn.Conv2d(16, 4, (2, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.b(F.adaptive_max_pool2d(F.relu(self.a(x)), (2, 1)))


class SplitAttention(nn.Module):
    """A convolution of two groups whose halves are weighed against each other channel by channel."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.g, self.down, self.up, self.last = (
            conv(3, 16),
            conv(16, 32, groups=2),
            nn.Conv2d(16, 8, 1),
            nn.Conv2d(8, 32, 1),
            conv(16, 4),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.g(F.relu(self.a(x))))
        n, _, h, w = x.shape
        halves = x.reshape(n, 2, 16, h, w)
        weights = (
            self.up(F.relu(self.down(halves.sum(1).mean((2, 3), keepdim=True)))).reshape(n, 2, 16, 1, 1).softmax(1)
        )
        return self.last((halves * weights).sum(1))


ALL: dict[str, tuple[type[nn.Module], tuple[int, int, int]]] = {
    cls.__name__: (cls, (3, 8, 8) if cls is not Grouped else (3, 4, 4))
    for cls in (
        Chain,
        Residual,
        PreActivation,
        SqueezeExcite,
        Shuffle,
        ZeroPadded,
        Twice,
        PixelShuffle,
        Scaled,
        Grouped,
        FewGroups,
        GroupNormed,
        Attention,
        PackedAttention,
        CosineAttention,
        PoolWithIndices,
        SplitAttention,
    )
}
