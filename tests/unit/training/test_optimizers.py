"""Which parameters take which steps, and how large these are."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fupruner.errors import InputError
from fupruner.training.optimizers import Muon, make_optimizer, orthogonal


def small_net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Conv2d(6, 6, 3, groups=6), nn.Conv2d(6, 8, 3, groups=2), nn.Flatten(), nn.Linear(72, 4)
    )  # fmt: skip


def learn(model: nn.Module, optimizer: torch.optim.Optimizer, rate: float, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    model(torch.randn(5, 3, 9, 9, generator=generator)).square().mean().backward()
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    optimizer.zero_grad()


def test_only_matrices_and_kernels_decay():
    model = small_net()
    groups = make_optimizer(model, 0.1).param_groups
    decay = {id(parameter): group["weight_decay"] for group in groups for parameter in group["params"]}
    matrices = {name for name, parameter in model.named_parameters() if parameter.ndim > 1}
    assert matrices == {"0.weight", "2.weight", "3.weight", "5.weight"}
    assert {name for name, parameter in model.named_parameters() if decay[id(parameter)] == 0.1} == matrices


@given(st.integers(1, 24), st.integers(1, 24), st.integers(0, 1000), st.sampled_from([1e-8, 1.0, 1e6]))
def test_steps_are_about_orthogonal_whatever_the_gradients_size(rows, columns, seed, size):
    matrix = size * torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    before = torch.linalg.svd(matrix.double(), full_matrices=False)
    after = torch.linalg.svdvals(orthogonal(matrix).double())
    large = int((0.02 * matrix.norm() < before.S).sum())
    assert after[:large].min() > 0.4
    assert after.max() < 1.4
    aligned = torch.einsum("ri,rc,ic->i", before.U, orthogonal(matrix).double(), before.Vh)[:large]
    assert aligned.min() > 0.4  # the directions are the gradient's own


def test_no_gradient_no_step():
    assert torch.equal(orthogonal(torch.zeros(3, 5)), torch.zeros(3, 5))
    model = nn.Conv2d(3, 4, 3)
    before = model.weight.detach().clone()
    optimizer = make_optimizer(model, 0.1, "muon")
    model.weight.grad = torch.zeros_like(model.weight)
    for group in optimizer.param_groups:
        group["lr"] = 0.1
    optimizer.step()
    assert torch.equal(model.weight, before)


def test_a_dense_kernel_moves_by_the_rate_times_its_own_size():
    model = small_net()
    before = copy.deepcopy(model)
    learn(model, make_optimizer(model, 0.0, "muon"), 0.01)
    for index in (0, 5):
        was, now = before[index].weight.detach(), model[index].weight.detach()
        assert float((now - was).norm() / was.norm()) == pytest.approx(0.01, rel=1e-4)


def test_grouped_kernels_norms_and_biases_take_the_steps_of_sgd():
    plain, turned = small_net(), small_net()
    learn(plain, make_optimizer(plain, 0.1, "sgd"), 0.01)
    optimizer = make_optimizer(turned, 0.1, "muon")
    learn(turned, optimizer, 0.01)
    assert isinstance(optimizer, Muon)
    found, expected = turned.state_dict(), plain.state_dict()
    differing = {name for name, value in found.items() if not torch.equal(value, expected[name])}
    assert differing == {"0.weight", "5.weight"}


def test_momentum_is_kept_and_comes_back_with_the_state(tmp_path):
    whole, parts = small_net(), small_net()
    first, second = make_optimizer(whole, 0.1, "muon"), make_optimizer(parts, 0.1, "muon")
    for seed in range(4):
        learn(whole, first, 0.02, seed)
    for seed in range(2):
        learn(parts, second, 0.02, seed)
    torch.save(second.state_dict(), tmp_path / "state.pt")
    resumed = make_optimizer(parts, 0.1, "muon")
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for seed in range(2, 4):
        learn(parts, resumed, 0.02, seed)
    assert all(torch.equal(value, whole.state_dict()[name]) for name, value in parts.state_dict().items())


def test_a_closure_is_asked_before_the_kernels_move():
    plain, closed = small_net(), small_net()
    learn(plain, make_optimizer(plain, 0.1, "muon"), 0.02)
    optimizer = make_optimizer(closed, 0.1, "muon")
    for group in optimizer.param_groups:
        group["lr"] = 0.02

    def closure() -> torch.Tensor:
        loss = closed(torch.randn(5, 3, 9, 9, generator=torch.Generator().manual_seed(0))).square().mean()
        loss.backward()
        return loss

    assert float(optimizer.step(closure).detach()) > 0
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in closed.state_dict().items())


def test_a_kernel_of_zeros_still_learns():
    model = nn.Conv2d(3, 4, 3)
    nn.init.zeros_(model.weight)
    learn(model, make_optimizer(model, 0.0, "muon"), 0.01)
    assert float(model.weight.detach().norm()) == pytest.approx(0.01, rel=1e-4)


def test_a_network_without_dense_kernels_takes_the_steps_of_sgd():
    assert not isinstance(make_optimizer(nn.BatchNorm2d(3), 0.1, "muon"), Muon)


def test_an_unknown_name_is_refused():
    with pytest.raises(InputError, match="Unknown optimizer 'adam'"):
        make_optimizer(nn.Linear(2, 2), 0.1, "adam")
