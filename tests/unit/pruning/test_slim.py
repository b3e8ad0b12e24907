import numpy as np
import pytest
import torch

from fupruner.errors import FuPrunerError
from fupruner.graph import check
from fupruner.pruning.gates import GatedNetwork, insert_gates
from fupruner.pruning.prepare import fuse_as_planned
from fupruner.pruning.slim import slim
from fupruner.targets.registry import get_target
from helpers import assert_same_function, kinds
from unit.pruning import nets


def close(network: GatedNetwork, share: float, seed: int = 0, branches: tuple[str, ...] = ()) -> None:
    rng = np.random.default_rng(seed)
    is_open = np.ones(network.groups.labelling.units, dtype=bool)
    for group in network.groups.prunable:
        is_open[rng.permutation(group.units)[: int(share * len(group.units))]] = False
    network.set(is_open, frozenset(branches))


def inputs(shape: tuple[int, ...]) -> tuple[torch.Tensor, ...]:
    return (torch.randn(3, *shape, dtype=torch.float64),)


@pytest.mark.parametrize("name", nets.ALL)
@pytest.mark.parametrize("share", [0.25, 0.5, 0.8])
def test_slimmed_equals_gated(name: str, share: float) -> None:
    make, shape = nets.ALL[name]
    network = nets.gated(make(), *shape)
    close(network, share)
    small = slim(network, (torch.randn(2, *shape),))
    assert check.largest_error(network.graph_module, small, [inputs(shape)], torch.float64) < check.FLOAT64_TOLERANCE
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in network.graph_module.parameters())


@pytest.mark.parametrize("name", nets.ALL)
def test_all_gates_open_is_the_identity(name: str) -> None:
    make, shape = nets.ALL[name]
    model = nets.randomise(make())
    network = nets.gated(model, *shape)
    small = slim(network, (torch.randn(2, *shape),))
    rounding = 1e-15 if name == "PackedAttention" else 0  # the module itself may take a kernel of its own
    for other in (network.graph_module, small):
        assert check.largest_error(model, other, [inputs(shape)], torch.float64) <= rounding
    assert sorted(small.state_dict()) == sorted(network.graph_module.state_dict())


def test_closed_branch_disappears_with_its_layers() -> None:
    network = nets.gated(nets.Residual(), 3, 8, 8)
    close(network, 0.5, branches=("blocks.0",))
    small = slim(network, (torch.randn(2, 3, 8, 8),))
    assert not any(name.startswith("blocks.0") for name, _ in small.named_parameters())
    assert (
        check.largest_error(network.graph_module, small, [inputs((3, 8, 8))], torch.float64) < check.FLOAT64_TOLERANCE
    )


def test_closing_gates_changes_the_function() -> None:
    network = nets.gated(nets.Chain(), 3, 8, 8)
    before = network.graph_module(torch.ones(1, 3, 8, 8))
    close(network, 0.5)
    assert (network.graph_module(torch.ones(1, 3, 8, 8)) - before).abs().max() > 1e-3


def test_slimmed_network_trains() -> None:
    network = nets.gated(nets.Residual(), 3, 8, 8)
    close(network, 0.5)
    small = slim(network, (torch.randn(2, 3, 8, 8),)).train()
    optimizer = torch.optim.SGD(small.parameters(), lr=0.1)
    before = small.stem.weight.detach().clone()
    small(torch.randn(4, 3, 8, 8)).square().mean().backward()
    optimizer.step()
    assert not torch.equal(small.stem.weight, before)


@pytest.mark.parametrize("share_tensors", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.5])
@pytest.mark.parametrize("name", nets.ALL)
def test_slimmed_network_owns_its_weights(name: str, share: float, share_tensors: bool) -> None:
    make, shape = nets.ALL[name]
    graph = nets.graph_of(make(), *shape)
    network = insert_gates(graph, share_tensors=share_tensors)
    close(network, share)
    small = slim(network, (torch.randn(2, *shape),))
    others = {t.data_ptr() for module in (graph, network.graph_module) for t in module.state_dict().values()}
    assert not others & {t.data_ptr() for t in small.state_dict().values() if t.numel()}


