from __future__ import annotations

import copy
from pathlib import Path

import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from fupruner.errors import TargetError
from fupruner.targets.cpu import CpuTarget
from fupruner.targets.onnx_file import write_onnx

aten = torch.ops.aten


class Odd(nn.Module):
    """Odd sizes, groups, dilation, stride, a layer called twice, concat, slices, pads, unequal pooling windows."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 5, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(12)
        self.twice = nn.Conv2d(12, 12, 3, padding=2, dilation=2, groups=3)
        self.up = nn.ConvTranspose2d(12, 6, 3, stride=2)
        self.linear = nn.Linear(18 * 6, 7)
        nn.init.normal_(self.norm.running_mean)
        nn.init.uniform_(self.norm.running_var, 0.5, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu6(self.norm(self.stem(x)))
        x = F.hardswish(self.twice(F.leaky_relu(self.twice(x)) + x))
        y = F.pad(F.silu(self.up(x))[:, :, ::2, ::2], (0, 0, 1, 0, 0, 6))[:, 1:7]
        x = torch.cat([F.adaptive_avg_pool2d(x, (2, 3)), F.adaptive_avg_pool2d(y, (2, 3))], dim=1)
        logits: Tensor = self.linear(x.view(x.shape[0], -1))
        return logits


def aten_graph() -> fx.GraphModule:
    """What a captured network looks like where operators stay operators."""
    root = nn.Module()
    root.conv, root.linear = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(32, 5)
    graph = fx.Graph()
    x = graph.placeholder("x")
    batch = graph.call_function(aten.sym_size.int, (x, 0))
    y = graph.call_module("conv", (x,))
    y = graph.call_function(aten.add.Tensor, (y, graph.call_function(aten.relu.default, (y,))))
    y = graph.call_function(aten.slice.Tensor, (y, 2, 0, 9223372036854775807, 2))
    y = graph.call_function(aten.pad.default, (y, [0, 0, 0, 0, 2, 2]))
    y = graph.call_function(aten.slice.Tensor, (y, 1, 2, 10))
    y = graph.call_function(aten.adaptive_avg_pool2d.default, (y, [2, 2]))
    y = graph.call_function(aten.reshape.default, (y, [batch, 4, -1]))
    y = graph.call_function(aten.flatten.using_ints, (y, 1))
    graph.output(graph.call_module("linear", (y,)))
    return fx.GraphModule(root, graph)


@pytest.mark.parametrize("size", [(33, 29), (18, 24)])
def test_module_with_odd_features_is_equal_in_the_runtime(tmp_path: Path, size: tuple[int, int]) -> None:
    result = CpuTarget().export(Odd(), (torch.randn(2, 3, *size),), tmp_path / "odd.onnx")
    assert result.files == (tmp_path / "odd.onnx",)
    assert result.max_error < 1e-5


def test_graph_of_aten_operators_is_equal_in_the_runtime(tmp_path: Path) -> None:
    assert CpuTarget().export(aten_graph(), (torch.randn(1, 3, 16, 12),), tmp_path / "g.onnx").max_error < 1e-5


def test_given_module_stays_as_it_is(tmp_path: Path) -> None:
    module = Odd().double().train()
    before = copy.deepcopy(module.state_dict())
    write_onnx(module, (torch.randn(2, 3, 17, 17),), tmp_path / "odd.onnx")
    assert all(part.training for part in module.modules())
    assert all(
        torch.equal(value, before[name]) and value.dtype == before[name].dtype
        for name, value in module.state_dict().items()
    )


@pytest.mark.parametrize(("opset", "ir_version"), [(11, 6), (13, 7), (17, 8)])
def test_opset_and_ir_version_are_as_asked(tmp_path: Path, opset: int, ir_version: int) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU6())
    write_onnx(module, (torch.randn(1, 3, 8, 8),), tmp_path / "m.onnx", opset=opset)
    model = onnx.load(str(tmp_path / "m.onnx"))
    assert ([(entry.domain, entry.version) for entry in model.opset_import], model.ir_version) == (
        [("", opset)],
        ir_version,
    )
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}
    assert model.graph.node[0].name == "/0/Conv"


@pytest.mark.parametrize(("dynamic", "batch"), [(True, "batch"), (False, 2)])
def test_batch_axis_is_open_or_fixed(tmp_path: Path, dynamic: bool, batch: str | int) -> None:
    write_onnx(nn.Conv2d(3, 4, 3), (torch.randn(2, 3, 8, 8),), tmp_path / "m.onnx", dynamic_batch=dynamic)
    graph = onnx.load(str(tmp_path / "m.onnx")).graph
    for value in (graph.input[0], graph.output[0]):
        axis = value.type.tensor_type.shape.dim[0]
        assert (axis.dim_param or axis.dim_value) == batch
    assert (graph.input[0].name, graph.output[0].name) == ("input", "output")


def test_operator_without_an_onnx_form_is_named_and_the_old_file_kept(tmp_path: Path) -> None:
    class Eigen(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.linalg.eigvalsh(x)

    path = tmp_path / "m.onnx"
    path.write_text("the old file")
    with pytest.raises(TargetError, match="Operator aten::linalg_eigvalsh cannot be written as ONNX opset 17"):
        write_onnx(Eigen(), (torch.randn(1, 3, 4, 4),), path)
    assert path.read_text() == "the old file"
    assert list(tmp_path.iterdir()) == [path]


def test_module_that_fails_to_run_is_reported(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="cannot be written as ONNX opset 17"):
        write_onnx(nn.Linear(4, 2), (torch.randn(1, 3),), tmp_path / "m.onnx")


def test_several_inputs_and_outputs(tmp_path: Path) -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            return x + y, x * y

    result = CpuTarget().export(Two(), (torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)), tmp_path / "m.onnx")
    assert result.max_error < 1e-6
    assert [value.name for value in onnx.load(str(tmp_path / "m.onnx")).graph.output] == ["output_0", "output_1"]


def test_weights_that_do_not_fit_one_file_are_refused_before_they_are_copied(tmp_path: Path) -> None:
    module = nn.Linear(1, 1)
    module.weight = nn.Parameter(torch.zeros(1, 1).expand(2**29, 1))  # two gibibytes of which one number is held
    with pytest.raises(TargetError, match=r"2\.0 GiB of weights in float32; one ONNX file holds less than 2 GiB"):
        write_onnx(module, (torch.randn(1, 1),), tmp_path / "large.onnx")
    assert list(tmp_path.iterdir()) == []
