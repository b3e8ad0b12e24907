"""The end of a run: the best network put into place, its layers timed, the result and the report written."""

from __future__ import annotations

import os
import platform

from fupruner import __version__
from fupruner.attempt import Outcome, Setting
from fupruner.checkpoints import Checkpoints
from fupruner.fusion.fuse import fuse_graph
from fupruner.graph.save import save_pt2
from fupruner.records import Figures, Requirement, Summary
from fupruner.results import RunResult
from fupruner.run_folder import RunFolder, write_bytes_atomically


def finish(
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
        run.world.share(lambda: save_pt2(module, inputs, run.file("model.pt2")))
        final, speedup, epochs = baseline, 1.0, 0
    else:
        module, final, speedup, epochs = best.module, best.figures, best.speedup, setting.options.epochs
        baseline = baseline.model_copy(update={"latency_ms": best.baseline_ms})  # timed in turn with the final one
        keep(setting, run, best)
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
    run.world.share(lambda: write_result(run, summary))
    return RunResult(module, best.plan if best else None, baseline, final, speedup, satisfied, run.path)


def keep(setting: Setting, run: RunFolder, best: Outcome) -> None:
    """Put the best network so far into place, so that whatever happens next, it is there."""
    if run.kept is best:
        return

    def write() -> None:
        write_bytes_atomically(run.file("model.onnx"), best.file.read_bytes())
        save_pt2(best.module, setting.example_inputs, run.file("model.pt2"))
        run.write("plan.json", best.plan)
        run.write("fusion_after.json", best.fusion)
        run.write("decisions.json", [vars(d) for d in best.decisions])

    run.world.share(write)
    run.kept = best
    run.best = f"{best.speedup:.2f}x at {best.figures.accuracy:.2f} %, in {run.path / 'model.onnx'}"


def write_result(run: RunFolder, summary: Summary) -> None:
    """Write the summary and the report, and remove what only an unfinished run needs."""
    run.write("result.json", summary)
    from fupruner.report.html import write_report  # noqa: PLC0415 - plotly is heavy and needed only here

    write_report(run.path)
    for leftover in run.path.glob("attempt-*.onnx"):
        leftover.unlink()
    Checkpoints(run.path).clear()


def hardware() -> str:
    """Processor, cores and system, as written beside figures."""
    from fupruner.targets.runtime import cpu_name  # noqa: PLC0415 - imports the runtime

    return f"{cpu_name()}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}"
