"""IR for the sticks: what the Model Optimizer writes is read, and refused where it is something else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from fupruner.errors import TargetError
from fupruner.targets.myriad import optimizer
from fupruner.targets.myriad.target import ncs2

IR = """<?xml version="1.0"?>
<net name="m" version="{version}"><layers>
  <layer id="0" name="w" type="Const"><data element_type="{element}" shape="4,3,3,3" offset="0" size="216"/></layer>
  <layer id="1" name="axes" type="Const"><data element_type="i64" shape="2" offset="216" size="16"/></layer>
</layers></net>
"""


def test_ir_10_in_half_precision_is_taken(tmp_path: Path) -> None:
    (tmp_path / "m.xml").write_text(IR.format(version="10", element="f16"))
    optimizer.require_ir(tmp_path / "m.xml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (IR.format(version="11", element="f16"), r"wrote net version 11 .* asked for IR 10 in FP16"),
        (IR.format(version="10", element="f32"), r"constants \['f32', 'i64'\]; asked for IR 10 in FP16"),
        ("<html/>", "wrote html version None"),
        ("no xml", "wrote something that is no IR"),
    ],
)
def test_other_ir_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "m.xml").write_text(text)
    with pytest.raises(TargetError, match=message):
        optimizer.require_ir(tmp_path / "m.xml")


def test_without_the_optimizer_nothing_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUPRUNER_CACHE_DIR", str(tmp_path))
    assert not optimizer.installed()
    with pytest.raises(TargetError, match="The environment model-optimizer is not installed"):
        optimizer.write_ir(tmp_path / "m.onnx", tmp_path)
    (tool,) = [tool for tool in ncs2().tools() if tool.name.startswith("Model Optimizer")]
    assert (tool.found, tool.get) == ("", "fupruner targets --install ncs2")


@pytest.mark.slow
@pytest.mark.skipif(not optimizer.installed(), reason="needs the Model Optimizer: fupruner targets --install ncs2")
def test_real_optimizer_writes_what_computes_the_same(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)).eval()
    result = ncs2().export(module, (torch.randn(1, 3, 16, 16),), tmp_path / "m.onnx")
    assert {file.suffix for file in result.files} >= {".onnx", ".xml", ".bin"}
    optimizer.require_ir(tmp_path / "m.xml")
    with pytest.raises(TargetError, match="Could not run mo"):
        optimizer.write_ir(tmp_path / "missing.onnx", tmp_path)
