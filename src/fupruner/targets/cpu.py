"""This machine's processor, through ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from fupruner.errors import InputError, TargetError
from fupruner.records import Comparison, LayerTime, Measurement
from fupruner.targets.base import CostModel, ExportResult, Target
from fupruner.targets.latency_table import LatencyTable
from fupruner.targets.node_names import file_names
from fupruner.targets.onnx_file import float_inputs, inference_copy, third_party_quiet, write_onnx
from fupruner.targets.profiler import node_times
from fupruner.targets.runtime import Array, channel_block, name_feeds, open_session, run_session, runtime_name
from fupruner.targets.timing import interleave, quartile_range
from fupruner.training.outputs import Outputs

MAX_ERROR = 1e-3
_CHUNK = 64


class CpuTarget(Target):
    """ONNX files in float32, run by ONNX Runtime on this machine."""

    name = "cpu"
    ships = "ONNX"
    precision = "float32"

    def __init__(self) -> None:
        self.alignment = channel_block()

    def export(self, module: nn.Module, example_inputs: tuple[Tensor, ...], path: Path) -> ExportResult:
        """Write an ONNX file and check it in the runtime, at the example's batch size and at another one.

        Args:
            module: the network; it is left as it is.
            example_inputs: tensors (N, ...), batch first.
            path: the file to write.

        Raises:
            TargetError: the format cannot express the module, or outputs differ by more than 1e-3 of the largest one.
        """
        path = Path(path)
        write_onnx(module, example_inputs, path)
        return ExportResult((path,), _verify(module, example_inputs, path))

    def predict(self, path: Path, inputs: Tensor) -> Outputs:
        """Run a file on inputs (N, ...) with all threads that PyTorch may use; its output (N, ...), or all of them.

        Raises:
            TargetError: the file cannot be loaded, or does not take such inputs.
        """
        session = open_session(Path(path), torch.get_num_threads())
        (array,) = _arrays((inputs,))
        size = _fixed_batch(session) or _CHUNK
        chunks: list[list[Array]] = []
        for start in range(0, max(len(array), 1), size):
            chunk = array[start : start + size]
            whole = _padded(chunk, _fixed_batch(session) or len(chunk))
            chunks.append([output[: len(chunk)] for output in run_session(session, name_feeds(session, [whole]))])
        outputs = tuple(torch.from_numpy(np.concatenate(parts)) for parts in zip(*chunks, strict=True))
        return outputs if len(outputs) > 1 else outputs[0]

    def compare(self, paths: Sequence[Path], example_inputs: tuple[Tensor, ...], *, threads: int = 1) -> Comparison:
        """Time files in interleaved rounds at batch 1, on one fixed random input of the example's shape.

        Args:
            paths: ONNX files with the same inputs; speed-ups are relative to the first.
            example_inputs: tensors (N, ...); only shapes and dtypes matter.
            threads: threads inside an operator.

        Raises:
            InputError: no file was given.
            TargetError: a file cannot be loaded, or does not take such inputs.
        """
        if not paths:
            raise InputError("There is no file to time.", hint="Give at least one ONNX file.")
        single = _arrays(_batch_of(_random_like(example_inputs, seed=0), 1))
        sessions = [open_session(Path(path), threads) for path in paths]
        rounds = interleave([_runner(session, single) for session in sessions])
        ratios = rounds.times[:, :1] / rounds.times
        return Comparison(
            measurements=tuple(
                Measurement(
                    latency_ms=float(np.median(rounds.times[:, i])),
                    spread=quartile_range(rounds.times[:, i]),
                    grade="measured",
                    source=runtime_name(),
                    target=self.name,
                    threads=threads,
                    runs=len(rounds.times) * rounds.repeats[i],
                )
                for i in range(len(paths))
            ),
            speedups=tuple(float(np.median(column)) for column in ratios.T),
            spreads=tuple(quartile_range(column) for column in ratios.T),
        )

    def layer_times(self, path: Path, example_inputs: tuple[Tensor, ...], *, threads: int = 1) -> list[LayerTime]:
        """Time of each operator at batch 1 in the order of execution, from the runtime's profiler.

        Operators that the runtime merges show as one, under the name of the node in the file that they grew from.
        The profiler's own time, which is the same for every operator, is taken off.

        Raises:
            TargetError: the file cannot be loaded, or does not take such inputs.
        """
        single = _arrays(_batch_of(_random_like(example_inputs, seed=0), 1))
        nodes = node_times(Path(path), single, threads=threads)
        graph = onnx.load(str(path), load_external_data=False).graph
        names = file_names(graph, [(node.name, node.kind) for node in nodes])
        return [LayerTime(name=name, kind=node.kind, ms=node.ms) for name, node in zip(names, nodes, strict=True)]

    def cost_model(self) -> CostModel:
        """Times of single layers, measured on this machine when first asked for and kept on disk."""
        return LatencyTable()


def _verify(module: nn.Module, example_inputs: tuple[Tensor, ...], path: Path) -> float:
    """Largest difference between module and file, relative to the largest output, over three batches."""
    session = open_session(path)
    network = inference_copy(module)
    examples = float_inputs(example_inputs)
    random = _random_like(examples, seed=1)
    worst = 0.0
    for inputs in (examples, random, _batch_of(random, 3 if len(examples[0]) != 3 else 2)):
        expected = _module_outputs(network, inputs)
        found = run_session(session, name_feeds(session, _arrays(inputs)))
        error = _relative_error(expected, found)
        if not error <= MAX_ERROR:
            shapes = ", ".join("x".join(map(str, x.shape)) for x in inputs)
            raise TargetError(
                f"{path} computes something else than the module: "
                f"relative error {error:.3g} on {shapes}, allowed {MAX_ERROR:g}.",
                hint="If only some batch sizes fail, a reshape fixes the batch size; use x.shape[0] or -1.",
            )
        worst = max(worst, error)
    return worst


def _module_outputs(network: nn.Module, inputs: tuple[Tensor, ...]) -> list[Array]:
    with torch.no_grad(), third_party_quiet():
        outputs: Any = network(*inputs)
    return _arrays((outputs,) if isinstance(outputs, Tensor) else tuple(outputs))


def _relative_error(expected: list[Array], found: list[Array]) -> float:
    """Largest over the outputs of max |expected - found| / max |expected|; infinite where shapes differ."""
    if [x.shape for x in expected] != [x.shape for x in found]:
        return float("inf")
    return max(
        float(np.abs(a - b).max(initial=0) / max(np.abs(a).max(initial=0), 1e-12))
        for a, b in zip(expected, found, strict=True)
    )


def _random_like(example_inputs: tuple[Tensor, ...], seed: int) -> tuple[Tensor, ...]:
    """Fixed noise in place of floating-point inputs; whole numbers stay, because they may be indices."""
    generator = torch.Generator().manual_seed(seed)
    inputs = float_inputs(example_inputs)
    return tuple(torch.randn(x.shape, generator=generator) if x.is_floating_point() else x for x in inputs)


def _batch_of(inputs: tuple[Tensor, ...], size: int) -> tuple[Tensor, ...]:
    """The inputs at another batch size, samples repeated in turn."""
    return tuple(x[torch.arange(size) % len(x)] for x in inputs)


def _arrays(tensors: tuple[Tensor, ...]) -> list[Array]:
    return [x.detach().cpu().contiguous().numpy() for x in float_inputs(tensors)]


def _fixed_batch(session: onnxruntime.InferenceSession) -> int | None:
    """The batch size that a file was written for, or None where it takes any."""
    size = session.get_inputs()[0].shape[0]
    return size if isinstance(size, int) else None


def _padded(chunk: Array, size: int) -> Array:
    return (
        np.concatenate([chunk, np.zeros((size - len(chunk), *chunk.shape[1:]), chunk.dtype)])
        if len(chunk) < size
        else chunk
    )


def _runner(session: onnxruntime.InferenceSession, arrays: list[Array]) -> Any:
    feeds = name_feeds(session, arrays)
    run_session(session, feeds)  # errors are worded here, once; timed runs go straight to the runtime
    return lambda: session.run(None, feeds)
