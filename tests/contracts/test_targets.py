"""Laws that every target is held to."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from fupruner.errors import TargetError
from fupruner.graph.layer_shape import LayerShape
from fupruner.targets.base import ExportResult, Target
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


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
    ).eval()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Target], ExportResult]:
    """Exports the network once per target; skips where a library that the target needs is an extra that is not here."""
    results: dict[str, ExportResult] = {}

    def export(target: Target) -> ExportResult:
        missing = [tool for tool in target.tools() if tool.needed and not tool.found]
        if missing:
            pytest.skip(f"needs {', '.join(tool.name for tool in missing)}: {missing[0].get}")
        if target.name not in results:
            path = tmp_path_factory.mktemp(target.name) / f"network{target.suffix}"
            results[target.name] = target.export(network(), EXAMPLE, path)
        return results[target.name]

    return export


def test_exported_network_computes_the_same(target: Target, exported: Callable[[Target], ExportResult]) -> None:
    result = exported(target)
    assert all(path.exists() for path in result.files)
    outputs = target.predict(result.files[0], EXAMPLE[0])
    expected = network()(EXAMPLE[0]).detach()
    assert (outputs - expected).abs().max() <= 2 * max(result.max_error, 1e-6) * expected.abs().max()


def test_comparison_is_of_one_grade_and_relative_to_the_first(
    target: Target, exported: Callable[[Target], ExportResult]
) -> None:
    file = exported(target).files[0]
    comparison = target.compare([file, file], EXAMPLE)
    assert {measurement.grade for measurement in comparison.measurements} == {target.grade}
    assert comparison.speedups[0] == 1
    assert all(measurement.latency_ms > 0 and measurement.source for measurement in comparison.measurements)
    times = target.layer_times(file, EXAMPLE)
    assert {time.grade for time in times} == {target.grade}
    assert all(fact.name and fact.value and fact.source for fact in target.inspect(file))


def test_verify_finds_another_network(target: Target, exported: Callable[[Target], ExportResult]) -> None:
    file, module = exported(target).files[0], network()
    assert target.verify(module, EXAMPLE, file) < 0.2
    with torch.no_grad():
        module[5].weight.mul_(-2)
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
