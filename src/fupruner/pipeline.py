"""FuPruner in one page: the stages in the order in which they run.

trace -> fuse -> gate, plan, prune while training -> slim -> recover -> fuse again -> export, verify, measure -> report
"""

from __future__ import annotations

import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from fupruner import __version__
from fupruner.attempt import Outcome, Setting, run_attempt
from fupruner.errors import InputError
from fupruner.fusion.fuse import fuse_graph
from fupruner.graph import cost, shapes
from fupruner.graph.trace import example_tuple, trace
from fupruner.options import Options, parse_options, write_options
from fupruner.progress import Progress, Silent
from fupruner.pruning.gates import GatedNetwork, insert_gates
from fupruner.pruning.importance import l2, score
from fupruner.pruning.plan import Planner
from fupruner.pruning.pricing import Pricer
from fupruner.pruning.slim import slim
from fupruner.records import Figures, FusionLog, GroupRecord, Measurement, Plan, Requirement, Summary
from fupruner.run_folder import RunFolder
from fupruner.search import Bracket
from fupruner.targets.base import ExportResult, Target
from fupruner.targets.registry import get_target
from fupruner.training.task import Task

Example = Tensor | tuple[Tensor, ...]


@dataclass(frozen=True)
class FuseResult:
    """An equivalent network with fewer operators, what was done to get there, and the largest relative error in float64."""

    module: nn.Module
    log: FusionLog
    max_error: float


@dataclass(frozen=True)
class PruneResult:
    """A smaller network, the plan that made it, and the groups of channels it was made from."""

    module: nn.Module
    plan: Plan
    groups: tuple[GroupRecord, ...]


@dataclass(frozen=True)
class RunResult:
    """The outcome of a run: the network, its figures beside the baseline's, and whether the requirement is met."""

    module: nn.Module
    plan: Plan | None
    baseline: Figures
    final: Figures
    speedup: float
    satisfied: bool
    out: Path


def fuse(
    model: nn.Module,
    example_inputs: Example,
    level: str = "aggressive",
    *,
    target: str = "cpu",
    only: tuple[str, ...] = (),
    without: tuple[str, ...] = (),
) -> FuseResult:
    """Rewrite a network into an equivalent one whose non-parametric operators have become filters.

    Args:
        model: left untouched.
        example_inputs: a tensor or tuple of tensors, batch first.
        level: ``none``, ``basic``, ``aggressive`` or ``auto`` (per block, whatever the target's cost model says).
        target: whose cost model ``auto`` asks.
        only: names of rules to use; all when empty.
        without: names of rules to leave out.

    Raises:
        InputError: the level or a rule is unknown, or the model cannot be traced.
    """
    inputs = example_tuple(example_inputs)
    cost_model = get_target(target).cost_model() if level == "auto" else None
    module, log = fuse_graph(trace(model, inputs), inputs, level, only=only, without=without, cost_model=cost_model)
    return FuseResult(module, log, log.max_error)


def prune(
    model: nn.Module,
    example_inputs: Example,
    *,
    ratio: float | None = None,
    speedup: float | None = None,
    target: str = "cpu",
    importance: str | None = None,
    data: Task | None = None,
    fusion: str = "none",
) -> PruneResult:
    """Prune once, without training.

    Args:
        model: left untouched.
        example_inputs: a tensor or tuple of tensors, batch first.
        ratio: share of channels to remove from every group, between 0 and 1; or
        speedup: wanted on the target, more than 1.
        target: for alignment and cost.
        importance: ``fisher`` (needs data) or ``l2``; by default the first where data is given, else the second.
        data: a task whose calibration images the scores are taken on.
        fusion: level at which the network is fused before it is pruned and again afterwards.

    Raises:
        InputError: not exactly one of ratio and speedup is given, it is out of range or out of reach, there is nothing to
            prune, or the importance needs data that was not given.
    """
    if (ratio is None) == (speedup is None):
        raise InputError("Give exactly one of ratio and speedup.")
    if speedup is not None and not speedup > 1:
        raise InputError(f"The speed-up is {speedup}; it must be more than 1.")
    inputs, device = example_tuple(example_inputs), get_target(target)
    cost_model = device.cost_model()
    graph, _ = fuse_graph(trace(model, inputs), inputs, fusion, cost_model=cost_model)
    network = insert_gates(graph)
    _require_prunable(network)
    planner = Planner(network, Pricer(network, cost_model), device.name, device.alignment)
    scores = score(network, importance or ("l2" if data is None else "fisher"), data, Options().calibration_images)
    plan = planner.uniform(scores, ratio) if ratio is not None else planner.for_speedup(scores, speedup or 1.0)
    network.set(plan.is_open, plan.closed_branches)
    pruned, _ = fuse_graph(slim(network, inputs), inputs, fusion, cost_model=cost_model)
    return PruneResult(pruned, plan.record, tuple(group.record() for group in network.groups.groups))


