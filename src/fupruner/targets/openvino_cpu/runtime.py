"""OpenVINO on this machine: writing IR, opening it, running and profiling it. The library is an extra: imported on use."""

from __future__ import annotations

import io
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np

from fupruner.errors import InputError, TargetError
from fupruner.targets.profiler import NodeTime
from fupruner.targets.runtime import Array, cpu_name

BLOCKS = 3
WARM_UP = 3
"""Runs before any that counts."""
EXTRA = "pip install 'fupruner[openvino]'"


@contextmanager
def library() -> Iterator[Any]:
    """The module ``openvino``, its warnings hidden.

    Raises:
        TargetError: it is not installed.
    """
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            import openvino  # noqa: PLC0415 - an extra

            yield openvino
    except ImportError as error:
        raise TargetError(f"OpenVINO is not installed: {error}.", hint=EXTRA) from None


def runtime_name() -> str:
    """Runtime, version and processor, as written beside every figure."""
    with library() as openvino:
        return f"OpenVINO {openvino.__version__.partition('-')[0]} on {cpu_name()}"


def write_ir(onnx_file: Path, path: Path) -> None:
    """Turn an ONNX file into IR in float32, or int8 where it is quantised: ``path`` and the same name ending in ``.bin``.

    Raises:
        TargetError: OpenVINO cannot read the file.
    """
    with library() as openvino:
        try:
            openvino.save_model(openvino.Core().read_model(str(onnx_file)), str(path), compress_to_fp16=False)
        except RuntimeError as error:
            raise TargetError(f"The network cannot be written as IR: {_first(error)}") from None


def open_request(model: Path | bytes, threads: int = 1, *, profiled: bool = False) -> Any:
    """A network that is ready to run, on so many threads and in the arithmetic that the file says.

    Args:
        model: an IR file, or the bytes of an ONNX model.
        threads: of the runtime.
        profiled: whether times of nodes are taken.

    Raises:
        InputError: there is no such file.
        TargetError: OpenVINO refuses the file.
    """
    if isinstance(model, Path) and not model.is_file():
        raise InputError(f"There is no file {model}.")
    settings = {
        "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "ENABLE_CPU_PINNING": False, "INFERENCE_PRECISION_HINT": "f32",
        "PERF_COUNT": profiled,
    }  # fmt: skip
    with library() as openvino:
        core = openvino.Core()
        try:
            network = core.read_model(str(model) if isinstance(model, Path) else model)
            return core.compile_model(network, "CPU", settings).create_infer_request()
        except RuntimeError as error:
            raise TargetError(f"OpenVINO refuses the file: {_first(error)}") from None


def run_request(request: Any, values: list[Array]) -> list[Array]:
    """Run once; every output.

    Raises:
        TargetError: the inputs do not fit the file.
    """
    try:
        found = request.infer(dict(enumerate(values)))
    except (RuntimeError, KeyError, TypeError) as error:
        shapes = ", ".join("x".join(map(str, value.shape)) for value in values)
        raise TargetError(f"OpenVINO cannot run the file on {shapes}: {_first(error)}") from None
    return [np.array(found[output]) for output in request.model_outputs]


def node_times(model: Path | bytes, values: list[Array], *, threads: int = 1, seconds: float = 1.0) -> list[NodeTime]:
    """Typical time of each node in one run, in the order of execution: the least of three means over 10 to 60 runs.

    The runtime tells a node's mean over all runs since the network was opened, the slow first ones included; these are taken off.

    Raises:
        TargetError: the runtime refuses the model or the inputs.
    """
    blocks = [_block(model, values, threads, seconds / BLOCKS) for _ in range(BLOCKS)]
    kinds = {name: kind for block in blocks for name, (kind, _) in block.items()}
    return [
        NodeTime(name, kind, max(1e-4, min(block[name][1] for block in blocks if name in block)))
        for name, kind in kinds.items()
    ]


def _block(model: Path | bytes, values: list[Array], threads: int, seconds: float) -> dict[str, tuple[str, float]]:
    """Kind and mean milliseconds of each node that ran."""
    request = open_request(model, threads, profiled=True)
    for _ in range(WARM_UP):
        run_request(request, values)
    start, before = time.perf_counter(), _means(request)
    run_request(request, values)
    runs = int(np.clip(seconds / max(1e-6, time.perf_counter() - start), 10, 60))
    for _ in range(runs - 1):
        request.infer()
    total = WARM_UP + runs
    return {
        name: (kind, (ms * total - before.get(name, (kind, 0.0))[1] * WARM_UP) / runs)
        for name, (kind, ms) in _means(request).items()
    }


def _means(request: Any) -> dict[str, tuple[str, float]]:
    found = {node.node_name: (node.node_type, 1e3 * node.real_time.total_seconds()) for node in request.profiling_info}
    return {name: (kind, ms) for name, (kind, ms) in found.items() if ms > 0}


def input_shape(path: Path) -> tuple[int, ...]:
    """Shape of the first input of an IR file without the batch.

    Raises:
        TargetError: OpenVINO refuses the file.
    """
    with library() as openvino:
        try:
            shape = openvino.Core().read_model(str(path)).inputs[0].partial_shape
        except RuntimeError as error:
            raise TargetError(f"OpenVINO refuses the file: {_first(error)}") from None
    return tuple(int(size.get_length()) for size in list(shape)[1:])


def _first(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith(("Exception from", "Check '"))]
    return (told or lines or [type(error).__name__])[0][:300]
