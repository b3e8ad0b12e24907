"""Importance from weights alone. Scores are shares of a layer: they order gates but predict no loss.

The shares of one layer's filters add up to 1. A unit's score is the sum over the layers that make it; a branch's score is
1 for its largest layer, so that a branch costs as much as all filters of a layer; so does an activation.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fupruner.errors import InputError
from fupruner.graph import edit
from fupruner.graph.cost import NORMS, TRANSPOSED
from fupruner.pruning.gates import GatedNetwork
from fupruner.pruning.groups import WEIGHTED
from fupruner.pruning.scores import Importance, Scores, require_finite
from fupruner.training.task import CalibrationData

FEWEST = 1e-30


def l1(network: GatedNetwork, task: CalibrationData | None = None, images: int = 0) -> Importance:
    """Share of the absolute weights of its layers that a unit holds (Li et al., arXiv 1608.08710); needs no data."""
    return _importance(network, "l1", lambda filters: torch.linalg.vector_norm(filters, 1, dim=1))


def l2(network: GatedNetwork, task: CalibrationData | None = None, images: int = 0) -> Importance:
    """Share of the squared weights of its layers that a unit holds; needs no data."""
    return _importance(network, "l2", lambda filters: torch.linalg.vector_norm(filters, dim=1).square())


def geometric_median(network: GatedNetwork, task: CalibrationData | None = None, images: int = 0) -> Importance:
    """Share of the distances between a layer's filters that are a unit's; needs no data.

    A filter near the geometric median of its layer is the one that others replace best (He et al., arXiv 1811.00250).
    """
    return _importance(
        network, "geometric-median", lambda filters: torch.cdist(filters.double(), filters.double()).sum(1)
    )


def bn_scale(network: GatedNetwork, task: CalibrationData | None = None, images: int = 0) -> Importance:
    """Share of the absolute scales of its batch norms that a unit holds (Liu et al., arXiv 1708.06519); needs no data.

    Units without a batch norm get their share of absolute weights.

    Raises:
        InputError: the network has no batch norm with scales, or a score is not a number.
    """
    total, _ = _shares(network, NORMS, lambda norm: norm.weight.detach().double().abs())
    if not total.any():
        raise InputError("The importance bn-scale needs batch norms; this network has none.", hint="Choose l1 or l2.")
    weights, branches = _shares(network, WEIGHTED, lambda layer: filters_of(layer).abs().sum(1))
    require_finite(total, "bn-scale")
    units = _with_shortcuts(network, np.where(total > 0, total, weights))
    return Importance("bn-scale", units, branches, _activations(network))


def random(network: GatedNetwork, task: CalibrationData | None = None, images: int = 0) -> Importance:
    """Shares drawn at random, to compare others with: a hash of a filter's weights, so that a filter keeps its number."""
    return _importance(network, "random", _hashes)


def _hashes(filters: Tensor) -> Tensor:
    return torch.tensor([zlib.crc32(row.double().numpy().tobytes()) / 2**32 for row in filters], dtype=torch.float64)


def _importance(network: GatedNetwork, criterion: str, figure: Callable[[Tensor], Tensor]) -> Importance:
    units, branches = _shares(network, WEIGHTED, lambda layer: figure(filters_of(layer)))
    require_finite(units, criterion)
    return Importance(criterion, _with_shortcuts(network, units), branches, _activations(network))


def _with_shortcuts(network: GatedNetwork, units: Scores) -> Scores:
    """Identity filters all have the same weights: what a shortcut carries is worth what the filters that make it are worth.

    The shares of a shortcut add up to 1, as those of a layer do.
    """
    scores = units.copy()
    for shortcut, _ in network.shortcuts:
        own = shortcut.group.units
        worth = np.ones(len(own)) if shortcut.carried is None else units[shortcut.carried] + FEWEST
        scores[own] = worth / worth.sum()
    return scores


def _activations(network: GatedNetwork) -> dict[str, float]:
    """Weights do not say what an activation is worth: as much as all filters of the layer that it follows."""
    return {activation.name: 1.0 for activation, _ in network.activations}


def _shares(
    network: GatedNetwork, kinds: tuple[type[nn.Module], ...], figure: Callable[[Any], Tensor]
) -> tuple[Scores, dict[str, float]]:
    """Shares of a figure per filter, summed over the layers of some kinds that make a unit, and per branch."""
    labelling = network.groups.labelling
    total = np.zeros(labelling.units)
    per_layer: dict[Any, float] = {}
    for node in network.graph_module.graph.nodes:
        layer: Any = edit.module_of(network.graph_module, node)
        if not isinstance(layer, kinds) or node not in labelling.labels or layer.weight is None:
            continue
        values = figure(layer).double()
        shares = (values / values.sum().clamp_min(FEWEST)).numpy()
        np.add.at(total, labelling.unit_of[labelling.labels[node].ravel()], shares)
        per_layer[node] = float(shares.sum())
    return total, {b.name: max((per_layer.get(n, 0.0) for n in b.nodes), default=0.0) for b, _ in network.branches}


def filters_of(layer: Any) -> Tensor:
    """Weights of a layer by output channel, (out, everything else)."""
    weight: Tensor = layer.weight.detach()
    if isinstance(layer, TRANSPOSED):
        weight = weight.unflatten(0, (layer.groups, -1)).transpose(1, 2).flatten(0, 1)
    return weight.flatten(1)
