"""Laws that every target is held to."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import torch
from torch import nn

from fupruner.errors import TargetError
from fupruner.graph.layer_shape import LayerShape
from fupruner.targets.base import Target
from fupruner.targets.registry import get_target, target_names

EXAMPLE = (torch.randn(2, 3, 12, 12),)


@pytest.fixture(params=target_names())
def target(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Target:
    monkeypatch.setenv("FUPRUNER_CACHE_DIR", str(tmp_path / "cache"))
    return get_target(request.param)


def test_target_says_what_it_is(target: Target) -> None:
    assert target.name in target_names()
    assert target.ships
    assert target.precision
    assert target.alignment >= 1
    assert target.suffix.startswith(".")
    assert target.grade in ("measured", "table", "estimated")
    assert target.judged_in
    assert f"model{target.suffix}" in target.recipe
    assert all(tool.name and tool.purpose and (tool.found or tool.get) for tool in target.tools())


def test_exported_network_computes_the_same(target: Target, tmp_path: Path) -> None:
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
    )
    result = target.export(module, EXAMPLE, tmp_path / f"network{target.suffix}")
    assert all(path.exists() for path in result.files)
    outputs = target.predict(result.files[0], EXAMPLE[0])
    expected = module.eval()(EXAMPLE[0]).detach()
    assert (outputs - expected).abs().max() <= 2 * max(result.max_error, 1e-6) * expected.abs().max()


def test_comparison_is_of_one_grade_and_relative_to_the_first(target: Target, tmp_path: Path) -> None:
    files = []
    for width in (8, 16):
        module = nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU(), nn.Conv2d(width, 8, 3))
        files.append(target.export(module, EXAMPLE, tmp_path / f"network-{width}{target.suffix}").files[0])
    comparison = target.compare(files, EXAMPLE)
    assert {measurement.grade for measurement in comparison.measurements} == {target.grade}
    assert comparison.speedups[0] == 1
    assert all(measurement.latency_ms > 0 and measurement.source for measurement in comparison.measurements)
    times = target.layer_times(files[0], EXAMPLE)
    assert {time.grade for time in times} == {target.grade}
    assert all(fact.name and fact.value and fact.source for fact in target.inspect(files[0]))


def test_verify_finds_another_network(target: Target, tmp_path: Path) -> None:
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
    file = target.export(module, EXAMPLE, tmp_path / f"network{target.suffix}").files[0]
    with torch.no_grad():
        module[0].weight.mul_(2)
    with pytest.raises(TargetError, match="computes something else than the module"):
        target.verify(module, EXAMPLE, file)


def test_cost_model_prices_layers_in_order(target: Target) -> None:
    model = target.cost_model()
    assert model.grade in ("table", "estimated")
    assert model.source
    layer = LayerShape("conv", (16, 8, 8), (16, 8, 8), (3, 3), (1, 1), (1, 1), (1, 1))
    unknown = LayerShape("no_such_operator", (16, 8, 8), (16, 8, 8))
    prices = model.price([layer, unknown, layer])
    assert len(prices) == 3
    assert prices[0] == prices[2]
    assert min(prices) > 0
    assert model.price([]) == []


def test_target_implements_all_and_only_adds_private_names(target: Target) -> None:
    public = {name for name in vars(type(target)) if not name.startswith("_")}
    assert public <= {name for name, _ in inspect.getmembers(Target)} | set(Target.__annotations__)
