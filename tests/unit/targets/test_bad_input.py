"""What cannot be made for a device, or timed there: words, and never a wrong number."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

from fupruner.errors import TargetError
from fupruner.targets.onnx_file import write_onnx
from fupruner.targets.registry import get_target

DEVICES = ("ncs2", "ncs", "jetson-tx2", "jetson-nano")
IMAGE = torch.randn(1, 3, 16, 16)


@pytest.mark.parametrize("device", DEVICES)
def test_file_for_several_images_has_no_estimate(device: str, tmp_path: Path) -> None:
    file = tmp_path / "four.onnx"
    write_onnx(nn.Conv2d(3, 4, 3), (torch.randn(4, 3, 16, 16),), file, opset=11, dynamic_batch=False)
    for ask in (get_target(device).compare, lambda paths, inputs: get_target(device).layer_times(paths[0], inputs)):
        with pytest.raises(
            TargetError, match=r"four\.onnx takes 4 images at once; devices are timed at one\.\nExport it for one"
        ):
            ask([file], (IMAGE,))


def test_file_for_several_images_is_not_timed_here(tmp_path: Path) -> None:
    file = tmp_path / "four.onnx"
    write_onnx(nn.Conv2d(3, 4, 3), (torch.randn(4, 3, 16, 16),), file, dynamic_batch=False)
    with pytest.raises(TargetError, match="ONNX Runtime cannot run the file on input 1x3x16x16"):
        get_target("cpu").compare([file], (IMAGE,))


@pytest.mark.parametrize("device", DEVICES)
def test_shape_that_depends_on_the_data_has_no_estimate(device: str, tmp_path: Path) -> None:
    nodes = [
        helper.make_node("NonZero", ["input"], ["where"], name="find"),
        helper.make_node("Cast", ["where"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Relu", ["floats"], ["output"], name="act"),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("input", [1, 4]), ("output", None))
    ]
    file = tmp_path / "open.onnx"
    onnx.save(
        helper.make_model(
            helper.make_graph(nodes, "g", ends[:1], ends[1:]), opset_imports=[helper.make_opsetid("", 11)]
        ),
        file,
    )
    with pytest.raises(TargetError, match=r"the shape of '.*' at .* is not fixed\.\nExport with one fixed input size"):
        get_target(device).compare([file], (IMAGE,))


class Erf(nn.Module):
    """A GELU: the sticks have no Erf, TensorRT 8.2 has."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.nn.functional.gelu(self.conv(x))


@pytest.mark.parametrize("device", ["ncs2", "ncs"])
def test_operator_that_a_stick_lacks_is_named_with_layer_and_replacement(device: str, tmp_path: Path) -> None:
    with pytest.raises(
        TargetError, match=r"has no operator Erf, which layer '.*Erf' needs\.\nIn the model, use a ReLU"
    ):
        get_target(device).export(Erf(), (IMAGE,), tmp_path / "m.onnx")


@pytest.mark.parametrize("device", ["ncs2", "ncs"])
def test_network_too_large_for_a_stick_is_refused(device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fupruner.targets.myriad.target.MEMORY", 1000)
    with pytest.raises(TargetError, match=r"needs 0\.0 GB in half precision; the stick has 0\.0 GB for it"):
        get_target(device).export(nn.Conv2d(3, 8, 3), (IMAGE,), tmp_path / "m.onnx")


@pytest.mark.parametrize("device", [*DEVICES, "openvino-cpu"])
def test_network_that_only_runs_on_two_images_is_refused(device: str, tmp_path: Path) -> None:
    class Pairs(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.reshape(2, 48)[:, :4]

    target = get_target(device)
    if any(tool.needed and not tool.found for tool in target.tools()):
        pytest.skip(f"needs the tools of {device}")
    with pytest.raises(TargetError):
        target.export(Pairs(), (torch.randn(2, 3, 4, 4),), tmp_path / f"m{target.suffix}")


@pytest.mark.parametrize("name", ["cpu", "openvino-cpu", "litert-cpu", "edge-tpu"])
def test_file_that_is_something_else_is_refused(name: str, tmp_path: Path) -> None:
    target = get_target(name)
    if any(tool.needed and not tool.found for tool in target.tools()):
        pytest.skip(f"needs the tools of {name}")
    file = tmp_path / f"m{target.suffix}"
    file.write_bytes(b"not a network")
    with pytest.raises(TargetError):
        target.compare([file], (IMAGE,))
