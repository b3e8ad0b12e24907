"""Importance from gradients on calibration images: predicted loss increases in nats per sample."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fupruner.errors import InputError
from fupruner.pruning.gates import Gate, GatedNetwork
from fupruner.pruning.labels import Labels
from fupruner.pruning.one_by_one import Switch, differences
from fupruner.pruning.scores import Importance, Scores, require_finite
from fupruner.training.modes import modes_kept
from fupruner.training.task import CalibrationData


def fisher(network: GatedNetwork, task: CalibrationData | None, images: int) -> Importance:
    """Half the mean squared gradient of the loss with respect to each gate, in nats per sample.

    This is the second-order term of the loss in the gate with the empirical Fisher information as its curvature; the
    gradients of all gates of a unit are summed per sample before they are squared (Group Fisher Pruning, arXiv
    2108.00708). Closed gates are scored at zero, so that what matters again can come back. A branch is scored by the
    larger of that figure and the loss difference that closing it really makes; an activation by the latter alone, for its gate
    is no factor of anything.

    Args:
        network: its gates stay as they are.
        task: gives calibration batches and per-sample losses.
        images: how many calibration images to use.

    Raises:
        InputError: a score is not a number, or there is no data.
    """
    units, branches = _mean_over_samples(network, task, images, "fisher", lambda gradient: 0.5 * gradient.square())
    return Importance("fisher", units, branches, _activation_losses(network, task, images))


def taylor(network: GatedNetwork, task: CalibrationData | None, images: int) -> Importance:
    """Mean absolute gradient of the loss with respect to each gate, in nats per sample.

    This is the first-order term of the loss in the gate (Molchanov et al., arXiv 1611.06440), without its sign; the
    gradients of all gates of a unit are summed per sample first. Branches as in ``fisher``.

    Args:
        network: its gates stay as they are.
        task: gives calibration batches and per-sample losses.
        images: how many calibration images to use.

    Raises:
        InputError: a score is not a number, or there is no data.
    """
    units, branches = _mean_over_samples(network, task, images, "taylor", Tensor.abs)
    return Importance("taylor", units, branches, _activation_losses(network, task, images))


def _mean_over_samples(
    network: GatedNetwork, task: CalibrationData | None, images: int, criterion: str, figure: Callable[[Tensor], Tensor]
) -> tuple[Scores, dict[str, float]]:
    """Mean of a figure of each gate's gradient; for a branch at least the loss difference that closing it makes."""
    if task is None:
        raise InputError(f"The importance {criterion} needs data.", hint="Give data, or choose l2.")
    total = np.zeros(network.groups.labelling.units)
    branch_total = {branch.name: 0.0 for branch, _ in network.branches}
    count = 0
    with _scoring(network):
        for batch in task.calibration_batches(images):
            samples = len(task.inputs(batch))
            _sample_losses(network.graph_module, task, batch).sum().backward()
            total += figure(_unit_gradients(network, samples)).sum(0).numpy()
            for branch, gate in network.branches:
                gradient = gate.gradients()
                if gradient is not None:
                    branch_total[branch.name] += float(figure(gradient).sum())
            count += samples
    require_finite(total, criterion)
    measured = branch_losses(network, task, images)
    branches = {name: max(value / max(1, count), measured[name]) for name, value in branch_total.items()}
    require_finite(np.array(list(branches.values())), criterion)
    return _jointly(network, total / max(1, count), shortcut_losses(network, task, images)), branches


def _jointly(network: GatedNetwork, units: Scores, together: dict[str, float]) -> Scores:
    """Scores where the channels of one shortcut add up to no less than what closing it as a whole costs.

    A shortcut's channels stand in for each other: alone each seems cheap.
    """
    scores = units.copy()
    for shortcut, _ in network.shortcuts:
        own, whole = shortcut.group.units, together[shortcut.group.name]
        alone = float(scores[own].sum())
        if alone < whole:
            scores[own] = scores[own] * (whole / alone) if alone > 0 else whole / len(own)
    return scores


def _sample_losses(model: nn.Module, task: CalibrationData, batch: Any) -> Tensor:
    """Losses of a calibration batch, (N,).

    Raises:
        InputError: the loss cannot be computed, because labels and outputs do not fit, for example.
    """
    try:
        return task.sample_losses(model, batch).float()
    except (RuntimeError, IndexError, ValueError) as error:
        shape = "x".join(map(str, task.inputs(batch).shape))
        raise InputError(
            f"The loss of calibration images of shape {shape} cannot be computed: {str(error).splitlines()[0]}",
            hint="Check that the network takes these images, and that it has as many outputs as the data has classes.",
        ) from None


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


def branch_losses(network: GatedNetwork, task: CalibrationData, images: int, *, limit: int = 256) -> dict[str, float]:
    """Loss difference in nats per sample when each branch alone closes, over at most ``limit`` calibration images.

    All other gates stay as they are, also where they are only closing.
    """

    def throw(gate: Gate) -> Callable[[bool, float], None]:
        return lambda closed, softness: gate.set(np.array([closed]), softness)

    switches = {b.name: Switch(gate, throw(gate), b.name in network.closed_branches) for b, gate in network.branches}
    return _losses(network, task, min(images, limit), switches)


def shortcut_losses(network: GatedNetwork, task: CalibrationData, images: int, *, limit: int = 256) -> dict[str, float]:
    """Loss difference in nats per sample when all channels of each shortcut alone close, by the name of its group."""

    def throw(gate: Gate, units: Labels) -> Callable[[bool, float], None]:
        def thrown(closed: bool, softness: float) -> None:
            shut = np.ones(len(units), dtype=bool) if closed else ~network.is_open[units]
            gate.set(shut, 0.0 if closed else network.softness)

        return thrown

    switches = {s.group.name: Switch(gate, throw(gate, s.group.units)) for s, gate in network.shortcuts}
    return _losses(network, task, min(images, limit), switches)


def _activation_losses(
    network: GatedNetwork, task: CalibrationData | None, images: int, *, limit: int = 256
) -> dict[str, float]:
    """The same for activations."""
    if task is None:
        return {}
    switches = {a.name: Switch(gate, gate.set, a.name in network.closed_branches) for a, gate in network.activations}
    return _losses(network, task, min(images, limit), switches)


def _losses(network: GatedNetwork, task: CalibrationData, images: int, switches: dict[str, Switch]) -> dict[str, float]:
    """Loss difference in nats per sample, at least 0, when each of some switches alone is thrown; all are left as they were."""
    if not switches:
        return {}

    def losses(model: nn.Module, batch: Any) -> Tensor:
        return _sample_losses(model, task, batch)

    with modes_kept(network.graph_module):
        network.graph_module.eval()
        batches = list(task.calibration_batches(images))
        found = differences(network.graph_module, task, batches, switches, losses, network.softness)
    require_finite(np.array(list(found.values())), "measured loss")
    return {name: max(0.0, difference) for name, difference in found.items()}
