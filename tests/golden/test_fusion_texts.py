"""Graph texts before and after each rule. Update with: pytest tests/golden --update-golden, and read the difference."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from fupruner.fusion.fuse import fuse_graph
from fupruner.fusion.rules import ORDER
from fupruner.graph.text import to_text
from fupruner.graph.trace import trace
from helpers import fired, randomize
from strategies import Arithmetic, Branches, Residual, Shuffle, Upsample


def conv(a: int, b: int, kernel: int = 3, norm: bool = True, **options: int) -> nn.Module:
    layer = nn.Conv2d(a, b, kernel, padding=kernel // 2, bias=False, **options)  # type: ignore[arg-type]
    return nn.Sequential(layer, nn.BatchNorm2d(b)) if norm else layer


def residual(*branch: nn.Module) -> nn.Module:
    return Residual(nn.Sequential(*branch), nn.Identity(), nn.ReLU())


CASES: dict[str, nn.Module] = {
    "remove-no-op": nn.Sequential(nn.Dropout(), nn.Sigmoid(), nn.ReLU()),
    "merge-permutes": nn.Sequential(nn.Unflatten(1, (2, 2)), nn.Flatten(1, 2), nn.Sigmoid()),
    "merge-clips": nn.Sequential(nn.Hardtanh(-1, 2), nn.ReLU6()),
    "norm-after-layer": conv(4, 6),
    "affine-after-layer": nn.Sequential(conv(4, 6, norm=False), Arithmetic(6)),
    "affine-before-layer": nn.Sequential(nn.BatchNorm2d(4), nn.Conv2d(4, 6, 1)),
    "permutation-into-weights": nn.Sequential(nn.ReLU(), Shuffle(2), conv(4, 6, norm=False)),
    "parallel-sum": Branches([conv(4, 4), conv(4, 4, 1), nn.BatchNorm2d(4)], "sum"),
    "activation-before-pool": nn.Sequential(conv(4, 6, norm=False), nn.MaxPool2d(2), nn.ReLU()),
    "pool-before-pointwise": nn.Sequential(conv(4, 6, 1, norm=False), nn.AvgPool2d(2)),
    "upsample-into-conv": nn.Sequential(nn.ReLU(), Upsample(), conv(4, 6, norm=False)),
    "concat-stack": Branches(
        [nn.Sequential(conv(4, 3, norm=False), nn.ReLU()), nn.Sequential(conv(4, 5, norm=False), nn.ReLU())], "cat"
    ),
    "conv-before-pool": nn.Sequential(conv(4, 6, norm=False), nn.AvgPool2d(2)),
    "conv-after-conv": nn.Sequential(conv(4, 8, norm=False), conv(8, 2, 1, norm=False)),
    "shortcut-into-filters": nn.Sequential(nn.ReLU(), residual(conv(4, 6), nn.ReLU(), conv(6, 4))),
    "preactivation-into-filters": nn.Sequential(
        conv(4, 4), residual(nn.BatchNorm2d(4), nn.ReLU(), conv(4, 6), nn.ReLU(), conv(6, 4))
    ),
    "conv-after-conv-wide": nn.Sequential(conv(8, 2, 1, norm=False), conv(2, 8, 1, norm=False)),
    "parallel-sum-wide": Branches(
        [nn.Conv2d(4, 4, (1, 3), padding=(0, 1)), nn.Conv2d(4, 4, (3, 1), padding=(1, 0))], "sum"
    ),
    "sum-of-convs": Branches(
        [nn.Sequential(nn.MaxPool2d(3, 1, 1), conv(4, 6, norm=False)), conv(4, 6, norm=False)], "sum"
    ),
    "concat-stack-wide": Branches([conv(4, 4, 1, norm=False), conv(4, 4, norm=False)], "cat"),
    "pool-into-filters": nn.Sequential(nn.AvgPool2d(2), conv(4, 6, 1, norm=False)),
    "same-input-stack": Branches(
        [nn.Sequential(conv(4, 6, norm=False), nn.Sigmoid()), nn.Sequential(conv(4, 6, norm=False), nn.Tanh())], "sum"
    ),
    "pool-as-depthwise": nn.Sequential(nn.ReLU(), nn.AvgPool2d(2)),
    "linear-as-conv": nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(16, 6)),
}
LATER = {"filters-into-shortcut": "shortcut-into-filters"}
"""Rules whose input is what another rule leaves."""


class TwoPermutes(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(x.permute(0, 2, 3, 1).permute(0, 2, 1, 3))


CASES["merge-permutes"] = TwoPermutes()


@pytest.mark.parametrize("name", [rule.name for rule in ORDER])
def test_text_before_and_after(name: str, request: pytest.FixtureRequest) -> None:
    x = torch.randn(2, 8 if name == "conv-after-conv-wide" else 4, 8, 8)
    graph = trace(randomize(CASES[LATER.get(name, name)]), x)
    if name in LATER:
        graph, _ = fuse_graph(graph, (x,), "aggressive")
    before = to_text(fuse_graph(graph, (x,), "none")[0])
    needed = (
        {"norm-after-layer", name}
        if name in ("parallel-sum", "shortcut-into-filters", "preactivation-into-filters")
        else {name}
    )
    fused, log = fuse_graph(graph, (x,), "aggressive", only=sorted(needed))
    assert fired(log)[name] >= 1
    text = f"before\n{before}\n\nafter {name}\n{to_text(fused)}\n"
    path = Path(__file__).parent / "fusion" / f"{name}.txt"
    if request.config.getoption("--update-golden", default=False):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert text == path.read_text(), "run with --update-golden if the change is meant"
