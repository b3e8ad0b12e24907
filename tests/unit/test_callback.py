"""Pruning inside a loop that is the test's own: gates close and freeze, parameters stay, the result is exact."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fupruner
from fupruner.callback import PruningCallback
from fupruner.errors import InputError
from fupruner.graph.cost import is_add
from fupruner.pruning.factors import of_branches
from helpers import FLOAT32, FLOAT64, assert_same_function
from unit.pruning import nets
from unit.pruning.test_verify import Stubborn

IMAGES = torch.randn(24, 3, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(24) % 5
BATCHES = [(IMAGES[i : i + 8], LABELS[i : i + 8]) for i in (0, 8, 16)]


@pytest.fixture(autouse=True)
def made_up_device(monkeypatch: pytest.MonkeyPatch) -> None:
    devices = {"cpu": Stubborn(1.0), "stubborn": Stubborn(0.7)}
    monkeypatch.setattr("fupruner.callback.get_target", lambda name, *_: devices[name])


def loss(module: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return F.cross_entropy(module(batch[0]), batch[1])


def callback(model: nn.Module | None = None, **changed) -> PruningCallback:
    given = {
        "loss": loss, "calibration": BATCHES, "speedup": 1.5, "total_steps": 20, "deadline": 0.6, "decisions": 3, "fusion": "basic",
    }  # fmt: skip
    return PruningCallback(model or nets.randomise(nets.Residual(64)), IMAGES[:1], **{**given, **changed})


def run(pruning: PruningCallback, steps: int, rate: float = 1e-3) -> torch.optim.Optimizer:
    optimizer = torch.optim.SGD(pruning.module.parameters(), rate, momentum=0.9)
    for step in range(steps):
        loss(pruning.module, BATCHES[step % 3]).backward()
        optimizer.step()
        optimizer.zero_grad()
        pruning.on_step()
    return optimizer


@pytest.mark.parametrize(("fusion", "tolerance"), [("none", FLOAT64), ("basic", FLOAT32)])
def test_gates_are_decided_at_set_steps_and_the_result_is_what_was_trained(fusion, tolerance):
    model = nets.randomise(nets.Residual(64))
    before = copy.deepcopy(model.state_dict())
    pruning = callback(model, fusion=fusion)
    assert pruning.module.training
    run(pruning, 20)
    steps = [d.step for d in pruning.decisions]
    assert steps[:3] == [4, 8, 12]
    assert set(steps[3:]) <= {12}  # planned again where it is not as fast as asked, or much faster
    closed = [d.closed for d in pruning.decisions[:3]]
    assert closed == sorted(closed)
    trained = copy.deepcopy(pruning.module).eval()
    result = pruning.finish()
    assert_same_function(trained, result.module, IMAGES, tolerance=tolerance)
    assert result.speedup >= 1.5
    assert result.plan.moves
    assert result.decisions == pruning.decisions
    assert sum(p.numel() for p in result.module.parameters()) < sum(p.numel() for p in model.parameters())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_channels_of_shortcuts_are_pruned_where_they_ship_as_filters():
    pruning = callback(fusion="aggressive", speedup=2.0)
    carried = {name: len(shortcut.group.units) for shortcut, name in _reserved(pruning)}
    assert carried
    run(pruning, 20)
    trained = copy.deepcopy(pruning.module).eval()
    result = pruning.finish()
    assert_same_function(trained, result.module, IMAGES, tolerance=FLOAT32)
    assert result.plan.carried_before == carried
    assert 0 < sum(result.plan.carried_after.values()) < sum(carried.values())
    assert not [node for node in result.module.graph.nodes if is_add(node)]


def _reserved(pruning: PruningCallback):
    return [(shortcut, shortcut.branch.name) for shortcut, _ in pruning._pruning.network.shortcuts]


def test_parameters_stay_the_same_objects_until_the_end():
    pruning = callback()
    parameters = list(pruning.module.parameters())
    optimizer = run(pruning, 20)
    assert all(a is b for a, b in zip(parameters, pruning.module.parameters(), strict=True))
    assert pruning.frozen
    assert all(p in optimizer.state for p in parameters)


def test_decisions_leave_modes_gradients_and_random_state_alone():
    pruning = callback(total_steps=2, decisions=1, deadline=0.5)
    norm = next(m for m in pruning.module.modules() if isinstance(m, nn.BatchNorm2d)).eval()
    statistics = norm.running_mean.clone()
    parameter = next(pruning.module.parameters())
    parameter.grad = torch.ones_like(parameter)
    state = torch.random.get_rng_state()
    with torch.no_grad():
        assert pruning.on_step() is not None
    assert pruning.module.training
    assert not norm.training
    assert torch.equal(norm.running_mean, statistics)
    assert bool((parameter.grad == 1).all())
    assert all(p.requires_grad for p in pruning.module.parameters())
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_network_that_is_cut_early_is_trained_on_with_new_parameters():
    pruning = callback(fusion="none")
    with pytest.raises(InputError, match="decided until step 12; this is step 0"):
        pruning.slim()
    run(pruning, 12)
    gated = copy.deepcopy(pruning.module).eval()
    small = pruning.slim()
    assert small is pruning.module is pruning.slim()
    assert small.training
    assert_same_function(gated, small.eval(), IMAGES)
    small.train()
    run(pruning, 8)
    trained = copy.deepcopy(small).eval()
    assert_same_function(trained, pruning.finish().module, IMAGES)


def test_epochs_are_recorded_with_the_loops_own_figure():
    pruning = callback()
    run(pruning, 10)
    first = pruning.on_epoch(91.5)
    run(pruning, 10)
    second = pruning.on_epoch()
    assert (first.epoch, first.step, first.metric, first.closed) == (1, 10, 91.5, pruning.decisions[1].closed)
    assert (second.epoch, second.step, second.metric) == (2, 20, None)
    assert pruning.finish().epochs == (first, second)


def test_a_plan_that_is_measured_too_slow_is_made_again():
    pruning = callback(target="stubborn", speedup=1.3)
    run(pruning, 20)
    assert [d.step for d in pruning.decisions] == [4, 8, 12, 12]
    assert pruning.decisions[3].asked_speedup > 1.3
    assert pruning.finish().speedup > 1.2


def train_on(pruning: PruningCallback, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for _ in range(steps):
        loss(pruning.module, BATCHES[pruning.step % 3]).backward()
        optimizer.step()
        optimizer.zero_grad()
        pruning.on_step()
        if pruning.step % 5 == 0:
            pruning.on_epoch(float(pruning.step))


@pytest.mark.parametrize(("at", "cut"), [(0, False), (6, False), (12, False), (15, True)])
def test_a_loop_that_goes_on_from_a_checkpoint_comes_to_the_same_network(at, cut, tmp_path):
    def begin(pruning: PruningCallback) -> torch.optim.Optimizer:
        return torch.optim.SGD(pruning.module.parameters(), 1e-3, momentum=0.9)

    model = nets.randomise(nets.Residual(64))
    whole = callback(model)
    optimizer = begin(whole)
    train_on(whole, optimizer, at)
    if cut:
        whole.slim()
        optimizer = begin(whole)
        train_on(whole, optimizer, 1)
    torch.save({"pruning": whole.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "checkpoint.pt")
    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    second = callback(model)
    second.load_state_dict(saved["pruning"])
    resumed = begin(second)
    resumed.load_state_dict(saved["optimizer"])
    for pruning, its in ((whole, optimizer), (second, resumed)):
        train_on(pruning, its, 20 - pruning.step)
    expected, found = whole.finish(), second.finish()
    assert found.plan == expected.plan
    assert found.decisions == expected.decisions
    assert found.epochs == expected.epochs
    assert len(found.epochs) == 4
    wanted = expected.module.state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in found.module.state_dict().items())


def test_the_state_of_another_pruning_is_refused():
    state = callback().state_dict()
    with pytest.raises(InputError, match="that of another pruning"):
        callback(total_steps=40).load_state_dict(state)
    with pytest.raises(InputError, match="that of another pruning"):
        callback(nets.randomise(nets.Residual(32))).load_state_dict(state)
    pruning = callback()
    run(pruning, 12)
    pruning.slim()
    with pytest.raises(InputError, match="cut already"):
        pruning.load_state_dict(state)


def test_scores_are_corrected_by_plans_as_a_whole(monkeypatch):
    asked = []

    def lightest(planner, importance, speedup, loss, *, plans):
        plan = planner.for_speedup(importance, speedup)
        asked.append((speedup, loss(plan), plans))
        return of_branches(importance.branches, 1e-6)

    evenly = callback()
    run(evenly, 12)
    monkeypatch.setattr("fupruner.callback.best_factors", lightest)
    pruning = callback(plans=7)
    run(pruning, 12)
    assert [(speedup, plans) for speedup, _, plans in asked] == [(1.5, 7)]
    assert 0 < asked[0][1] < 10
    branches = [
        [move.where for move in each.finish().plan.moves if move.kind == "branch"] for each in (evenly, pruning)
    ]
    assert len(branches[1]) > len(branches[0])


def test_a_loop_that_ends_early_is_told_and_still_gets_its_network(caplog):
    pruning = callback()
    run(pruning, 5)
    result = pruning.finish()
    assert "ended at step 5, before the deadline at step 12" in caplog.text
    assert result.speedup >= 1.5


def test_batches_may_be_anything():
    batches = [{"x": x, "y": y, "name": "batch"} for x, y in BATCHES]
    pruning = callback(
        calibration=batches,
        inputs=lambda batch: batch["x"],
        loss=lambda module, batch: F.cross_entropy(module(batch["x"]), batch["y"], reduction="none"),
    )
    run(pruning, 12)
    assert pruning.frozen


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"speedup": 1.0}, "must be more than 1"),
        ({"speedup": 1e6}, "out of reach"),
        ({"total_steps": 0}, "has 0 steps"),
        ({"deadline": 0.0}, "deadline is 0.0"),
        ({"deadline": 1.5}, "deadline is 1.5"),
        ({"decisions": 0}, "0 decisions"),
        ({"plans": 0}, "0 plans"),
        ({"importance": "fischer"}, "Unknown importance 'fischer'"),
    ],
)
def test_unusable_arguments_are_refused_at_once(changed, message):
    with pytest.raises(InputError, match=message):
        callback(**changed)


def test_a_network_without_anything_to_prune_is_refused():
    with pytest.raises(InputError, match="nothing to prune"):
        callback(nn.Sequential(nn.Flatten(), nn.Linear(192, 5)))


def test_callback_is_public():
    assert fupruner.PruningCallback is PruningCallback
