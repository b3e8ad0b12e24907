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

from fupruner.errors import InputError
from fupruner.records import Comparison, Fact, Grade, LayerTime, Measurement
from fupruner.targets.base import CostModel, ExportResult, Images, Target, Tool
from fupruner.targets.check import arrays, batch_of, in_chunks, random_like, worst_error
from fupruner.targets.latency_table import LatencyTable
from fupruner.targets.node_names import file_names
from fupruner.targets.onnx_file import float_inputs, write_onnx
from fupruner.targets.profiler import node_times
from fupruner.targets.runtime import Array, channel_block, name_feeds, open_session, run_session, runtime_name
from fupruner.targets.timing import interleave, quartile_range
from fupruner.training.outputs import Outputs

MAX_ERROR = 1e-3
_CHUNK = 64


_RECIPE = """\
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("model.onnx")
entry = session.get_inputs()[0]
shape = [size if isinstance(size, int) else 1 for size in entry.shape]
images = np.zeros(shape, dtype=np.float32)  # prepare real images exactly as the original network got them
scores = session.run(None, {entry.name: images})[0]
print(scores.argmax(axis=1))
"""


class CpuTarget(Target):
    """ONNX files in float32, run by ONNX Runtime on this machine."""

    name = "cpu"
    ships = "ONNX"
    suffix = ".onnx"
    precision = "float32"
    operators = None
    grade: Grade = "measured"
    recipe = _RECIPE

    def __init__(self) -> None:
        self.alignment = channel_block()
        self.judged_in = f"ONNX Runtime {onnxruntime.__version__}"

    def adapted(self, module: nn.Module, images: Images | None) -> Target:
        """Itself: nothing is quantised."""
        return self

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
        return ExportResult((path,), self.verify(module, example_inputs, path))

    def verify(self, module: nn.Module, example_inputs: tuple[Tensor, ...], path: Path) -> float:
        """Largest difference between module and file over three batches, relative to the largest output.

        Raises:
            TargetError: it is more than 1e-3.
        """
        session = open_session(Path(path))
        examples, random = float_inputs(example_inputs), random_like(example_inputs, seed=1)
        batches = (examples, random, batch_of(random, 3 if len(examples[0]) != 3 else 2))
        hint = "If only some batch sizes fail, a reshape fixes the batch size; use x.shape[0] or -1."
        return worst_error(
            module, lambda a: run_session(session, name_feeds(session, a)), batches, path, allowed=MAX_ERROR, hint=hint
        )

    def predict(self, path: Path, inputs: Tensor) -> Outputs:
        """Run a file on inputs (N, ...) with all threads that PyTorch may use; its output (N, ...), or all of them.

        Raises:
            TargetError: the file cannot be loaded, or does not take such inputs.
        """
        session = open_session(Path(path), torch.get_num_threads())
        fixed = _fixed_batch(session)
        return in_chunks(
            lambda chunk: run_session(session, name_feeds(session, [chunk])),
            inputs,
            fixed or _CHUNK,
            fixed=fixed is not None,
        )

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
        single = arrays(batch_of(random_like(example_inputs, seed=0), 1))
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
        single = arrays(batch_of(random_like(example_inputs, seed=0), 1))
        nodes = node_times(Path(path), single, threads=threads)
        graph = onnx.load(str(path), load_external_data=False).graph
        names = file_names(graph, [(node.name, node.kind) for node in nodes])
        return [LayerTime(name=name, kind=node.kind, ms=node.ms) for name, node in zip(names, nodes, strict=True)]

    def cost_model(self) -> CostModel:
        """Times of single layers, measured on this machine when first asked for and kept on disk."""
        return LatencyTable()

    def inspect(self, path: Path) -> list[Fact]:
        """Nothing: the runtime is the tool, and it has timed the file."""
        return []

    def tools(self) -> list[Tool]:
        """ONNX Runtime, which is always installed."""
        return [
            Tool(
                "ONNX Runtime",
                "checks and times files here",
                onnxruntime.__version__,
                "pip install onnxruntime",
                needed=True,
            )
        ]

    def install(self) -> list[str]:
        """Nothing: ONNX Runtime comes with FuPruner."""
        return []


def _fixed_batch(session: onnxruntime.InferenceSession) -> int | None:
    """The batch size that a file was written for, or None where it takes any."""
    size = session.get_inputs()[0].shape[0]
    return size if isinstance(size, int) else None


def _runner(session: onnxruntime.InferenceSession, arrays: list[Array]) -> Any:
    feeds = name_feeds(session, arrays)
    run_session(session, feeds)  # errors are worded here, once; timed runs go straight to the runtime
    return lambda: session.run(None, feeds)
