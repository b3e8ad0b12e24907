"""Training that can be cut off anywhere: phases of a run, each with checkpoints, gone on with after a resume.

A phase is one call of :meth:`Trainer.train`; phases are counted over the whole run. On a resume, the newest sound
checkpoint says where training stands: earlier phases are passed over (a network's last phase gives it its weights),
and the checkpoint's own phase goes on at its step. The journal holds the epochs of phases that are over.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from fupruner.errors import DivergedError, FuPrunerError, TrainingError
from fupruner.runs.checkpoints import Checkpoint, Checkpoints, phase_of
from fupruner.runs.interrupts import Interrupts
from fupruner.runs.journal import Journal
from fupruner.runs.recorded import unrecorded
from fupruner.training.average import Average
from fupruner.training.loop import train_steps
from fupruner.training.meter import EpochResult, OnEpoch, OnStep, StepResult
from fupruner.training.optimizers import make_optimizer
from fupruner.training.recipe import Recipe
from fupruner.training.schedule import Schedule
from fupruner.training.task import Task

SHARE = 0.01
"""Checkpoints between epochs take at most this share of the time: where writing is slow they are written less often."""


class Trainer:
    """Trains the networks of a run, phase by phase.

    Args:
        journal: keeps what epochs came to.
        checkpoints: where states are kept; none are where this is None.
        every: seconds between checkpoints within an epoch.
    """

    def __init__(
        self, journal: Journal | None = None, checkpoints: Checkpoints | None = None, every: float = 60.0
    ) -> None:
        self.journal = Journal() if journal is None else journal
        self.checkpoints, self.every = checkpoints, every
        self.is_current = True
        self._restored: Checkpoint | None = None
        self._phase, self._network = 0, -1
        self._module: nn.Module | None = None
        self._anchors: set[int] = set()
        self._training = False

    @property
    def is_catching_up(self) -> bool:
        """Whether the run is still going through what was done before it was interrupted."""
        return not self._training and (self._restored is not None or self.journal.is_replaying)

    def restore(self) -> tuple[Checkpoint | None, list[str]]:
        """Find the newest checkpoint that training can go on from.

        Returns:
            The checkpoint (None: training begins anew), and in words what was found damaged.
        """
        found, problems = self.journal.world.share(self._find)
        self._restored = found
        return found, problems

    def train(
        self, module: nn.Module, task: Task, schedule: Schedule, *, start: int, stop: int, recipe: Recipe,
        optimizer: Optimizer | None = None, on_step: Sequence[OnStep] = (), on_epoch: Sequence[OnEpoch] = (),
        on_skip: Callable[[int], None] = lambda steps: None,
    ) -> None:  # fmt: skip
        """Run the steps ``start`` to ``stop`` of a schedule, or those of them that are still to be run.

        Arguments and errors are those of :func:`fupruner.training.loop.train_steps`; ``on_skip`` is told how many steps
        need not be run again. All that training changes has to be in the state of module, optimizer and average.

        Raises:
            KeyboardInterrupt: the user asked to stop; the state is saved.
        """
        phase, task = self._count(module), unrecorded(task)
        optimizer = optimizer or make_optimizer(module, recipe.weight_decay, recipe.optimizer)
        average = Average(module, recipe.ema)
        watch = _Watch(self, optimizer, average, phase, stop, task.steps_per_epoch)
        restored = self._restored
        if restored is not None and phase < restored.phase:
            self._pass_over(module, phase, on_epoch)
            on_skip(stop - start)
            return
        if restored is not None:
            self._restored = None
            on_skip(restored.step - start)
            start = watch.take(restored, module)
            for result in watch.epochs:
                _notify(on_epoch, result, module)
        self.is_current = self._training = True
        world = self.journal.world
        try:
            with watch.interrupts.deferred(heard=world.is_main):
                train_steps(
                    module, task, schedule, start=start, stop=stop, recipe=recipe, optimizer=optimizer, average=average,
                    world=world, on_step=[*on_step, watch.step],
                    on_epoch=[lambda result, model: _notify(on_epoch, watch.epoch(result), model), watch.after_epoch],
                )  # fmt: skip
                if restored is None or not restored.is_final:
                    watch.write(module, stop)
        except TrainingError as error:
            placed = self._with_place(error)
            if isinstance(placed, DivergedError):
                self._enter(watch, diverged=[str(placed.args[0]), placed.hint])
            raise placed from None
        finally:
            self._training = False
        watch.stop_if_asked()
        _require_end(self._enter(watch))

    # -- parts -------------------------------------------------------------------------------------------------------

    def _count(self, module: nn.Module) -> int:
        """Number of the phase that begins; the last state of the network before stays as long as the run lasts."""
        phase = self._phase
        self._phase += 1
        if module is not self._module:
            self._module, self._network = module, self._network + 1
            if phase > 0:
                self._anchors.add(phase - 1)
        return phase

    def _enter(self, watch: _Watch, **more: list[str]) -> Any:
        """Enter the end of a phase in the journal, whether it came to the end of its steps or not; the entry that is there."""
        epochs = [asdict(result) for result in watch.epochs]
        return self.journal.once("phase", lambda: {"network": watch.network, "epochs": epochs, **more})

    def _pass_over(self, module: nn.Module, phase: int, on_epoch: Sequence[OnEpoch]) -> None:
        """Report a phase that is over; its network gets the weights that it had then, if they are still there."""

        def missing() -> Any:
            raise FuPrunerError(f"The journal has lost the epochs of phase {phase}.", hint="Start the run again.")

        state = self.journal.world.share(lambda: self._state_after(phase))
        self.is_current = state is not None
        if state is not None:
            module.load_state_dict(state.model)
        entry = self.journal.once("phase", missing)
        for values in entry["epochs"]:
            _notify(on_epoch, EpochResult(**values), module)
        _require_end(entry)

    def _state_after(self, phase: int) -> Checkpoint | None:
        for path in self.checkpoints.paths() if self.checkpoints else []:
            if phase_of(path) == phase:
                found = self.checkpoints.read(path) if self.checkpoints else ""
                if isinstance(found, Checkpoint) and found.is_final:
                    return found
        return None

    def _find(self) -> tuple[Checkpoint | None, list[str]]:
        """The newest sound checkpoint for which the last states of all networks before its own are sound too."""
        problems: list[str] = []
        entries = self.journal.known("phase")
        last = {entry["network"]: phase for phase, entry in enumerate(entries)}
        lost = {entry["network"] for entry in entries if "diverged" in entry}  # nobody asks for their weights
        sound: dict[int, Checkpoint] = {}  # by phase, the newest of each
        for path in self.checkpoints.paths() if self.checkpoints else []:
            found = self.checkpoints.read(path) if self.checkpoints else ""
            if isinstance(found, str):
                problems.append(found)
            elif found.position <= len(self.journal):
                sound.setdefault(found.phase, found)
        for found in sound.values():
            earlier = [sound.get(last.get(network, -1)) for network in range(found.network) if network not in lost]
            if all(state is not None and state.is_final for state in earlier):
                return found, problems
        return None, problems

    def _with_place(self, error: TrainingError) -> TrainingError:
        """Say where the last good state is."""
        paths = self.checkpoints.paths() if self.checkpoints else []
        if not paths:
            return error
        return type(error)(str(error.args[0]), hint=f"The last good state is kept in {paths[0]}. {error.hint}".strip())


def _require_end(entry: dict[str, Any]) -> None:
    """Raise the DivergedError with which a phase ended, if it did."""
    if "diverged" in entry:
        message, hint = entry["diverged"]
        raise DivergedError(message, hint=hint)


class _Watch:
    """Looks on while a phase trains: keeps its epochs, and writes checkpoints."""

    def __init__(
        self, trainer: Trainer, optimizer: Optimizer, average: Average, phase: int, stop: int, steps_per_epoch: int
    ) -> None:
        self.trainer, self.optimizer, self.average, self.phase, self.stop = trainer, optimizer, average, phase, stop
        self.network, self.position, self.steps_per_epoch = trainer._network, trainer.journal.position, steps_per_epoch
        self.interrupts = Interrupts()
        self.epochs: list[EpochResult] = []
        self.losses: tuple[float, int] = (0.0, 0)
        self._next, self._step = time.monotonic() + trainer.every, 0

    def take(self, restored: Checkpoint, module: nn.Module) -> int:
        """Go on from a checkpoint; returns its step."""
        module.load_state_dict(restored.model)
        self.optimizer.load_state_dict(restored.optimizer)
        self.average.load_state_dict(restored.average)
        self.epochs = [EpochResult(**values) for values in restored.epochs]
        self.losses = (float(restored.losses[0]), int(restored.losses[1]))
        return restored.step

    def step(self, result: StepResult, model: nn.Module) -> None:
        """Write a checkpoint where it is time; at the end of an epoch only once it was judged."""
        self.losses = (self.losses[0] + result.loss, self.losses[1] + 1)
        self._step = result.step + 1
        if self._step % self.steps_per_epoch == 0 or self._step == self.stop:
            return
        asked = self.trainer.journal.world.any(self.interrupts.asked)
        if asked or time.monotonic() >= self._next:
            self.write(model, self._step)
        if asked:
            raise KeyboardInterrupt

    def epoch(self, result: EpochResult) -> EpochResult:
        """Keep the result of an epoch, its loss that of all of its steps, those before a resume included."""
        self.epochs.append(replace(result, loss=self.losses[0] / self.losses[1]))
        self.losses = (0.0, 0)
        return self.epochs[-1]

    def after_epoch(self, _result: EpochResult, model: nn.Module) -> None:
        """Write a checkpoint, unless the phase ends here anyway."""
        if self._step < self.stop:
            self.write(model, self._step)
            self.stop_if_asked()

    def stop_if_asked(self) -> None:
        """End here if the user asked to."""
        if self.trainer.journal.world.any(self.interrupts.asked):
            raise KeyboardInterrupt

    def write(self, model: nn.Module, step: int) -> None:
        """Write a checkpoint, in process 0, unless the weights have become useless."""
        trainer = self.trainer
        if trainer.checkpoints is None or not trainer.journal.world.is_main or not _is_finite(model):
            return
        began = time.monotonic()
        state = Checkpoint(
            phase=self.phase, network=self.network, position=self.position, step=step, stop=self.stop,
            model=dict(model.state_dict()), optimizer=self.optimizer.state_dict(), average=self.average.state_dict(),
            epochs=[asdict(result) for result in self.epochs], losses=self.losses,
        )  # fmt: skip
        trainer.checkpoints.write(state, frozenset(trainer._anchors))
        took = time.monotonic() - began
        self._next = time.monotonic() + max(trainer.every, took / SHARE)


def _is_finite(model: nn.Module) -> bool:
    """Whether no parameter is NaN or infinite."""
    return all(bool(torch.isfinite(parameter.detach().sum())) for parameter in model.parameters())


def _notify(watchers: Sequence[OnEpoch], result: EpochResult, model: nn.Module) -> None:
    for watcher in watchers:
        watcher(result, model)
