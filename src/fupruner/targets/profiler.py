"""Times of single nodes, as ONNX Runtime's profiler sees them."""

from __future__ import annotations

import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fupruner.targets.runtime import Array, name_feeds, open_session, run_session

_SUFFIX = "_kernel_time"
_BLOCKS = 3


@dataclass(frozen=True)
class NodeTime:
    """Time of one node as the runtime executed it, after its own fusions.

    Attributes:
        name: given by the runtime; see ``node_names``.
        kind: the operator, for example ``Conv``, ``FusedConv`` or ``ReorderInput``.
        ms: typical time of the kernel in one run, in milliseconds.
    """

    name: str
    kind: str
    ms: float


@dataclass(frozen=True)
class Profile:
    """Nodes in the order of execution, and the whole.

    Attributes:
        nodes: one entry per node. The profiler adds some microseconds to each.
        total_ms: typical time of one run without the profiler.
    """

    nodes: tuple[NodeTime, ...]
    total_ms: float

    def corrected(self) -> list[float]:
        """Milliseconds per node such that they add up to the whole run.

        The profiler's own work and the executor's steps between kernels weigh the same on every node, so the same is
        added to (or taken off) each; no node gets less than a tenth of a microsecond.
        """
        times = [node.ms for node in self.nodes]
        offset = (self.total_ms - sum(times)) / max(len(times), 1)
        return [max(ms + offset, 1e-4) for ms in times]


def profile(
    model: Path | bytes,
    inputs: list[Array],
    *,
    threads: int = 1,
    seconds: float = 1.0,
    least_runs: int = 5,
    most_runs: int = 40,
) -> Profile:
    """Run a model with and without the profiler in turn, some runs each, to keep one copy of the weights in the caches.

    Args:
        model: an ONNX file or its bytes.
        inputs: one array per input of the model.
        threads: threads inside an operator.
        seconds: about how long to run.
        least_runs: never fewer runs in a turn.
        most_runs: never more.

    Raises:
        TargetError: the runtime refuses the model or the inputs.
    """
    with tempfile.TemporaryDirectory(prefix="fupruner-") as folder:
        plain, profiled = open_session(model, threads), open_session(model, threads, Path(folder) / "profile")
        feeds = name_feeds(plain, inputs)
        run_session(profiled, feeds)
        run_session(plain, feeds)
        runs = int(np.clip(seconds / (2 * _BLOCKS * _seconds(plain, feeds)), least_runs, most_runs))
        totals: list[float] = []
        for _ in range(_BLOCKS):
            for _ in range(runs):
                run_session(profiled, feeds)
            run_session(plain, feeds)
            totals += [_seconds(plain, feeds) for _ in range(runs)]
        events = json.loads(Path(profiled.end_profiling()).read_text())
    return Profile(_summarise(events), typical(totals) * 1e3)


def typical(values: Sequence[float], blocks: int = _BLOCKS) -> float:
    """Smallest over blocks of consecutive values of the mean between a block's 10th and 60th percentile.

    Disturbances only ever add time, so the slow end is cut more, and a disturbed block does not count. A mean, because
    the profiler counts whole microseconds, in which a median is coarse.
    """
    parts = [np.sort(part) for part in np.array_split(np.asarray(values, np.float64), blocks) if len(part)]
    return min(float(part[len(part) // 10 : max(len(part) * 6 // 10, len(part) // 10 + 1)].mean()) for part in parts)


def _seconds(session: Any, feeds: dict[str, Array]) -> float:
    start = time.perf_counter()
    run_session(session, feeds)
    return time.perf_counter() - start


def _summarise(events: list[dict[str, Any]]) -> tuple[NodeTime, ...]:
    """Collect the events of each node; the first run, which sets things up, is left out."""
    durations: dict[int, list[float]] = defaultdict(list)
    seen: dict[int, tuple[str, str]] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(_SUFFIX):
            index = int(event["args"]["node_index"])
            seen.setdefault(index, (event["name"].removesuffix(_SUFFIX), event["args"]["op_name"]))
            durations[index].append(event["dur"] + 0.5)  # whole microseconds, cut off
    return tuple(
        NodeTime(name, kind, typical(durations[index][1:] or durations[index]) / 1e3)
        for index, (name, kind) in seen.items()
    )
