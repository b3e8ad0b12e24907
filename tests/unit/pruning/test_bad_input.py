"""What people get wrong when they prune: an error that says what, and never a traceback or a network that was not pruned."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fupruner
from fupruner.errors import InputError
from unit.pruning import nets
from unit.pruning.test_importance import Noise

X = torch.randn(1, 3, 8, 8)


class NoImages(Noise):
    """An empty split."""

    def calibration_batches(self, images: int) -> list[tuple[Tensor, Tensor]]:
        return []


class OnlyABranch(nn.Module):
    """No channel can go, but a branch can."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.a = nn.LayerNorm([3, 8, 8]), nets.conv(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x) + self.a(self.norm(x))


def prune(model: Callable[[], nn.Module] = nets.Chain, **how: Any) -> None:
    fupruner.prune(nets.randomise(model()), X, **how)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"ratio": 0.0}, "ratio is 0.0; it must lie between 0 and 1"),
        ({"ratio": 1.0}, "ratio is 1.0; it must lie between 0 and 1"),
        ({"ratio": float("nan")}, "ratio is nan; it must lie between 0 and 1"),
        ({"ratio": 0.001}, "A ratio of 0.001 removes nothing"),
        ({"speedup": 1.0}, "speed-up is 1.0; it must be more than 1"),
        ({"ratio": 0.5, "speedup": 2.0}, "exactly one of ratio, speedup and fit_on_chip"),
        ({"ratio": 0.5, "importance": "fischer"}, "Did you mean fisher"),
        ({"ratio": 0.5, "importance": "fisher"}, "needs data"),
        ({"ratio": 0.5, "data": Noise(shape=(1, 8, 8))}, "does not take calibration images of shape 1x1x8x8"),
        ({"ratio": 0.5, "data": Noise(shape=(8, 8))}, "does not take calibration images of shape 1x8x8"),
        ({"ratio": 0.5, "data": Noise(classes=50)}, "cannot be computed: Target .* is out of bounds"),
        ({"ratio": 0.5, "data": Noise(poison=True)}, "fisher scores are not numbers"),
        ({"ratio": 0.5, "data": NoImages()}, "There are no calibration images"),
        ({"speedup": 1.5, "data": Noise(), "plans": 0}, "plans = 0"),
    ],
)
def test_what_cannot_be_done_is_said(how: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        prune(**how)


def test_network_with_nothing_to_prune_is_refused() -> None:
    for how in ({"ratio": 0.5}, {"speedup": 1.5}):
        with pytest.raises(InputError, match="nothing to prune"):
            prune(lambda: nn.Sequential(nn.Conv2d(3, 4, 1)), **how)


def test_ratio_of_channels_where_only_branches_can_go_is_refused() -> None:
    with pytest.raises(InputError, match="removes nothing"):
        prune(OnlyABranch, ratio=0.5)


def test_fit_on_chip_needs_a_chip_and_something_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    from fupruner.targets.edge_tpu.target import EdgeTpuTarget

    with pytest.raises(InputError, match="Target cpu has no limit of what fits on its chip"):
        prune(fit_on_chip=True)
    monkeypatch.setattr(EdgeTpuTarget, "export", lambda *_: None)
    monkeypatch.setattr(EdgeTpuTarget, "compare", lambda *_, threads: SimpleNamespace(speedups=(1.0, 1.5)))
    with pytest.raises(InputError, match="The parameters fit on the chip already"):
        prune(fit_on_chip=True, target="edge-tpu")
    monkeypatch.setattr(EdgeTpuTarget, "on_chip_bytes", 1500)
    model = nets.randomise(nets.Chain())

    def shipped(module: nn.Module) -> int:  # norms are folded
        layers = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
        return sum(p.numel() for layer in layers for p in layer.parameters())

    small = fupruner.prune(model, X, fit_on_chip=True, target="edge-tpu")
    assert shipped(model) > 1500 >= shipped(small.module)
    assert (small.speedup, small.grade) == (1.5, EdgeTpuTarget.grade)
