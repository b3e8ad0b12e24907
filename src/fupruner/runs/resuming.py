"""Go on with a run that was interrupted, to the same network that it would have come to."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import torch

from fupruner import __version__
from fupruner.fusion.fuse import fuse_graph
from fupruner.graph import shapes
from fupruner.graph.trace import trace
from fupruner.models.resolve import Model, as_module
from fupruner.options import Options, read_options
from fupruner.pipeline import carry_out, load
from fupruner.progress import Progress, Silent, watching
from fupruner.report.data import read_run
from fupruner.results import RunResult
from fupruner.runs.checkpoints import Checkpoints
from fupruner.runs.journal import Journal
from fupruner.runs.origin import Origin, find_model, find_task, read_inputs, read_origin, require_same
from fupruner.runs.recorded import RecordedTarget
from fupruner.runs.resumable import Trainer
from fupruner.runs.run_folder import RunFolder
from fupruner.runs.safety import kept_safe
from fupruner.targets.registry import get_target
from fupruner.training.parallel import join
from fupruner.training.task import Task, calibration_images, proof_inputs


def resume(
    run: str | Path,
    *,
    model: Model | None = None,
    task: Task | None = None,
    progress: Progress | None = None,
) -> RunResult:
    """Go on with a run that was interrupted; of a finished run, return the result and change nothing.

    Args:
        run: its folder.
        model: what the run was begun with; found by its name or in the folder if None.
        task: likewise; has to be given where the run was begun with a task of the user's own.
        progress: told what is going on; whoever watches (``fupruner.show_progress``) if None.

    Raises:
        InputError: there is no run, another process is at it, or model or data are not what it was begun with.
        TrainingError, StorageError, KeyboardInterrupt: see :func:`fupruner.optimize`.
    """
    folder, world = Path(run), join()
    origin = world.share(lambda: read_origin(folder))
    if world.share(lambda: is_finished(folder)):
        return finished_result(folder)
    progress = (progress or watching()) if world.is_main else Silent()
    options = world.share(lambda: read_options(folder / "options.toml"))
    trainer = Trainer(Journal(world), Checkpoints(folder), options.checkpoint_every)
    with closing(trainer.journal):
        return _go_on(folder, origin, options, trainer, model, task, progress)


def _go_on(
    folder: Path, origin: Origin, options: Options, trainer: Trainer, model: Model | None, task: Task | None, progress: Progress
) -> RunResult:  # fmt: skip
    world = trainer.journal.world
    files = RunFolder(folder, world, reopen=True)
    with kept_safe(files):
        trainer.journal.read(folder)
    _, problems = trainer.restore()
    for line in [trainer.journal.damage, *problems, *_differences(origin, world.size)]:
        if line:
            progress.note(line)
    progress.stage("trace and fuse", None)
    inputs = world.share(lambda: read_inputs(folder))
    graph = trace(as_module(model) if model is not None else find_model(origin, folder), inputs)
    shapes.propagate(graph, inputs)
    task = task if task is not None else find_task(origin, options, folder)
    require_same(origin, graph, task)
    files.event("resumed", version=__version__)
    target = get_target(options.target, options.ship, options.device).adapted(graph, calibration_images(task))
    device = RecordedTarget(target, trainer.journal)
    calibration = proof_inputs(task)
    _, fusion = fuse_graph(graph, inputs, options.fusion, cost_model=device.cost_model(), calibration=calibration)
    return carry_out(graph, inputs, task, device, options, files, trainer, progress, fusion, origin.model)


def is_finished(folder: Path) -> bool:
    """Whether there is nothing left to do for a run."""
    return (folder / "result.json").is_file() and (folder / "report.html").is_file()


def finished_result(folder: Path) -> RunResult:
    """The result of a finished run, from its folder."""
    found = read_run(folder)
    summary = found.summary
    return RunResult(
        load(folder),
        found.plan,
        summary.baseline,
        summary.final,
        summary.speedup,
        summary.requirement.satisfied,
        folder,
        summary.drop_error,
    )


def _differences(origin: Origin, processes: int) -> list[str]:
    """What is not as it was when the run was begun, and may change the last bits of its result."""
    pairs: list[tuple[str, Any, Any]] = [
        ("version", origin.version, __version__),
        ("PyTorch", origin.torch, torch.__version__),
        ("threads of PyTorch", origin.threads, torch.get_num_threads()),
        ("processes", origin.processes, processes),
    ]
    return [
        f"The run was begun with {name} {then}, and goes on with {now}; its result may differ in the last digits."
        for name, then, now in pairs
        if then != now
    ]
