"""Networks that cannot be fused, given on the command line as a user would: refused in words, and no file is left."""

from __future__ import annotations

import json
import sys
import textwrap
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fupruner.cli.app import app

MODELS = """
import torch
from torch import nn


class Forward(nn.Module):
    def __init__(self, function, **modules):
        super().__init__()
        self.function = function
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, x):
        return self.function(self, x)


def control_flow():
    return Forward(lambda self, x: self.c(x) if x.sum() > 0 else self.c(-x), c=nn.Conv2d(3, 4, 1))


def changes_itself():
    def counts(self, x):
        self.c.weight.data.add_(1)
        return self.c(x)

    return Forward(counts, c=nn.Conv2d(3, 4, 1))


def complex_weights():
    return Forward(lambda self, x: self.c(x + 0j).real, c=nn.Conv2d(3, 4, 1, dtype=torch.complex64))


def quantised():
    layer = nn.Conv2d(3, 4, 1)
    layer.register_buffer("extra", torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8))
    return layer


def nan_weights():
    layer = nn.Conv2d(3, 4, 1)
    nn.init.constant_(layer.weight, float("nan"))
    return nn.Sequential(layer, nn.ReLU())


def negative_variance():
    norm = nn.BatchNorm2d(4)
    norm.running_var.fill_(-1)
    return nn.Sequential(nn.Conv2d(3, 4, 1), norm)


def empty():
    return nn.Identity()


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)

    def forward(self, x):
        return self.norm(self.conv(torch.relu(self.conv(x))))


def shared():
    return Shared()
"""


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "models_of_a_user.py").write_text(textwrap.dedent(MODELS))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "models_of_a_user", raising=False)
    return "models_of_a_user"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("control_flow", "cannot be captured as a graph"),
        ("changes_itself", "changes its own c.weight when it is called in eval mode"),
        ("complex_weights", "c.weight of Forward is complex"),
        ("quantised", "extra of Conv2d is quantised"),
        ("nan_weights", "0.weight of Sequential holds NaN or infinite values"),
        ("negative_variance", "1.running_var holds -1: a variance below zero"),
        ("empty", "is an empty graph"),
    ],
)
def test_model_is_refused_in_words(models: str, tmp_path: Path, name: str, message: str) -> None:
    out = tmp_path / "fused.onnx"
    result = CliRunner().invoke(app, ["fuse", f"{models}:{name}", "--input-shape", "3x8x8", "--out", str(out)])
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.stderr.split())
    assert "Traceback" not in result.output
    assert result.stdout == ""
    assert not out.exists()


def test_shared_convolution_stays_and_the_reason_is_told(models: str) -> None:
    result = CliRunner().invoke(app, ["fuse", f"{models}:shared", "--input-shape", "3x8x8", "--json"])
    assert result.exit_code == 0, result.output
    log = json.loads(result.stdout)
    assert log["after"]["operators"]["BatchNorm2d"] == 1
    assert "conv is called more than once or shares its weights" in {refusal["reason"] for refusal in log["refused"]}
