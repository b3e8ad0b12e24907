from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fupruner.fusion.fuse import fuse_graph
from fupruner.graph.trace import trace
from fupruner.models.cifar_resnet import resnet20
from helpers import FLOAT32, fired, fused, kinds, randomize, reasons
from strategies import Residual, ZeroPadded

IMAGE = (2, 4, 9, 8)


def conv(a: int, b: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Module:
    layer = nn.Conv2d(a, b, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(b))


def block(*branch: nn.Module, shortcut: nn.Module | None = None, before: nn.Module | None = None) -> nn.Module:
    return nn.Sequential(before or nn.ReLU(), Residual(nn.Sequential(*branch), shortcut or nn.Identity(), nn.ReLU()))


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(block(conv(4, 6), nn.ReLU(), conv(6, 4)), id="identity"),
        pytest.param(block(conv(4, 6, stride=2), nn.ReLU(), conv(6, 8), shortcut=conv(4, 8, 1, 2)), id="projection"),
        pytest.param(block(conv(4, 6, stride=2), nn.ReLU(), conv(6, 8), shortcut=ZeroPadded(2, 4)), id="zero-padded"),
        pytest.param(block(conv(4, 6), nn.ReLU(), conv(6, 4), shortcut=nn.BatchNorm2d(4)), id="norm on the shortcut"),
        pytest.param(block(conv(4, 6), nn.ReLU(), conv(6, 4), before=nn.Identity()), id="negative values, ReLU"),
        pytest.param(block(conv(4, 6), nn.ReLU6(), conv(6, 4), before=nn.Identity()), id="negative values, ReLU6"),
        pytest.param(
            block(conv(4, 6), nn.LeakyReLU(0.2), conv(6, 4), before=nn.Identity()), id="negative values, leaky ReLU"
        ),
        pytest.param(block(conv(4, 6), nn.PReLU(), conv(6, 4), before=nn.Identity()), id="negative values, PReLU"),
        pytest.param(block(conv(4, 6), nn.ReLU6(), conv(6, 4)), id="ReLU6 around large values"),
        pytest.param(
            block(conv(4, 8, 1), nn.ReLU6(), conv(8, 8, 3, 1, 8), nn.ReLU6(), conv(8, 4, 1), before=nn.Identity()),
            id="inverted",
        ),
        pytest.param(block(conv(4, 8, 1), nn.ReLU(), conv(8, 8, 3, 1, 4), nn.ReLU(), conv(8, 4, 1)), id="grouped path"),
        pytest.param(
            block(conv(4, 9, 1), nn.ReLU(), conv(9, 9, 3, 1, 3), nn.ReLU(), conv(9, 4, 1)), id="groups filled up"
        ),
    ],
)
def test_shortcut_becomes_filters(model: nn.Module) -> None:
    graph, log = fused(model, torch.randn(IMAGE), "aggressive", torch.randn(1, 4, 12, 15, dtype=torch.float64))
    assert kinds(graph)["add"] == 0
    assert fired(log)["shortcut-into-filters"] == 1


def bottleneck() -> nn.Module:
    return block(conv(8, 2, 1), nn.ReLU(), conv(2, 2), nn.ReLU(), conv(2, 8, 1))


def test_bottleneck_is_refused_with_its_cost() -> None:
    graph, log = fused(bottleneck(), torch.randn(2, 8, 9, 8))
    assert kinds(graph)["add"] == 1
    assert "reserving 8 channels would make the branch 5.0 times as large" in reasons(log, "shortcut-into-filters")


def test_bottleneck_is_reserved_when_asked_for() -> None:
    graph, log = fused(bottleneck(), torch.randn(2, 8, 9, 8), keep={"add_tensor": range(8)})
    assert kinds(graph)["add"] == 0
    assert fired(log)["shortcut-into-filters"] == 1


def test_keep_that_leaves_out_used_channels_is_refused() -> None:
    _, log = fused(bottleneck(), torch.randn(2, 8, 9, 8), keep={"add_tensor": [0, 1, 2]})
    assert "still carries channels 3, 4, 5, 6, 7, which are not to be kept" in reasons(log, "shortcut-into-filters")


def test_channels_with_closed_gates_are_not_reserved() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mask", torch.tensor([1.0, 0, 0, 1]).view(4, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            return x * self.mask

    graph, _ = fused(block(conv(4, 6), nn.ReLU(), conv(6, 4), shortcut=Masked()), torch.randn(IMAGE))
    assert sorted(m.out_channels for m in graph.modules() if isinstance(m, nn.Conv2d)) == [4, 8]


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        pytest.param(
            block(conv(4, 6), nn.SiLU(), conv(6, 4)),
            "is not a chain of convolutions and clipping activations",
            id="SiLU",
        ),
        pytest.param(block(conv(4, 4, 3, 1, 2), nn.ReLU(), conv(4, 4)), "is a grouped convolution", id="grouped first"),
        pytest.param(
            block(nn.Sequential(nn.Conv2d(4, 6, 2), nn.ZeroPad2d((1, 0, 1, 0))), nn.ReLU(), conv(6, 4)),
            "is not a chain",
            id="pad between",
        ),
        pytest.param(
            block(conv(4, 6), nn.ReLU(), nn.Sequential(nn.ZeroPad2d(1), nn.Conv2d(6, 4, 3))),
            "is not a chain",
            id="explicit pad",
        ),
    ],
)
def test_refuses(model: nn.Module, reason: str) -> None:
    graph, log = fused(model, torch.randn(IMAGE))
    assert kinds(graph)["add"] == 1
    assert reason in reasons(log, "shortcut-into-filters")


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(2):
            x = torch.relu(x + self.b(torch.relu(self.a(x))))
        return x


