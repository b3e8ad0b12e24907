"""Runs on the device: OpenVINO on its processor."""

from collections import defaultdict
from typing import Any

RUNS = 40


def about() -> str:
    """Runtime and version."""
    import openvino  # noqa: PLC0415 - lives on the device

    return f"OpenVINO {openvino.__version__.partition('-')[0]}"


def _request(name: str, threads: int, profiled: bool = False) -> Any:
    import numpy  # noqa: PLC0415 - the same
    import openvino  # noqa: PLC0415 - the same

    settings = {
        "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "ENABLE_CPU_PINNING": False, "INFERENCE_PRECISION_HINT": "f32",
        "PERF_COUNT": profiled,
    }  # fmt: skip
    request = openvino.Core().compile_model(name, "CPU", settings).create_infer_request()
    random = numpy.random.RandomState(0)
    request.infer(
        {i: random.standard_normal(list(x.shape)).astype("float32") for i, x in enumerate(request.model_inputs)}
    )
    return request


def open_run(name: str, threads: int) -> Any:
    """A function that runs the file once on noise."""
    return _request(name, threads).infer


def layers(name: str, threads: int) -> Any:
    """Name, kind and milliseconds of every node, in the order of execution."""
    request = _request(name, threads, profiled=True)
    seen: Any = {}
    times = defaultdict(list)
    for _ in range(RUNS):
        request.infer()
        for node in request.profiling_info:
            if node.real_time.total_seconds() > 0 or node.node_name in seen:
                seen.setdefault(node.node_name, node.node_type)
                times[node.node_name].append(1e3 * node.real_time.total_seconds())
    return [(node, kind, sorted(times[node])[len(times[node]) // 4]) for node, kind in seen.items()]
