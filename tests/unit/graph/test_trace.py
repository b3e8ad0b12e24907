from __future__ import annotations

from types import ModuleType

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

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
    def asks_for_the_batch(self: nn.Module, x: Tensor) -> Tensor:
        return x * 2 if x.shape[0] > 1 else x

    model = Forward(asks_for_the_batch)
    assert symbolic.capture_symbolically(model, (X,)) is None
    assert_same_function(model, trace(model, X), X)


def _branch_on_a_size(self: nn.Module, x: Tensor) -> Tensor:
    _, channels, rows, columns = x.shape
    return F.pad(x, (0, columns % 3)) if rows > 4 and channels == x.size(1) else x


def _mask_of_a_size(self: nn.Module, x: Tensor) -> Tensor:
    mask = x.new_zeros(x.shape[2:])
    mask[1:, ::2] = 1
    return x + mask.masked_fill(mask == 0, -1.0)


def _unpack(self: nn.Module, x: Tensor) -> Tensor:
    a, b, c = self.conv(x).repeat(1, 3, 1, 1).unflatten(1, (3, 4)).unbind(1)
    return a + torch.roll(b, (1, 1), (2, 3)) * c[..., 1:, :].mean((2, 3), keepdim=True)


def _constant_layer(self: nn.Module, x: Tensor) -> Tensor:
    bias = self.conv(torch.ones(1, 4, 1, 1) * self.conv.bias.view(1, -1, 1, 1))
    return x + torch.clamp(bias, max=1.0).exp()


def _norms(self: nn.Module, x: Tensor) -> Tensor:
    return F.normalize(x, dim=1) + x.norm(p=2, dim=(2, 3), keepdim=True) + F.adaptive_max_pool2d(x, 1)


def _join_a_list(self: nn.Module, x: Tensor) -> Tensor:
    return torch.cat(torch.split(x, 1, 1), 2) + torch.stack(x.unbind(1)).sum()


def _batch_in_zeros(self: nn.Module, x: Tensor) -> Tensor:
    ones = torch.ones((x.shape[0], 1, x.shape[2], 1), device=x.device, dtype=x.dtype)
    return x + ones.cumsum(2)


def _write_to_a_slice_nobody_else_reads(self: nn.Module, x: Tensor) -> Tensor:
    y = torch.cat([self.conv(x), x], 1)[:, :4]
    y += x
    return y


@pytest.mark.parametrize(
    "function",
    [
        _branch_on_a_size,
        _mask_of_a_size,
        _unpack,
        _norms,
        _join_a_list,
        _batch_in_zeros,
        _write_to_a_slice_nobody_else_reads,
    ],
)
def test_code_that_asks_for_sizes_is_traced_without_the_exporter(
    function: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fupruner.graph.trace.capture", None)
    model = randomize(Forward(function, conv=nn.Conv2d(4, 4, 1)))
    graph = trace(model, X)
    assert graph.meta["dynamic_batch"]
    for x in (X, X[:1], torch.randn(5, *X.shape[1:])):
        assert_same_function(model, graph, x)


def test_layers_of_constants_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fupruner.graph.trace.capture", None)
    model = randomize(Forward(_constant_layer, conv=nn.Conv2d(4, 4, 1))).double()
    graph = trace(model, X.double())
    assert "Conv2d" not in kinds(graph)
    assert_same_function(model, graph, X.double())


def test_library_functions_marked_as_opaque_are_traced_through(
    monkeypatch: pytest.MonkeyPatch, zoo: ModuleType
) -> None:
    monkeypatch.setattr("fupruner.graph.trace.capture", None)
    x = torch.randn(2, 3, 64, 64)
    model = zoo.models.swin_transformer.SwinTransformer([4, 4], 12, [2, 2], [1, 2], [7, 7], num_classes=5)
    assert_same_function(model.eval(), trace(model, x), x)


def test_attention_modules_are_traced_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fupruner.graph.trace.capture", None)
    model = Forward(
        lambda self, x: self.mha(x, x, x, need_weights=False)[0], mha=nn.MultiheadAttention(8, 2, batch_first=True)
    )
    x = torch.randn(2, 5, 8)
    assert_same_function(model.eval(), trace(model, x), x)


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
        pytest.param(nn.Conv2d(5, 4, 1), "to have 5 channels, but got 4 channels", id="another number of channels"),
        pytest.param(
            Forward(lambda self, x: self.c.weight.sum(), c=nn.Conv2d(4, 4, 1)),
            "its output is its input or a constant",
            id="constant",
        ),
        pytest.param(nn.LazyConv2d(4, 1), "has no values yet", id="lazy"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_bad_models_are_refused_in_words_and_nothing_else(
    model: nn.Module, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(TraceError, match=message):
        trace(model, X)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("variance", "refused"), [(-1e-3, True), (0.0, False), (-5e-6, False)])
def test_negative_variances_are_refused_where_their_norm_gives_nan(variance: float, refused: bool) -> None:
    model = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)).eval()
    model[1].running_var[2] = variance
    if not refused:
        assert torch.isfinite(trace(model, X)(X)).all()
        return
    with pytest.raises(TraceError, match=r"1\.running_var holds -0\.001: a variance below zero, whose norm gives NaN"):
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


def test_random_numbers_are_not_taken_for_constants() -> None:
    graph = trace(Forward(lambda self, x: self.c(x) + torch.randn(9, 8), c=nn.Conv2d(4, 4, 1)), X)
    assert not torch.equal(graph(X), graph(X))


def test_frequencies_pass_through_complex_numbers_and_stay() -> None:
    model = Forward(lambda self, x: torch.fft.ifft2(torch.fft.fft2(self.c(x))).real, c=nn.Conv2d(4, 4, 1))
    assert_same_function(model, trace(model, X), X)
