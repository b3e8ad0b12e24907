"""Narrower networks by others' means, and one way to train, ship and judge them all; for ``peers.py``.

A network comes with the feature maps that it can still learn from the original (see ``fupruner.training.features``): the ends of the
stages, and which of their channels it has left.
"""

# ruff: noqa: PLC0415 - Torch-Pruning is needed for its rows alone
from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from prune_oneshot import CALIBRATION, DATA, ENOUGH, accuracy, theirs, with_convolved_shortcuts, with_gradients
from torch import fx, nn

from fupruner.fusion.fuse import fuse_graph
from fupruner.graph import cost, shapes
from fupruner.graph.trace import trace
from fupruner.models.resolve import load_model
from fupruner.options import OptimizerName, Options
from fupruner.pruning.gates import insert_gates
from fupruner.pruning.hints import folded_teacher, hints
from fupruner.pruning.importance import l2
from fupruner.pruning.slim import slim
from fupruner.targets.registry import get_target
from fupruner.training.data import load_data
from fupruner.training.features import Hints, stage_ends
from fupruner.training.loop import train_steps
from fupruner.training.recipe import Recipe
from fupruner.training.schedule import Schedule
from fupruner.training.task import labelled_images

RATIOS = [round(0.05 * i, 2) for i in range(1, 18)]
MULTIPLE = 8
"""Widths of the uniformly scaled networks are multiples of this."""
REPEATS = 3
"""Comparisons with the baseline, each of interleaved runs; the median counts."""
AT_ONCE = 12
"""Files that are timed in turn."""


@dataclass(frozen=True)
class Setting:
    """How Torch-Pruning is asked: score, multiple of widths, all layers ranked together or each on its own."""

    importance: str
    rounded: int | None
    everywhere: bool

    def __str__(self) -> str:
        width = "any width" if self.rounded is None else f"multiples of {self.rounded}"
        return f"{self.importance}, {width}, {'global' if self.everywhere else 'uniform'}"


SETTINGS = [Setting(i, r, e) for i in ("taylor", "magnitude") for r in (8, 16, None) for e in (False, True)]


@dataclass(frozen=True)
class Narrow:
    """A narrower network, not trained yet, and what it can learn from the original's maps."""

    graph: fx.GraphModule
    hints: Hints


