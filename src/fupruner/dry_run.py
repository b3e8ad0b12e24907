"""What ``optimize`` would do: the rewriting, and the plan for a speed-up with its predicted times. Nothing is trained or written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fupruner.attempt import Setting, corrector, judge, scorer
from fupruner.fusion.fuse import fuse_graph
from fupruner.graph import shapes
from fupruner.graph.trace import Example, example_tuple, trace
from fupruner.models.resolve import Model, as_module
from fupruner.options import parse_options
from fupruner.progress import Progress, watching
from fupruner.pruning.factors import scaled
from fupruner.pruning.prepare import make_planner
from fupruner.pruning.verify import shipping_speedup
from fupruner.records import Preview
from fupruner.search import FIRST
from fupruner.targets.registry import get_target
from fupruner.training.task import Task, calibration_images


def preview(
    model: Model, example_inputs: Example, task: Task, *, target: str = "cpu", speedup: float | None = None,
    progress: Progress | None = None, **more: Any,
) -> Preview:  # fmt: skip
    """Plan the asked speed-up, or the first that ``optimize`` would try, on the network as it is before training.

    Args:
        model: a module, which is left untouched, or the path or name of a network.
        example_inputs: a tensor or tuple of tensors, batch first.
        task: gives the images that gates are scored on.
        target: device that the network is made for.
        speedup: wanted on the target, more than 1.
        progress: told what is going on; whoever watches (``fupruner.show_progress``) if None.
        more: further options, see ``options.Options``.

    Raises:
        InputError: an option is out of range, the model cannot be traced, or the speed-up is out of reach.
    """
    options = parse_options({"target": target, "speedup": speedup, **more}, "preview()")
    device = get_target(options.target, options.ship, options.device)
    inputs, progress = example_tuple(example_inputs), progress or watching()
    progress.stage("trace and fuse", None)
    graph = trace(as_module(model), inputs)
    shapes.propagate(graph, inputs)
    device = device.adapted(graph, calibration_images(task))
    _, fusion = fuse_graph(graph, inputs, options.fusion, cost_model=device.cost_model())
    nowhere = Path()  # nothing is written
    shipping = shipping_speedup(device, graph, inputs, threads=options.threads)
    setting = Setting(graph, graph, inputs, task, task, device, options, fusion, nowhere, shipping, nowhere, progress)
    progress.stage("score and plan", None)
    network, planner = make_planner(graph, inputs, device, fusion, shipping=shipping, fit=options.fit_on_chip)
    asked = options.speedup or shipping * FIRST
    importance = scorer(setting)(network)
    planner.for_speedup(importance, asked)  # refuse first what is out of reach
    factors = corrector(setting, planner, judge(setting, network))(importance, asked)
    plan = planner.for_speedup(scaled(planner, importance, factors), asked).record
    return Preview(
        target=device.name, asked_speedup=asked, attempts=1 if options.speedup else options.attempts, epochs=options.epochs,
        steps=options.epochs * task.steps_per_epoch, fusion=fusion, plan=plan,
    )  # fmt: skip
