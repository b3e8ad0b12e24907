"""Run a sweep: propose options, run them, remember what came of it, and show what no other network beats."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fupruner import __version__
from fupruner.errors import InputError, TargetError
from fupruner.finish import hardware
from fupruner.graph.trace import example_tuple
from fupruner.models.resolve import as_module
from fupruner.options import Options, parse_options
from fupruner.progress import Progress, watching
from fupruner.records import Figures, Summary
from fupruner.runs.run_folder import write_atomically
from fupruner.sweeping.pools import Ended, LocalPool, Pool, TaskFor, Work
from fupruner.sweeping.records import Method, Sweep, Trial, finished, pareto_front, shown, timed, write_sweep
from fupruner.sweeping.space import Range, Space, parse_space
from fupruner.sweeping.study import Study
from fupruner.tabular import ShownAsTable, Tabular
from fupruner.targets.base import Target
from fupruner.targets.registry import get_target
from fupruner.training.task import Task

SETUP = "setup.json"
AT_ONCE = 16
"""Networks that are timed in turn together, beside the original."""


@dataclass(frozen=True, repr=False)
class SweepResult(ShownAsTable):
    """The outcome of a sweep.

    Attributes:
        trials: all of them, in the order in which they began.
        front: those that no other one beats in both metric and speed, fastest first.
        baseline: figures of the original; None where every trial failed.
        out: folder of the sweep; each trial's run is a folder below it.
    """

    trials: tuple[Trial, ...]
    front: tuple[Trial, ...]
    baseline: Figures | None
    out: Path

    def table(self) -> Tabular:
        """One row per trial, those on the front marked."""
        on_front = {trial.number for trial in self.front}
        rows = [
            (
                trial.folder, ", ".join(f"{name} {value}" for name, value in trial.values.items()),
                "" if trial.speedup is None else f"{trial.speedup:.2f}x", "" if trial.accuracy is None else f"{trial.accuracy:.2f}",
                trial.reason or ("on the front" if trial.number in on_front else ""),
            )
            for trial in self.trials
        ]  # fmt: skip
        columns = ("trial", "options", "speed-up", "metric", "")
        return Tabular(
            f"{len(self.trials)} trials, {len(self.front)} on the front; sweep folder {self.out}", columns, rows
        )


def sweep(
    model: nn.Module | str | Path,
    example_inputs: Tensor | tuple[Tensor, ...],
    task: Task | TaskFor,
    space: Mapping[str, Any],
    *,
    out: str | Path,
    options: Mapping[str, Any] | None = None,
    method: Method = "grid",
    trials: int | None = None,
    seed: int = 0,
    ray: str | None = None,
    progress: Progress | None = None,
) -> SweepResult:
    """Run ``optimize`` with many sets of options, and find the networks that no other one beats.

    Called again with the same arguments and folder, a sweep goes on where it was cut off; with more ``trials``, it is extended.

    Args:
        model: a module, which is left untouched, or the path or name of a network.
        example_inputs: a tensor or tuple of tensors, batch first.
        task: see ``training.task.Task``; or a function that makes one from a trial's ``Options``.
        space: names of options with a list of values, or ``{"low": ..., "high": ..., "log": ...}``.
        out: folder of the sweep: new, empty, or that of the same sweep.
        options: that are the same for all trials.
        method: ``grid`` tries every combination; ``search`` proposes what looks promising.
        trials: of a search.
        seed: of a search.
        ray: address of a Ray cluster to run trials on, or ``local``; in this process if None.
        progress: told what is going on; whoever watches (``fupruner.show_progress``) if None.

    Raises:
        InputError: an option is unknown or out of range, the space is empty, the folder is in use, or a library is missing.
    """
    fixed = dict(options or {})
    parsed = parse_space(space, fixed, "sweep()")
    folder, progress, inputs = Path(out), progress or watching(), example_tuple(example_inputs)
    chosen = parse_options(fixed, "sweep()")
    target = get_target(chosen.target, chosen.ship, chosen.device)
    module = as_module(model)
    name = type(model).__name__ if isinstance(model, nn.Module) else str(model)
    _claim(folder, {"model": name, "method": method, "seed": seed, "options": fixed, "space": _plain(parsed)})
    study = Study(folder / "study.log", parsed, method, trials, seed)
    task_for: Callable[[Options], Task] = task if callable(task) else lambda _: task
    work = Work(module, inputs, task_for, fixed)
    record = Sweep(
        model=name, target=target.name, metric=task_for(chosen).metric, method=method, varied=tuple(parsed),
        planned=study.planned, trials=(), hardware=hardware(), version=__version__,
    )  # fmt: skip
    with closing(_pool(work, folder, ray, chosen.threads, progress)) as pool:
        _run_all(study, pool, folder, record, progress)
    record = _compare(_gather(study, folder, record), folder, target, inputs, progress)
    write_sweep(record, folder)
    from fupruner.report.sweep_page import write_sweep_report  # noqa: PLC0415 - plotly is heavy and needed only here

    write_sweep_report(folder)
    by_number = {trial.number: trial for trial in record.trials}
    return SweepResult(record.trials, tuple(by_number[number] for number in record.front), record.baseline, folder)


def _run_all(study: Study, pool: Pool, folder: Path, record: Sweep, progress: Progress) -> None:
    running = 0
    while True:
        while running < pool.slots and (proposal := study.ask()) is not None:
            progress.note(f"{proposal.folder}: {shown(proposal.values)}")
            pool.submit(proposal)
            running += 1
        if not running:
            return
        _remember(study, pool.collect(), folder, record, progress)
        running -= 1


def _remember(study: Study, ended: Ended, folder: Path, record: Sweep, progress: Progress) -> None:
    place = ended.proposal.folder
    summary = None if ended.reason else _summary(folder / place)
    values = None if summary is None else (summary.final.accuracy, summary.speedup)
    study.tell(ended.proposal.number, reason=ended.reason, worker=ended.worker, values=values)
    write_sweep(_gather(study, folder, record), folder)
    metric = record.metric
    came = (
        f"failed: {ended.reason}"
        if summary is None
        else f"{summary.speedup:.2f}x, {metric.name} {metric.text(summary.final.accuracy)}"
    )
    progress.note(f"{place}: {came}")


def _pool(work: Work, folder: Path, ray: str | None, threads: int, progress: Progress) -> Pool:
    if ray is None:
        return LocalPool(work, folder, progress)
    from fupruner.sweeping.ray_pool import RayPool  # noqa: PLC0415 - optional

    return RayPool(work, folder, ray, threads)


def _gather(study: Study, folder: Path, record: Sweep) -> Sweep:
    """The sweep as far as it has come, each trial with the figures of its own run."""
    trials, baseline = [], None
    for trial in sorted(study.trials(), key=lambda each: each.number):
        if trial.reason:
            trials.append(trial)
            continue
        summary = _summary(folder / trial.folder)
        baseline = baseline or summary.baseline
        trials.append(finished(trial, summary))
    seconds = sum(trial.seconds or 0.0 for trial in trials)
    return record.model_copy(
        update={
            "trials": tuple(trials),
            "baseline": baseline,
            "seconds": seconds,
            "front": pareto_front(trials),
            "together": False,
        }
    )


def _compare(record: Sweep, folder: Path, target: Target, inputs: tuple[Tensor, ...], progress: Progress) -> Sweep:
    """Time all networks in turn, so that their latencies compare; where the target cannot, each keeps its own run's."""
    done = record.done
    if not done or record.baseline is None:
        return record
    progress.stage("time all networks in turn", None)
    original = folder / done[0].folder / f"baseline{target.suffix}"
    compared: dict[int, Trial] = {}
    baseline = record.baseline
    try:
        for start in range(0, len(done), AT_ONCE):
            group = done[start : start + AT_ONCE]
            files = [original, *(folder / trial.folder / f"model{target.suffix}" for trial in group)]
            comparison = target.compare(files, inputs)
            baseline = baseline.model_copy(update={"latency_ms": comparison.measurements[0].latency_ms})
            compared.update({trial.number: timed(trial, comparison, i) for i, trial in enumerate(group, 1)})
    except TargetError as error:
        progress.note(f"latencies are those of each trial's own run: {str(error).splitlines()[0]}")
        return record
    trials = tuple(compared.get(trial.number, trial) for trial in record.trials)
    return record.model_copy(
        update={"trials": trials, "front": pareto_front(trials), "baseline": baseline, "together": True}
    )


def _claim(folder: Path, setup: dict[str, Any]) -> None:
    """Make the folder this sweep's, or see that it is."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; a sweep needs a folder.", hint="Choose another --out.")
    file, text = folder / SETUP, json.dumps(setup, indent=2) + "\n"
    if file.is_file():
        if file.read_text(encoding="utf-8") != text:
            raise InputError(
                f"{folder} holds another sweep: its {SETUP} differs.",
                hint="Name a new folder, or give the same model, space, options, method and seed to go on there.",
            )
        return
    if folder.is_dir() and any(folder.iterdir()):
        raise InputError(f"{folder} exists and is not empty.", hint="Name a new folder, or remove this one first.")
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(file, text)


def _plain(space: Space) -> dict[str, Any]:
    return {name: vars(values) if isinstance(values, Range) else list(values) for name, values in space.items()}


def _summary(run: Path) -> Summary:
    return Summary.model_validate_json((run / "result.json").read_text(encoding="utf-8"))
