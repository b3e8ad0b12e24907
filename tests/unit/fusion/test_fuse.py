from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, fx, nn

from fupruner.errors import InputError
from fupruner.fusion import engine
from fupruner.fusion.fuse import fuse_graph
from fupruner.fusion.rule import Context, Match, Refuse, Rule
from fupruner.fusion.rules import ORDER, select
from fupruner.graph import edit
from fupruner.graph.layer_shape import LayerShape
from fupruner.graph.trace import trace
from fupruner.targets.cost_model import CostModel
from helpers import fired, fused, kinds, randomize, reasons
from strategies import Residual

X = torch.randn(2, 4, 9, 8, dtype=torch.float64)


class PerOperator(CostModel):
    """Every operator costs the same; multiply-adds as given."""

    grade = "estimated"
    source = "test"

    def __init__(self, per_mac: float, per_operator: float = 1.0, add: float = 0.0) -> None:
        self.per_mac, self.per_operator, self.add = per_mac, per_operator, add
        self.asked = 0

    def price(self, layers: Sequence[LayerShape]) -> list[float]:
        self.asked += len(layers)
        return [
            self.per_operator + self.per_mac * layer.macs + (self.add if layer.fused_add or layer.kind == "add" else 0)
            for layer in layers
        ]


class Backwards(CostModel):
    """Finds every network dearer the fewer operators it has."""

    grade = "estimated"
    source = "test"

    def price(self, layers: Sequence[LayerShape]) -> list[float]:
        return [1.0 if layer.kind != "conv" or not layer.activation else 9.0 for layer in layers]


def network() -> nn.Module:
    branch = nn.Sequential(
        nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
    )
    return randomize(nn.Sequential(nn.ReLU(), Residual(branch, nn.Identity(), nn.ReLU()))).double()


def test_auto_reserves_where_the_target_pays_for_adds() -> None:
    _, log = fuse_graph(trace(network(), X), (X,), "auto", cost_model=PerOperator(per_mac=1e-9, add=100.0))
    assert fired(log)["shortcut-into-filters"] == 1


def test_auto_keeps_the_add_where_it_is_free() -> None:
    graph, log = fuse_graph(trace(network(), X), (X,), "auto", cost_model=PerOperator(per_mac=1.0))
    assert kinds(graph)["add"] == 1
    assert kinds(graph)["BatchNorm2d"] == 0
    assert "dearer on the target" in reasons(log, "shortcut-into-filters")


def test_auto_never_returns_a_network_that_is_priced_above_the_unfused_one() -> None:
    model = randomize(nn.Sequential(nn.Conv2d(4, 4, 3), nn.MaxPool2d(2), nn.ReLU())).double()
    traced = trace(model, X)
    graph, log = fuse_graph(traced, (X,), "auto", cost_model=Backwards())
    prices = engine.Prices(Backwards())
    assert prices.of(graph) <= prices.of(traced)
    assert not log.fired
    assert "dearer on the target" in reasons(log, "auto")


def test_prices_are_asked_once_per_shape() -> None:
    model = PerOperator(per_mac=1.0)
    prices = engine.Prices(model)
    graph = trace(network(), X)
    fuse_graph(graph, (X,), "none")
    first = prices.of(graph)
    asked = model.asked
    assert prices.of(graph) == first
    assert model.asked == asked


def test_auto_without_cost_model_is_refused() -> None:
    with pytest.raises(InputError, match="auto needs a cost model"):
        fuse_graph(trace(network(), X), (X,), "auto")


def test_levels_contain_one_another() -> None:
    assert select("none") == []
    assert (
        {r.name for r in select("basic")} < {r.name for r in select("aggressive")} == {r.name for r in select("auto")}
    )
    assert "filters-into-shortcut" not in {r.name for r in select("aggressive")}


