"""Every criterion is held to the same laws."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fupruner.errors import InputError
from fupruner.graph import shapes
from fupruner.graph.trace import trace
from fupruner.pruning.gates import GatedNetwork, insert_gates
from fupruner.pruning.importance import CRITERIA, NEEDS_DATA, criterion
from unit.pruning import nets

MODELS = {"chain": (nets.Chain, 5), "residual": (nets.Residual, 5), "attention": (nets.Attention, 5)}


class Noise:
    steps_per_epoch = 1

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.x, self.y = torch.randn(16, 3, 8, 8, generator=generator), torch.randint(5, (16,), generator=generator)

    def calibration_batches(self, images: int) -> list[tuple[Tensor, Tensor]]:
        return list(zip(self.x[:images].split(8), self.y[:images].split(8), strict=True))

    def inputs(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        return batch[0]

    def sample_losses(self, model: Callable[[Tensor], Tensor], batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(model(batch[0]), batch[1], reduction="none")


def gated(model: nn.Module) -> GatedNetwork:
    graph = trace(model, torch.randn(2, 3, 8, 8))
    shapes.propagate(graph, (torch.randn(2, 3, 8, 8),))
    return insert_gates(graph)


def score(name: str, network: GatedNetwork) -> tuple[np.ndarray, dict[str, float]]:
    scores = CRITERIA[name](network, Noise(), 16)  # type: ignore[arg-type]
    assert scores.criterion == name
    return scores.units, scores.branches


@pytest.mark.parametrize("name", CRITERIA)
@pytest.mark.parametrize("model", MODELS)
def test_scores_are_finite_and_not_negative_and_the_same_each_time(name: str, model: str) -> None:
    network = gated(nets.randomise(MODELS[model][0]()))
    if name == "bn-scale" and model == "attention":
        with pytest.raises(InputError, match="needs batch norms"):
            score(name, network)
        return
    units, branches = score(name, network)
    assert units.shape == (network.groups.labelling.units,)
    assert np.isfinite(units).all()
    assert (units >= 0).all()
    assert set(branches) == {branch.name for branch, _ in network.branches}
    assert all(np.isfinite(v) and v >= 0 for v in branches.values())
    again = score(name, network)
    np.testing.assert_array_equal(units, again[0])
    assert branches == again[1]


@pytest.mark.parametrize("name", CRITERIA)
def test_scores_move_with_the_channels(name: str) -> None:
    model = nets.randomise(nets.Chain())
    network = gated(model)
    units = score(name, network)[0][next(g for g in network.groups.groups if g.name == "a").units]
    order = torch.randperm(16)
    with torch.no_grad():
        for tensor in (
            model.a.weight,
            model.a.bias,
            model.na.weight,
            model.na.bias,
            model.na.running_mean,
            model.na.running_var,
        ):
            tensor.copy_(tensor[order].clone())
        model.b.weight.copy_(model.b.weight[:, order].clone())
    network = gated(model)
    moved = score(name, network)[0][next(g for g in network.groups.groups if g.name == "a").units]
    np.testing.assert_allclose(moved, units[order.numpy()], rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize("name", CRITERIA)
def test_network_is_left_as_it_was(name: str) -> None:
    network = gated(nets.randomise(nets.Residual()))
    is_open = network.is_open.copy()
    is_open[network.groups.prunable[0].units[:3]] = False
    network.set(is_open, frozenset({"blocks.0"}))
    network.graph_module.train()
    before = {k: v.clone() for k, v in network.graph_module.state_dict().items()}
    values = [gate.value.clone() for gate, _ in [*network.gates, *((g, b) for b, g in network.branches)]]
    score(name, network)
    assert network.graph_module.training
    assert all(torch.equal(before[k], v) for k, v in network.graph_module.state_dict().items())
    gates = [gate for gate, _ in [*network.gates, *((g, b) for b, g in network.branches)]]
    assert all(torch.equal(a, gate.value) for a, gate in zip(values, gates, strict=True))
    assert all(p.requires_grad and p.grad is None for p in network.graph_module.parameters())
    assert np.array_equal(network.is_open, is_open)


@pytest.mark.parametrize("name", [n for n in CRITERIA if n != "random"])  # hashes do not look at values
def test_weights_that_are_not_numbers_are_refused(name: str) -> None:
    network = gated(nets.randomise(nets.Chain()))
    with torch.no_grad():
        network.graph_module.a.weight[0] = float("nan")
        network.graph_module.na.weight[0] = float("nan")
    with pytest.raises(InputError, match="scores are not numbers"):
        score(name, network)


@pytest.mark.parametrize("name", sorted(NEEDS_DATA))
def test_criteria_that_need_data_say_so(name: str) -> None:
    with pytest.raises(InputError, match=f"{name} needs data"):
        CRITERIA[name](gated(nets.Chain()), None, 16)


def test_unknown_criterion_names_the_nearest() -> None:
    with pytest.raises(InputError, match="Did you mean taylor"):
        criterion("tailor")
