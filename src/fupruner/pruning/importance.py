"""Importance: the predicted increase of the loss when a gate closes. One function per criterion, all of the same form.

``fisher`` speaks in nats per sample and covers channels and branches in one currency. ``l2`` needs no data; its scores
are shares of a layer's squared weight norm, so they order channels but are no prediction of the loss.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fupruner.errors import InputError
from fupruner.graph import edit
from fupruner.graph.cost import TRANSPOSED
from fupruner.pruning.gates import GatedNetwork
from fupruner.pruning.groups import WEIGHTED
from fupruner.training.task import Task

Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Importance:
    """Scores of everything that can be closed.

    Attributes:
        criterion: the function that made them.
        units: (units,) predicted loss increase of closing each unit alone; they add up over a bundle.
        branches: the same for whole branches, by name.
    """

    criterion: str
    units: Scores
    branches: dict[str, float]


def fisher(network: GatedNetwork, task: Task, images: int) -> Importance:
    """Half the mean squared gradient of the loss with respect to each gate, in nats per sample.

    This is the second-order term of the loss in the gate with the empirical Fisher information as its curvature; the
    gradients of all gates of a unit are summed per sample before they are squared (Group Fisher Pruning, arXiv
    2108.00708). Closed gates are scored at zero, so that what matters again can come back. A branch is scored by the
    larger of that figure and the loss difference that closing it really makes.

    Args:
        network: its gates stay as they are.
        task: gives calibration batches and per-sample losses.
        images: how many calibration images to use.

    Raises:
        InputError: a score is not a number.
    """
    total = np.zeros(network.groups.labelling.units)
    branch_total = {branch.name: 0.0 for branch, _ in network.branches}
    count = 0
    with _scoring(network):
        for batch in task.calibration_batches(images):
            samples = len(task.inputs(batch))
            task.sample_losses(network.graph_module, batch).float().sum().backward()
            total += _unit_gradients(network, samples).square().sum(0).numpy()
            for branch, gate in network.branches:
                gradient = gate.gradients()
                if gradient is not None:
                    branch_total[branch.name] += float(gradient.square().sum())
            count += samples
    _require_finite(total, "fisher")
    measured = branch_losses(network, task, images)
    branches = {name: max(0.5 * value / max(1, count), measured[name]) for name, value in branch_total.items()}
    return Importance("fisher", 0.5 * total / max(1, count), branches)


def _unit_gradients(network: GatedNetwork, samples: int) -> Tensor:
    """Gradient per sample and unit (N, units), summed over the places where a unit is gated."""
    result = torch.zeros(samples, network.groups.labelling.units)
    for gate, units in network.gates:
        gradient = gate.gradients()
        if gradient is not None:
            result.index_add_(1, torch.from_numpy(units), gradient)
    return result


@contextmanager
def _scoring(network: GatedNetwork) -> Iterator[None]:
    """Gate variables on, weights without gradients, eval mode; all of it is undone."""
    parameters = [p for p in network.graph_module.parameters() if p.requires_grad]
    gates = [gate for gate, _ in network.gates] + [gate for _, gate in network.branches]
    training = network.graph_module.training
    network.graph_module.eval()
    for parameter in parameters:
        parameter.requires_grad_(False)
    for gate in gates:
        gate.start_scoring()
    try:
        yield
    finally:
        for gate in gates:
            gate.stop_scoring()
        for parameter in parameters:
            parameter.requires_grad_(True)
        network.graph_module.train(training)


@torch.no_grad()
def branch_losses(network: GatedNetwork, task: Task, images: int, *, limit: int = 256) -> dict[str, float]:
    """Loss difference in nats per sample when each branch alone closes, over at most ``limit`` calibration images.

    All other gates stay as they are, also where they are only closing.
    """
    batches = list(task.calibration_batches(min(images, limit)))
    training = network.graph_module.training
    network.graph_module.eval()

    def mean_loss() -> float:
        losses = [task.sample_losses(network.graph_module, batch).float() for batch in batches]
        return float(torch.cat(losses).mean())

    differences = {}
    as_it_is = mean_loss() if network.branches else 0.0
    for branch, gate in network.branches:
        closed = branch.name in network.closed_branches
        gate.set(np.array([True]))
        without = mean_loss()
        gate.set(np.array([False]))
        differences[branch.name] = max(0.0, without - (mean_loss() if closed else as_it_is))
        gate.set(np.array([closed]), network.softness)
    network.graph_module.train(training)
    return differences


def l2(network: GatedNetwork) -> Importance:
    """Share of the squared weight norm of its producers that a unit holds, summed over producers; needs no data.

    A branch's score is the sum of the shares of the channels that its last layer makes.
    """
    labelling = network.groups.labelling
    total = np.zeros(labelling.units)
    per_layer: dict[Any, float] = {}
    for node in network.graph_module.graph.nodes:
        layer: Any = edit.module_of(network.graph_module, node)
        if not isinstance(layer, WEIGHTED) or node not in labelling.labels:
            continue
        shares = _filter_shares(layer)
        np.add.at(total, labelling.unit_of[labelling.labels[node].ravel()], shares)
        per_layer[node] = float(shares.sum())
    branches = {b.name: max((per_layer.get(n, 0.0) for n in b.nodes), default=0.0) for b, _ in network.branches}
    _require_finite(total, "l2")
    return Importance("l2", total, branches)


def _filter_shares(layer: nn.Module) -> Scores:
    weight = layer.weight.detach().double()  # type: ignore[operator,union-attr]
    if isinstance(layer, TRANSPOSED):
        weight = weight.unflatten(0, (layer.groups, -1)).transpose(1, 2).flatten(0, 1)
    squares = weight.flatten(1).square().sum(1)
    return (squares / squares.sum().clamp_min(1e-30)).numpy()  # type: ignore[no-any-return]


def _require_finite(scores: Scores, criterion: str) -> None:
    if not np.isfinite(scores).all():
        bad = int((~np.isfinite(scores)).sum())
        raise InputError(
            f"{bad} of {len(scores)} {criterion} scores are not numbers.",
            hint="The loss or a weight is NaN or infinite; check the calibration images and the network's outputs.",
        )
