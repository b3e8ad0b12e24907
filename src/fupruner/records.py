"""What the stages hand to each other and write to the run folder: plain, immutable, JSON-ready records.

Units everywhere: latencies in milliseconds at batch 1, accuracies in percent, multiply-adds and parameters as counts.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, model_validator

Grade = Literal["measured", "table", "estimated"]


class Record(BaseModel):
    """Base of all records: immutable, and strict about unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Metric(Record):
    """What networks are judged by; higher is better.

    Attributes:
        name: as it stands inside a sentence: accuracy, mean IoU, mAP.
        unit: behind its figures; differences of percentages are points. Empty for a plain number.
    """

    name: str = "accuracy"
    unit: str = "%"

    def text(self, value: float) -> str:
        """Write a figure with its unit: 91.25 %, 0.8412."""
        return f"{value:.2f} %" if self.unit == "%" else f"{value:.4g} {self.unit}".rstrip()

    def difference(self, value: float, *, signed: bool = True) -> str:
        """Write a difference with its sign, or its size alone: +0.50 points, -0.0031."""
        sign = "+" if signed else ""
        return f"{value:{sign}.2f} points" if self.unit == "%" else f"{value:{sign}.4g} {self.unit}".rstrip()

    def allowance(self, value: float) -> str:
        """Write a requirement: 1 point of accuracy, 0.02 of mean IoU."""
        unit = ("point" if value == 1 else "points") if self.unit == "%" else self.unit
        return " ".join(filter(None, (f"{value:g}", unit, "of", self.name)))

    @property
    def title(self) -> str:
        """Write the name as a line begins with it: Accuracy, Mean IoU; an abbreviation stays: mAP."""
        first = self.name.split(" ")[0]
        return first.capitalize() + self.name[len(first) :] if first.islower() else self.name

    @property
    def axis(self) -> str:
        """Write the title of an axis: accuracy, %."""
        return f"{self.name}, {self.unit}" if self.unit else self.name


class Measurement(Record):
    """A latency and how far it can be trusted.

    Attributes:
        latency_ms: median over the runs.
        spread: distance between the quartiles of the runs, in milliseconds; 0 for an estimate.
        grade: ``measured`` on the device, ``table`` (sum of per-layer times measured on it) or ``estimated``.
        source: the runtime with its version, or where an estimate's constants come from.
        target: the target's name.
        threads: threads the runtime was given.
        runs: timed runs behind the median.
    """

    latency_ms: float
    spread: float
    grade: Grade
    source: str
    target: str
    threads: int = 1
    runs: int = 0


class Comparison(Record):
    """Several networks timed in turn in one process, so that drifts of the machine hit all of them alike; or all estimated.

    Attributes:
        measurements: one per network, in the order given, all of one grade.
        speedups: median over rounds of (latency of the first / latency of this one); the first is 1.
        spreads: distance between the quartiles of those ratios.
    """

    measurements: tuple[Measurement, ...]
    speedups: tuple[float, ...]
    spreads: tuple[float, ...]

    @model_validator(mode="after")
    def _one_grade(self) -> Comparison:
        """A ratio of a measurement to an estimate would mean nothing."""
        grades = sorted({measurement.grade for measurement in self.measurements})
        if len(grades) > 1:
            raise ValueError(f"latencies of different grades cannot be compared: {', '.join(grades)}")
        return self


class Fired(Record):
    """One application of a fusion rule."""

    rule: str
    node: str
    detail: str = ""


class Refusal(Record):
    """One place where a fusion rule matched but must not or need not be applied."""

    rule: str
    node: str
    reason: str


class GraphFigures(Record):
    """Size of a network: layers and operators by type, multiply-adds at batch 1, parameters."""

    operators: dict[str, int]
    macs: int
    params: int


class GraphNode(Record):
    """One operator of a network.

    Attributes:
        kind: the layer's class, or the function's name; ``input`` and ``output`` for the ends.
        inputs: names of the nodes that it reads.
        layer: the dotted name of the layer, or an empty string for a function.
        shape: of the output without the batch.
        params: parameters of the layer.
    """

    name: str
    kind: str
    inputs: tuple[str, ...] = ()
    layer: str = ""
    shape: tuple[int, ...] = ()
    params: int = 0


class GraphRecord(Record):
    """A network as operators in the order in which they run."""

    nodes: tuple[GraphNode, ...]


class FusionLog(Record):
    """What fusion did, what it refused, and how equal the result is.

    Attributes:
        max_error: largest absolute difference of outputs in float64, relative to the largest output.
        max_error_float32: the same in float32, after the fused weights were rounded once.
        checked_inputs: a line per input that was tried, for example ``2x3x32x32``.
    """

    level: str
    fired: tuple[Fired, ...]
    refused: tuple[Refusal, ...]
    before: GraphFigures
    after: GraphFigures
    max_error: float
    max_error_float32: float
    checked_inputs: tuple[str, ...] = ()
    seconds: float = 0.0


