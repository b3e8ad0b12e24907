"""How the result of a run is put to use: the files that it left, and commands and code that work beside them."""

from __future__ import annotations

from fupruner.report import words
from fupruner.report.data import RunReport
from fupruner.report.parts import Section, Snippet, Table

WITH_PYTORCH = """\
import fupruner

model = fupruner.load("path/to/this/folder")  # a torch.nn.Module
"""

WITH_COMMANDS = """\
fupruner bench baseline.onnx model.onnx    # time both again, on this machine
fupruner report .                          # write this page again
"""

PURPOSES = {
    "model.onnx": "the result, for the target's runtime",
    "model.pt2": "the result, for PyTorch",
    "baseline.onnx": "the original, as it was timed",
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
    "shipped.json": "what the target's tools say, and how to run the result",
    "judgement.json": "how the result was judged on images that no attempt was chosen by",
    "metric.json": "the figure that must not drop",
    "layer_times.json": "time per layer",
    "events.jsonl": "the log of the run",
}


def use(run: RunReport) -> Section:
    """List the files, the result first, and how to run them."""
    known = list(PURPOSES)
    shown = sorted(
        (file for file in run.files if not file.name.startswith(".") and file.name != "report.html"),
        key=lambda file: (known.index(file.name) if file.name in known else len(known), file.name),
    )
    rows = [(file.name, PURPOSES.get(file.name, ""), f"{words.count(file.size)}B") for file in shown]
    tables = (Table("Files beside this page", ("File", "What it holds", "Size"), rows, text_columns=2),) if rows else ()
    on_device = (Snippet("On the device", run.shipped.recipe),) if run.shipped is not None else ()
    snippets = (
        *on_device,
        Snippet("With PyTorch", WITH_PYTORCH),
        Snippet("On the command line, in this folder", WITH_COMMANDS),
    )
    return Section("use", "Run the result", tables=tables, snippets=snippets)
