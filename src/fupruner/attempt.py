"""One attempt at a speed-up: gates close while the network trains, then it is cut, recovers, is fused and shipped."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor, fx, nn
from torch.optim import Optimizer

from fupruner.graph import cost
from fupruner.options import Options
from fupruner.progress import Progress
from fupruner.pruning.compensate import compensate
from fupruner.pruning.deadline import freeze
from fupruner.pruning.dynamic import Decision, DynamicPruning
from fupruner.pruning.factors import Factors
from fupruner.pruning.gates import GatedNetwork
from fupruner.pruning.hints import hints
from fupruner.pruning.importance import Importance, criterion
from fupruner.pruning.plan import GatePlan, Planner
from fupruner.pruning.prepare import fuse_as_planned, make_planner
from fupruner.pruning.schedule import BudgetSchedule
from fupruner.pruning.slim import slim
from fupruner.pruning.trade import best_factors, compensated_loss
from fupruner.pruning.verify import measured_speedup
from fupruner.records import Figures, FusionLog, History, Plan
from fupruner.runs.recorded import recorded_scores
from fupruner.runs.resumable import Trainer
from fupruner.runs.scalars import FOLDER, Scalars
from fupruner.targets.base import Target
from fupruner.training.features import Hints
from fupruner.training.optimizers import make_optimizer
from fupruner.training.recipe import Recipe
from fupruner.training.schedule import Schedule
from fupruner.training.task import Predict, Task, evaluating
from fupruner.training_log import TrainingLog

LONGEST_WARMUP = 0.3
"""Share of an attempt's steps in which the rate may rise, however long gates move."""
COMPENSATION_IMAGES = 512
"""Calibration images on which what is left of a pruned network learns to stand in for what was cut."""


@dataclass(frozen=True)
class Setting:
    """What all attempts of a run share.

    Attributes:
        graph: the traced original. Never modified.
        teacher: computes the same, see ``pruning.hints.folded_teacher``.
        task: what the search looks at.
        judge: the same task with validation data that the search does not look at, or ``task`` where there is none.
        fusion: of fusing the original at the level asked for.
        baseline_file: the original as shipped, to be timed against.
        shipping: what shipping alone gains, see ``verify.shipping_speedup``.
        folder: where files of attempts go.
        trainer: trains networks, so that a run can be cut off anywhere; its journal keeps what is measured.
    """

    graph: fx.GraphModule
    teacher: fx.GraphModule
    example_inputs: tuple[Tensor, ...]
    task: Task
    judge: Task
    target: Target
    options: Options
    fusion: FusionLog
    baseline_file: Path
    shipping: float
    folder: Path
    progress: Progress
    trainer: Trainer = field(default_factory=Trainer)

    @contextmanager
    def original(self) -> Iterator[Predict]:
        """What the user has now: the original as it ships or, where shipping quantises, as it is before that."""
        if self.target.precision == "int8":
            with evaluating(self.graph) as predict:
                yield predict
        else:
            yield lambda inputs: self.target.predict(self.baseline_file, inputs)


@dataclass(frozen=True)
class Outcome:
    """What an attempt came to.

    Attributes:
        module: the fused network in eval mode.
        file: the same as shipped.
        figures: accuracy and latency of the shipped file.
        baseline_ms: latency of the original in the same interleaved runs.
        speedup: measured against the baseline in interleaved runs.
        spread: distance between the quartiles of that ratio.
    """

    module: fx.GraphModule
    file: Path
    plan: Plan
    fusion: FusionLog
    history: History
    decisions: tuple[Decision, ...]
    figures: Figures
    baseline_ms: float
    speedup: float
    spread: float


def run_attempt(setting: Setting, number: int, asked: float) -> Outcome:
    """Prune, recover, fuse and ship for one asked speed-up.

    Raises:
        InputError: the speed-up is out of reach.
        TrainingError: the loss became NaN.
    """
    options, task = setting.options, setting.task
    network, planner = make_planner(
        setting.graph,
        setting.example_inputs,
        setting.target,
        setting.fusion,
        shipping=setting.shipping,
        fit=options.fit_on_chip,
    )
    total = options.epochs * task.steps_per_epoch
    budget = BudgetSchedule(asked, 0, max(1, round(options.pruning_share * total)), options.decisions)
    loss = judge(setting, network)
    pruning = DynamicPruning(network, planner, scorer(setting), budget, corrector(setting, planner, loss), loss)
    planner.for_speedup(pruning.score(network), asked)  # refuse before training what is out of reach
    setting.progress.stage(f"attempt {number}: train for {asked:.2f}x", total)
    log = _log(setting, pruning, number)
    optimizer = make_optimizer(network.graph_module, options.weight_decay)
    with closing(log.scalars):
        slimmed = _prune(setting, pruning, log, optimizer, total)
        log.stage = "recover"
        learnt = hints(setting.graph, network, slimmed)
        if options.compensate:
            slimmed = compensate(network, slimmed, setting.graph, calibration_inputs(task))
        _train(setting, slimmed, learnt, log, None, budget.deadline, total, total)
    return _ship(setting, slimmed, pruning, log.history(number, asked), number)


def scorer(setting: Setting) -> Callable[[GatedNetwork], Importance]:
    """The importance function that the options name."""
    score = criterion(setting.options.importance)
    return recorded_scores(
        lambda network: score(network, setting.task, setting.options.calibration_images), setting.trainer.journal
    )


def judge(setting: Setting, network: GatedNetwork) -> Callable[[GatePlan], float]:
    """Loss of what a plan would leave of a network as it is now, see ``trade.compensated_loss``."""
    loss, journal = compensated_loss(network, setting.graph, setting.task), setting.trainer.journal
    return lambda plan: float(journal.once("loss of a plan", lambda: loss(plan)))


