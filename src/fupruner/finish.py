"""The end of a run: the best network put into place, its layers timed, the result and the report written."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path

import torch
from torch import nn

from fupruner import __version__
from fupruner.attempt import Outcome, Setting
from fupruner.fusion.fuse import fuse_graph
from fupruner.graph.record import graph_record
from fupruner.graph.save import save_pt2
from fupruner.judge import Verdict
from fupruner.records import Fact, Requirement, Shipped, Summary
from fupruner.results import RunResult
from fupruner.runs.checkpoints import Checkpoints
from fupruner.runs.run_folder import RunFolder, write_bytes_atomically
from fupruner.training.outputs import as_tuple
from fupruner.training.task import Predict, Task, evaluating

DEPENDS_ON = {"PyTorch": "torch", "ONNX Runtime": "onnxruntime", "ONNX": "onnx", "NumPy": "numpy"}
"""Packages whose versions are kept with a run."""
AGREEMENT_IMAGES = 512
"""Training images on which the shipped file is compared with the module."""


def finish(setting: Setting, run: RunFolder, verdict: Verdict, seconds: float) -> RunResult:
    """Put the best network into place, time its layers, and write result and report."""
    target, inputs, best = setting.target, setting.example_inputs, verdict.best
    setting.progress.stage("write the result", None)
    shipped = run.file("model" + target.suffix)
    if best is None:
        kept = ", quantised" if target.reference is not None else ""
        setting.progress.note(f"No faster network met the requirement; the original is kept{kept}.")
        module, _ = fuse_graph(setting.graph, inputs, "basic")
        target.export(module, inputs, shipped)
        run.world.share(lambda: save_pt2(module, inputs, run.file("model.pt2")))
        run.world.share(lambda: _forget_the_best(run))
        speedup, epochs = verdict.speedup, 0
    else:
        module, speedup, epochs = best.module, best.speedup, setting.options.epochs
        keep(setting, run, best)
    times = {
        name: target.layer_times(file, inputs) for name, file in (("before", setting.baseline_file), ("after", shipped))
    }
    run.write("layer_times.json", times)
    run.write("graph_after.json", graph_record(module, inputs))
    run.write("shipped.json", _shipped(setting, module, shipped))
    run.write("judgement.json", verdict.judgement)
    requirement = Requirement(max_drop=setting.options.max_drop, satisfied=verdict.satisfied)
    summary = Summary(
        requirement=requirement, baseline=verdict.baseline, final=verdict.final, speedup=speedup, target=target.name, epochs=epochs,
        seconds=seconds, hardware=hardware(), version=__version__, precision=target.precision,
        baseline_precision=(target.reference or target).precision, drop_error=verdict.drop_error,
    )  # fmt: skip
    run.write("versions.json", versions())
    run.event("finished", satisfied=verdict.satisfied, speedup=speedup)
    run.world.share(lambda: write_result(run, summary))
    plan = best.plan if best else None
    return RunResult(
        module, plan, verdict.baseline, verdict.final, speedup, verdict.satisfied, run.path, verdict.drop_error
    )


def keep(setting: Setting, run: RunFolder, best: Outcome) -> None:
    """Put the best network so far into place, so that whatever happens next, it is there."""
    if run.kept is best:
        return

    def write() -> None:
        for file in best.file.parent.glob(f"{best.file.stem}.*"):
            write_bytes_atomically(run.file("model" + file.name.removeprefix(best.file.stem)), file.read_bytes())
        save_pt2(best.module, setting.example_inputs, run.file("model.pt2"))
        run.write("plan.json", best.plan)
        run.write("fusion_after.json", best.fusion)
        run.write("decisions.json", [vars(d) for d in best.decisions])

    run.world.share(write)
    run.kept = best
    run.best = f"{best.speedup:.2f}x at {best.figures.accuracy:.2f} %, in {run.path / ('model' + best.file.suffix)}"


def _forget_the_best(run: RunFolder) -> None:
    """Remove what a network left behind that was kept for a while and then did not hold."""
    for name in ("plan.json", "fusion_after.json", "decisions.json"):
        run.file(name).unlink(missing_ok=True)


def write_result(run: RunFolder, summary: Summary) -> None:
    """Write the summary and the report, and remove what only an unfinished run needs."""
    run.write("result.json", summary)
    from fupruner.report.html import write_report  # noqa: PLC0415 - plotly is heavy and needed only here

    write_report(run.path)
    for leftover in run.path.glob("attempt-*.*"):
        leftover.unlink()
    Checkpoints(run.path).clear()


def _shipped(setting: Setting, module: nn.Module, file: Path) -> Shipped:
    """What is shipped, and what the device's tools and the module itself say about it."""
    target = setting.target
    beside = sorted(path.name for path in file.parent.glob(f"{file.stem}.*") if path != file and path.suffix != ".pt2")
    agreed = setting.trainer.journal.once(
        "agreement",
        lambda: [
            fact.model_dump(mode="json")
            for fact in agreement(setting.task, module, lambda x: target.predict(file, x), target.judged_in)
        ],
    )
    return Shipped(
        files=(file.name, *beside), ships=target.ships, precision=target.precision, judged_in=target.judged_in, recipe=target.recipe,
        before=tuple(target.inspect(setting.baseline_file)),
        after=(*target.inspect(file), *map(Fact.model_validate, agreed)),
    )  # fmt: skip


def agreement(task: Task, module: nn.Module, predict: Predict, judged_in: str) -> list[Fact]:
    """On how many training images the shipped file picks the same class as the module; nothing where outputs are no classes."""
    same, total = 0, 0
    for batch in task.calibration_batches(AGREEMENT_IMAGES):
        images = task.inputs(batch)
        with torch.no_grad(), evaluating(module) as network:
            expected = as_tuple(network(images))
        found = as_tuple(predict(images))
        if len(expected) != 1 or expected[0].dim() != 2 or found[0].shape != expected[0].shape:
            return []
        same += int((found[0].argmax(1) == expected[0].argmax(1).cpu()).sum())
        total += len(found[0])
    text = f"{100 * same / total:.2f} % of {total} images" if total else ""
    return [Fact(name="same class as PyTorch", value=text, source=judged_in)] if total else []


def versions() -> dict[str, str]:
    """Versions of what a result depends on, by name."""
    used = {name: metadata.version(package) for name, package in DEPENDS_ON.items()}
    return {"FuPruner": __version__, "Python": platform.python_version(), **used}


def hardware() -> str:
    """Processor, cores and system, as written beside figures."""
    from fupruner.targets.runtime import cpu_name  # noqa: PLC0415 - imports the runtime

    return f"{cpu_name()}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}"
