"""Target and task as a run sees them: what they measure is kept in the journal, and asked for in process 0 alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, final

import numpy as np
from torch import Tensor, nn

from fupruner.errors import FuPrunerError, TrainingError
from fupruner.graph.layer_shape import LayerShape
from fupruner.pruning.gates import GatedNetwork
from fupruner.pruning.importance import Importance
from fupruner.records import Comparison, Fact, LayerTime, Metric
from fupruner.runs.journal import Journal
from fupruner.targets.base import ExportResult, Images, Target, Tool
from fupruner.targets.cost_model import CostModel
from fupruner.targets.price_cache import layer_key
from fupruner.training.outputs import Outputs
from fupruner.training.task import Predict, Task, drop_error


@final
class RecordedTarget(Target):
    """A target whose measurements and prices are kept in a journal.

    Args:
        target: measures.
        journal: remembers.
    """

    def __init__(self, target: Target, journal: Journal) -> None:
        self.target, self.journal = target, journal
        self.name, self.ships, self.suffix, self.precision = target.name, target.ships, target.suffix, target.precision
        self.alignment, self.operators, self.grade = target.alignment, target.operators, target.grade
        self.judged_in, self.recipe, self.formats = target.judged_in, target.recipe, target.formats
        self.remote, self.on_chip_bytes = target.remote, target.on_chip_bytes
        self.reference = None if target.reference is None else RecordedTarget(target.reference, journal)

    def adapted(self, module: nn.Module, images: Images | None) -> Target:
        """The same target for one network and its data, with the same journal."""
        return RecordedTarget(self.target.adapted(module, images), self.journal)

    def export(self, module: nn.Module, example_inputs: tuple[Tensor, ...], path: Path) -> ExportResult:
        """Write and check the file, in process 0."""
        return self.journal.world.share(lambda: self.target.export(module, example_inputs, path))

    def verify(self, module: nn.Module, example_inputs: tuple[Tensor, ...], path: Path) -> float:
        """Check the file, in process 0."""
        return self.journal.world.share(lambda: self.target.verify(module, example_inputs, path))

    def predict(self, path: Path, inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Run a file; asked for where an accuracy is computed, which is recorded as a whole."""
        return self.target.predict(path, inputs)

    def compare(self, paths: Sequence[Path], example_inputs: tuple[Tensor, ...], *, threads: int = 1) -> Comparison:
        """Time files in turn, once."""
        value = self.journal.once(
            "compare", lambda: self.target.compare(paths, example_inputs, threads=threads).model_dump(mode="json")
        )
        return Comparison.model_validate(value)

    def layer_times(self, path: Path, example_inputs: tuple[Tensor, ...], *, threads: int = 1) -> list[LayerTime]:
        """Time each operator of a file, once."""
        value = self.journal.once(
            "layer_times",
            lambda: [t.model_dump(mode="json") for t in self.target.layer_times(path, example_inputs, threads=threads)],
        )
        return [LayerTime.model_validate(time) for time in value]

    def cost_model(self) -> CostModel:
        """The target's cost model, each layer priced once in a run."""
        return _RecordedCosts(self.target.cost_model(), self.journal)

    def inspect(self, path: Path) -> list[Fact]:
        """Ask the device's tools about a file, once."""
        value = self.journal.once(
            "inspect", lambda: [fact.model_dump(mode="json") for fact in self.target.inspect(path)]
        )
        return [Fact.model_validate(fact) for fact in value]

    def tools(self) -> list[Tool]:
        """The software behind the target."""
        return self.target.tools()

    def install(self) -> list[str]:
        """Bring the target's tools, in process 0."""
        return self.journal.world.share(self.target.install)


@final
class _RecordedCosts(CostModel):
    def __init__(self, costs: CostModel, journal: Journal) -> None:
        self._costs, self._journal = costs, journal
        self.grade, self.source, self.overhead_ms = costs.grade, costs.source, costs.overhead_ms

    def price(self, layers: Sequence[LayerShape]) -> list[float]:
        keys = [f"{self.source}: {layer_key(layer)}" for layer in layers]  # a run may have prices in two number formats
        return self._journal.price(keys, lambda missing: self._costs.price([layers[i] for i in missing]))


