from __future__ import annotations

import pytest
import torch
from torch import nn

from fupruner.errors import InputError
from fupruner.fusion import freeze_reserved, fuse_graph, insert_norms, release_reserved
from fupruner.fusion.algebra import reserved_filters
from fupruner.models.cifar_resnet import resnet20
from helpers import assert_same_function, fused, kinds


@pytest.fixture(scope="module")
def fused_network() -> torch.fx.GraphModule:
    return fused(resnet20(), torch.randn(2, 3, 16, 16))[0]


def batches(count: int = 2) -> list[torch.Tensor]:
    return [torch.randn(16, 3, 16, 16, dtype=torch.float64) for _ in range(count)]


def reserved(network: nn.Module) -> list[torch.Tensor]:
    return [m.weight[reserved_filters(m)].detach().clone() for m in network.modules() if isinstance(m, nn.Conv2d)]


def test_calibrated_norms_are_the_identity_in_eval_mode(fused_network: torch.fx.GraphModule) -> None:
    normed = insert_norms(fused_network, batches())
    assert kinds(normed)["BatchNorm2d"] + kinds(normed)["ReservedNorm"] == kinds(normed)["Conv2d"]
    assert_same_function(fused_network, normed, torch.randn(3, 3, 17, 16))


def test_calibrated_norms_barely_change_train_mode_on_calibration_data(fused_network: torch.fx.GraphModule) -> None:
    [batch] = batches(1)
    normed = insert_norms(fused_network, [batch])
    with torch.no_grad():
        expected, actual = fused_network(batch), normed.train()(batch)
    assert float((expected - actual).abs().max()) <= 1e-3 * float(expected.abs().max())


def test_calibrated_norms_fold_again(fused_network: torch.fx.GraphModule) -> None:
    normed = insert_norms(fused_network, batches())
    folded, _ = fuse_graph(normed, (batches()[0][:2],), "basic", only=["norm-after-layer"])
    assert kinds(folded) == kinds(fused_network)
    assert_same_function(normed, folded, torch.randn(2, 3, 16, 16))


def test_filters_have_the_length_of_a_fresh_network(fused_network: torch.fx.GraphModule) -> None:
    normed = insert_norms(fused_network, batches())
    for module in normed.modules():
        if isinstance(module, nn.Conv2d):
            lengths = module.weight[~reserved_filters(module)].flatten(1).norm(dim=1)
            assert torch.allclose(lengths, torch.full_like(lengths, 2**0.5))


def test_frozen_filters_survive_momentum_and_weight_decay(fused_network: torch.fx.GraphModule) -> None:
    normed = insert_norms(fused_network, batches())
    before = reserved(normed)
    assert freeze_reserved(normed, columns=True) == sum(len(rows) for rows in before) > 0
    optimizer = torch.optim.SGD(normed.parameters(), 0.1, momentum=0.9, weight_decay=0.01)
    normed.train()
    for batch in batches(3):
        optimizer.zero_grad()
        normed(batch).square().mean().backward()
        optimizer.step()
    release_reserved(normed)
    assert all(torch.equal(a, b) for a, b in zip(before, reserved(normed), strict=True))
    assert not any("parametrizations" in name for name, _ in normed.named_parameters())


def test_without_calibration_data_is_refused(fused_network: torch.fx.GraphModule) -> None:
    with pytest.raises(InputError, match="No calibration batch was given"):
        insert_norms(fused_network, [])
