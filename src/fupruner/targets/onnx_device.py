"""What devices that read ONNX files in half precision have in common: writing, refusing, judging and estimating them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import onnx
import onnxruntime
from torch import Tensor, nn

from fupruner.errors import InputError, TargetError
from fupruner.graph.layer_shape import LayerShape
from fupruner.records import Comparison, LayerTime, Measurement
from fupruner.targets.check import batch_of, in_chunks, random_like, worst_error
from fupruner.targets.cost_model import CostModel
from fupruner.targets.half import in_half_precision
from fupruner.targets.onnx_clean import simplify
from fupruner.targets.onnx_file import float_inputs, write_onnx
from fupruner.targets.onnx_layers import FileLayer, file_layers, load_model
from fupruner.targets.runtime import Array, name_feeds, open_session, run_session
from fupruner.training.outputs import Outputs

HALF_ERROR = 0.03
"""Largest relative difference of outputs that half precision explains."""


def judged_in_half() -> str:
    """Where such files are judged, as written beside an accuracy."""
    return f"half precision emulated in ONNX Runtime {onnxruntime.__version__}"


def write_fixed(module: nn.Module, example_inputs: tuple[Tensor, ...], path: Path, opset: int) -> None:
    """Write an ONNX file for batch 1, without computed constants.

    Raises:
        TargetError: an operator has no ONNX form in this opset.
    """
    write_onnx(module, batch_of(float_inputs(example_inputs), 1), path, opset=opset, dynamic_batch=False)
    model = simplify(onnx.load(str(path)))
    onnx.checker.check_model(model)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    onnx.save(model, str(draft))
    os.replace(draft, path)


def require_operators(path: Path, known: frozenset[str], device: str, instead: Mapping[str, str]) -> None:
    """Refuse a file with an operator that the device lacks.

    Args:
        path: the file.
        known: operators that the device has.
        device: what it is called in the message.
        instead: what would replace an operator, for some that are often met.

    Raises:
        TargetError: names operator, layer and replacement.
    """
    for node in load_model(path).graph.node:
        if node.op_type not in known:
            replacement = instead.get(node.op_type, "operators that the device has")
            raise TargetError(
                f"{device} has no operator {node.op_type}, which layer {node.name or node.output[0]!r} needs.",
                hint=f"In the model, use {replacement}.",
            )


def verify_half(module: nn.Module, example_inputs: tuple[Tensor, ...], path: Path) -> float:
    """Largest difference between a module and its file in half precision, at batch 1, relative to the largest output.

    Raises:
        TargetError: it is more than half precision explains.
    """
    session = _half_session(path)
    batches = (batch_of(float_inputs(example_inputs), 1), batch_of(random_like(example_inputs, seed=1), 1))
    hint = "Numbers above 65504 become infinite in half precision; look for large weights or activations."
    return worst_error(
        module, lambda a: run_session(session, name_feeds(session, a)), batches, path, allowed=HALF_ERROR, hint=hint
    )


def predict_half(path: Path, inputs: Tensor) -> Outputs:
    """Run a file on inputs (N, ...) one by one in half precision; its output (N, ...), or all of them."""
    session = _half_session(path)

    def run(chunk: Array) -> list[Array]:
        return run_session(session, name_feeds(session, [chunk]))

    return in_chunks(run, inputs, 1, fixed=True)


def _half_session(path: Path) -> onnxruntime.InferenceSession:
    stat = Path(path).stat() if Path(path).is_file() else None
    return _cached_session(Path(path), stat.st_mtime_ns if stat else 0)


@lru_cache(maxsize=2)
def _cached_session(path: Path, _: int) -> onnxruntime.InferenceSession:
    return open_session(in_half_precision(load_model(path)).SerializeToString())


def estimated_comparison(target: str, latencies: Sequence[float], source: str) -> Comparison:
    """Estimates as a comparison: no spread, no runs.

    Args:
        target: the target's name.
        latencies: milliseconds, one per network.
        source: where the estimate comes from.

    Raises:
        InputError: there is no network.
    """
    if not latencies:
        raise InputError("There is no file to compare.", hint="Give at least one exported file.")
    return Comparison(
        measurements=tuple(
            Measurement(latency_ms=ms, spread=0.0, grade="estimated", source=source, target=target) for ms in latencies
        ),
        speedups=tuple(latencies[0] / ms for ms in latencies),
        spreads=(0.0,) * len(latencies),
    )


def compare_files(target: str, model: CostModel, paths: Sequence[Path]) -> Comparison:
    """Estimated latencies of ONNX files: the sum of their layers and what a run costs beside them."""
    shapes = [[layer.shape for layer in file_layers(Path(path))] for path in paths]
    totals = [model.overhead_ms + sum(model.price(layers)) for layers in shapes]
    return estimated_comparison(target, totals, model.source)


def file_layer_times(model: CostModel, path: Path) -> list[LayerTime]:
    """Estimated time of each layer of an ONNX file."""
    layers: list[FileLayer] = file_layers(Path(path))
    prices = model.price([layer.shape for layer in layers])
    return [
        LayerTime(name=layer.name, kind=layer.operator, ms=ms, grade="estimated")
        for layer, ms in zip(layers, prices, strict=True)
    ]


def require_room(module: nn.Module, path: Path, device: str, room: float) -> None:
    """Refuse a network that a device's memory cannot hold.

    Args:
        module: the network.
        path: what was exported of it.
        device: what it is called in the message.
        room: bytes that a network may use there.

    Raises:
        TargetError: says how much is needed.
    """
    weights = sum(parameter.numel() for parameter in module.parameters())
    needed = memory_bytes([layer.shape for layer in file_layers(path)], weights)
    if needed > room:
        raise TargetError(
            f"The network needs {needed / 1e9:.1f} GB in half precision; {device} has {room / 1e9:.1f} GB for it.",
            hint="Ask for a smaller network, or a smaller input.",
        )


def memory_bytes(layers: Sequence[LayerShape], weights: int) -> int:
    """Bytes in half precision of weights and of the two largest neighbouring activations."""
    largest = max((_elements(layer.in_shape) + _elements(layer.out_shape) for layer in layers), default=0)
    return 2 * (weights + largest)


def _elements(shape: tuple[int, ...]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count
