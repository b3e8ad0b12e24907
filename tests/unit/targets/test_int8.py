"""Networks in int8 on this machine's processor, beside the original in float32, in each of the three runtimes."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn

from fupruner.errors import TargetError
from fupruner.graph.layer_shape import LayerShape
from fupruner.targets import local, timing
from fupruner.targets.base import Target
from fupruner.targets.onnx_int8 import is_quantised
from fupruner.targets.registry import get_target


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.inner = nn.Conv2d(16, 16, 3, padding=1)
        self.down = nn.Conv2d(16, 32, 3, stride=2, padding=1)
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        x = torch.relu(self.inner(x) + x)
        logits: Tensor = self.head(torch.relu(self.down(x)).mean((2, 3)))
        return logits


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUPRUNER_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(local, "interleave", lambda runs: timing.interleave(runs, total_seconds=0.1, least_rounds=3))


def images(count: int = 64) -> Tensor:
    """Smooth images: noise has no larger structure for a mean to keep."""
    coarse = torch.randn(count, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    return nn.functional.interpolate(coarse, size=16, mode="bilinear")


def target_here(name: str, ship: str = "int8") -> Target:
    target = get_target(name, ship)
    missing = [tool for tool in target.tools() if tool.needed and not tool.found]
    if missing:
        pytest.skip(f"needs {missing[0].name}: {missing[0].get}")
    return target


@pytest.mark.parametrize(("name", "most"), [("cpu", 0.1), ("openvino-cpu", 0.1), ("litert-cpu", 0.25)])
def test_int8_network_agrees_and_is_timed_beside_float32(name: str, most: float, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, data = Residual().eval(), images()
    target = target_here(name).adapted(module, lambda: data)
    assert target.precision == "int8"
    assert target.reference is not None
    shipped, original = tmp_path / f"m{target.suffix}", tmp_path / f"o{target.suffix}"
    result = target.export(module, (data[:2],), shipped)
    assert 1e-5 < result.max_error < most  # quantised, and not by much
    assert target.reference.export(module, (data[:2],), original).max_error < 1e-4
    with torch.no_grad():
        expected = module(data)
    found = target.predict(shipped, data)
    assert float((found - expected).abs().max() / expected.abs().max()) < most
    compared = target.compare([original, shipped], (data[:1],))
    assert compared.speedups[0] == 1
    assert {m.grade for m in compared.measurements} == {"measured"}
    layers = target.layer_times(shipped, (data[:1],))
    assert len(layers) >= 4  # what runs as one counts once, and how much does depends on the processor
    if name == "cpu":
        assert {"/stem/Conv", "/inner/Conv", "/down/Conv"} <= {layer.name for layer in layers}
    with torch.no_grad():
        module.head.weight.mul_(-2)
    with pytest.raises(TargetError, match="computes something else than the module"):
        target.verify(module, (data[:4],), shipped)


@pytest.mark.parametrize("name", ["cpu", "openvino-cpu", "litert-cpu"])
def test_int8_layers_have_prices_of_their_own(name: str) -> None:
    conv = LayerShape("conv", (16, 16, 16), (16, 16, 16), (3, 3), (1, 1), (1, 1), (1, 1), activation="relu")
    wide = LayerShape(
        "conv", (64, 16, 16), (64, 16, 16), (3, 3), (1, 1), (1, 1), (1, 1), activation="relu", fused_add=True
    )
    pool = LayerShape("re_lu", (16, 16, 16), (16, 16, 16), bias=False)
    odd = LayerShape("no_such_operator", (16, 16, 16), (16, 16, 16))
    floats, eights = (target_here(name, ship).cost_model() for ship in ("float32", "int8"))
    assert eights.source.endswith("int8")
    assert not floats.source.endswith("int8")
    for model in (floats, eights):
        narrow, broad, small, unknown = model.price([conv, wide, pool, odd])
        assert min(narrow, broad, small, unknown) > 0
    assert floats.price([conv]) != eights.price([conv])


def test_int8_file_has_scales_per_channel_and_imports_nothing_unused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    target = target_here("cpu")
    target.export(Residual().eval(), (images(8),), tmp_path / "m.onnx")
    model = onnx.load(str(tmp_path / "m.onnx"))
    assert is_quantised(model)
    assert {entry.domain for entry in model.opset_import} == {node.domain for node in model.graph.node}
    scales = {tensor.name: tensor.dims for tensor in model.graph.initializer if tensor.name.endswith("weight_scale")}
    assert sorted(tuple(dims) for dims in scales.values())[-1] == (32,)
    weights = [tensor for tensor in model.graph.initializer if tensor.name.endswith("weight_quantized")]
    assert all(abs(onnx.numpy_helper.to_array(tensor)).max() <= 64 for tensor in weights if len(tensor.dims) == 4)


def test_any_batch_runs_in_an_int8_onnx_file(tmp_path: Path) -> None:
    target = target_here("cpu")
    target.export(Residual().eval(), (images(8),), tmp_path / "m.onnx")
    assert target.predict(tmp_path / "m.onnx", images(5)).shape == (5, 10)


def test_what_does_not_agree_in_int8_is_refused(tmp_path: Path) -> None:
    class Narrow(nn.Module):
        """Most of what it sees is lost between two steps of 8 bits."""

        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)
            self.after = nn.Conv2d(4, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            wide = self.conv(x) * torch.tensor([1e5, 1.0, 1.0, 1.0]).view(1, 4, 1, 1)
            scaled: Tensor = self.after(wide * torch.tensor([0.0, 1.0, 1.0, 1.0]).view(1, 4, 1, 1))
            return scaled.mean((2, 3))

    with pytest.raises(TargetError, match=r"relative error .* allowed 0\.25\.\nCalibrate on images like those"):
        target_here("cpu").export(Narrow().eval(), (images(8),), tmp_path / "m.onnx")
