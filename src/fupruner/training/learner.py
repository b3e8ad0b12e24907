"""One step of training on whatever device and however many processes there are, and what has to be set up for it."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import Tensor, nn
from torch.optim import Optimizer

from fupruner.training.distill import Objective, distilled, frozen_copy
from fupruner.training.features import FeatureLoss, recorded
from fupruner.training.modes import device_of, modes_kept
from fupruner.training.parallel import PATIENCE, World
from fupruner.training.recipe import Precision, Recipe, supported
from fupruner.training.stream import Part
from fupruner.training.synchronised import synchronised_norms
from fupruner.training.task import Predict, Task

Learn = Callable[[Part, float, float], float]
"""From a part of a batch, a learning rate and the share of the training that is left to the loss of the whole batch; where that is not
finite, the weights stay."""


@contextmanager
def learning(model: nn.Module, task: Task, optimizer: Optimizer, recipe: Recipe, world: World) -> Iterator[Learn]:
    """A function that takes one step; while this lasts, the model is where and as training wants it."""
    fabric = _fabric(supported(recipe.precision), world)
    with (
        synchronised_norms(model, world),
        _objective(fabric, task, model, recipe) as objective,
        _prepared(fabric, model, optimizer) as (wrapped, stepper),
        torch.random.fork_rng(),
    ):

        def learn(part: Part, rate: float, left: float) -> float:
            for group in optimizer.param_groups:
                group["lr"] = rate
            return _step(fabric, stepper, objective(wrapped, fabric.to_device(part.batch), left), world, part.share)

        yield learn


def _step(fabric: Fabric, optimizer: Optimizer, loss: Tensor, world: World, share: float) -> float:
    """Descend from the loss of this process's share of a batch; where that of the batch is not finite, the weights stay."""
    value = world.mean(float(loss.detach()), share)
    if math.isfinite(value):
        fabric.backward(loss if world.size == 1 else loss * (share * world.size))  # gradients are averaged
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return value


@contextmanager
def _prepared(fabric: Fabric, model: nn.Module, optimizer: Optimizer) -> Iterator[tuple[nn.Module, Optimizer]]:
    """The model on the training device, laid out for speed and in training mode; all of it is undone at the end."""
    home = device_of(model)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    wrapped, stepper = fabric.setup(model, optimizer)
    _move_state(optimizer, fabric.device)
    try:
        with modes_kept(model):
            wrapped.train()
            yield wrapped, stepper
    finally:
        model.to(device=home, memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        _move_state(optimizer, home)
        optimizer.zero_grad(set_to_none=True)


def _fabric(precision: Precision, world: World) -> Fabric:
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it announces the precision each time
    if world.size == 1:
        return Fabric(accelerator="auto", devices=1, precision=precision)
    strategy = DDPStrategy(static_graph=True, timeout=PATIENCE)  # which parameters have gradients does not change
    nodes = world.size // world.local_size
    fabric = Fabric(
        accelerator="auto", devices=world.local_size, num_nodes=nodes, strategy=strategy, precision=precision
    )
    fabric.launch()
    return fabric


def _move_state(optimizer: Optimizer, device: torch.device) -> None:
    for state in optimizer.state.values():
        state.update({name: value.to(device) for name, value in state.items() if isinstance(value, Tensor)})


@contextmanager
def _objective(fabric: Fabric, task: Task, model: nn.Module, recipe: Recipe) -> Iterator[Objective]:
    """What training minimises: the task's loss, mixed with the distance from the teacher where there is one."""
    if recipe.teacher is None:
        yield lambda model, batch, left=1.0: task.loss(model, batch)
        return
    copied, hints = frozen_copy(recipe.teacher, fabric.device), recipe.hints or {}
    with recorded(model, hints) as own, recorded(copied, hints) as taught:
        features = FeatureLoss(own, taught, hints) if hints else None
        yield distilled(task, _in_half(fabric, copied), features=features, feature_weight=recipe.hint_weight)


def _in_half(fabric: Fabric, teacher: nn.Module) -> Predict:
    """The teacher as a function that predicts in the precision of the training."""

    def predict(inputs: Tensor) -> Tensor:
        with fabric.autocast():
            outputs: Tensor = teacher(inputs)
        return outputs

    return predict
