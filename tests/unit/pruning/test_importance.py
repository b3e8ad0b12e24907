import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fupruner.errors import InputError
from fupruner.pruning.gates import GatedNetwork
from fupruner.pruning.importance import branch_losses, fisher, l2
from unit.pruning import nets


class Noise:
    """A task with random images and labels."""

    steps_per_epoch = 1

    def __init__(self, classes: int = 5, shape: tuple[int, ...] = (3, 8, 8), poison: bool = False) -> None:
        generator = torch.Generator().manual_seed(0)
        self.x, self.y = (
            torch.randn(32, *shape, generator=generator),
            torch.randint(classes, (32,), generator=generator),
        )
        if poison:
            self.x[3] = float("nan")

    def calibration_batches(self, images: int) -> list[tuple[Tensor, Tensor]]:
        return list(zip(self.x[:images].split(8), self.y[:images].split(8), strict=True))

    def inputs(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        return batch[0]

    def sample_losses(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(model(batch[0]), batch[1], reduction="none")


def by_hand(network: GatedNetwork, task: Noise, gate_index: int) -> np.ndarray:
    """The same figure from one backward pass per sample through a multiplication of the gated tensor."""
    gate, units = network.gates[gate_index]
    total = np.zeros(len(units))
    for x, y in zip(task.x, task.y, strict=True):
        factor = torch.ones(1, len(units), requires_grad=True)
        handle = gate.register_forward_hook(
            lambda _m, _i, out, f=factor: out * f.view([len(units) if n > 1 else 1 for n in gate.shape])
        )
        task.sample_losses(network.graph_module, (x[None], y[None])).sum().backward()
        handle.remove()
        assert factor.grad is not None
        total += factor.grad[0].double().numpy() ** 2
    return 0.5 * total / len(task.x)


def test_fisher_equals_per_sample_gradients() -> None:
    network = nets.gated(nets.Chain(), 3, 8, 8)
    task = Noise()
    scores = fisher(network, task, 32)  # type: ignore[arg-type]
    for i, (_, units) in enumerate(network.gates):
        np.testing.assert_allclose(scores.units[units], by_hand(network, task, i), rtol=1e-3, atol=1e-9)


def test_samples_are_told_apart_where_tokens_come_first() -> None:
    network = nets.gated(nets.PackedAttention(), 3, 8, 8)
    task = Noise()
    scores = fisher(network, task, 32)  # type: ignore[arg-type]
    found = next(i for i, (gate, _) in enumerate(network.gates) if gate.samples == 1)
    other = next(i for i, (gate, _) in enumerate(network.gates) if gate.samples == 0)
    (gate, units), (second, more) = network.gates[found], network.gates[other]
    total = np.zeros(network.groups.labelling.units)
    for x, y in zip(task.x, task.y, strict=True):
        gradient = np.zeros(network.groups.labelling.units)
        for each in (gate, second):
            each.start_scoring()
        task.sample_losses(network.graph_module, (x[None], y[None])).sum().backward()
        for each, its in ((gate, units), (second, more)):
            part = each.gradients()
            assert part is not None
            np.add.at(gradient, its, part[0].double().numpy())
            each.stop_scoring()
        total += 0.5 * gradient**2
    assert total.any()
    np.testing.assert_allclose(scores.units, total / len(task.x), rtol=1e-3, atol=1e-9)


def test_fisher_leaves_gates_weights_and_mode_alone() -> None:
    network = nets.gated(nets.Residual(), 3, 8, 8)
    network.graph_module.train()
    before = {k: v.clone() for k, v in network.graph_module.state_dict().items()}
    fisher(network, Noise(), 16)  # type: ignore[arg-type]
    assert network.graph_module.training
    assert all(torch.equal(before[k], v) for k, v in network.graph_module.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in network.graph_module.parameters())
    assert all(gate.scored is None for gate, _ in network.gates)


def test_branch_loss_is_the_difference_that_closing_makes() -> None:
    network = nets.gated(nets.Residual(), 3, 8, 8)
    task = Noise()
    losses = branch_losses(network, task, 32)  # type: ignore[arg-type]
    batch = (task.x, task.y)
    with torch.no_grad():
        before = float(task.sample_losses(network.graph_module, batch).mean())
        network.set(network.is_open, frozenset({"blocks.1"}))
        after = float(task.sample_losses(network.graph_module, batch).mean())
    assert losses["blocks.1"] == pytest.approx(max(0.0, after - before), abs=1e-5)


def test_closed_units_are_still_scored() -> None:
    network = nets.gated(nets.Chain(), 3, 8, 8)
    group = next(g for g in network.groups.prunable if g.name == "b")
    is_open = network.is_open.copy()
    is_open[group.units[:4]] = False
    network.set(is_open, frozenset())
    assert (fisher(network, Noise(), 32).units[group.units[:4]] > 0).any()  # type: ignore[arg-type]


def test_l2_gives_shares_of_each_producer() -> None:
    network = nets.gated(nets.Chain(), 3, 8, 8)
    scores = l2(network)
    group = next(g for g in network.groups.prunable if g.name == "a")
    assert scores.units[group.units].sum() == pytest.approx(1)
    weight = network.graph_module.a.weight.detach().flatten(1).square().sum(1)
    assert np.argsort(scores.units[group.units]).tolist() == weight.argsort().tolist()


def test_scores_that_are_not_numbers_are_refused() -> None:
    network = nets.gated(nets.Chain(), 3, 8, 8)
    with pytest.raises(InputError, match="fisher scores are not numbers"):
        fisher(network, Noise(poison=True), 32)  # type: ignore[arg-type]
