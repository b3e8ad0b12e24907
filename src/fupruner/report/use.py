"""How the result of a run is put to use: the files that it left, and commands and code that work beside them."""

from __future__ import annotations

from fupruner.report import words
from fupruner.report.data import RunReport
from fupruner.report.parts import Section, Snippet, Table

WITH_PYTORCH = """\
import fupruner

model = fupruner.load("path/to/this/folder")  # a torch.nn.Module
"""

PURPOSES = {
    "model.pt2": "the result, for PyTorch",
    "result.json": "the figures of the result",
    "options.toml": "the options of the run; use it again with --options",
    "plan.json": "every move of the plan",
    "fusion.json": "what fusion did at the start",
    "fusion_after.json": "what fusion did after pruning",
    "graphs.json": "the network before and after fusion",
    "graph_after.json": "the network after pruning",
    "history.json": "every epoch of every attempt",
    "decisions.json": "when which gates were closed",
    "attempts.json": "every attempt",
    "layer_times.json": "time per layer",
    "events.jsonl": "the log of the run",
    "shipped.json": "what the target's tools say, and how to run the result",
    "judgement.json": "how the result was judged on images that no attempt was chosen by",
    "metric.json": "the figure that must not drop",
    "versions.json": "what it was made with",
    "run.json": "what the run was begun with",
    "original.pt2": "the original, for a resume",
    "inputs.pt": "the example inputs",
    "journal.log": "everything that was measured, for a resume",
}
PASSING = ("attempt-", "checkpoint-", ".", "report.html")
"""Names of files that are gone when the run is finished, or need no mention, begin like this."""


def _size(size: int) -> str:
    text = words.count(size)
    return f"{text}B" if " " in text else f"{text} B"


def use(run: RunReport) -> Section:
    """List the files, the result first, and how to run them."""
    shipped = run.shipped.files if run.shipped else ("model.onnx",)
    baseline = "baseline" + shipped[0].removeprefix("model")
    purposes = {
        **dict.fromkeys(shipped, "the result, for the target's runtime"),
        **PURPOSES,
        baseline: "the original, as it was timed",
    }
    known = list(purposes)
    shown = sorted(
        (file for file in run.files if not file.name.startswith(PASSING)),
        key=lambda file: (known.index(file.name) if file.name in known else len(known), file.name),
    )
    rows = [(file.name, purposes.get(file.name, ""), _size(file.size)) for file in shown]
    tables = (Table("Files beside this page", ("File", "What it holds", "Size"), rows, text_columns=2),) if rows else ()
    target = "" if run.summary.target == "cpu" else f" --target {run.summary.target}"
    commands = (f"fupruner bench {baseline} {shipped[0]}{target}", "fupruner report .")
    remarks = ("time both again", "write this page again")
    width = max(map(len, commands)) + 4
    lines = "".join(f"{command:{width}}# {remark}\n" for command, remark in zip(commands, remarks, strict=True))
    on_device = (Snippet("On the device", run.shipped.recipe),) if run.shipped else ()
    snippets = (
        *on_device,
        Snippet("With PyTorch", WITH_PYTORCH),
        Snippet("On the command line, in this folder", lines),
    )
    return Section("use", "Run the result", tables=tables, snippets=snippets)