class Bench:
    """One network with its data, and its file as it ships unpruned.

    Args:
        depth: of the CIFAR residual network.
        epochs: of a full training; all other options but the optimizer are the defaults of ``fupruner optimize``.
        folder: where files are kept.
        optimizer: of all trainings, in ours that of recovery.
    """

    inputs = (torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)),)

    def __init__(self, depth: int, epochs: int, seed: int, folder: Path, optimizer: OptimizerName) -> None:
        weights = DATA / "checkpoints" / f"cifar10_jpeg_resnet{depth}.safetensors"
        loaded = load_model(f"fupruner:resnet{depth}", weights=weights)
        self.name, self.model = f"resnet{depth}", loaded.module.eval()
        self.options, self.folder = Options(epochs=epochs, seed=seed, optimizer=optimizer), folder
        images = load_data(str(DATA / "cifar10" / "jpeg"), image_shape=(3, 32, 32), mean=loaded.mean, std=loaded.std)
        self.task, self.target = labelled_images(images, self.options), get_target("cpu")
        self.graph = trace(self.model, self.inputs)
        shapes.propagate(self.graph, self.inputs)
        folder.mkdir(parents=True, exist_ok=True)
        self.baseline = folder / f"{self.name}.onnx"
        self.target.export(self.graph, self.inputs, self.baseline)

    @cached_property
    def scored(self) -> nn.Module:
        """The network as Torch-Pruning can cut it, with gradients of calibration images."""
        batches = list(self.task.calibration_batches(CALIBRATION))
        return with_gradients(with_convolved_shortcuts(self.model), batches)

    def accuracy(self, file: Path) -> float:
        """Top-1 accuracy of a file in ONNX Runtime on all validation images, in percent."""
        return self.task.score(lambda x: self.target.predict(file, x))

    def speedup(self, file: Path) -> tuple[float, float]:
        """Speed-up over the unpruned network, the median of a few comparisons; and the range of them."""
        found = [self.target.compare([self.baseline, file], self.inputs).speedups[1] for _ in range(REPEATS)]
        return statistics.median(found), max(found) - min(found)

    def ship(self, graph: fx.GraphModule, file: Path) -> fx.GraphModule:
        """Fold norms and the like, as for every network here, and write the file."""
        shipped, _ = fuse_graph(graph, self.inputs, "basic")
        self.target.export(shipped, self.inputs, file)
        return shipped

    # -- networks ----------------------------------------------------------------------------------------------------

    def torch_pruned(self, setting: Setting, ratio: float) -> nn.Module:
        """What Torch-Pruning makes of the network."""
        return theirs(
            self.scored, self.inputs[0], ratio, setting.rounded, setting.importance, everywhere=setting.everywhere
        )

    def fastnas(self, flops: float) -> nn.Module:
        """What ModelOpt's FastNAS finds within a share of the multiply-adds, judging by 1,000 validation images."""
        import modelopt.torch.prune
        from modelopt.torch.prune.fastnas import FastNASConfig

        space = FastNASConfig().model_dump()
        for layer, name in (("nn.Conv2d", "channel"), ("nn.BatchNorm2d", "feature")):
            space[layer]["*"] |= {f"{name}_divisor": MULTIPLE, f"{name}s_ratio": tuple(i / 8 for i in range(1, 9))}
        config = {
            "data_loader": [(self.task.inputs(batch),) for batch in self.task.calibration_batches(CALIBRATION)],
            "collect_func": lambda batch: batch, "score_func": lambda module: accuracy(module, self.task, 1000),
            "checkpoint": str(self.folder / f"{self.name}-fastnas.pth"),
        }  # fmt: skip
        module, _ = modelopt.torch.prune.prune(
            with_convolved_shortcuts(self.model), mode=[("fastnas", space)], constraints={"flops": f"{100 * flops:g}%"},
            dummy_input=self.inputs[0], config=config,
        )  # fmt: skip
        return module.eval()

    def narrow(self, module: nn.Module) -> Narrow:
        """A cut network as it is trained here."""
        graph = trace(module, self.inputs)
        shapes.propagate(graph, self.inputs)
        ends = {name: self._kept(module, name) for name in stage_ends(graph) if name in stage_ends(self.graph)}
        return Narrow(graph, ends)

    def _kept(self, module: nn.Module, end: str) -> torch.Tensor | None:
        """Channels of the original that the end of a stage has left, recognised by the scales of the norm, which all differ."""
        norm = f"{end.rpartition('.')[0]}.bn2.weight"
        before, after = self.model.state_dict()[norm], module.state_dict()[norm]
        same = after[:, None] == before[None]
        if not bool((same.sum(1) == 1).all()):
            raise ValueError(f"{norm}: some of the {len(after)} channels are not recognised.")
        left = same.int().argmax(1)
        return None if torch.equal(left, torch.arange(len(before))) else left

    def scaled(self, share: float, *, scratch: bool = False) -> Narrow:
        """Every width scaled alike to a multiple, the filters with the largest norms kept; or with new weights."""
        network = insert_gates(self.graph)
        scores, is_open = l2(network).units, np.zeros(network.groups.labelling.units, dtype=bool)
        is_open[:] = network.is_open
        for group in network.groups.prunable:
            width = max(MULTIPLE, MULTIPLE * round(share * len(group.units) / MULTIPLE))
            is_open[group.units[np.argsort(scores[group.units], kind="stable")][: len(group.units) - width]] = False
        network.set(is_open, frozenset())
        graph = slim(network, self.inputs)
        shapes.propagate(graph, self.inputs)
        if scratch:
            torch.manual_seed(self.options.seed)
            for module in graph.modules():
                if isinstance(module, nn.Conv2d | nn.Linear):
                    nn.init.kaiming_normal_(module.weight)
                elif isinstance(module, nn.BatchNorm2d):
                    module.reset_parameters()
        return Narrow(graph, hints(self.graph, network, graph))

    # -- training ----------------------------------------------------------------------------------------------------

    def train(self, narrow: Narrow, learns: str, steps: int | None = None) -> fx.GraphModule:
        """Train a network as ``fupruner optimize`` trains what it has cut.

        Args:
            narrow: the network; it is trained in place.
            learns: from ``labels``, from the original's ``logits`` too, or from its ``maps`` as well.
            steps: of a shorter schedule; those of the epochs if None.
        """
        options = self.options
        total = steps or options.epochs * self.task.steps_per_epoch
        schedule = Schedule.over(total, options.learning_rate, options.pruning_share)
        recipe = Recipe(
            weight_decay=options.weight_decay, precision=options.precision, seed=options.seed,
            teacher=None if learns == "labels" else folded_teacher(self.graph, self.inputs),
            hints=narrow.hints if learns == "maps" else None, hint_weight=options.distill_features,
            optimizer=options.optimizer,
        )  # fmt: skip
        train_steps(narrow.graph, self.task, schedule, recipe=recipe)
        return narrow.graph

    def row(self, narrow: Narrow, learns: str, file: Path) -> dict[str, Any]:
        """Train, ship and judge a network."""
        started = time.perf_counter()
        size = cost.figures(self.ship(self.train(narrow, learns), file))
        seconds = time.perf_counter() - started
        return self.judged(file) | {"macs": size.macs, "params": size.params, "seconds": round(seconds)}

    def judged(self, file: Path) -> dict[str, Any]:
        """Accuracy and speed-up of a file."""
        speedup, spread = self.speedup(file)
        return {"speedup": round(speedup, 3), "spread": round(spread, 3), "accuracy": self.accuracy(file)}