@final
class RecordedTask(Task):
    """A task whose figures are kept in a journal.

    Attributes:
        task: what the user brought; training uses it directly.
        is_current: tells whether weights are those of this point of the run; during a resume they may not be loaded yet.
    """

    def __init__(self, task: Task, journal: Journal, is_current: Callable[[], bool] = lambda: True) -> None:
        self.task, self.journal, self.is_current = task, journal, is_current

    @property
    def metric(self) -> Metric:
        """Name and unit of the figure."""
        return self.task.metric

    @property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch."""
        return self.task.steps_per_epoch

    def train_batches(self, epoch: int, start: int = 0) -> Iterable[Any]:
        """Batches of an epoch from index ``start`` on."""
        return self.task.train_batches(epoch, start)

    def calibration_batches(self, images: int) -> Iterable[Any]:
        """Batches of training images, not augmented."""
        return self.task.calibration_batches(images)

    def inputs(self, batch: Any) -> Tensor:
        """What of a batch goes into the network."""
        return self.task.inputs(batch)

    def loss(self, model: Predict, batch: Any) -> Tensor:
        """Mean loss of a batch."""
        return self.task.loss(model, batch)

    def distance(self, student: Outputs, teacher: Outputs) -> Tensor:
        """How far outputs lie from a teacher's."""
        return self.task.distance(student, teacher)

    def sample_losses(self, model: Predict, batch: Any) -> Tensor:
        """Loss of each sample."""
        if not self.is_current():
            raise FuPrunerError(
                "A loss was asked for, outside of training, that the journal does not have.",
                hint="Was the run begun with another version? Start it again with a new --out.",
            )
        return self.task.sample_losses(model, batch)

    def score(self, predict: Predict) -> float:
        """The figure to keep, computed once."""
        return float(self.journal.once("score", lambda: self.task.score(predict)))

    def evaluate(self, model: nn.Module) -> float:
        """The figure of a module, computed once."""
        return float(self.journal.once("evaluate", lambda: self.task.evaluate(model)))

    def drop_error(self, before: Predict, after: Predict) -> float | None:
        """Standard error of what is lost between two networks, counted once; None where the task cannot tell it."""
        error = self.journal.once("drop error", lambda: drop_error(self.task, before, after))
        return None if error is None else float(error)

    def divided(self) -> tuple[Task, Task]:
        """The task with one and with the other part of the validation data, both recorded."""
        parts = self.task.divided()
        first, second = (RecordedTask(part, self.journal, self.is_current) for part in parts)
        return (first, first if parts[0] is parts[1] else second)


def recorded_scores(
    score: Callable[[GatedNetwork], Importance], journal: Journal
) -> Callable[[GatedNetwork], Importance]:
    """An importance function whose scores are taken once, in process 0; a TrainingError where one is not a number."""

    def taken(network: GatedNetwork) -> dict[str, Any]:
        importance = score(network)
        if not np.isfinite(importance.units).all():
            raise TrainingError(
                "Scores of gates are not numbers: a weight, or the loss on calibration images, is NaN or infinite.",
                hint="Before any training, check the images and the network's outputs; later, lower the learning rate.",
            )
        return {
            "criterion": importance.criterion,
            "units": importance.units.tolist(),
            "branches": importance.branches,
            "activations": importance.activations,
        }

    def recorded(network: GatedNetwork) -> Importance:
        value = journal.once("importance", lambda: taken(network))
        units = np.array(value["units"], dtype=np.float64)
        return Importance(value["criterion"], units, value["branches"], value["activations"])

    return recorded


def unrecorded(task: Task) -> Task:
    """The task that the user brought: checkpoints keep what training finds."""
    return task.task if isinstance(task, RecordedTask) else task
