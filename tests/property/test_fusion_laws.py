"""Laws of fusion on random networks. FUPRUNER_FUZZ=2000 in the environment sets how many: ``make campaign`` counts and prints."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from torch import Tensor, nn

from fupruner.fusion.fuse import fuse_graph
from fupruner.graph import check
from fupruner.graph.trace import trace
from helpers import assert_same_function
from strategies import networks

EXAMPLES = int(os.environ.get("FUPRUNER_FUZZ", "40"))
quick = settings(
    max_examples=EXAMPLES, deadline=None, derandomize="FUPRUNER_FUZZ" not in os.environ, print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)  # fmt: skip


COUNTS: Counter[str] = Counter()
"""What the networks of this run did: fused at a level, rules that fired, places refused."""


@pytest.fixture(scope="module", autouse=True)
def tell() -> Iterator[None]:
    """Print the figures of a campaign."""
    yield
    if "FUPRUNER_FUZZ" in os.environ:
        print("\n" + "\n".join(f"{count:7,} {what}" for what, count in sorted(COUNTS.items())))


@quick
@given(networks())
def test_every_level_keeps_the_function(network: tuple[nn.Module, Tensor]) -> None:
    model, x = network
    graph = trace(model, x)
    other = torch.randn(3, x.shape[1], x.shape[2] + 3, x.shape[3] + 2, dtype=x.dtype)
    inputs = [x, x[:1]] + ([other] if check.accepts(model, (other,)) and check.accepts(graph, (other,)) else [])
    for level in ("none", "basic", "aggressive"):
        fused, log = fuse_graph(graph, (x,), level)
        assert log.max_error <= check.FLOAT64_TOLERANCE
        assert not [r for r in log.refused if r.reason.startswith("undone")], "a rule fired where it does not hold"
        for tried in inputs:
            assert_same_function(model, fused, tried)
        COUNTS.update([f"networks at {level}", *(f"rule {fired.rule}" for fired in log.fired)])
        COUNTS[f"places refused at {level}"] += len(log.refused)
        if level == "none":
            assert not log.fired
        if level == "basic":
            assert log.after.macs <= log.before.macs


@settings(quick, max_examples=max(10, EXAMPLES // 4))
@given(networks())
def test_a_fused_network_has_nothing_left_to_fuse(network: tuple[nn.Module, Tensor]) -> None:
    model, x = network
    fused, _ = fuse_graph(trace(model, x), (x,), "aggressive")
    again, log = fuse_graph(fused, (x,), "aggressive")
    assert not log.fired
    assert_same_function(fused, again, x)


@settings(quick, max_examples=max(10, EXAMPLES // 4))
@given(networks())
def test_a_fused_network_can_be_traced_again(network: tuple[nn.Module, Tensor]) -> None:
    model, x = network
    fused, _ = fuse_graph(trace(model, x), (x,), "aggressive")
    assert_same_function(model, trace(fused, x), x)


@pytest.mark.parametrize("level", ["basic", "aggressive"])
@settings(quick, max_examples=max(10, EXAMPLES // 4))
@given(network=networks())
def test_the_graph_given_is_not_modified(level: str, network: tuple[nn.Module, Tensor]) -> None:
    model, x = network
    graph = trace(model, x)
    before = {name: tensor.clone() for name, tensor in graph.state_dict().items()}
    code = graph.code
    fuse_graph(graph, (x,), level)
    assert graph.code == code
    assert all(torch.equal(tensor, graph.state_dict()[name]) for name, tensor in before.items())
