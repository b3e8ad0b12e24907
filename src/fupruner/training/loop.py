"""The training loop. Whatever else happens during training happens in the functions that it is given."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, TypeVar

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from fupruner.errors import InputError, TrainingError
from fupruner.training.distill import FEATURE_WEIGHT, Objective, distilled, frozen_copy
from fupruner.training.features import FeatureLoss, Hints, recorded
from fupruner.training.meter import EpochResult, Meter, OnEpoch, OnStep, StepResult
from fupruner.training.parallel import PATIENCE, World
from fupruner.training.schedule import Schedule
from fupruner.training.seeds import mix
from fupruner.training.stream import part_of, stream
from fupruner.training.synchronised import synchronised_norms
from fupruner.training.task import Predict, Task

Precision = Literal["bf16-mixed", "32-true"]
Result = TypeVar("Result", StepResult, EpochResult)


def train(
    model: nn.Module,
    task: Task,
    *,
    epochs: int,
    learning_rate: float,
    weight_decay: float = 5e-4,
    precision: Precision = "bf16-mixed",
    seed: int = 0,
    teacher: nn.Module | None = None,
    on_step: Sequence[OnStep] = (),
    on_epoch: Sequence[OnEpoch] = (),
) -> list[EpochResult]:
    """Train a model in place over a schedule of its own; see :func:`train_steps` for the arguments and errors."""
    schedule = Schedule.over(epochs * task.steps_per_epoch, learning_rate)
    return train_steps(
        model,
        task,
        schedule,
        weight_decay=weight_decay,
        precision=precision,
        seed=seed,
        teacher=teacher,
        on_step=on_step,
        on_epoch=on_epoch,
    )


def train_steps(
    model: nn.Module,
    task: Task,
    schedule: Schedule,
    *,
    start: int = 0,
    stop: int | None = None,
    optimizer: Optimizer | None = None,
    weight_decay: float = 5e-4,
    precision: Precision = "bf16-mixed",
    seed: int = 0,
    teacher: nn.Module | None = None,
    hints: Hints | None = None,
    hint_weight: float = FEATURE_WEIGHT,
    world: World | None = None,
    on_step: Sequence[OnStep] = (),
    on_epoch: Sequence[OnEpoch] = (),
) -> list[EpochResult]:
    """Run the steps ``start`` to ``stop`` of a schedule, in place.

    Step k learns from batch k of the task's stream, with the schedule's learning rate and a seed of its own for
    dropout. So a training cut in two, the second part given the model and the optimizer of the first, equals the
    whole. The model ends in the mode, layout and place in which it came.

    Args:
        model: a network whose parameters that require gradients are trained.
        task: gives batches and loss, and judges the model at the end of each epoch.
        schedule: learning rate by step.
        start: first step.
        stop: step before which to stop; the schedule's end if None.
        optimizer: state to go on with, see :func:`make_optimizer`; a fresh one if None.
        weight_decay: of matrices and kernels; norms and biases have none. Used by a fresh optimizer.
        precision: arithmetic; bf16 becomes float32 where the processor would only emulate it.
        seed: of dropout; order and augmentation have the task's.
        teacher: a network of the same outputs to learn from as well; it is not changed.
        hints: layers whose maps are learnt from the teacher too, see ``training.features``; without a teacher of no effect.
        hint_weight: of the maps' distance in the loss.
        world: processes that train together, each on its part of every batch; this one alone if None.
        on_step: called after each step with its result and the model.
        on_epoch: called after the last step of each epoch with its result and the model.

    Returns:
        Results of the epochs that ended here.

    Raises:
        InputError: the model has nothing to train.
        TrainingError: the loss is not a number, and the model is as it was when the epoch began; or a batch cannot be had.
    """
    optimizer = optimizer or make_optimizer(model, weight_decay)
    world = world or World()
    fabric = _fabric(supported(precision), world)
    results: list[EpochResult] = []
    meter, good = Meter(), _state(model)
    with (
        synchronised_norms(model, world),
        _objective(fabric, task, model, teacher, hints or {}, hint_weight) as objective,
        _prepared(fabric, model, optimizer) as (wrapped, stepper),
        torch.random.fork_rng(),
    ):
        for step, batch in stream(task, start, schedule.steps if stop is None else stop):
            rate, epoch = schedule.learning_rate(step), step // task.steps_per_epoch
            torch.manual_seed(mix(seed, step))
            _set_rate(optimizer, rate)
            part, share = part_of(batch, task, world)
            loss = _step(fabric, stepper, objective(wrapped, fabric.to_device(part)), world, share)
            if not math.isfinite(loss):
                model.load_state_dict(good)
                raise _diverged(loss, step, epoch, rate)
            speed = meter.count(loss, len(task.inputs(batch)))
            _notify(on_step, StepResult(step, schedule.steps, loss, rate, speed), model)
            if (step + 1) % task.steps_per_epoch == 0:
                seconds, mean = meter.seconds, meter.loss / meter.steps
                results.append(EpochResult(epoch, mean, task.evaluate(model), rate, seconds, meter.images / seconds))
                _notify(on_epoch, results[-1], model)
                meter, good = Meter(), _state(model)
    return results


def make_optimizer(model: nn.Module, weight_decay: float) -> SGD:
    """Nesterov momentum 0.9 over all parameters that require gradients; only matrices and kernels decay.

    Raises:
        InputError: there are none.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not trained:
        raise InputError("The model has no parameter that requires a gradient, so there is nothing to train.")
    groups = [
        {"params": [parameter for parameter in trained if parameter.ndim > 1], "weight_decay": weight_decay},
        {"params": [parameter for parameter in trained if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
    return SGD([group for group in groups if group["params"]], lr=0.0, momentum=0.9, nesterov=True)


def supported(precision: Precision) -> Precision:
    """The precision itself, or float32 in place of a bf16 that the processor would only emulate."""
    has_kernels = torch.backends.mkldnn.is_available()
    native = torch.cuda.is_available() or (has_kernels and torch.ops.mkldnn._is_mkldnn_bf16_supported())
    if precision == "bf16-mixed" and not native:
        return "32-true"
    return precision


def _set_rate(optimizer: Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


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
    home = next(model.parameters()).device
    modes = {module: module.training for module in model.modules()}
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    wrapped, stepper = fabric.setup(model, optimizer)
    _move_state(optimizer, fabric.device)
    wrapped.train()
    try:
        yield wrapped, stepper
    finally:
        model.to(device=home, memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        _move_state(optimizer, home)
        optimizer.zero_grad(set_to_none=True)
        for module, mode in modes.items():
            module.training = mode


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
def _objective(
    fabric: Fabric, task: Task, model: nn.Module, teacher: nn.Module | None, hints: Hints, weight: float
) -> Iterator[Objective]:
    """What training minimises: the task's loss, mixed with the distance from the teacher where there is one."""
    if teacher is None:
        yield task.loss
        return
    copied = frozen_copy(teacher, fabric.device)
    with recorded(model, hints) as own, recorded(copied, hints) as taught:
        features = FeatureLoss(own, taught, hints) if hints else None
        yield distilled(task, _in_half(fabric, copied), features=features, feature_weight=weight)


def _in_half(fabric: Fabric, teacher: nn.Module) -> Predict:
    """The teacher as a function that predicts in the precision of the training."""

    def predict(inputs: Tensor) -> Tensor:
        with fabric.autocast():
            outputs: Tensor = teacher(inputs)
        return outputs

    return predict


def _notify(watchers: Sequence[Callable[[Result, nn.Module], None]], result: Result, model: nn.Module) -> None:
    for watcher in watchers:
        watcher(result, model)


def _state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def _diverged(loss: float, step: int, epoch: int, rate: float) -> TrainingError:
    return TrainingError(
        f"The loss became {loss} in epoch {epoch}, step {step} (learning rate {rate:.3g}). "
        f"The weights are back to those from before the epoch.",
        hint="Lower the learning rate, or train in float32.",
    )
