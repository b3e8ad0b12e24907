"""A model's own memory: graphs that show it, graphs that own theirs, and nobody who writes to it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import fupruner
from fupruner.graph.borrowed import ReadOnly, WriteError, memory_of
from fupruner.graph.trace import trace

X = torch.randn(2, 4, 9, 8)


def test_a_graph_owns_its_tensors_unless_it_may_borrow_them() -> None:
    model = nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).eval().requires_grad_(False)
    lent = memory_of([*model.parameters(), *model.buffers()])
    own, borrowing = trace(model, X), trace(model, X, borrow=True)
    assert not memory_of([*own.parameters(), *own.buffers()]) & lent
    assert memory_of(borrowing.parameters()) <= lent
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert all(parameter.requires_grad for parameter in own.parameters())
    wide = nn.Sequential(nn.Conv2d(4, 64, 3), nn.ReLU(), nn.Conv2d(64, 32, 1)).eval()
    fused = fupruner.fuse(model, X).module
    pruned = fupruner.prune(wide, torch.randn(1, 4, 32, 32), ratio=0.5).module
    lent |= memory_of(wide.parameters())
    for network in (fused, pruned):
        assert not memory_of([*network.parameters(), *network.buffers()]) & lent


def test_writing_to_a_model_that_is_only_looked_at_is_stopped_before_it_happens() -> None:
    model = nn.Conv2d(1, 1, 1)
    before = model.weight.detach().clone()
    with ReadOnly(model), torch.no_grad():
        (model.weight + 1).add_(1)
        for write in (lambda: model.weight.data.mul_(2), lambda: torch.add(before, 1, out=model.weight.data)):
            with pytest.raises(WriteError):
                write()
    assert torch.equal(model.weight, before)