def timed(bench: Bench, makers: Mapping[str, Callable[[], nn.Module]], cache: Path) -> dict[str, float]:
    """Measured speed-ups by name; networks of the same widths are timed once, and what was timed is kept in a file."""
    known: dict[str, float] = json.loads(cache.read_text()) if cache.exists() else {}
    modules = {name: make() for name, make in makers.items() if name not in known}
    widths = {name: str(_widths(module)) for name, module in modules.items()}
    missing = {each: modules[name] for name, each in widths.items() if each not in known}
    print(f"{len(modules)} networks, {len(missing)} widths to time", flush=True)
    keys = list(missing)
    for first in range(0, len(keys), AT_ONCE):
        some = keys[first : first + AT_ONCE]
        with tempfile.TemporaryDirectory() as folder:
            files = [Path(folder) / f"{i}.onnx" for i in range(len(some))]
            for key, file in zip(some, files, strict=True):
                bench.ship(trace(missing[key], bench.inputs), file)
            times = bench.target.compare([bench.baseline, *files], bench.inputs).speedups[1:]
        known |= dict(zip(some, times, strict=True))
        cache.write_text(json.dumps(known))
    known |= {name: known[each] for name, each in widths.items()}
    cache.write_text(json.dumps(known))
    return {name: known[name] for name in makers}


def _widths(module: nn.Module) -> tuple[int, ...]:
    return tuple(m.out_channels for m in module.modules() if isinstance(m, nn.Conv2d))


def smallest(bench: Bench, settings: Sequence[Setting], speedup: float) -> dict[Setting, tuple[float, float]]:
    """Of each setting of Torch-Pruning the smallest ratio that gives a speed-up, and what it gives; none where none does."""
    makers = {f"{s}, {r}": partial(bench.torch_pruned, s, r) for s in settings for r in RATIOS}
    speeds = timed(bench, makers, bench.folder / f"{bench.name}-speeds.json")
    found = {}
    for setting in settings:
        enough = [r for r in RATIOS if speeds[f"{setting}, {r}"] >= ENOUGH * speedup]
        if enough:
            found[setting] = (enough[0], speeds[f"{setting}, {enough[0]}"])
    return found
