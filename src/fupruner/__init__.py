"""FuPruner: fusion-catalyzed pruning of trained convolutional networks.

The functions here are the whole public surface; they are imported on first use, so that importing the package is quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from fupruner.bars import show_progress
    from fupruner.callback import PruningCallback
    from fupruner.dry_run import preview
    from fupruner.errors import FuPrunerError, InputError
    from fupruner.pipeline import FuseResult, PruneResult, RunResult, export, fuse, load, measure, optimize, prune
    from fupruner.records import Measurement, Metric, Preview
    from fupruner.results import LoopResult
    from fupruner.runs.resuming import resume
    from fupruner.sweeping.sweep import SweepResult, sweep
    from fupruner.targets.base import ExportResult
    from fupruner.training.custom import CustomTask
    from fupruner.training.task import Task

_HOME = {
    "FuPrunerError": "fupruner.errors",
    "InputError": "fupruner.errors",
    "Measurement": "fupruner.records",
    "LoopResult": "fupruner.results",
    "Metric": "fupruner.records",
    "PruningCallback": "fupruner.callback",
    "SweepResult": "fupruner.sweeping.sweep",
    "sweep": "fupruner.sweeping.sweep",
    "Preview": "fupruner.records",
    "preview": "fupruner.dry_run",
    "ExportResult": "fupruner.targets.base",
    "CustomTask": "fupruner.training.custom",
    "Task": "fupruner.training.task",
    **dict.fromkeys(
        ("FuseResult", "PruneResult", "RunResult", "export", "fuse", "load", "measure", "optimize", "prune"),
        "fupruner.pipeline",
    ),
    "resume": "fupruner.runs.resuming",
    "show_progress": "fupruner.bars",
}

__all__ = [
    "CustomTask",
    "ExportResult",
    "FuPrunerError",
    "FuseResult",
    "InputError",
    "LoopResult",
    "Measurement",
    "Metric",
    "Preview",
    "PruneResult",
    "PruningCallback",
    "RunResult",
    "SweepResult",
    "Task",
    "__version__",
    "export",
    "fuse",
    "load",
    "measure",
    "optimize",
    "preview",
    "prune",
    "resume",
    "show_progress",
    "sweep",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'fupruner' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
