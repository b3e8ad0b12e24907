"""FuPruner in one page: the stages in the order in which they run.

trace -> fuse -> gate, plan, prune while training -> slim -> recover -> fuse again -> export, verify, measure -> report
"""

from __future__ import annotations

import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from fupruner import __version__
from fupruner.attempt import Setting
from fupruner.errors import InputError
from fupruner.finish import finish
from fupruner.fusion.fuse import fuse_graph
from fupruner.graph import cost, shapes
from fupruner.graph.borrowed import unborrow
from fupruner.graph.record import graph_record
from fupruner.graph.save import save_pt2
from fupruner.graph.trace import Example, example_tuple, trace
from fupruner.judge import judge
from fupruner.models.resolve import Model, as_module
from fupruner.one_shot import prune
from fupruner.options import Options, parse_options, write_options
from fupruner.progress import Catching, Progress, Silent, watching
from fupruner.pruning.gates import require_prunable
from fupruner.pruning.hints import folded_teacher
from fupruner.pruning.importance import criterion
from fupruner.pruning.prepare import make_planner
from fupruner.pruning.verify import shipping_speedup
from fupruner.records import Figures, FusionLog, Measurement
from fupruner.results import FuseResult, PruneResult, RunResult
from fupruner.runs.checkpoints import Checkpoints
from fupruner.runs.journal import Journal
from fupruner.runs.origin import Source, write_origin
from fupruner.runs.recorded import RecordedTarget, RecordedTask
from fupruner.runs.resumable import Trainer
from fupruner.runs.run_folder import RunFolder
from fupruner.runs.safety import kept_safe
from fupruner.runs.scalars import require_tensorboard
from fupruner.search import search
from fupruner.targets.base import ExportResult, Target
from fupruner.targets.registry import get_target
from fupruner.training.parallel import World, join
from fupruner.training.stream import require_divisible
from fupruner.training.task import CalibrationData, Classification, Task, calibration_images, cautions, proof_inputs


def fuse(
    model: Model,
    example_inputs: Example,
    level: str = "aggressive",
    *,
    target: str = "cpu",
    only: tuple[str, ...] = (),
    without: tuple[str, ...] = (),
    data: CalibrationData | None = None,
) -> FuseResult:
    """Rewrite a network into an equivalent one whose non-parametric operators have become filters.

    Args:
        model: a module, which is left untouched, or the path or name of a network.
        example_inputs: a tensor or tuple of tensors, batch first.
        level: ``none``, ``basic``, ``aggressive`` or ``auto`` (per block, whatever the target's cost model says).
        target: whose cost model ``auto`` asks.
        only: names of rules to use; all when empty.
        without: names of rules to leave out.
        data: a task on some of whose calibration images the result is proved, besides random inputs of several sizes.

    Raises:
        InputError: the level or a rule is unknown, or the model cannot be traced.
    """
    inputs = example_tuple(example_inputs)
    cost_model = get_target(target).cost_model() if level == "auto" else None
    calibration = () if data is None else proof_inputs(data)
    lender = as_module(model)
    traced = trace(lender, inputs, borrow=True)
    module, log = fuse_graph(
        traced, inputs, level, only=only, without=without, cost_model=cost_model, calibration=calibration
    )
    unborrow(module, lender)
    return FuseResult(module, log, log.max_error)


def export(
    module: Model,
    example_inputs: Example,
    path: str | Path,
    target: str = "cpu",
    *,
    data: Task | None = None,
    ship: str = "auto",
) -> ExportResult:
    """Write a network for a target (or, with the ending ``.pt2``, for PyTorch alone) and check the file.

    Args:
        module: a module, which is left untouched, or the path or name of a network.
        example_inputs: a tensor or tuple of tensors, batch first.
        path: the file to write; what ships beside it gets the same name with other endings.
        target: the device.
        data: a task on whose training images int8 is calibrated; without it, on the example inputs.
        ship: number format of the file, see ``Options.ship``.

    Raises:
        TargetError: the target's format cannot hold the network, or the file computes something else.
    """
    module, inputs, path = as_module(module), example_tuple(example_inputs), Path(path)
    if path.suffix == ".pt2":
        return ExportResult((path,), save_pt2(module, inputs, path))
    device = get_target(target, ship)
    if data is not None:
        device = device.adapted(module, calibration_images(data))
    return device.export(module, inputs, path)