def test_gates_may_share_the_weights_of_the_graph() -> None:
    graph = nets.graph_of(nets.Chain(), 3, 8, 8)
    before = {name: t.clone() for name, t in graph.state_dict().items()}
    shared, copied = insert_gates(graph, share_tensors=True), insert_gates(graph)
    assert shared.graph_module.a.weight is graph.a.weight
    assert copied.graph_module.a.weight.data_ptr() != graph.a.weight.data_ptr()
    close(shared, 0.5)
    slim(shared, (torch.randn(2, 3, 8, 8),))
    assert all(torch.equal(t, before[name]) for name, t in graph.state_dict().items())


def test_gated_network_is_not_modified() -> None:
    network = nets.gated(nets.Residual(), 3, 8, 8)
    close(network, 0.5)
    before = {k: v.clone() for k, v in network.graph_module.state_dict().items()}
    slim(network, (torch.randn(2, 3, 8, 8),))
    after = network.graph_module.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[k], after[k]) for k in before)


def test_group_without_any_channel_is_refused() -> None:
    network = nets.gated(nets.Chain(), 3, 8, 8)
    is_open = np.ones(network.groups.labelling.units, dtype=bool)
    is_open[next(g for g in network.groups.groups if g.name == "a").units] = False
    network.set(is_open, frozenset())
    with pytest.raises(FuPrunerError, match=r"(a|b) would lose all of its channels"):
        slim(network, (torch.randn(2, 3, 8, 8),))


def test_closing_filters_keep_receiving_gradients() -> None:
    network = nets.gated(nets.Chain(), 3, 8, 8)
    close(network, 0.5)
    network.set(network.is_open, frozenset(), softness=0.5)
    module = network.graph_module.train()
    module(torch.randn(4, 3, 8, 8)).square().mean().backward()
    group = next(g for g in network.groups.groups if g.name == "a")
    closing = torch.from_numpy(~network.is_open[group.units])
    gradient = module.na.weight.grad
    assert gradient is not None
    assert bool((gradient[closing].abs() > 0).all())


def test_soft_gate_scales_what_it_closes() -> None:
    network = nets.gated(nets.Chain(), 3, 8, 8)
    gate, units = network.gates[0]
    x = torch.randn(2, len(units), 4, 4)
    is_open = network.is_open.copy()
    is_open[units[0]] = False
    network.set(is_open, frozenset(), softness=0.25)
    assert torch.equal(gate(x)[:, 0], 0.25 * x[:, 0])
    assert torch.equal(gate(x)[:, 1:], x[:, 1:])


class Summed(torch.nn.Module):
    """Three convolutions of one input, added one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.convs, self.last = torch.nn.ModuleList(nets.conv(3, 8) for _ in range(3)), nets.conv(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.convs[0](x) + self.convs[1](x) + self.convs[2](x))


def test_a_closed_branch_may_be_added_to_another_one() -> None:
    network = nets.gated(Summed(), 3, 8, 8)
    names = tuple(branch.name for branch, _ in network.branches)
    assert len(names) == 2
    close(network, 0.5, branches=names)
    small = slim(network, (torch.randn(2, 3, 8, 8),))
    assert (
        check.largest_error(network.graph_module, small, [inputs((3, 8, 8))], torch.float64) < check.FLOAT64_TOLERANCE
    )


def test_an_activation_that_a_closed_branch_leaves_idle_does_not_ship() -> None:
    network = nets.gated(nets.Residual(), 3, 8, 8)
    close(network, 0.5, branches=(network.branches[0][0].name,))
    x = torch.randn(2, 3, 8, 8)
    small = slim(network, (x,))
    shipped, log = fuse_as_planned(network, small, (x,), "none", get_target("cpu").cost_model())
    assert kinds(shipped)["ReLU"] == kinds(small)["ReLU"] - 1
    assert kinds(shipped)["BatchNorm2d"] == kinds(small)["BatchNorm2d"] == 2
    assert log.level == "none"
    assert [fired.rule for fired in log.fired] == ["remove-no-op"]
    assert_same_function(small, shipped, x)
