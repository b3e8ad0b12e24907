"""Runs on the device: OpenVINO on its processor."""

from typing import Any

RUNS = 30
WARM_UP = 3
BLOCKS = 3


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


def _means(request: Any) -> Any:
    """Kind and mean milliseconds of each node over all runs since the network was opened."""
    found = {node.node_name: (node.node_type, 1e3 * node.real_time.total_seconds()) for node in request.profiling_info}
    return {name: entry for name, entry in found.items() if entry[1] > 0}


def layers(name: str, threads: int) -> Any:
    """Name, kind and milliseconds of every node, in the order of execution; the slow first runs are taken off."""
    blocks = []
    for _ in range(BLOCKS):
        request = _request(name, threads, profiled=True)
        for _ in range(WARM_UP - 1):
            request.infer()
        before = _means(request)
        for _ in range(RUNS):
            request.infer()
        after, total = _means(request), WARM_UP + RUNS
        blocks.append(
            {
                node: (kind, (ms * total - before.get(node, (kind, 0.0))[1] * WARM_UP) / RUNS)
                for node, (kind, ms) in after.items()
            }
        )
    kinds = {node: kind for block in blocks for node, (kind, _) in block.items()}
    return [
        (node, kind, max(1e-4, min(block[node][1] for block in blocks if node in block)))
        for node, kind in kinds.items()
    ]