def corrector(
    setting: Setting, planner: Planner, loss: Callable[[GatePlan], float]
) -> Callable[[Importance, float], Factors]:
    """Factors on the scores of parts: of the plans made with some, judged as a whole, the best one's; decided once in an attempt."""
    journal, plans = setting.trainer.journal, setting.options.plans

    def factors(importance: Importance, speedup: float) -> Factors:
        found = journal.once(
            "factors", lambda: best_factors(planner, importance, speedup, loss, plans=plans), everywhere=True
        )
        return {str(part): float(factor) for part, factor in found.items()}

    return factors


def calibration_inputs(task: Task, images: int = COMPENSATION_IMAGES) -> list[Tensor]:
    """Inputs of calibration batches, for compensation."""
    return [task.inputs(batch) for batch in task.calibration_batches(images)]


def _log(setting: Setting, pruning: DynamicPruning, number: int) -> TrainingLog:
    trainer = setting.trainer
    wanted = setting.options.tensorboard and trainer.journal.world.is_main
    folder = setting.folder / FOLDER / f"attempt-{number}" if wanted else None
    scalars = Scalars(folder, lambda: trainer.is_catching_up)
    return TrainingLog(pruning, setting.task.metric, setting.options.epochs, setting.progress, scalars)


def _prune(
    setting: Setting, pruning: DynamicPruning, log: TrainingLog, optimizer: Optimizer, total: int
) -> fx.GraphModule:
    """Train between decisions; after the last one cut what is closed, as fast as asked."""
    steps, network, inputs = pruning.schedule.steps(), pruning.network, setting.example_inputs
    for step, until in zip(steps, [*steps[1:], None], strict=True):
        log.decision(pruning.decide(step))
        if until is not None:
            if until // setting.task.steps_per_epoch > step // setting.task.steps_per_epoch:  # an epoch will be told of
                log.timed(_speedup(setting, pruning, slim(network, inputs)))
            _train(setting, network.graph_module, hints(setting.graph, network), log, optimizer, step, until, total)
    cut = freeze(
        pruning, inputs, lambda slimmed, enough: _speedup(setting, pruning, slimmed, enough), setting.progress.note
    )
    log.timed(cut.speedup)
    return cut.module


def _train(
    setting: Setting, module: nn.Module, learnt: Hints, log: TrainingLog, optimizer: Optimizer | None, start: int, stop: int, total: int
) -> None:  # fmt: skip
    options = setting.options
    recipe = Recipe(
        weight_decay=options.weight_decay, precision=options.precision, seed=options.seed,
        teacher=setting.teacher if options.distill else None, hints=learnt if options.distill_features else None,
        hint_weight=options.distill_features, ema=options.ema if log.stage == "recover" else 0.0, optimizer=options.optimizer,
    )  # fmt: skip
    setting.trainer.train(
        module, setting.task, _schedule(options, total), start=start, stop=stop, recipe=recipe,
        optimizer=optimizer, on_step=[log.step], on_epoch=[log.epoch], on_skip=setting.progress.advance,
    )  # fmt: skip


def _schedule(options: Options, steps: int) -> Schedule:
    """The rate rises while gates are still moving, so that the weights that scores are taken with stay near the original's."""
    suitable = min(options.pruning_share, LONGEST_WARMUP)
    return Schedule.over(steps, options.learning_rate, suitable if options.warmup is None else options.warmup)


def _fused(setting: Setting, pruning: DynamicPruning, slimmed: fx.GraphModule) -> tuple[fx.GraphModule, FusionLog]:
    """What was cut, in the form in which it ships."""
    inputs, cost_model = setting.example_inputs, setting.target.cost_model()
    return fuse_as_planned(pruning.network, slimmed, inputs, setting.options.fusion, cost_model)


def _speedup(
    setting: Setting, pruning: DynamicPruning, module: fx.GraphModule, confirm_from: float = math.inf
) -> float:
    """Measured speed-up of a network against the baseline; where it ships with fewer operators, that form is timed."""
    moves = pruning.plan.record.moves if pruning.plan is not None else ()
    if pruning.network.shortcuts or any(move.kind != "channels" for move in moves):
        module, _ = _fused(setting, pruning, module)
    return measured_speedup(
        setting.target, setting.baseline_file, module, setting.example_inputs, threads=setting.options.threads,
        confirm_from=confirm_from,
    )  # fmt: skip


def _ship(setting: Setting, slimmed: fx.GraphModule, pruning: DynamicPruning, history: History, number: int) -> Outcome:
    """Fuse again what pruning freed, export, measure and judge the shipped file."""
    assert pruning.plan is not None  # noqa: S101 - the deadline has passed
    target, inputs = setting.target, setting.example_inputs
    setting.progress.stage(f"attempt {number}: fuse, export, measure", None)
    fused, fusion = _fused(setting, pruning, slimmed)
    file = setting.folder / f"attempt-{number}{target.suffix}"
    target.export(fused, inputs, file)
    comparison = target.compare([setting.baseline_file, file], inputs, threads=setting.options.threads)
    size = cost.figures(fused)
    figures = Figures(
        accuracy=setting.task.score(lambda x: target.predict(file, x)), latency_ms=comparison.measurements[1].latency_ms,
        latency_grade=comparison.measurements[1].grade, macs=size.macs, params=size.params,
    )  # fmt: skip
    return Outcome(
        module=fused, file=file, plan=pruning.plan.record, fusion=fusion, history=history, decisions=tuple(pruning.decisions),
        figures=figures, baseline_ms=comparison.measurements[0].latency_ms, speedup=comparison.speedups[1], spread=comparison.spreads[1],
    )  # fmt: skip