def test_refuses_block_called_twice() -> None:
    graph, log = fused(Shared(), torch.randn(IMAGE))
    assert kinds(graph)["add"] == 2
    assert "a is called more than once" in reasons(log, "shortcut-into-filters")


class Preactivation(nn.Module):
    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(channels), nn.Conv2d(channels, out, 3, stride, 1, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(out), nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.project = nn.Conv2d(channels, out, 1, stride, bias=False) if stride > 1 or out != channels else None

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.norm1(x))
        shortcut = x if self.project is None else self.project(y)
        return self.conv2(torch.relu(self.norm2(self.conv1(y)))) + shortcut


def test_preactivation_network_has_no_add_and_no_norm_left() -> None:
    blocks = [Preactivation(4, 4, 1), Preactivation(4, 4, 1), Preactivation(4, 6, 2), Preactivation(6, 6, 1)]
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), *blocks, nn.BatchNorm2d(6), nn.ReLU())
    graph, log = fused(model, torch.randn(2, 3, 12, 11))
    assert kinds(graph)["add"] == 0
    assert kinds(graph)["BatchNorm2d"] == 0
    assert fired(log)["preactivation-into-filters"] == 3


def test_preactivation_block_without_conv_before_it_is_refused() -> None:
    graph, log = fused(nn.Sequential(nn.MaxPool2d(2), Preactivation(4, 4, 1)), torch.randn(IMAGE))
    assert kinds(graph)["add"] == 1
    assert "does not come from an ungrouped convolution" in reasons(log, "preactivation-into-filters")


def test_cifar_resnet20_has_no_add_and_no_norm_left() -> None:
    model = randomize(resnet20())
    x = torch.randn(2, 3, 32, 32)
    _, log = fuse_graph(trace(model, x), (x,), "aggressive")
    assert log.before.operators["add"] == 9
    assert set(log.after.operators) <= {
        "Conv2d",
        "ReLU",
        "AdaptiveAvgPool2d",
        "AvgPool2d",
        "Flatten",
        "Linear",
        "mean",
        "reshape",
    }
    assert log.max_error_float32 <= FLOAT32


def test_reserved_filters_go_back_to_an_add() -> None:
    for before in (nn.ReLU(), nn.Identity()):
        graph, _ = fused(block(conv(4, 6), nn.ReLU(), conv(6, 4), before=before), torch.randn(IMAGE))
        x = torch.randn(IMAGE, dtype=torch.float64)
        back, log = fuse_graph(graph, (x,), "basic", only=["filters-into-shortcut"])
        assert fired(log) == {"filters-into-shortcut": 1}
        assert kinds(back)["add"] == 1
        assert kinds(back)["Conv2d"] == 2
        assert kinds(back)["PReLU"] == 0


def test_projecting_filters_go_back_to_a_convolution_and_an_add() -> None:
    graph, _ = fused(block(conv(4, 6, stride=2), nn.ReLU(), conv(6, 8), shortcut=conv(4, 8, 1, 2)), torch.randn(IMAGE))
    x = torch.randn(IMAGE, dtype=torch.float64)
    back, _ = fuse_graph(graph, (x,), "basic", only=["filters-into-shortcut"])
    assert kinds(back)["add"] == 1
    assert kinds(back)["Conv2d"] == 3


def test_reserved_filters_that_moved_stay() -> None:
    graph, _ = fused(block(conv(4, 6), nn.ReLU(), conv(6, 4)), torch.randn(IMAGE))
    second = next(m for m in graph.modules() if isinstance(m, nn.Conv2d) and m.in_channels == 10)
    with torch.no_grad():
        second.weight[:, -1, 0, 0] = 0.5
    x = torch.randn(IMAGE, dtype=torch.float64)
    _, log = fuse_graph(graph, (x,), "basic", only=["filters-into-shortcut"])
    assert not log.fired
    assert "beside its centre tap" in reasons(log, "filters-into-shortcut")


def test_sum_of_convs_of_different_inputs() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a1, self.a2 = nn.Conv2d(4, 5, 3, padding=1), nn.Conv2d(5, 4, 3, padding=1)
            self.b1, self.b2 = nn.Conv2d(4, 6, 3, padding=1), nn.Conv2d(6, 4, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return self.a2(torch.relu(self.a1(x))) + self.b2(torch.relu(self.b1(x)))

    graph, log = fused(Two(), torch.randn(IMAGE))
    assert kinds(graph) == {"Conv2d": 2, "ReLU": 1}
    assert fired(log)["sum-of-convs"] == 1


def test_an_activation_that_other_blocks_call_too_is_left_to_them() -> None:
    relu = nn.ReLU()
    blocks = [block(conv(4, 6), relu, conv(6, 4), before=nn.Identity()) for _ in range(2)]
    graph, log = fused(nn.Sequential(*blocks, nn.Conv2d(4, 5, 1), relu), torch.randn(IMAGE))
    assert kinds(graph)["add"] == 0
    assert kinds(graph)["PReLU"] == 1
    assert fired(log)["shortcut-into-filters"] == 2
