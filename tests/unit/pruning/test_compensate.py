from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn

from fupruner.errors import InputError
from fupruner.graph import shapes
from fupruner.graph.trace import trace
from fupruner.pruning.compensate import compensate, recenter
from fupruner.pruning.gates import GatedNetwork, insert_gates
from fupruner.pruning.least_squares import NormalEquations, rows_of, weights_of
from fupruner.pruning.replay import peak_bytes
from fupruner.pruning.slim import slim
from unit.pruning import nets


def setup(
    name: str, share: float, branches: tuple[str, ...] = ()
) -> tuple[GatedNetwork, fx.GraphModule, fx.GraphModule, list[Tensor]]:
    make, shape = nets.ALL[name]
    images = list(torch.randn(64, *shape).split(32))
    graph = trace(nets.randomise(make()), images[0])
    shapes.propagate(graph, (images[0],))
    network = insert_gates(graph)
    is_open = np.ones(network.groups.labelling.units, dtype=bool)
    for group in network.groups.prunable:
        is_open[group.units[: int(share * len(group.units))]] = False
    network.set(is_open, frozenset(branches))
    return network, slim(network, (images[0],)), graph, images


def error(module: nn.Module, original: nn.Module, images: list[Tensor]) -> float:
    with torch.no_grad():
        return float(sum((module.eval()(x) - original(x)).double().square().mean() for x in images))


@pytest.mark.parametrize("name", nets.ALL)
def test_nothing_closed_means_nothing_changed(name: str) -> None:
    network, small, graph, images = setup(name, 0)
    result = compensate(network, small, graph, images)
    before = small.state_dict()
    assert all(torch.equal(before[key], value) for key, value in result.state_dict().items() if key in before)
    assert error(result, graph, images) == 0


@pytest.mark.parametrize("name", nets.ALL)
def test_outputs_come_closer_to_the_originals(name: str) -> None:
    network, small, graph, images = setup(name, 0.5)
    result = compensate(network, small, graph, images)
    assert error(result, graph, images) < error(small, graph, images)


def test_a_removed_branch_is_made_up_for_by_the_next_one() -> None:
    network, small, graph, images = setup("Residual", 0, ("blocks.0",))
    result = compensate(network, small, graph, images)
    assert error(result, graph, images) < 0.7 * error(small, graph, images)


def test_original_gates_and_slimmed_network_stay_as_they_are() -> None:
    network, small, graph, images = setup("Residual", 0.5)
    modules = (network.graph_module, small, graph)
    before = [{k: v.clone() for k, v in m.state_dict().items()} for m in modules]
    compensate(network, small, graph, images)
    for module, state in zip(modules, before, strict=True):
        assert all(torch.equal(state[k], v) for k, v in module.state_dict().items())


def test_a_channel_that_others_can_replace_is_replaced_wholly() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 3, padding=1))
    with torch.no_grad():
        model[0].weight[0], model[0].bias[0] = 2 * model[0].weight[5], 2 * model[0].bias[5]
    images = list(torch.randn(64, 3, 8, 8).split(32))
    graph = trace(model, images[0])
    shapes.propagate(graph, (images[0],))
    network = insert_gates(graph)
    is_open = network.is_open.copy()
    is_open[network.groups.prunable[0].units[0]] = False
    network.set(is_open, frozenset())
    small = slim(network, (images[0],))
    result = compensate(network, small, graph, images, ridge=1e-9)
    assert error(result, graph, images) < 1e-6 * error(small, graph, images)


def test_wide_layers_mix_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fupruner.pruning.compensate.WIDEST", 0)
    network, small, graph, images = setup("Chain", 0.5)
    result = compensate(network, small, graph, images)
    assert error(result, graph, images) < error(small, graph, images)


def test_result_computes_the_same_in_training_and_evaluation_statistics() -> None:
    norm = nets.randomise(nn.BatchNorm2d(4))
    x = torch.randn(16, 4, 5, 5) * 3 + 1
    with torch.no_grad():
        before = norm(x)
        recenter(norm, [x[:8], x[8:]])
        torch.testing.assert_close(norm(x), before, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(norm.train()(x), before, rtol=1e-4, atol=1e-4)


def test_no_images_are_refused() -> None:
    network, small, graph, _ = setup("Chain", 0.5)
    with pytest.raises(InputError, match="no calibration images"):
        compensate(network, small, graph, [])


def test_images_of_another_shape_are_refused() -> None:
    network, small, graph, _ = setup("Chain", 0.5)
    with pytest.raises(InputError, match="does not take calibration images of shape 4x1x8x8"):
        compensate(network, small, graph, [torch.randn(4, 1, 8, 8)])


@pytest.mark.parametrize("share", [1.0, 0.4])
@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 6, 3, 2, 1),
        nn.Conv2d(4, 6, (3, 2), (1, 2), (0, 3), dilation=(2, 1), groups=2),
        nn.Conv2d(4, 4, 5, padding=2, groups=4),
        nn.Linear(4, 6),
    ],
)
def test_rows_times_weights_are_the_layers_outputs(layer: Any, share: float) -> None:
    x = torch.randn(2, 5, 4) if isinstance(layer, nn.Linear) else torch.randn(2, 4, 9, 7)
    with torch.no_grad():
        y = layer(x)
        rows, wanted = rows_of(layer, x, y, share, torch.Generator())
        change = torch.randn(rows.shape[1], wanted.shape[2], rows.shape[2])
        layer.weight.copy_(weights_of(layer, change))
        again, expected = rows_of(layer, x, layer(x), share, torch.Generator())
    assert torch.equal(rows, again)
    positions = y.numel() // len(layer.weight)
    assert len(rows) == positions if share == 1 else 0.3 * positions < len(rows) < 0.5 * positions
    torch.testing.assert_close(
        torch.einsum("rgd,god->rgo", rows, change), expected - layer.bias.view(expected.shape[1:])
    )


def test_normal_equations_find_a_known_map() -> None:
    weight, bias, sums = torch.randn(2, 3, 5), torch.randn(2, 3), NormalEquations()
    for _ in range(3):
        x = torch.randn(40, 2, 5)
        sums.add(x, torch.einsum("rgd,god->rgo", x, weight) + bias)
    found, constant = sums.solve(ridge=0)
    torch.testing.assert_close(found.float(), weight, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(constant.float(), bias, rtol=1e-3, atol=1e-4)


def test_only_as_many_images_as_fit_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    network, small, graph, images = setup("Chain", 0.5)
    assert peak_bytes(graph, images[0][:1]) == 4 * 8 * 8 * (32 + 32)  # what the second norm reads and makes
    monkeypatch.setattr("fupruner.pruning.compensate.MEMORY", 1)
    few = compensate(network, small, graph, images)
    eight = compensate(network, small, graph, [images[0][:8]])
    assert all(torch.equal(a, b) for a, b in zip(few.parameters(), eight.parameters(), strict=True))
