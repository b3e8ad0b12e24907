"""Times of single nodes, as ONNX Runtime's profiler sees them."""

from __future__ import annotations

import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper
from onnxruntime import InferenceSession

from fupruner.targets.runtime import Array, name_feeds, open_session, run_session

_SUFFIX = "_kernel_time"
_BLOCKS = 3
_CHAIN = 64  # nodes
_LEAST_MS = 1e-4
_MOST_OFFSET_MS = 5e-3


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


def node_times(
    model: Path | bytes,
    inputs: list[Array],
    *,
    threads: int = 1,
    seconds: float = 1.0,
) -> list[NodeTime]:
    """Run a model under the profiler; its nodes in the order of execution.

    What the profiler and the executor do around a kernel is the same for every node: the profiler's part is taken off,
    the executor's is put on, so that the times add up to that of a run without the profiler.

    Args:
        model: an ONNX file or its bytes.
        inputs: one array per input of the model.
        threads: threads inside an operator.
        seconds: about how long to run; there are between 15 and 90 runs.

    Raises:
        TargetError: the runtime refuses the model or the inputs.
    """
    offset = _offset(threads)
    events = _events(model, inputs, threads, seconds)
    return [replace(node, ms=max(node.ms + offset, _LEAST_MS)) for node in _summarise(events)]


def typical(values: Sequence[float]) -> float:
    """Smallest over blocks of consecutive values of the mean between a block's 5th and 45th percentile.

    Disturbances only ever add time, so the slow end is cut more, and a disturbed block does not count. A mean, because
    the profiler counts whole microseconds, in which a median is coarse.
    """
    parts = [np.sort(part) for part in np.array_split(np.asarray(values, np.float64), _BLOCKS) if len(part)]
    return min(float(part[len(part) // 20 : max(len(part) * 9 // 20, len(part) // 20 + 1)].mean()) for part in parts)


@cache
def _offset(threads: int) -> float:
    """Milliseconds per node to put onto the profiler's times, measured on a chain of tiny additions."""
    model, inputs = _chain(_CHAIN), [np.zeros((1, 16), np.float32)]
    nodes = _summarise(_events(model, inputs, threads, seconds=0.02))
    session = open_session(model, threads)
    feeds = name_feeds(session, inputs)
    run_session(session, feeds)
    total = typical([_seconds(session, feeds) for _ in range(150)]) * 1e3
    return float(np.clip((total - sum(node.ms for node in nodes)) / _CHAIN, -_MOST_OFFSET_MS, _MOST_OFFSET_MS))


def _chain(length: int) -> bytes:
    names = ["x", *(f"y{i}" for i in range(length))]
    nodes = [helper.make_node("Add", [before, "x"], [after], name=after) for before, after in pairwise(names)]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 16]) for name in (names[0], names[-1])]
    graph = helper.make_graph(nodes, "chain", values[:1], values[1:])
    version = helper.make_opsetid("", 17)
    model = helper.make_model(graph, opset_imports=[version], ir_version=helper.find_min_ir_version_for([version]))
    return bytes(model.SerializeToString())


def _events(model: Path | bytes, inputs: list[Array], threads: int, seconds: float) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="fupruner-") as folder:
        session = open_session(model, threads, Path(folder) / "profile")
        feeds = name_feeds(session, inputs)
        run_session(session, feeds)
        once = min(_seconds(session, feeds), _seconds(session, feeds))
        for _ in range(int(np.clip(seconds / once, 15, 90))):
            run_session(session, feeds)
        events: list[dict[str, Any]] = json.loads(Path(session.end_profiling()).read_text())
    return events


def _seconds(session: InferenceSession, feeds: dict[str, Array]) -> float:
    start = time.perf_counter()
    run_session(session, feeds)
    return time.perf_counter() - start


def _summarise(events: list[dict[str, Any]]) -> list[NodeTime]:
    """Collect the events of each node; the first run, which sets things up, is left out."""
    durations: dict[int, list[float]] = defaultdict(list)
    seen: dict[int, tuple[str, str]] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(_SUFFIX):
            index = int(event["args"]["node_index"])
            seen.setdefault(index, (event["name"].removesuffix(_SUFFIX), event["args"]["op_name"]))
            durations[index].append(event["dur"] + 0.5)  # whole microseconds, cut off
    return [
        NodeTime(name, kind, typical(durations[index][1:] or durations[index]) / 1e3)
        for index, (name, kind) in seen.items()
    ]