def export(module: nn.Module, example_inputs: Example, path: str | Path, target: str = "cpu") -> ExportResult:
    """Write a network for a target (or, with the ending ``.pt2``, for PyTorch alone) and check the file.

    Raises:
        TargetError: the target's format cannot hold the network, or the file computes something else.
    """
    inputs, path = example_tuple(example_inputs), Path(path)
    if path.suffix == ".pt2":
        return _save_pt2(module, inputs, path)
    return get_target(target).export(module, inputs, path)


def measure(
    path_or_module: str | Path | nn.Module, example_inputs: Example, target: str = "cpu", *, threads: int = 1
) -> Measurement:
    """Time a network, or a file that was exported before, at batch 1 in the target's runtime."""
    inputs, device = example_tuple(example_inputs), get_target(target)
    if not isinstance(path_or_module, nn.Module):
        return device.compare([Path(path_or_module)], inputs, threads=threads).measurements[0]
    import tempfile  # noqa: PLC0415 - needed here alone

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        device.export(path_or_module, inputs, file)
        return device.compare([file], inputs, threads=threads).measurements[0]


def load(path: str | Path) -> nn.Module:
    """The optimised network of a run folder, or of a ``.pt2`` file.

    Raises:
        InputError: there is no network there.
    """
    file = Path(path) / "model.pt2" if Path(path).is_dir() else Path(path)
    if not file.is_file():
        raise InputError(f"There is no network at {file}.", hint="Give a run folder that is finished, or a .pt2 file.")
    try:
        return torch.export.load(str(file)).module()
    except Exception as error:
        raise InputError(f"{file} cannot be loaded: {error}") from None


def optimize(
    model: nn.Module, example_inputs: Example, task: Task, *, target: str = "cpu", max_drop: float = 1.0, speedup: float | None = None,
    epochs: int = 5, out: str | Path, progress: Progress | None = None, **more: Any,
) -> RunResult:  # fmt: skip
    """Find the fastest network on a target that loses at most ``max_drop`` points of the task's metric.

    Args:
        model: left untouched.
        example_inputs: a tensor or tuple of tensors, batch first.
        task: gives batches, loss and metric, see ``training.task.Task``.
        target: device that the network is made for.
        max_drop: points of the metric that may be lost.
        speedup: when given, the network is made this fast, and the result says whether the requirement holds.
        epochs: of training per attempt.
        out: folder of the run; new or empty.
        progress: told what is going on.
        more: further options, see ``options.Options``.

    Raises:
        InputError: an option is out of range, the folder is in use, the model cannot be traced or the speed-up is out of reach.
        TrainingError: training diverged.
    """
    start = time.perf_counter()
    given = {"target": target, "max_drop": max_drop, "speedup": speedup, "epochs": epochs, **more}
    options = parse_options(given, "optimize()")
    device, run, progress = get_target(options.target), RunFolder(Path(out)), progress or Silent()
    inputs = example_tuple(example_inputs)
    progress.stage("trace and fuse", None)
    graph = trace(model, inputs)
    shapes.propagate(graph, inputs)
    _, fusion = fuse_graph(graph, inputs, options.fusion, cost_model=device.cost_model())
    _require_reachable(graph, inputs, device, options.speedup)
    write_options(options, run.file("options.toml"))
    run.write("fusion.json", fusion)
    run.event("started", model=type(model).__name__, version=__version__)
    baseline_file = run.file("baseline.onnx")
    setting = Setting(graph, inputs, task, device, options, baseline_file, run.path, progress)
    baseline = _baseline(setting)
    run.event("baseline", **baseline.model_dump())
    progress.note(f"baseline: {baseline.accuracy:.2f} %, {baseline.latency_ms:.3f} ms")
    best, satisfied = _search(setting, run, baseline)
    seconds = time.perf_counter() - start
    return _finish(setting, run, baseline, best, satisfied, seconds)


def _require_reachable(graph: fx.GraphModule, inputs: tuple[Tensor, ...], device: Target, speedup: float | None) -> None:
    """Refuse before anything is written or trained what no plan can reach."""
    network = insert_gates(graph)
    _require_prunable(network)
    if speedup is not None:
        Planner(network, Pricer(network, device.cost_model()), device.name, device.alignment).for_speedup(l2(network), speedup)


def _require_prunable(network: GatedNetwork) -> None:
    if not network.groups.prunable and not network.branches:
        raise InputError("There is nothing to prune: no channel and no branch of this network can be removed.")


def _baseline(setting: Setting) -> Figures:
    """Export, measure and judge the original."""
    setting.progress.stage("measure the original", None)
    target, file = setting.target, setting.baseline_file
    target.export(setting.graph, setting.example_inputs, file)
    latency = target.compare([file], setting.example_inputs, threads=setting.options.threads).measurements[0]
    size = cost.figures(setting.graph)
    accuracy = setting.task.score(lambda x: target.predict(file, x))
    return Figures(
        accuracy=accuracy,
        latency_ms=latency.latency_ms,
        latency_grade=latency.grade,
        macs=size.macs,
        params=size.params,
    )


