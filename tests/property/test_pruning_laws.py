"""Laws of pruning on random networks, fused ones included. FUPRUNER_FUZZ=2000 in the environment sets how many."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, fx, nn

from fupruner.errors import FuPrunerError, InputError
from fupruner.fusion.fuse import adds_into_filters, fuse_graph
from fupruner.graph import shapes
from fupruner.graph.trace import trace
from fupruner.pruning.budget import SizeModel
from fupruner.pruning.compensate import compensate
from fupruner.pruning.gates import GatedNetwork, insert_gates
from fupruner.pruning.importance import l1, l2, random
from fupruner.pruning.plan import Planner
from fupruner.pruning.pricing import Pricer
from fupruner.pruning.slim import slim
from helpers import assert_same_function
from strategies import networks

EXAMPLES = int(os.environ.get("FUPRUNER_FUZZ", "30"))
quick = settings(
    max_examples=EXAMPLES, deadline=None, derandomize="FUPRUNER_FUZZ" not in os.environ, print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)  # fmt: skip


def gated(model: nn.Module, x: Tensor, level: str = "none") -> tuple[fx.GraphModule, GatedNetwork]:
    graph = trace(model, x)
    if level != "none":
        graph, _ = fuse_graph(graph, (x,), level)
    shapes.propagate(graph, (x,))
    return graph, insert_gates(graph)


def close(network: GatedNetwork, share: float, seed: int) -> None:
    """Close a random share of every group, but not all of it, and random branches."""
    rng = np.random.default_rng(seed)
    is_open = np.ones(network.groups.labelling.units, dtype=bool)
    for group in network.groups.prunable:
        is_open[rng.permutation(group.units)[: int(share * len(group.units))]] = False
    network.set(is_open, frozenset(b.name for b, _ in network.branches if rng.random() < 0.3))


@quick
@given(
    networks(),
    st.sampled_from([0.0, 0.3, 0.6, 0.9]),
    st.integers(0, 99),
    st.sampled_from(["none", "basic", "aggressive"]),
)
def test_slimmed_equals_gated(network: tuple[nn.Module, Tensor], share: float, seed: int, level: str) -> None:
    model, x = network
    _, gates = gated(model, x, level)
    close(gates, share, seed)
    small = slim(gates, (x,))
    assert_same_function(gates.graph_module, small, x)
    assert_same_function(gates.graph_module, small, x[:1])
    assert sum(p.numel() for p in small.parameters()) <= sum(p.numel() for p in gates.graph_module.parameters())


@quick
@given(networks(), st.sampled_from([0.3, 0.7, 1.0]), st.integers(0, 99))
def test_gated_shortcuts_are_cut_and_fused_exactly(network: tuple[nn.Module, Tensor], share: float, seed: int) -> None:
    model, x = network
    graph = trace(model, x)
    shapes.propagate(graph, (x,))
    _, log = fuse_graph(graph, (x,), "aggressive")
    gates = insert_gates(graph, reserved=adds_into_filters(log))
    rng = np.random.default_rng(seed)
    close(gates, 0.5 * rng.random(), seed)
    is_open = gates.is_open
    for shortcut, _ in gates.shortcuts:
        units = shortcut.group.units
        is_open[rng.permutation(units)[: round(share * len(units))]] = False
    gates.set(is_open, gates.closed_branches)
    small = slim(gates, (x,))
    assert_same_function(gates.graph_module, small, x)
    fused, _ = fuse_graph(small, (x,), "aggressive")
    assert_same_function(gates.graph_module, fused, x)


@quick
@given(networks())
def test_open_gates_change_nothing(network: tuple[nn.Module, Tensor]) -> None:
    model, x = network
    _, gates = gated(model, x)
    assert_same_function(model, gates.graph_module, x)
    assert_same_function(model, slim(gates, (x,)), x)


@quick
@given(networks())
def test_groups_do_not_overlap_and_cover_every_filter(network: tuple[nn.Module, Tensor]) -> None:
    _, gates = gated(*network)
    units = np.concatenate([group.units for group in gates.groups.groups] or [np.zeros(0, dtype=np.int64)])
    assert len(units) == len(set(units.tolist()))
    labelling = gates.groups.labelling
    made = {layer.node for layer in gates.layers if layer.shape.kind in ("conv", "conv_transpose", "linear")}
    for node in made & set(labelling.labels):
        assert set(labelling.unit_of[labelling.labels[node].ravel()].tolist()) <= set(units.tolist())


@quick
@given(networks(), st.sampled_from([l1, l2, random]), st.sampled_from(["macs", "params"]))
def test_plans_meet_their_budget_and_none_beats_the_fastest(
    network: tuple[nn.Module, Tensor], score: object, kind: str
) -> None:
    model, x = network
    _, gates = gated(model, x)
    planner = Planner(gates, Pricer(gates, SizeModel(kind)), "counted", 4)
    importance = score(gates)  # type: ignore[operator]
    if planner.baseline_ms == 0:
        return
    sizes = [planner.baseline_ms]
    for speedup in (1.1, 1.5, 2.5):
        try:
            plan = planner.for_speedup(importance, speedup)
        except InputError as error:
            if "is the largest predicted one" not in str(error):
                raise
            break
        gates.set(plan.is_open, plan.closed_branches)
        slim(gates, (x,))
        assert plan.record.predicted_ms * speedup <= planner.baseline_ms * (1 + 1e-6)
        assert sum(m.saved_ms for m in plan.record.moves) == pytest.approx(
            planner.baseline_ms - plan.record.predicted_ms
        )
        sizes.append(plan.record.predicted_ms)
    assert planner.fastest(importance).record.predicted_ms <= min(sizes) * (1 + 1e-6)


@quick
@given(networks(), st.floats(0.05, 0.95))
def test_no_ratio_makes_a_network_larger(network: tuple[nn.Module, Tensor], ratio: float) -> None:
    model, x = network
    _, gates = gated(model, x)
    planner = Planner(gates, Pricer(gates, SizeModel("macs")), "counted", 4)
    for plan in (planner.uniform(l2(gates), ratio), planner.everywhere(l2(gates), ratio)):
        assert plan.record.predicted_ms <= plan.record.baseline_ms
        gates.set(plan.is_open, plan.closed_branches)
        assert_same_function(gates.graph_module, slim(gates, (x,)), x)


@settings(quick, max_examples=max(10, EXAMPLES // 3))
@given(networks(), st.integers(0, 99))
def test_compensation_without_cuts_changes_nothing_and_keeps_shapes(
    network: tuple[nn.Module, Tensor], seed: int
) -> None:
    model, x = network
    graph, gates = gated(model, x)
    small = slim(gates, (x,))
    assert_same_function(small, compensate(gates, small, graph, [x, x.flip(0)]), x)
    close(gates, 0.5, seed)
    small = slim(gates, (x,))
    made_up = compensate(gates, small, graph, [x])
    with torch.no_grad():
        assert made_up(x).shape == small(x).shape
        assert torch.isfinite(made_up(x)).all()


@settings(quick, max_examples=max(10, EXAMPLES // 3))
@given(networks())
def test_a_group_that_would_vanish_is_refused(network: tuple[nn.Module, Tensor]) -> None:
    model, x = network
    _, gates = gated(model, x)
    for group in gates.groups.prunable[:2]:
        is_open = np.ones(gates.groups.labelling.units, dtype=bool)
        is_open[group.units] = False
        gates.set(is_open, frozenset())
        try:
            small = slim(gates, (x,))
        except FuPrunerError as error:
            if "would lose all of its channels" not in str(error):
                raise
        else:  # other groups of the same layers are left
            assert_same_function(gates.graph_module, small, x)
