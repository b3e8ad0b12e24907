from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from fupruner.graph.trace import trace
from fupruner.targets import onnx_weights
from fupruner.targets.onnx_file import inference_copy, write_onnx
from fupruner.targets.runtime import name_feeds, open_session, run_session


class Mixed(nn.Module):
    """Everything that weights may meet on their way: norms behind and not, a shared layer, sequences, a transposed convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.twice = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.plain = nn.Conv2d(8, 8, (1, 3), bias=False)
        self.late = nn.BatchNorm2d(8)
        self.up = nn.ConvTranspose2d(8, 6, 2)
        self.tokens = nn.Linear(6, 5)
        self.head = nn.Linear(5, 4)
        for norm in (self.norm, self.late):
            nn.init.uniform_(norm.running_var, 0.5, 2)
            nn.init.normal_(norm.running_mean)
            nn.init.normal_(norm.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        x = self.twice(self.twice(x))
        x = self.plain(x)
        x = self.up(x + self.late(x)).flatten(2).transpose(1, 2)
        return self.head(torch.relu(self.tokens(x)).mean(1))  # type: ignore[no-any-return]


X = torch.randn(2, 3, 9, 8)


def _sizes(model: onnx.ModelProto) -> list[list[int]]:
    return sorted(list(weight.dims) for weight in model.graph.initializer)


def test_weights_past_the_exporter_make_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = trace(Mixed().eval(), X)
    before = {name: value.clone() for name, value in graph.state_dict().items()}
    files = []
    for least in (10**9, 1):
        monkeypatch.setattr(onnx_weights, "LARGE", least)
        files.append(tmp_path / f"{least}.onnx")
        write_onnx(graph, (X,), files[-1])
    usual, other = (onnx.load(file) for file in files)
    onnx.checker.check_model(other, full_check=True)
    assert [(n.op_type, n.name) for n in usual.graph.node] == [(n.op_type, n.name) for n in other.graph.node]
    assert [i.name for i in other.graph.input] == ["input"]
    assert _sizes(usual) == _sizes(other)
    first, second = (run_session(s, name_feeds(s, [X.numpy()]))[0] for s in map(open_session, files))
    np.testing.assert_allclose(first, second, atol=1e-5)
    np.testing.assert_allclose(first, graph(X).detach().numpy(), atol=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in graph.state_dict().items())
    assert "norm" in dict(graph.named_modules())  # the graph that was given still has its norms


def test_what_the_exporter_has_to_see_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_weights, "LARGE", 1)
    graph = trace(Mixed().eval(), X)
    assert set(onnx_weights.take_out(inference_copy(graph))) == {
        "stem.weight", "twice.weight", "up.weight", "tokens.weight", "head.weight",
    }  # fmt: skip
    assert onnx_weights.take_out(Mixed()) == {}


@pytest.mark.parametrize(
    ("number", "encoded"),
    [(0, b"\0"), (1, b"\1"), (127, b"\x7f"), (300, b"\xac\x02"), (2**31, b"\x80\x80\x80\x80\x08")],
)
def test_sizes_are_written_as_protobuf_does(number: int, encoded: bytes) -> None:
    assert onnx_weights._varint(number) == encoded