def _search(setting: Setting, run: RunFolder, baseline: Figures) -> tuple[Outcome | None, bool]:
    """Try speed-ups and keep the fastest outcome within the requirement; with an asked speed-up, the only one."""
    bracket, best, outcomes = Bracket(), None, []
    for number in range(1, (1 if setting.options.speedup else setting.options.attempts) + 1):
        asked = setting.options.speedup or bracket.next()
        if asked is None:
            break
        try:
            outcome = run_attempt(setting, number, asked)
        except InputError as error:
            if setting.options.speedup:
                raise
            setting.progress.note(str(error).splitlines()[0])
            bracket.tell(asked, satisfied=False)
            continue
        outcomes.append(outcome)
        satisfied = baseline.accuracy - outcome.figures.accuracy <= setting.options.max_drop
        bracket.tell(asked, satisfied=satisfied)
        _record(setting, run, baseline, outcomes)
        if satisfied and (best is None or outcome.speedup > best.speedup):
            best = outcome
    if best is not None:
        return best, True
    return (outcomes[-1], False) if setting.options.speedup else (None, True)


def _record(setting: Setting, run: RunFolder, baseline: Figures, outcomes: list[Outcome]) -> None:
    """Write what is known after each attempt."""
    rows: list[dict[str, Any]] = [
        {
            "attempt": o.history.attempt, "asked_speedup": o.history.asked_speedup, "speedup": o.speedup,
            "accuracy": o.figures.accuracy, "drop": baseline.accuracy - o.figures.accuracy,
            "satisfied": baseline.accuracy - o.figures.accuracy <= setting.options.max_drop,
            "latency_ms": o.figures.latency_ms, "macs": o.figures.macs, "params": o.figures.params,
        }
        for o in outcomes
    ]  # fmt: skip
    run.write("attempts.json", rows)
    run.write("history.json", [o.history for o in outcomes])
    run.event("attempt", **rows[-1])
    verdict = "meets" if rows[-1]["satisfied"] else "misses"
    setting.progress.note(
        f"attempt {rows[-1]['attempt']}: {rows[-1]['speedup']:.2f}x measured, {rows[-1]['accuracy']:.2f} % "
        f"({-rows[-1]['drop']:+.2f} points): {verdict} the requirement"
    )


def _finish(
    setting: Setting, run: RunFolder, baseline: Figures, best: Outcome | None, satisfied: bool, seconds: float
) -> RunResult:
    """Put the best network into place, time its layers, and write result and report."""
    target, inputs = setting.target, setting.example_inputs
    setting.progress.stage("write the result", None)
    shipped = run.file("model.onnx")
    if best is None:
        setting.progress.note("No faster network met the requirement; the original is kept.")
        module, _ = fuse_graph(setting.graph, inputs, "basic")
        target.export(module, inputs, shipped)
        final, speedup, epochs = baseline, 1.0, 0
    else:
        module, final, speedup, epochs = best.module, best.figures, best.speedup, setting.options.epochs
        os.replace(best.file, shipped)
        run.write("plan.json", best.plan)
        run.write("fusion_after.json", best.fusion)
        run.write("decisions.json", [vars(d) for d in best.decisions])
    for leftover in run.path.glob("attempt-*.onnx"):
        leftover.unlink()
    _save_pt2(module, inputs, run.file("model.pt2"))
    times = {
        name: target.layer_times(file, inputs) for name, file in (("before", setting.baseline_file), ("after", shipped))
    }
    run.write("layer_times.json", times)
    requirement = Requirement(max_drop=setting.options.max_drop, satisfied=satisfied)
    summary = Summary(
        requirement=requirement, baseline=baseline, final=final, speedup=speedup, target=target.name, epochs=epochs, seconds=seconds,
        hardware=hardware(), version=__version__,
    )  # fmt: skip
    run.event("finished", satisfied=satisfied, speedup=speedup)
    run.write("result.json", summary)
    from fupruner.report.html import write_report  # noqa: PLC0415 - plotly is heavy and needed only here

    write_report(run.path)
    return RunResult(module, best.plan if best else None, baseline, final, speedup, satisfied, run.path)


def _save_pt2(module: nn.Module, inputs: tuple[Tensor, ...], path: Path) -> ExportResult:
    """Save for PyTorch alone, with a free batch, and compare what loads with what was saved."""
    from fupruner.graph.save import save_pt2  # noqa: PLC0415 - torch.export is slow to import

    return ExportResult((path,), save_pt2(module, inputs, path))


def hardware() -> str:
    """Processor, cores and system, as written beside figures."""
    from fupruner.targets.runtime import cpu_name  # noqa: PLC0415 - imports the runtime

    return f"{cpu_name()}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}"


__all__ = [
    "FuseResult",
    "Options",
    "PruneResult",
    "RunResult",
    "Target",
    "export",
    "fuse",
    "load",
    "measure",
    "optimize",
    "prune",
]