def test_single_rules_on_and_off() -> None:
    assert [r.name for r in select("basic", only=["norm-after-layer"])] == ["norm-after-layer"]
    assert "norm-after-layer" not in {r.name for r in select("basic", without=["norm-after-layer"])}
    assert kinds(fused(network(), X, "basic", without=["norm-after-layer"])[0])["BatchNorm2d"] == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"level": "agressive"}, "aggressive"), ({"level": "basic", "only": ["norm-after"]}, "norm-after-layer")],
)
def test_unknown_names_suggest_the_nearest(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        select(**arguments)  # type: ignore[arg-type]


def test_unknown_block_in_keep_is_refused() -> None:
    with pytest.raises(InputError, match="Unknown residual block 'nowhere'"):
        fuse_graph(trace(network(), X), (X,), "aggressive", keep={"nowhere": [0]})


class _Wrong(Rule):
    """Takes out an activation that does something."""

    name = "wrong"
    level = "basic"

    def find(self, context: Context, node: fx.Node) -> Match | Refuse | None:
        if not isinstance(context.module(node), nn.ReLU):
            return None
        return Match(node, (node.all_input_nodes[0],), node)

    def rewrite(self, context: Context, match: Match) -> fx.Node:
        edit.bypass(match.node, match.inputs[0])
        return match.inputs[0]


def test_a_rule_that_does_not_hold_is_undone_and_reported() -> None:
    traced = trace(network(), X)
    graph, log = engine.run(traced, (X,), [_Wrong()], level="basic")
    assert not log.fired
    assert kinds(graph) == kinds(traced)
    assert reasons(log, "wrong").startswith("undone: the rewrite differs by")


def test_weights_stay_as_they_are_when_layers_share_them() -> None:
    first, second = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
    second.weight = first.weight
    model = nn.Sequential(
        first, nn.ReLU(), second, nn.BatchNorm2d(4), nn.ReLU6(), nn.Conv2d(4, 6, 1), nn.BatchNorm2d(6)
    )
    graph = trace(randomize(model), X.float())
    before = {name: (tensor, tensor.clone()) for name, tensor in graph.state_dict(keep_vars=True).items()}
    fused_graph, log = fuse_graph(graph, (X.float(),), "aggressive")
    assert "shares its weights" in reasons(log, "norm-after-layer")
    assert fired(log)["norm-after-layer"] == 1
    assert all(graph.state_dict(keep_vars=True)[name] is tensor for name, (tensor, _) in before.items())
    assert all(torch.equal(tensor, value) for tensor, value in before.values())
    own = {id(tensor) for tensor in [*fused_graph.parameters(), *fused_graph.buffers()]}
    assert not own & {id(tensor) for tensor, _ in before.values()}, "training the result would change the network given"
    assert {tensor.dtype for tensor in fused_graph.parameters()} == {torch.float32}


@pytest.mark.parametrize("rule", ORDER, ids=lambda rule: rule.name)
def test_rule_is_unique_and_documented(rule: Rule) -> None:
    assert sum(other.name == rule.name for other in ORDER) == 1
    assert rule.level in ("basic", "aggressive", "request")
    assert type(rule).__doc__
    module = __import__(type(rule).__module__, fromlist=["x"])
    assert len((module.__doc__ or "").splitlines()) > 3, "the algebra belongs in the docstring of the file"


def test_a_value_on_two_outputs() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            y = self.norm(self.conv(x))
            return {"out": y, "again": torch.relu(y)}

    assert kinds(fused(Two(), X, "basic")[0])["BatchNorm2d"] == 0


@pytest.mark.parametrize(
    "failure",
    [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")],
)
def test_memory_that_runs_out_is_told_in_words(monkeypatch: pytest.MonkeyPatch, failure: Exception) -> None:
    def runs_out(*_: object) -> None:
        raise failure

    monkeypatch.setattr("fupruner.graph.edit.twin", runs_out)
    with pytest.raises(InputError, match=r"Memory ran out while fusing a network with 0\.0 GiB of weights"):
        fuse_graph(trace(nn.Conv2d(4, 4, 1).double(), X), (X,), "basic")


def test_a_fold_that_wrote_over_spare_memory_can_be_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(
        nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 5, 3), nn.BatchNorm2d(5)
    ).eval()
    randomize(model)
    model, x = model.float(), X.float()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    traced, compared = trace(model, x, borrow=True), engine.check.relative_error
    answers = iter([1.0])
    monkeypatch.setattr(engine.check, "relative_error", lambda a, b: next(answers, None) or compared(a, b))
    graph, log = fuse_graph(traced, (x,), "basic")
    assert [refusal.reason for refusal in log.refused if "undone" in refusal.reason]
    assert kinds(graph)["BatchNorm2d"] == 1  # the other one is folded
    torch.testing.assert_close(graph(x), model(x), atol=1e-5, rtol=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
