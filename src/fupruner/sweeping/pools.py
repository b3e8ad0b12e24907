"""Where trials run: one after the other in this process. See ``ray_pool`` for many at once."""

from __future__ import annotations

import os
import platform
import shutil
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, final

from torch import Tensor, nn

from fupruner.errors import InputError, TargetError, TrainingError
from fupruner.options import Options
from fupruner.pipeline import optimize
from fupruner.progress import Progress, Silent
from fupruner.runs.resuming import resume
from fupruner.sweeping.study import Proposal
from fupruner.training.task import Task

TaskFor = Callable[[Options], Task]
"""Makes the task of a trial: options such as the batch size may belong to it."""


@dataclass(frozen=True)
class Work:
    """What every trial does: ``optimize``, with the options of the trial.

    Attributes:
        fixed: options that are the same for all trials.
    """

    model: nn.Module
    inputs: tuple[Tensor, ...]
    task_for: TaskFor
    fixed: dict[str, Any]

    def run(self, values: dict[str, Any], folder: Path, progress: Progress) -> str:
        """Run a trial into a folder, or go on with what is there. Returns why it failed, or an empty string."""
        chosen = {**self.fixed, **values}
        task = self.task_for(Options(**chosen))
        try:
            if not (folder.exists() and self._resumed(folder, task, progress)):
                optimize(self.model, self.inputs, task, out=folder, progress=progress, **chosen)
        except (InputError, TargetError, TrainingError) as error:
            return str(error).splitlines()[0]
        return ""

    def _resumed(self, folder: Path, task: Task, progress: Progress) -> bool:
        """Whether an interrupted run could be brought to its end; where not, the folder is gone."""
        try:
            resume(folder, model=self.model, task=task, progress=progress)
        except InputError as error:
            progress.note(f"{folder} begins anew: {str(error).splitlines()[0]}")
            shutil.rmtree(folder)
            return False
        return True


@dataclass(frozen=True)
class Ended:
    """A trial that is over: why it failed, or an empty string, and who ran it."""

    proposal: Proposal
    reason: str
    worker: str


class Pool(Protocol):
    """Runs trials.

    Attributes:
        slots: trials that may run at once.
    """

    slots: int

    def submit(self, proposal: Proposal) -> None:
        """Take on a trial; the folder of its run is there, with ``result.json``, once it was collected without a reason."""

    def collect(self) -> Ended:
        """Wait until one of the trials is over."""

    def close(self) -> None:
        """Let go of whatever ran the trials."""


@final
class LocalPool:
    """Trials in this process, one at a time.

    Args:
        work: what a trial does.
        folder: of the sweep.
        progress: told about every trial's run.
    """

    slots = 1

    def __init__(self, work: Work, folder: Path, progress: Progress) -> None:
        self.work, self.folder, self.progress = work, folder, progress
        self._waiting: deque[Proposal] = deque()

    def submit(self, proposal: Proposal) -> None:
        """Queue a trial."""
        self._waiting.append(proposal)

    def collect(self) -> Ended:
        """Run the next trial."""
        proposal = self._waiting.popleft()
        reason = self.work.run(proposal.values, self.folder / proposal.folder, self.progress)
        return Ended(proposal, reason, this_worker())

    def close(self) -> None:
        """Nothing to let go of."""


def this_worker() -> str:
    """Host and process."""
    return f"{platform.node()}:{os.getpid()}"


def run_elsewhere(work: Work, values: dict[str, Any], folder: Path) -> tuple[str, str]:
    """Run a trial without anybody watching; why it failed, and who ran it."""
    return work.run(values, folder, Silent()), this_worker()
