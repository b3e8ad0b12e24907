"""Batch norms that have to learn the statistics of a network that has changed."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fupruner.training.modes import modes_kept, stop_training


def reestimate_norms(model: nn.Module, batches: Iterable[Tensor]) -> int:
    """Replace the running statistics of every batch norm by the average over these inputs, in place.

    Each norm normalises by the batch while it gathers, so the norms behind it see what they will see in training.
    Nothing else of the model is in training mode, and all modes and momenta are put back.

    Args:
        model: the network.
        batches: normalised inputs (N, ...), the same size each for an unweighted average.

    Returns:
        How many norms there are; without any, or without a batch, nothing is changed.
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    iterator = iter(batches)
    first = next(iterator, None)
    if not norms or first is None:
        return len(norms)
    momenta = {norm: norm.momentum for norm in norms}
    with modes_kept(model), torch.no_grad():
        stop_training(model)
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the running statistics become the plain average
            norm.training = True
        try:
            model(first)
            for inputs in iterator:
                model(inputs)
        finally:
            for norm, momentum in momenta.items():
                norm.momentum = momentum
    return len(norms)
