"""Pools, clean-ups, permutations of channels, upsampling."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from helpers import fired, fused, kinds, reasons
from strategies import Shuffle, Upsample

X = torch.randn(2, 4, 12, 14)
ODD = torch.randn(1, 4, 13, 11, dtype=torch.float64)


def only_rule(log: object) -> str:
    [name] = fired(log)  # type: ignore[arg-type]
    return name


@pytest.mark.parametrize(
    "pool",
    [
        nn.AvgPool2d(2),
        nn.AdaptiveAvgPool2d(3),
        nn.AvgPool2d(3, 2, 1, count_include_pad=False),
        nn.AvgPool2d(2, ceil_mode=True),
    ],
)
def test_average_pool_moves_before_1x1(pool: nn.Module) -> None:
    graph, log = fused(nn.Sequential(nn.Conv2d(4, 6, 1), pool), X, "basic", ODD)
    assert only_rule(log) == "pool-before-pointwise"
    assert log.after.macs < log.before.macs
    assert next(n for n in graph.graph.nodes if n.op == "call_module").all_input_nodes[0].op == "placeholder"


@pytest.mark.parametrize(
    ("pool", "reason"),
    [
        (nn.AvgPool2d(3, 2, 1), "it counts zeros at the border, which have no bias"),
        (nn.AvgPool2d(2, divisor_override=3), "its divisor is not the number of pixels"),
    ],
)
def test_average_pool_stays_behind_a_bias(pool: nn.Module, reason: str) -> None:
    _, log = fused(nn.Sequential(nn.Conv2d(4, 6, 1), pool), X, "basic", without=["conv-before-pool"])
    assert reason in reasons(log, "pool-before-pointwise")


def test_average_pool_merges_into_conv_before_it() -> None:
    graph, log = fused(nn.Sequential(nn.Conv2d(4, 6, 3, padding=1), nn.AvgPool2d(2)), X, "basic", ODD)
    assert only_rule(log) == "conv-before-pool"
    assert kinds(graph) == {"Conv2d": 1}


def test_average_pool_merges_into_conv_behind_it_aggressively() -> None:
    model = nn.Sequential(nn.AvgPool2d(2, divisor_override=3), nn.Conv2d(4, 6, 1))
    assert not fused(model, X, "basic")[1].fired
    graph, log = fused(model, X, "aggressive", ODD)
    assert only_rule(log) == "pool-into-filters"
    assert kinds(graph) == {"Conv2d": 1}


@pytest.mark.parametrize(
    ("pool", "conv", "reason"),
    [
        (nn.AvgPool2d(2, ceil_mode=True), nn.Conv2d(4, 6, 1), "in ceil mode its last window depends on the image size"),
        (nn.AvgPool2d(3, 2, 1, count_include_pad=False), nn.Conv2d(4, 6, 1), "its border windows average fewer pixels"),
        (nn.AvgPool2d(2), nn.Conv2d(4, 6, 3, padding=1), "zeros inside are not zeros outside"),
        (nn.AvgPool2d(5), nn.Conv2d(4, 6, 1), "25.00 times the work"),
    ],
)
def test_average_pool_refuses(pool: nn.Module, conv: nn.Module, reason: str) -> None:
    _, log = fused(nn.Sequential(pool, conv), X, "aggressive")
    assert reason in reasons(log, "pool-into-filters")


def test_average_pool_becomes_depthwise_on_request() -> None:
    graph, _ = fused(nn.Sequential(nn.ReLU(), nn.AvgPool2d(3, 2, 1)), X, "basic", ODD, only=["pool-as-depthwise"])
    assert kinds(graph) == {"ReLU": 1, "Conv2d": 1}


def test_activation_moves_to_the_conv_before_a_max_pool() -> None:
    graph, log = fused(nn.Sequential(nn.Conv2d(4, 6, 3), nn.MaxPool2d(3, 2, 1), nn.ReLU()), X, "basic", ODD)
    assert only_rule(log) == "activation-before-pool"
    assert [
        type(m).__name__
        for m in (graph.get_submodule(str(n.target)) for n in graph.graph.nodes if n.op == "call_module")
    ] == ["Conv2d", "ReLU", "MaxPool2d"]


def test_activation_that_is_not_monotone_stays() -> None:
    assert not fused(nn.Sequential(nn.Conv2d(4, 6, 3), nn.MaxPool2d(2), nn.SiLU()), X, "basic")[1].fired
    _, log = fused(nn.Sequential(nn.Conv2d(4, 6, 3), nn.MaxPool2d(2), nn.LeakyReLU(-0.5)), X, "basic")
    assert "does not keep order" in reasons(log, "activation-before-pool")


class Idle(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        x = (x * 1 + 0).reshape(x.shape[0], 4, -1, x.shape[3]).permute(0, 1, 2, 3)
        return torch.relu(torch.sigmoid(x)).permute(0, 2, 3, 1).permute(0, 3, 1, 2)


def test_operators_that_do_nothing_go_away() -> None:
    graph, _ = fused(
        nn.Sequential(nn.Dropout(), nn.AvgPool2d(1), Idle(), nn.MaxPool2d(1), nn.Dropout2d()), X, "basic", ODD
    )
    assert kinds(graph) == {"Sigmoid": 1}


def test_dirac_conv_goes_away() -> None:
    for groups in (1, 2, 4):
        conv = nn.Conv2d(4, 4, 3, padding=1, groups=groups, bias=False)
        nn.init.dirac_(conv.weight, groups)
        assert kinds(fused(nn.Sequential(conv, nn.Sigmoid()), X, "basic")[0]) == {"Sigmoid": 1}


def test_dirac_conv_with_a_stride_stays() -> None:
    conv = nn.Conv2d(4, 4, 3, 2, padding=1, bias=False)
    nn.init.dirac_(conv.weight)
    assert kinds(fused(nn.Sequential(conv, nn.Sigmoid()), X, "basic")[0])["Conv2d"] == 1


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ((nn.ReLU(), nn.ReLU()), {"ReLU": 1}),
        ((nn.ReLU(), nn.MaxPool2d(2), nn.ReLU()), {"ReLU": 1, "MaxPool2d": 1}),
        ((nn.ReLU(), nn.ReLU6()), {"ReLU6": 1}),
        ((nn.ReLU6(), nn.ReLU()), {"ReLU6": 1}),
        ((nn.Hardtanh(-1, 2), nn.Hardtanh(0, 5)), {"Hardtanh": 1}),
        ((nn.Sigmoid(), nn.ReLU6()), {"Sigmoid": 1}),
        ((nn.Tanh(), nn.ReLU()), {"Tanh": 1, "ReLU": 1}),
        ((nn.AvgPool2d(3, 1, 1), nn.ReLU()), {"AvgPool2d": 1, "ReLU": 1}),
    ],
)
def test_clips_in_a_row(layers: tuple[nn.Module, ...], expected: dict[str, int]) -> None:
    assert kinds(fused(nn.Sequential(*layers), 3 * X, "basic")[0]) == expected


class Index(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("order", torch.tensor([2, 0, 3, 1]))

    def forward(self, x: Tensor) -> Tensor:
        return torch.index_select(x, 1, self.order)


@pytest.mark.parametrize(
    "permutation", [Shuffle(2), Shuffle(1), Index(), nn.ChannelShuffle(2)], ids=["reshape", "flip", "index", "layer"]
)
@pytest.mark.parametrize("where", ["before", "behind", "past a depthwise"])
def test_channel_permutation_disappears_into_weights(permutation: nn.Module, where: str) -> None:
    depthwise = nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.Hardswish(), nn.Conv2d(4, 6, 3))
    layers = {"before": (nn.ReLU(), permutation, nn.Conv2d(4, 6, 3)), "behind": (nn.Conv2d(4, 4, 3), permutation, nn.Sigmoid()),
              "past a depthwise": (nn.ReLU(), permutation, depthwise)}[where]  # fmt: skip
    graph, log = fused(nn.Sequential(*layers), X, "basic")
    assert fired(log)["permutation-into-weights"] >= 1
    assert set(kinds(graph)) <= {"Conv2d", "ReLU", "Sigmoid", "Hardswish"}


def test_channel_permutation_refuses() -> None:
    class Halves(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            a, b = x.chunk(2, 1)
            return a * b

    _, log = fused(nn.Sequential(nn.ReLU(), Shuffle(2), Halves()), X, "basic")
    assert "it is read by chunk, which would have to gather channels" in reasons(log, "permutation-into-weights")
    _, log = fused(nn.Sequential(nn.ReLU(), Shuffle(2), nn.Conv2d(4, 4, 3, groups=2)), X, "basic")
    assert "is grouped: it cannot read its channels in another order" in reasons(log, "permutation-into-weights")


@pytest.mark.parametrize(
    "conv", [nn.Conv2d(4, 6, 3, padding=1), nn.Conv2d(4, 6, 5, padding=1), nn.Conv2d(4, 8, 3, groups=2)]
)
def test_upsampling_and_conv_become_a_transposed_conv(conv: nn.Module) -> None:
    graph, log = fused(nn.Sequential(nn.ReLU(), Upsample(), conv), X, "basic", ODD)
    assert kinds(graph) == {"ReLU": 1, "ConvTranspose2d": 1}
    assert log.after.macs < log.before.macs


def test_1x1_moves_before_upsampling() -> None:
    _, log = fused(nn.Sequential(nn.ReLU(), Upsample(), nn.Conv2d(4, 6, 1)), X, "basic", ODD)
    assert only_rule(log) == "upsample-into-conv"
    assert log.after.macs * 4 == log.before.macs


def test_upsampling_before_a_strided_conv_is_refused() -> None:
    _, log = fused(nn.Sequential(nn.ReLU(), Upsample(), nn.Conv2d(4, 6, 3, 2)), X, "basic")
    assert "it has a stride, a dilation or uneven sides" in reasons(log, "upsample-into-conv")


@pytest.mark.parametrize(
    ("features", "x"),
    [
        (nn.Sequential(nn.ReLU(), nn.Flatten()), X),
        (nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), X),
        (nn.Flatten(), X[:, :, 0]),
    ],
    ids=["image", "one pixel", "row"],
)
def test_linear_layer_becomes_a_convolution_on_request(features: nn.Module, x: Tensor) -> None:
    model = nn.Sequential(features, nn.Linear(features(x).shape[1], 5, bias=False))
    assert not fired(fused(model, x, "aggressive")[1])["linear-as-conv"]
    graph, log = fused(model, x, "basic", only=["linear-as-conv"])
    assert only_rule(log) == "linear-as-conv"
    assert kinds(graph)["Linear"] == 0
    assert log.after.macs == log.before.macs


def test_linear_layer_as_a_convolution_takes_in_what_is_before_it() -> None:
    model = nn.Sequential(nn.Conv2d(4, 8, 3), nn.Flatten(), nn.Linear(8 * 10 * 12, 3))
    graph, log = fused(model, X, "basic", only=["linear-as-conv", "conv-after-conv"])
    assert kinds(graph) == {"Conv2d": 1, "Flatten": 1}
    assert log.after.macs < log.before.macs
    pooled = nn.Sequential(nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(4 * 6 * 7, 3))
    graph, _ = fused(pooled, X, "aggressive", only=["linear-as-conv", "pool-into-filters"])
    assert kinds(graph) == {"ReLU": 1, "Conv2d": 1, "Flatten": 1}


def test_linear_layer_that_is_called_twice_stays() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4 * 12 * 14, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x.flatten(1)) + self.linear(torch.relu(x).flatten(1))

    _, log = fused(Twice(), X, "basic", only=["linear-as-conv"])
    assert "is called more than once" in reasons(log, "linear-as-conv")
