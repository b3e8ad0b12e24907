from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fupruner.errors import InputError, TraceError
from fupruner.graph import symbolic
from fupruner.graph.trace import trace
from helpers import assert_same_function, kinds, randomize

X = torch.randn(2, 4, 9, 8)


class Forward(nn.Module):
    """A module around a function."""

    def __init__(self, function: object, **modules: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)  # type: ignore[no-any-return, operator]


def _in_place_add(self: nn.Module, x: Tensor) -> Tensor:
    y = self.conv(x)
    z = y
    y += x
    return y * z


def _in_place_relu_before_shortcut(self: nn.Module, x: Tensor) -> Tensor:
    y = self.conv(x)
    return self.conv(self.relu(y)) + y


def _write_through_a_view(self: nn.Module, x: Tensor) -> Tensor:
    y = self.conv(x)
    half = y[:, :2]
    half.mul_(2)
    return y


def _batch_in_a_shape(self: nn.Module, x: Tensor) -> Tensor:
    return x.reshape(x.shape[0] * x.shape[1], -1).reshape(x.shape[0], -1)


def _index(self: nn.Module, x: Tensor) -> Tensor:
    return torch.cat([x[:, 1:3], x[:, ::2, :, 1:-1][..., :6].sum(-1, keepdim=True).expand(-1, -1, -1, 8)], 1)


def _split(self: nn.Module, x: Tensor) -> Tensor:
    a, b = x.chunk(2, dim=1)
    c, d = torch.split(x, [1, 3], dim=1)
    return torch.cat([a * b, c, d], 1)


@pytest.mark.parametrize(
    "function",
    [_in_place_add, _in_place_relu_before_shortcut, _write_through_a_view, _batch_in_a_shape, _index, _split],
)
def test_graph_computes_what_the_model_computes(function: object) -> None:
    model = Forward(function, conv=nn.Conv2d(4, 4, 3, padding=1), relu=nn.ReLU(inplace=True))
    graph = trace(model, X)
    assert_same_function(model, graph, X)
    assert_same_function(model, graph, torch.randn(5, 4, 9, 8))


def test_both_front_ends_give_the_same_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    model = randomize(nn.Sequential(nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"), nn.BatchNorm2d(6), nn.SiLU(inplace=True),
                                    nn.MaxPool2d(2), nn.Dropout(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3)))  # fmt: skip
    fast = trace(model, X)
    monkeypatch.setattr("fupruner.graph.trace.capture_symbolically", lambda model, inputs: None)
    slow = trace(model, X)
    assert kinds(fast) == kinds(slow)
    assert [n.name for n in fast.graph.nodes if n.op == "call_module"] == [
        n.name for n in slow.graph.nodes if n.op == "call_module"
    ]
    assert_same_function(fast, slow, X)


def test_what_proxies_cannot_follow_is_exported() -> None:
    def branches_on_a_shape(self: nn.Module, x: Tensor) -> Tensor:
        return x * 2 if x.shape[2] > 4 else x

    model = Forward(branches_on_a_shape)
    assert symbolic.capture_symbolically(model, (X,)) is None
    assert_same_function(model, trace(model, X), X)


def test_model_keeps_its_mode_and_its_weights() -> None:
    model = nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.Dropout()).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    graph = trace(model, X)
    assert model.training
    assert not graph.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not {t.data_ptr() for t in graph.parameters()} & {t.data_ptr() for t in model.parameters()}


def test_layers_that_share_one_weight_are_told_apart() -> None:
    a, b = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
    b.weight = a.weight
    model = nn.Sequential(a, nn.ReLU(), b)
    assert_same_function(model, trace(model, X), X)


def _control_flow(self: nn.Module, x: Tensor) -> Tensor:
    return x * 2 if x.sum() > 0 else x


class Quantised(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("w", torch.quantize_per_tensor(torch.randn(4), 0.1, 0, torch.qint8))

    def forward(self, x: Tensor) -> Tensor:
        return x


class Nan(nn.Module):
    def __init__(self, value: float, buffer: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1)
        with torch.no_grad():
            self.conv.weight[0] = value
        if buffer:
            self.conv = nn.Conv2d(4, 4, 1)
            self.register_buffer("extra", torch.tensor([value]))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        pytest.param(Forward(_control_flow), "cannot be captured as a graph", id="control flow"),
        pytest.param(nn.Identity(), "is an empty graph", id="empty graph"),
        pytest.param(Nan(float("nan"), False), "conv.weight of Nan holds NaN or infinite values", id="NaN weight"),
        pytest.param(Nan(float("inf"), False), "conv.weight of Nan holds NaN or infinite values", id="infinite weight"),
        pytest.param(Nan(float("nan"), True), "extra of Nan holds NaN or infinite values", id="NaN buffer"),
        pytest.param(nn.Conv2d(4, 4, 1, dtype=torch.complex64), "is complex", id="complex weights"),
        pytest.param(nn.LazyConv2d(4, 1), "has no values yet", id="lazy"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_bad_models_are_refused_in_words(model: nn.Module, message: str) -> None:
    with pytest.raises(TraceError, match=message):
        trace(model, X)


@pytest.mark.filterwarnings("ignore")
def test_quantised_model_is_refused() -> None:
    with pytest.raises(TraceError, match="is quantised"):
        trace(Quantised(), X)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ((), "No example input"),
        (("x",), "is a str, not a tensor"),
        ((torch.zeros(2, 4, dtype=torch.complex64),), "complex numbers"),
    ],
)
def test_bad_inputs_are_refused_in_words(inputs: tuple[object, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        trace(nn.Conv2d(4, 4, 1), inputs)  # type: ignore[arg-type]


def test_model_that_changes_its_own_parameters_is_refused() -> None:
    def counts(self: nn.Module, x: Tensor) -> Tensor:
        self.scale.data.add_(1)
        return x * self.scale

    model = Forward(counts)
    model.scale = nn.Parameter(torch.ones(1))
    before = model.scale.clone()
    with pytest.raises(TraceError, match="changes its own scale when it is called"):
        trace(model, X)
    assert torch.equal(model.scale, before)
