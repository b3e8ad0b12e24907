from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fupruner.errors import InputError
from fupruner.graph import cost, shapes
from fupruner.pruning.importance import l2
from fupruner.pruning.plan import Planner
from fupruner.pruning.pricing import Pricer
from fupruner.pruning.verify import measured_speedup, shipping_speedup, verified_plan
from fupruner.records import Comparison, Fact, LayerTime, Measurement
from fupruner.targets.base import ExportResult, Images, Target, Tool
from fupruner.targets.cost_model import CostModel
from unit.pruning import nets
from unit.pruning.test_plan import ByWork


class Stubborn(Target):
    """A device on which a network saves only a share of what its cost model predicts."""

    name, ships, suffix, precision, alignment = "stubborn", "a number", ".txt", "float32", 8

    def __init__(self, share: float) -> None:
        self.share = share
        self.made: dict[Path, float] = {}

    def adapted(self, module: nn.Module, images: Images | None) -> Target:
        return self

    def export(self, module: nn.Module, example_inputs: tuple[Tensor, ...], path: Path) -> ExportResult:
        assert isinstance(module, torch.fx.GraphModule)
        shapes.propagate(module, example_inputs)
        self.made[path] = sum(ByWork().price([layer.shape for layer in cost.layer_shapes(module)]))
        return ExportResult((path,), 0.0)

    def compare(self, paths: Sequence[Path], example_inputs: tuple[Tensor, ...], *, threads: int = 1) -> Comparison:
        first = self.made[paths[0]]
        times = [first - self.share * (first - self.made[p]) for p in paths]
        measurements = tuple(
            Measurement(latency_ms=t, spread=0, grade="measured", source="made up", target=self.name) for t in times
        )
        return Comparison(
            measurements=measurements, speedups=tuple(first / t for t in times), spreads=(0.0,) * len(times)
        )

    def verify(self, module: nn.Module, example_inputs: tuple[Tensor, ...], path: Path) -> float:
        raise NotImplementedError

    def inspect(self, path: Path) -> list[Fact]:
        return []

    def tools(self) -> list[Tool]:
        return []

    def install(self) -> list[str]:
        return []

    def predict(self, path: Path, inputs: Tensor) -> Tensor:
        raise NotImplementedError

    def layer_times(self, path: Path, example_inputs: tuple[Tensor, ...], *, threads: int = 1) -> list[LayerTime]:
        raise NotImplementedError

    def cost_model(self) -> CostModel:
        return ByWork()


class Lucky(Stubborn):
    """A device on which a file seems faster than it is when it is timed for the first time."""

    def compare(self, paths: Sequence[Path], example_inputs: tuple[Tensor, ...], *, threads: int = 1) -> Comparison:
        honest = super().compare(paths, example_inputs, threads=threads)
        luck = 1.0 if paths[-1] in self.seen else 1.08
        self.seen.add(paths[-1])
        return honest.model_copy(update={"speedups": (1.0, *(luck * s for s in honest.speedups[1:]))})

    def __init__(self, share: float) -> None:
        super().__init__(share)
        self.seen: set[Path] = set()


def setup(share: float, kind: type[Stubborn] = Stubborn) -> tuple[Planner, Stubborn, Path, tuple[Tensor, ...]]:
    network = nets.gated(nets.Residual(64), 3, 8, 8)
    target, file, inputs = kind(share), Path("baseline"), (torch.randn(1, 3, 8, 8),)
    target.export(nets.graph_of(nets.Residual(64), 3, 8, 8), inputs, file)
    return Planner(network, Pricer(network, ByWork()), target.name, 8), target, file, inputs


@pytest.mark.parametrize("share", [1.0, 0.8, 0.9, 1.05])
@pytest.mark.parametrize("speedup", [1.3, 1.8])
def test_measured_speedup_is_the_asked_one(share: float, speedup: float) -> None:
    planner, target, file, inputs = setup(share)
    found = verified_plan(planner, l2(planner.network), speedup, target, file, inputs)
    assert found.speedup >= 0.95 * speedup
    assert found.speedup == pytest.approx(measured_speedup(target, file, found.module, inputs))
    assert found.rounds[0].asked == speedup
    assert (planner.network.is_open == found.plan.is_open).all()


def test_a_device_that_saves_less_gets_a_stronger_plan() -> None:
    easy, hard = (verified_plan(p, l2(p.network), 1.5, t, f, x) for p, t, f, x in (setup(1.0), setup(0.8)))
    assert hard.plan.record.predicted_ms < easy.plan.record.predicted_ms
    assert len(hard.rounds) > 1


def test_out_of_reach_names_the_largest_that_was_measured() -> None:
    planner, target, file, inputs = setup(0.5)
    with pytest.raises(
        InputError, match=r"A speed-up of 3\.00x is out of reach on stubborn: 1\.\d\dx is the largest that was measured"
    ):
        verified_plan(planner, l2(planner.network), 3.0, target, file, inputs)


@pytest.mark.parametrize("speedup", [1.3, 1.5, 1.8])
def test_a_measurement_that_was_lucky_is_not_believed(speedup: float) -> None:
    planner, target, file, inputs = setup(0.9, Lucky)
    found = verified_plan(planner, l2(planner.network), speedup, target, file, inputs)
    honest = setup(0.9)[1]
    honest.export(nets.graph_of(nets.Residual(64), 3, 8, 8), inputs, file)
    assert measured_speedup(honest, file, found.module, inputs) >= 0.95 * speedup


def test_a_speedup_is_aimed_at_and_not_only_just_missed() -> None:
    planner, target, file, inputs = setup(0.97)
    found = verified_plan(planner, l2(planner.network), 1.6, target, file, inputs)
    assert found.speedup >= 0.99 * 1.6


class Halving(Stubborn):
    """A device whose number format takes half the time of the original's."""

    def __init__(self, share: float) -> None:
        super().__init__(share)
        self.reference = Stubborn(share)
        self.reference.made = self.made

    def export(self, module: nn.Module, example_inputs: tuple[Tensor, ...], path: Path) -> ExportResult:
        result = super().export(module, example_inputs, path)
        self.made[path] /= 2
        return result


def test_what_shipping_alone_gains_is_measured_beside_the_original() -> None:
    graph, inputs = nets.graph_of(nets.Residual(64), 3, 8, 8), (torch.randn(1, 3, 8, 8),)
    target = Halving(0.8)
    assert shipping_speedup(target, graph, inputs) == pytest.approx(1 / 0.6)
    assert len(target.made) == 2


def test_nothing_is_measured_where_the_original_ships_in_the_same_format() -> None:
    target = Stubborn(0.8)
    assert shipping_speedup(target, nets.graph_of(nets.Residual(64), 3, 8, 8), (torch.randn(1, 3, 8, 8),)) == 1.0
    assert not target.made


def test_what_ships_is_what_is_measured() -> None:
    planner, target, file, inputs = setup(1.0)
    seen: list[nn.Module] = []

    def finish(network: object, slimmed: torch.fx.GraphModule) -> nn.Module:
        assert network is planner.network
        seen.append(slimmed)
        return slimmed

    found = verified_plan(planner, l2(planner.network), 1.5, target, file, inputs, finish=finish)
    assert any(found.module is module for module in seen)
