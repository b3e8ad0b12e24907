import torch
from torch import nn

from fupruner.graph.record import graph_record
from fupruner.graph.trace import trace


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.register_buffer("shift", torch.ones(4, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.conv(x) + x) * self.shift


def test_record_lists_operators_with_what_they_read() -> None:
    inputs = (torch.randn(2, 4, 6, 5),)
    graph = trace(Residual(), inputs)
    names = [node.name for node in graph.graph.nodes]
    found = {node.kind: node for node in graph_record(graph, inputs).nodes}
    conv = found["Conv2d"]
    assert (conv.layer, conv.shape, conv.params) == ("conv", (4, 6, 5), 4 * 4 * 9)
    assert set(found["add"].inputs) == {conv.name, found["input"].name}
    assert all(kind != "get_attr" for kind in found)
    assert found["output"].inputs
    assert [node.name for node in graph.graph.nodes] == names
