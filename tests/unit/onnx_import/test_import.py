"""Files as exporters write them: names, shared layers, batches, precisions, several inputs, whole networks."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto
from torch import Tensor, nn

import fupruner
from fupruner.errors import InputError
from fupruner.graph import edit
from fupruner.graph.trace import trace
from fupruner.onnx_import import import_onnx
from fupruner.onnx_import.names import LayerNames, dotted, scope
from fupruner.targets.onnx_file import write_onnx
from unit.onnx_import.files import model_of, node, random, saved


class Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = (
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.Conv2d(channels, channels, 3, padding=1),
        )
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(x + self.conv2(self.relu(self.conv1(x))))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.layer1 = nn.Conv2d(3, 8, 3, stride=2), nn.Sequential(Block(8), Block(8))
        self.twice, self.fc = nn.Conv2d(8, 8, 1), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.twice(torch.relu(self.twice(self.layer1(self.stem(x)))))
        return self.fc(x.mean((2, 3)).view(x.shape[0], -1))


@pytest.mark.parametrize(
    ("name", "op", "expected"),
    [
        ("/layer1/layer1.0/conv1/Conv", "Conv", "layer1.0.conv1"),
        ("/features/features.1/features.1.0/Conv_2", "Conv", "features.1.0"),
        ("/layer1/layer1.0/Add", "Add", "layer1.0"),
        ("Conv_12", "Conv", ""),
        ("model/block:1/conv2d", "Conv", "model.block:1.conv2d"),
    ],
)
def test_scope_of_a_node(name, op, expected):
    assert scope(node(op, name=name)) == expected


def test_names_of_layers_are_free_and_can_be_reached():
    nodes = [
        node("Conv", "x w", "a", "/block/Conv"),
        node("Relu", "a", "b", "/block/act/Relu"),
        node("Relu", "b", "c", "/block/act/Relu_1"),
    ]
    names = LayerNames(nodes, ["w"])
    assert [names.of(n) for n in nodes] == ["block.conv", "block.act", "block.act_1"]
    assert (dotted("a:0.forward..x/y"), dotted("")) == ("a_0.forward_.x_y", "layer")


def test_layers_have_the_names_of_the_exported_modules_and_sharing_is_kept(tmp_path: Path):
    net = Net().eval()
    write_onnx(net, (torch.randn(2, 3, 16, 16),), tmp_path / "net.onnx")
    module = import_onnx(tmp_path / "net.onnx").module
    names = {name for name, layer in module.named_modules() if list(layer.parameters(recurse=False))}
    assert names == {"stem", "layer1.0.conv1", "layer1.0.conv2", "layer1.1.conv1", "layer1.1.conv2", "twice", "fc"}
    graph = trace(module, torch.randn(2, 3, 16, 16))
    assert graph.meta["dynamic_batch"]
    assert "twice" in edit.shared_modules(graph)
    x = torch.randn(3, 3, 16, 16)
    torch.testing.assert_close(graph(x), net(x), rtol=1e-4, atol=1e-5)


def test_layer_from_several_operators_has_the_name_of_its_module(tmp_path: Path):
    net = nn.Sequential(OrderedDict(body=nn.Sequential(nn.Conv2d(3, 4, 3), nn.SiLU()), last=nn.Hardswish())).eval()
    write_onnx(net, (torch.randn(2, 3, 8, 8),), tmp_path / "net.onnx")
    module = import_onnx(tmp_path / "net.onnx").module
    assert {name for name, layer in module.named_modules() if type(layer).__module__.startswith("torch.nn")} >= {
        "body.0",
        "body.1",
        "last",
    }


def test_batch_that_was_fixed_is_freed_where_it_only_sits_in_shapes(tmp_path: Path):
    nodes = [node("Conv", "x w", "a"), node("Resize", "a - - r", "u"), node("Reshape", "u s", "b"), node("Gemm", "b v")]
    constants = {
        "w": random(4, 3, 3, 3),
        "r": np.array([1, 4, 12, 16]),
        "s": np.array([1, -1]),
        "v": random(4 * 12 * 16, 5),
    }
    imported = import_onnx(saved(model_of(nodes, shape=(1, 3, 8, 10), constants=constants), tmp_path))
    assert (imported.notes, imported.input_shape) == ((), (3, 8, 10))
    assert imported.module(torch.randn(3, 3, 8, 10)).shape == (3, 5)
    assert trace(imported.module, torch.randn(1, 3, 8, 10)).meta["dynamic_batch"]


def test_batch_of_one_that_cannot_be_freed_is_told_and_held(tmp_path: Path):
    nodes = [node("Reshape", "x s", "a"), node("Relu", "a")]
    imported = import_onnx(saved(model_of(nodes, shape=(1, 3), constants={"s": np.array([3])}), tmp_path))
    assert imported.notes == (
        "model.onnx works with a batch of 1 only; export it with a free batch axis for any other.",
    )
    assert trace(imported.module, torch.randn(1, 3)).meta["dynamic_batch"] is False
    with pytest.raises(InputError, match="exported for a batch of 1 only; it was given 2"):
        imported.module(torch.randn(2, 3))


def test_any_other_batch_that_cannot_be_freed_is_refused(tmp_path: Path):
    path = saved(model_of([node("Add", "x c")], shape=(2, 3), constants={"c": random(2, 3)}), tmp_path)
    with pytest.raises(InputError, match=r"works with a batch of 2 only\.\nExport it with a free batch axis\."):
        import_onnx(path)


@pytest.mark.parametrize(
    ("kind", "name", "dtype"),
    [(TensorProto.FLOAT16, "float16", np.float16), (TensorProto.DOUBLE, "float64", np.float64)],
)
def test_other_precisions_are_imported_in_float32_and_told(tmp_path: Path, kind, name, dtype):
    nodes = [
        node("Conv", "x w", "a"),
        node("Cast", "a", "b", to=kind),
        node("Constant", "", "k", value=onnx.numpy_helper.from_array(np.array(2, dtype))),
        node("Mul", "b k"),
    ]
    imported = import_onnx(
        saved(model_of(nodes, kind=kind, constants={"w": random(4, 3, 3, 3).astype(dtype)}), tmp_path)
    )
    assert imported.notes == (f"model.onnx holds {name} numbers; the network is imported in float32.",)
    assert imported.module(torch.randn(2, 3, 8, 10)).dtype == torch.float32


def test_several_inputs_and_outputs(tmp_path: Path):
    nodes = [node("Mul", "x z", "t"), node("Relu", "t", "y"), node("Add", "x z", "u")]
    imported = import_onnx(saved(model_of(nodes, inputs=("x", "z"), outputs=("y", "u")), tmp_path))
    x, z = torch.randn(2, 2, 3, 8, 10)
    torch.testing.assert_close(imported.module(x, z), (torch.relu(x * z), x + z))
    assert trace(imported.module, (x, z)).meta["dynamic_batch"]
    with pytest.raises(InputError, match=r"takes 2 inputs \(x, z\), not 1"):
        imported.module(x)


def test_open_image_size_leaves_the_input_shape_open(tmp_path: Path):
    nodes = [node("Conv", "x w", "a", auto_pad="SAME_UPPER", strides=[2, 2]), node("GlobalAveragePool", "a")]
    imported = import_onnx(
        saved(model_of(nodes, shape=("n", 3, "h", "w"), constants={"w": random(4, 3, 3, 3)}), tmp_path)
    )
    assert (imported.input_shape, imported.notes) == (None, ())


def test_stored_numbers_train_and_computed_ones_do_not(tmp_path: Path):
    nodes = [node("Mul", "x scale", "a"), node("Neg", "shift", "s"), node("Add", "a s")]
    module = import_onnx(
        saved(model_of(nodes, constants={"scale": random(3, 1, 1), "shift": random(3, 1, 1)}), tmp_path)
    ).module
    assert [name for name, _ in module.named_parameters()] == ["scale"]
    assert [name for name, _ in module.named_buffers()] == ["s"]


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "shufflenet_v2_x0_5", "squeezenet1_1"])
def test_exported_network_is_imported_fused_and_exported_again(tmp_path: Path, zoo, name: str):
    net = zoo.models.get_model(name, weights=None).eval()
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.running_mean, 0, 0.1)
            nn.init.uniform_(layer.running_var, 0.5, 2)
    x = torch.randn(2, 3, 64, 64)
    write_onnx(net, (x,), tmp_path / "a.onnx")
    module = import_onnx(tmp_path / "a.onnx").module
    with torch.no_grad():
        expected = net(x)
        assert float((module(x) - expected).abs().max() / expected.abs().max()) < 1e-4
        result = fupruner.fuse(module, x, level="basic")
        assert float((result.module(x) - expected).abs().max() / expected.abs().max()) < 1e-4
    assert fupruner.export(result.module, x, tmp_path / "b.onnx").max_error < 1e-4
