"""Multiply-adds against figures worked out by hand."""

from __future__ import annotations

import pytest

from fupruner.graph.layer_shape import LayerShape


@pytest.mark.parametrize(
    ("layer", "macs"),
    [
        (LayerShape("conv", (16, 32, 32), (16, 32, 32), (3, 3), (1, 1), (1, 1), (1, 1)), 16 * 16 * 9 * 1024),
        (LayerShape("conv", (32, 8, 8), (32, 4, 4), (3, 3), (2, 2), (1, 1), (1, 1), groups=32), 32 * 9 * 16),
        (LayerShape("conv", (8, 10), (4, 8), (3,), (1,), (0,), (1,), groups=2), 4 * 4 * 3 * 8),
        (LayerShape("conv_transpose", (8, 4, 4), (6, 8, 8), (2, 2), (2, 2), (0, 0), (1, 1)), 8 * 6 * 4 * 16),
        (LayerShape("linear", (64,), (10,)), 640),
        (LayerShape("linear", (5, 64), (5, 10)), 3200),
        (LayerShape("add", (16, 8, 8), (16, 8, 8), inputs=2), 0),
    ],
)
def test_macs_are_those_worked_out_by_hand(layer: LayerShape, macs: int) -> None:
    assert layer.macs == macs