def measure(
    path_or_module: str | Path | nn.Module, example_inputs: Example, target: str = "cpu", *, threads: int = 1, ship: str = "auto",
    device: str | None = None,
) -> Measurement:  # fmt: skip
    """Time a network, or a file that was exported before, at batch 1 in the target's runtime; estimated where that is not here.

    Args:
        path_or_module: a module, or what ``export`` wrote.
        example_inputs: a tensor or tuple of tensors, batch first.
        target: the device.
        threads: threads of the runtime.
        ship: number format in which a module ships, see ``Options.ship``.
        device: where it is timed, see ``Options.device``.
    """
    inputs, chosen = example_tuple(example_inputs), get_target(target, ship, device)
    if not isinstance(path_or_module, nn.Module):
        return chosen.compare([Path(path_or_module)], inputs, threads=threads).measurements[0]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"model{chosen.suffix}"
        chosen.export(path_or_module, inputs, file)
        return chosen.compare([file], inputs, threads=threads).measurements[0]


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
    model: Model, example_inputs: Example, task: Task, *, target: str = "cpu", max_drop: float = 1.0, speedup: float | None = None,
    epochs: int = 5, out: str | Path, progress: Progress | None = None, source: Source | None = None, **more: Any,
) -> RunResult:  # fmt: skip
    """Find the fastest network on a target that loses at most ``max_drop`` points of the task's metric.

    Args:
        model: a module, which is left untouched, or the path or name of a network.
        example_inputs: a tensor or tuple of tensors, batch first.
        task: gives batches, loss and metric, see ``training.task.Task``.
        target: device that the network is made for.
        max_drop: points of the metric that may be lost.
        speedup: when given, the network is made this fast, and the result says whether the requirement holds.
        epochs: of training per attempt.
        out: folder of the run; new or empty.
        progress: told what is going on; whoever watches (``fupruner.show_progress``) if None.
        source: how model and data were named, so that a resume finds them again.
        more: further options, see ``options.Options``.

    Raises:
        InputError: an option is out of range, the folder is in use, the model cannot be traced or the speed-up is out of reach.
        TrainingError: training diverged, or the task could not give a batch.
        StorageError: the run folder cannot be written to.
        KeyboardInterrupt: the user stopped the run; what is done is saved, and :func:`fupruner.resume` goes on.
    """
    given = {"target": target, "max_drop": max_drop, "speedup": speedup, "epochs": epochs, **more}
    options = parse_options(given, "optimize()")
    if options.tensorboard:
        require_tensorboard()
    world = join()
    if isinstance(task, Classification):  # of other tasks the first batch tells
        require_divisible(task.images_per_step, world)
    trainer = Trainer(Journal(world), Checkpoints(Path(out)), options.checkpoint_every)
    device, run = get_target(options.target, options.ship, options.device), RunFolder(Path(out), world)
    progress = (progress or watching()) if world.is_main else Silent()
    inputs = example_tuple(example_inputs)
    progress.stage("trace and fuse", None)
    graph = trace(as_module(model), inputs)
    shapes.propagate(graph, inputs)
    device = RecordedTarget(device.adapted(graph, calibration_images(task)), trainer.journal)
    calibration = proof_inputs(task)
    fused, fusion = fuse_graph(graph, inputs, options.fusion, cost_model=device.cost_model(), calibration=calibration)
    shipping = _require_reachable(graph, inputs, device, fusion, options, trainer.journal.world)
    name = source.model if source else type(model).__name__ if isinstance(model, nn.Module) else str(model)
    with kept_safe(run):
        if run.writes:
            write_options(options, run.file("options.toml"))
        run.write("graphs.json", {"before": graph_record(graph, inputs), "fused": graph_record(fused, inputs)})
        write_origin(run, name, graph, inputs, task, source)
        trainer.journal.begin(run.path)
    return carry_out(graph, inputs, task, device, options, run, trainer, progress, fusion, name, shipping)


def carry_out(
    graph: fx.GraphModule, inputs: tuple[Tensor, ...], task: Task, target: RecordedTarget, options: Options, run: RunFolder,
    trainer: Trainer, progress: Progress, fusion: FusionLog, name: str, shipping: float | None = None,
) -> RunResult:  # fmt: skip
    """Do a run from its beginning; what its journal and its checkpoints hold is not done again, nor is ``shipping`` if it is known."""
    with closing(trainer.journal), kept_safe(run):
        run.write("fusion.json", fusion)
        run.write("metric.json", task.metric)
        run.event("started", model=name, version=__version__)
        looked_at, held_out = RecordedTask(task, trainer.journal, lambda: trainer.is_current).divided()
        progress = Catching(progress, lambda: trainer.is_catching_up)
        progress.stage("measure the original", None)
        gained = trainer.journal.once(
            "shipping", lambda: shipping or shipping_speedup(target, graph, inputs, threads=options.threads)
        )
        setting = Setting(
            graph=graph, teacher=folded_teacher(graph, inputs), example_inputs=inputs, task=looked_at, judge=held_out, target=target,
            options=options, fusion=fusion, baseline_file=run.file("baseline" + target.suffix), shipping=float(gained), folder=run.path,
            progress=progress, trainer=trainer,
        )  # fmt: skip
        for line in cautions(task, options.max_drop):
            progress.note(line)
        baseline = _baseline(setting)
        run.event("baseline", **baseline.model_dump())
        progress.note(
            f"baseline: {task.metric.name} {task.metric.text(baseline.accuracy)}, {baseline.latency_ms:.3f} ms"
        )
        candidates = search(setting, run, baseline)
        verdict = judge(setting, baseline, candidates)
        return finish(setting, run, verdict, trainer.journal.seconds)


def _require_reachable(
    graph: fx.GraphModule, inputs: tuple[Tensor, ...], device: RecordedTarget, fusion: FusionLog, options: Options, world: World
) -> float | None:  # fmt: skip
    """Refuse before anything is written or trained what no plan can reach.

    Returns:
        What shipping alone gains, where it had to be measured for that.
    """

    def measured() -> float:  # past the journal, which a resume reads from where it was begun
        return shipping_speedup(device.target, graph, inputs, threads=options.threads)

    shipping = None if options.speedup is None else world.share(measured)
    network, planner = make_planner(
        graph, inputs, device, fusion, shipping=shipping or 1.0, fit=options.fit_on_chip, share_tensors=True
    )
    require_prunable(network)
    if options.speedup is not None:
        planner.for_speedup(criterion("l2")(network, None, 0), options.speedup)
    return shipping


def _baseline(setting: Setting) -> Figures:
    """Export, measure and judge the original."""
    target, file = setting.target, setting.baseline_file
    (target.reference or target).export(setting.graph, setting.example_inputs, file)
    latency = target.compare([file], setting.example_inputs, threads=setting.options.threads).measurements[0]
    size = cost.figures(setting.graph)
    with setting.original() as predict:
        accuracy = setting.task.score(predict)
    return Figures(
        accuracy=accuracy,
        latency_ms=latency.latency_ms,
        latency_grade=latency.grade,
        macs=size.macs,
        params=size.params,
    )


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
