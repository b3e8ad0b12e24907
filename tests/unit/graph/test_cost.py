"""Sizes of layers at batch 1, wherever the batch lies."""

import torch
from torch import Tensor, nn

from fupruner.graph import cost, shapes
from fupruner.graph.trace import trace


class TokensFirst(nn.Module):
    """One linear layer on (tokens, batch, channels), one on (tokens * batch, channels)."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        y = self.a(x.transpose(0, 1)).reshape(t * n, 4)
        return self.b(y).reshape(t, n, 3).transpose(0, 1)


def test_work_is_counted_per_sample_where_tokens_come_first() -> None:
    for batch in (1, 2):
        x = torch.randn(batch, 5, 6)
        graph = trace(TokensFirst().eval(), x)
        shapes.propagate(graph, (x,))
        found = {str(layer.node.target): layer.shape for layer in cost.layer_shapes(graph)}
        assert (found["a"].in_shape, found["a"].out_shape) == ((5, 6), (5, 4))
        assert (found["b"].in_shape, found["b"].out_shape) == ((5, 4), (5, 3))
        assert cost.figures(graph).macs == 5 * 6 * 4 + 5 * 4 * 3
