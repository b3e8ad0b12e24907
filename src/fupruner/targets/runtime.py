"""ONNX Runtime on this machine: what it is called, sessions, runs."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnxruntime
import torch

from fupruner.errors import TargetError

Array = npt.NDArray[Any]
Feeds = dict[str, Array]


_ARITHMETIC = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx512_vnni": "VNNI",
    "avx_vnni": "AVX-VNNI",
    "avx512_bf16": "bf16",
    "amx_int8": "AMX",
}
"""Flags of /proc/cpuinfo that tell processors of the same name apart, in words."""


@cache
def cpu_name() -> str:
    """The processor's model name, and what of its arithmetic decides over speed: virtual machines give many the same name."""
    name = _cpuinfo("model name") or platform.processor() or platform.machine()
    flags = set(_cpuinfo("flags").split())
    found = [words for flag, words in _ARITHMETIC.items() if flag in flags]
    return f"{name} ({', '.join(found)})" if found else name


def runtime_name() -> str:
    """Runtime, version and processor, as written beside every figure."""
    return f"ONNX Runtime {onnxruntime.__version__} on {cpu_name()}"


@cache
def channel_block() -> int:
    """Channels per block of the runtime's blocked layout: 16 with AVX-512, else 8.

    Where the runtime has no blocked layout (ARM in the usual builds), 8 is what its matrix kernels work in.
    """
    flags = _cpuinfo("flags").split()
    if flags:
        return 16 if "avx512f" in flags else 8
    return 16 if torch.backends.cpu.get_cpu_capability() == "AVX512" else 8


def _cpuinfo(key: str) -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    values = (line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == key)
    return next(values, "")


def open_session(model: Path | bytes, threads: int = 1, profile_to: Path | None = None) -> onnxruntime.InferenceSession:
    """Load a file (or its bytes) to run on a number of threads, one operator after the other.

    Raises:
        TargetError: the file is missing or the runtime refuses it.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "1")
    options.log_severity_level = 3
    if profile_to is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile_to)
    source = model if isinstance(model, bytes) else str(model)
    try:
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        what = "The model" if isinstance(model, bytes) else str(model)
        raise TargetError(f"{what} cannot be loaded by ONNX Runtime: {error}") from error


def run_session(session: onnxruntime.InferenceSession, feeds: Feeds) -> list[Array]:
    """Run once and give all outputs.

    Raises:
        TargetError: the inputs do not fit the file.
    """
    try:
        outputs: list[Array] = session.run(None, feeds)
    except Exception as error:
        shapes = ", ".join(f"{name} {'x'.join(map(str, value.shape))}" for name, value in feeds.items())
        raise TargetError(f"ONNX Runtime cannot run the file on {shapes}: {error}") from error
    return outputs


def name_feeds(session: onnxruntime.InferenceSession, values: list[Array]) -> Feeds:
    """Pair arrays with the inputs of a session, in order.

    Raises:
        TargetError: their numbers differ.
    """
    names = [entry.name for entry in session.get_inputs()]
    if len(names) != len(values):
        raise TargetError(f"The file has {len(names)} inputs ({', '.join(names)}), {len(values)} were given.")
    return dict(zip(names, values, strict=True))