class GroupRecord(Record):
    """Channels that live and die together.

    Attributes:
        name: the first layer that produces the channels.
        channels: how many prunable units the group has (each unit is one channel in every member).
        producers: layers whose output filters belong to the group.
        consumers: layers whose input channels belong to the group.
        frozen: why the group cannot be pruned, or an empty string.
    """

    name: str
    channels: int
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    frozen: str = ""


MoveKind = Literal["channels", "branch", "shortcut", "activation"]


class Move(Record):
    """One step of a plan: gates that close together.

    Attributes:
        kind: ``channels`` of a group, a whole ``branch`` of a residual block, channels of a ``shortcut``, an ``activation``.
        where: the group, block, shortcut or activation.
        closed: indices of the gates that this move closes.
        loss: predicted increase of the loss, in nats per sample (or the criterion's own unit, see ``Plan.importance``).
        saved_ms: predicted time saved on the target, in milliseconds.
    """

    kind: MoveKind
    where: str
    closed: tuple[int, ...]
    loss: float
    saved_ms: float


class Plan(Record):
    """Which gates close, in the order in which they were chosen, and what that is predicted to do.

    Attributes:
        widths_before: output channels per layer.
        widths_after: the same after slimming; 0 where a layer disappears.
    """

    target: str
    importance: str
    budget: str
    moves: tuple[Move, ...]
    baseline_ms: float
    predicted_ms: float
    grade: Grade
    widths_before: dict[str, int]
    widths_after: dict[str, int]


class EpochRecord(Record):
    """One epoch of training, as printed, logged and drawn.

    Attributes:
        stage: ``prune`` while gates open and close, ``recover`` after slimming.
        accuracy: the task's metric on the validation split, in percent for accuracy.
        predicted_speedup: of the gates as they are now.
        closed: gates closed at the end of the epoch.
        reopened: gates that came back during the epoch.
    """

    epoch: int
    stage: Literal["prune", "recover"]
    loss: float
    accuracy: float
    predicted_speedup: float
    closed: int
    reopened: int
    learning_rate: float
    seconds: float
    images_per_second: float


class History(Record):
    """The training of one attempt at a speed-up."""

    attempt: int
    asked_speedup: float
    epochs: tuple[EpochRecord, ...]


class Preview(Record):
    """What ``optimize`` would do, before anything is trained.

    Attributes:
        asked_speedup: the asked one, or the first that would be tried.
        attempts: speed-ups that would be tried at most.
        epochs: epochs of training per attempt.
        steps: training steps per attempt.
        plan: for the asked speed-up on the network as it is; during training it is decided anew.
    """

    target: str
    asked_speedup: float
    attempts: int
    epochs: int
    steps: int
    fusion: FusionLog
    plan: Plan


class LayerTime(Record):
    """Time of one operator of a network in the target's runtime, or an estimate of it."""

    name: str
    kind: str
    ms: float
    grade: Grade = "measured"


class Fact(Record):
    """One thing that a device's own tools say about a network.

    Attributes:
        name: what it is about, for example ``stages``.
        value: as written for people, with its unit.
        source: the tool that said it.
    """

    name: str
    value: str
    source: str


class Shipped(Record):
    """What a run ships for its target, and what the device's own tools say about it.

    Attributes:
        files: names of what has to be shipped, the main file first.
        ships, precision: of the target.
        judged_in: the runtime in which accuracy was judged.
        recipe: how the file is run on the device.
        before, after: facts about the original and about the result.
    """

    files: tuple[str, ...]
    ships: str
    precision: str
    judged_in: str
    recipe: str
    before: tuple[Fact, ...] = ()
    after: tuple[Fact, ...] = ()


class Figures(Record):
    """What a network costs and what it is worth; one side of ``result.json``."""

    accuracy: float
    latency_ms: float
    latency_grade: Grade
    macs: int
    params: int


class Requirement(Record):
    """What was asked, and whether the result meets it.

    Attributes:
        max_drop: points of the metric that may be lost.
    """

    max_drop: float
    satisfied: bool


class Judgement(Record):
    """The content of ``judgement.json``: on which validation data the search looked, and on which its answer was judged.

    Attributes:
        divided: whether ``result.json`` has figures of data that the search did not look at.
        searched_baseline: the original's figure on the data that the search looked at.
        searched_final: the kept network's figure there.
        refused: attempts that met the requirement there, but not on the data that the answer is judged by.
    """

    divided: bool
    searched_baseline: float
    searched_final: float
    refused: tuple[int, ...] = ()


class Summary(Record):
    """The content of ``result.json``: the final word on a run.

    Attributes:
        speedup: ratio baseline / final, from interleaved runs where it was measured; else of estimates.
        epochs: epochs of training behind the final network.
        seconds: wall-clock time of the whole run.
    """

    requirement: Requirement
    baseline: Figures
    final: Figures
    speedup: float
    target: str
    epochs: int
    seconds: float
    hardware: str
    version: str
