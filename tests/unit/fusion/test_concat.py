from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from helpers import fired, fused, kinds, reasons

IMAGE = (2, 4, 9, 8)


class Concat(nn.Module):
    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


def conv(out: int, kernel: int, activation: nn.Module | None = None, **options: int) -> nn.Module:
    options.setdefault("padding", kernel // 2)
    layer = nn.Conv2d(4, out, kernel, **options)  # type: ignore[arg-type]
    return layer if activation is None else nn.Sequential(layer, activation)


def test_equal_windows_stack() -> None:
    graph, log = fused(
        Concat(conv(3, 3, nn.ReLU()), conv(5, 3, nn.ReLU()), conv(2, 3, nn.ReLU())), torch.randn(IMAGE), "basic"
    )
    assert kinds(graph) == {"Conv2d": 1, "ReLU": 1}
    assert fired(log) == {"concat-stack": 2}


def test_neighbours_stack_and_the_rest_stays_in_order() -> None:
    graph, _ = fused(Concat(nn.MaxPool2d(3, 1, 1), conv(3, 3), conv(5, 3), nn.Identity()), torch.randn(IMAGE), "basic")
    assert kinds(graph) == {"Conv2d": 1, "cat": 1, "MaxPool2d": 1}


def test_1x1_beside_3x3_is_aggressive() -> None:
    graph, log = fused(Concat(conv(8, 1, nn.ReLU()), conv(8, 3, nn.ReLU())), torch.randn(IMAGE), "basic")
    assert kinds(graph)["Conv2d"] == 2
    assert "would do 1.80 times the work" in reasons(log, "concat-stack")
    graph, log = fused(Concat(conv(8, 1, nn.ReLU()), conv(8, 3, nn.ReLU())), torch.randn(IMAGE), "aggressive")
    assert kinds(graph) == {"Conv2d": 1, "ReLU": 1}
    assert fired(log) == {"concat-stack-wide": 1}


@pytest.mark.parametrize(
    ("branches", "reason"),
    [
        pytest.param((conv(3, 3, nn.ReLU()), conv(3, 3)), "different activations follow", id="one activation"),
        pytest.param(
            (conv(3, 3, nn.LeakyReLU(0.1)), conv(3, 3, nn.LeakyReLU(0.2))), "different activations follow", id="slopes"
        ),
        pytest.param(
            (conv(3, 3, dilation=2, padding=2), conv(3, 3)), "dilations (2, 2) and (1, 1) differ", id="dilations"
        ),
    ],
)
def test_refuses(branches: tuple[nn.Module, ...], reason: str) -> None:
    graph, log = fused(Concat(*branches), torch.randn(IMAGE), "aggressive")
    assert kinds(graph)["Conv2d"] == 2
    assert reason in reasons(log, "concat-stack")


class Tapped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = conv(3, 3), conv(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        return torch.cat([y, self.b(x)], 1).sum(1, keepdim=True) + y


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = conv(4, 3), conv(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.a(torch.relu(torch.cat([self.a(x), self.b(x)], 1)[:, ::2]))


def test_refuses_conv_that_others_read() -> None:
    _, log = fused(Tapped(), torch.randn(IMAGE), "basic")
    assert "a is read by 2 operators" in reasons(log, "concat-stack")


def test_refuses_conv_called_twice() -> None:
    _, log = fused(Twice(), torch.randn(IMAGE), "basic")
    assert "a is called more than once" in reasons(log, "concat-stack")


def test_same_input_stacks_on_request_only() -> None:
    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = conv(3, 1), conv(4, 1), conv(2, 1)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            return torch.sigmoid(self.a(x)), torch.relu(self.b(x)), self.c(x)

    assert not fused(Heads(), torch.randn(IMAGE), "aggressive")[1].fired
    graph, log = fused(Heads(), torch.randn(IMAGE), "basic", only=["same-input-stack"])
    assert kinds(graph)["Conv2d"] == 1
    assert fired(log) == {"same-input-stack": 2}
