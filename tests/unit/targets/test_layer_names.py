"""Nodes of an exported file carry the names of their layers, whatever else is in the network."""

from __future__ import annotations

from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from fupruner.graph import shapes
from fupruner.graph.trace import trace
from fupruner.targets.layer_names import name_after_layers
from fupruner.targets.onnx_file import write_onnx


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn, self.relu = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(x + self.conv2(self.relu(self.bn(self.conv1(x)))))


def names(module: nn.Module, path: Path) -> list[str]:
    write_onnx(module, (torch.randn(1, 4, 6, 6),), path)
    return [node.name for node in onnx.load(str(path)).graph.node]


def test_a_traced_network_and_one_without_its_first_block_name_layers_alike(tmp_path: Path) -> None:
    blocks = nn.Sequential(Block(), Block()).eval()
    graph = trace(blocks, (torch.randn(1, 4, 6, 6),))
    shapes.propagate(graph, (torch.randn(1, 4, 6, 6),))
    sums = [node.name for node in graph.graph.nodes if "add" in node.name]
    found = names(graph, tmp_path / "a.onnx")
    assert found == [
        "/0.conv1/Conv", "/0.relu/Relu", "/0.conv2/Conv", f"/{sums[0]}/Add", "/0.relu/Relu_1",
        "/1.conv1/Conv", "/1.relu/Relu", "/1.conv2/Conv", f"/{sums[1]}/Add", "/1.relu/Relu_1",
    ]  # fmt: skip
    rest = nn.Sequential()
    rest.add_module("1", blocks[1])
    assert [n for n in names(rest.eval(), tmp_path / "b.onnx") if "Conv" in n] == ["/1.conv1/Conv", "/1.conv2/Conv"]


def test_a_layer_that_runs_twice_gets_a_number(tmp_path: Path) -> None:
    conv = nn.Conv2d(4, 4, 1)
    assert names(nn.Sequential(conv, conv).eval(), tmp_path / "a.onnx") == ["/0/Conv", "/0/Conv_1"]


def test_operators_that_layers_do_not_explain_keep_their_names() -> None:
    nodes = [
        onnx.helper.make_node("Relu", ["a"], ["b"], "/x/Relu"),
        onnx.helper.make_node("Relu", ["b"], ["c"], "/Relu_9"),
    ]
    graph = onnx.helper.make_graph(nodes, "g", [], [])
    name_after_layers(graph, {"Relu": ["only.one"]})
    assert [node.name for node in graph.node] == ["/x/Relu", "/Relu_9"]
