"""What a part of a graph is evaluated on: as little as shows every difference, and more where that does not fit."""

from __future__ import annotations

import pytest
import torch
from torch import fx, nn

from fupruner.fusion.region import Region, _shapes_to_try
from fupruner.fusion.rule import Context, Match
from fupruner.fusion.rules.norm_after import NormAfterLayer
from fupruner.graph.shapes import propagate
from fupruner.graph.trace import trace


def match_in(model: nn.Module, x: torch.Tensor) -> tuple[fx.GraphModule, Match]:
    """The first norm that can be folded into the layer before it."""
    graph = trace(model.eval(), x)
    propagate(graph, (x,))
    found = [NormAfterLayer().find(Context(graph), node) for node in graph.graph.nodes]
    return graph, next(each for each in found if isinstance(each, Match))


@pytest.mark.parametrize(("kernel", "expected"), [(1, (1, 3, 3, 2)), (3, (1, 3, 5, 4))])
def test_only_kernels_with_neighbours_need_larger_images(kernel: int, expected: tuple[int, ...]) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, kernel, padding=kernel // 2), nn.BatchNorm2d(4)).double()
    region = Region(*match_in(model, torch.randn(2, 3, 32, 32, dtype=torch.float64)))
    assert [tuple(value.shape) for value in region.values.values()] == [expected]


def test_sequences_are_cut_and_the_whole_comes_last() -> None:
    assert _shapes_to_try([(2, 257, 8)], (), one_image=True) == [[(2, 5, 8)], [(2, 257, 8)]]


def test_sequence_that_cannot_be_cut_is_evaluated_whole() -> None:
    model = nn.Sequential(nn.Conv1d(7, 4, 1), nn.BatchNorm1d(4)).double()  # dimension 1 holds channels here
    region = Region(*match_in(model, torch.randn(2, 7, 9, dtype=torch.float64)))
    assert [tuple(value.shape) for value in region.values.values()] == [(2, 7, 9)]
