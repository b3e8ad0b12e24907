"""The proof of a fused network as a whole: what it is tried on, and what it finds that single rewrites do not show."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, fx, nn

from fupruner.errors import InputError, NotEquivalentError
from fupruner.fusion import engine, proof
from fupruner.fusion.fuse import fuse_graph
from fupruner.fusion.rule import Context, Match, Refuse, Rule
from fupruner.graph import edit
from fupruner.graph.trace import trace
from helpers import kinds, randomize
from unit.fusion.test_fuse import X, network


def _twisted(graph: fx.GraphModule) -> tuple[fx.GraphModule, fx.GraphModule]:
    other = edit.clone(graph)
    with torch.no_grad():
        next(other.parameters()).mul_(1.001)
    return graph, other


def test_a_network_that_changed_as_a_whole_is_caught_at_the_end() -> None:
    with pytest.raises(NotEquivalentError, match="Fusion changed the network"):
        proof.prove(*_twisted(trace(network(), X)), (X,))


def test_a_whole_that_differs_although_every_rewrite_held_is_undone_and_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checked = proof._error

    def aggressive_fails(given: fx.GraphModule, x: tuple[Tensor, ...], expected: Tensor, actual: Tensor) -> float:
        error = checked(given, x, expected, actual)
        failing.append(len(failing) == 0)
        if failing[-1]:
            raise NotEquivalentError("outputs differ by 0.5")
        return error

    failing: list[bool] = []
    monkeypatch.setattr(proof, "_error", aggressive_fails)
    traced = trace(network(), X)
    graph, log = fuse_graph(traced, (X,), "aggressive")
    assert kinds(graph)["add"] == 1
    assert kinds(graph)["BatchNorm2d"] == 0
    assert log.refused[0].node == "the whole network"
    assert "shortcut-into-filters" in log.refused[0].rule
    assert log.refused[0].reason == "undone, although every single rewrite held: outputs differ by 0.5"


def test_the_whole_is_proved_on_inputs_of_the_users_own_too() -> None:
    own = torch.randn(3, 4, 17, 11)
    _, log = fuse_graph(trace(network().float(), X.float()), (X.float(),), "aggressive", calibration=[(own,)])
    assert log.checked_inputs == ("1x4x9x8", "2x4x10x9", "3x4x17x11")
    assert 0 < log.max_error <= 1e-9


def test_a_network_of_very_many_weights_is_proved_on_one_input_of_odd_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof, "HEAVY", 10)
    _, log = fuse_graph(trace(network().float(), X.float()), (X.float(),), "aggressive")
    assert log.checked_inputs == ("2x4x10x9",)


def test_a_rewrite_that_holds_on_random_inputs_alone_is_found_out_by_the_users_own() -> None:
    class Capped(Rule):
        """Takes out a clip that random inputs never reach."""

        name = "capped"
        level = "basic"

        def find(self, context: Context, node: fx.Node) -> Match | Refuse | None:
            clips = isinstance(context.module(node), nn.Hardtanh)
            return Match(node, (node.all_input_nodes[0],), node) if clips else None

        def rewrite(self, context: Context, match: Match) -> fx.Node:
            edit.bypass(match.node, match.inputs[0])
            return match.inputs[0]

    graph = trace(nn.Sequential(nn.Hardtanh(-50, 50), nn.Conv2d(4, 4, 1)).double(), X)
    assert engine.run(graph, (X,), [Capped()], level="basic")[1].fired
    with pytest.raises(NotEquivalentError, match="Fusion changed the network"):
        engine.run(graph, (X,), [Capped()], level="basic", calibration=[(100 * X,)])


@pytest.mark.parametrize("own", [torch.full((1, 4, 9, 8), float("nan")), torch.randn(1, 5, 9, 8)])
def test_inputs_of_the_users_own_that_prove_nothing_are_refused(own: Tensor) -> None:
    with pytest.raises(InputError, match=r"NaN for an input 1x4x9x8|on an input 1x5x9x8"):
        fuse_graph(trace(network(), X), (X,), "basic", calibration=[(own,)])


def test_tensors_that_a_network_makes_in_float32_are_proved_with_in_float64() -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)).eval()

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(torch.ones_like(x, dtype=torch.float32).cumsum(1))

    model, x = randomize(Fixed()), torch.randn(2, 4)
    graph, log = fuse_graph(trace(model, x), (x,), "basic")
    assert kinds(graph)["BatchNorm1d"] == 0
    assert 0 < log.max_error <= 1e-9
    torch.testing.assert_close(graph(x), model(x))
