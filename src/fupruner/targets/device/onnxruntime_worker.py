"""Runs on the device: ONNX Runtime on its processor."""

import json
import os
from collections import defaultdict
from typing import Any

RUNS = 40


def about() -> str:
    """Runtime and version."""
    import onnxruntime  # noqa: PLC0415 - lives on the device

    return f"ONNX Runtime {onnxruntime.__version__}"


def _session(name: str, threads: int, profile: str = "") -> Any:
    import numpy  # noqa: PLC0415 - the same
    import onnxruntime  # noqa: PLC0415 - the same

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    if profile:
        options.enable_profiling, options.profile_file_prefix = True, profile
    session = onnxruntime.InferenceSession(name, options, providers=["CPUExecutionProvider"])
    random = numpy.random.RandomState(0)
    feeds = {}
    for entry in session.get_inputs():
        shape = [size if isinstance(size, int) else 1 for size in entry.shape]
        whole = "int" in entry.type
        feeds[entry.name] = numpy.zeros(shape, "int64") if whole else random.standard_normal(shape).astype("float32")
    return session, feeds


def open_run(name: str, threads: int) -> Any:
    """A function that runs the file once on noise, at batch 1."""
    session, feeds = _session(name, threads)
    return lambda: session.run(None, feeds)


def layers(name: str, threads: int) -> Any:
    """Name, kind and milliseconds of every node, in the order of execution."""
    session, feeds = _session(name, threads, "profile")
    for _ in range(RUNS):
        session.run(None, feeds)
    path = session.end_profiling()
    with open(path) as file:
        events = json.load(file)
    os.remove(path)
    seen: Any = {}
    times = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            index = int(event["args"]["node_index"])
            seen.setdefault(index, (event["name"][: -len("_kernel_time")], event["args"]["op_name"]))
            times[index].append(event["dur"] + 0.5)
    found = []
    for index, (node, kind) in seen.items():
        ordered = sorted(times[index][1:] or times[index])
        part = ordered[len(ordered) // 20 : max(1, len(ordered) * 9 // 20)]
        found.append((node, kind, sum(part) / len(part) / 1e3))
    return found
