"""Writes modules as ONNX files that runtimes of many ages can read."""

from __future__ import annotations

import io
import os
import re
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import helper
from torch import Tensor, nn

from fupruner.errors import TargetError
from fupruner.graph.borrowed import borrowed
from fupruner.targets.export_mode import ExportMode
from fupruner.targets.layer_names import Calls, layer_calls, name_after_layers
from fupruner.targets.onnx_weights import held, save_with, take_out

OPSET = 17
LARGEST = 2**31
"""Bytes that one ONNX file can hold: protobuf counts them in 32 bits with a sign."""


def inference_copy(module: nn.Module) -> nn.Module:
    """Copy of a module on the CPU, in float32 and eval mode, to be run; it may show the memory of the module's own tensors."""
    with third_party_quiet():
        return borrowed(module).cpu().float().eval()


def float_inputs(example_inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Example inputs on the CPU, floating-point ones as float32."""
    detached = (x.detach().cpu() for x in example_inputs)
    return tuple(x.float() if x.is_floating_point() else x for x in detached)


def write_onnx(
    module: nn.Module,
    example_inputs: tuple[Tensor, ...],
    path: Path,
    *,
    opset: int = OPSET,
    dynamic_batch: bool = True,
) -> None:
    """Write a module as one ONNX file with its weights inside; an existing file is replaced only by a complete one.

    Inputs are named ``input`` (or ``input_0``, ``input_1``, ...), outputs ``output`` likewise.

    Args:
        module: any module that can be traced, graph modules that call ATen operators included. Left as it is.
        example_inputs: tensors (N, ...), batch first.
        path: where to write; missing folders are made.
        opset: version of the operator set.
        dynamic_batch: leave the first axis of inputs and outputs open.

    Raises:
        TargetError: an operator has no ONNX form, the weights do not fit one file, or the exporter wrote something else than it
            was asked for.
    """
    _require_fits_one_file(module)
    copied = inference_copy(module)
    weights = take_out(copied)
    network = _Traceable(copied, tuple(weights)).eval()
    inputs = float_inputs(example_inputs)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _temporary_file(path) as draft:
        calls = _export(network, inputs, weights, draft, opset, dynamic_batch)
        model = onnx.load(str(draft))
        _check_versions(model, opset)
        _strip_prefix(model.graph, "wrapped_module")
        name_after_layers(model.graph, calls)
        onnx.checker.check_model(model)
        save_with(model, weights, draft)
        os.replace(draft, path)


def _require_fits_one_file(module: nn.Module) -> None:
    held = {id(t): 4 * t.numel() for t in [*module.parameters(), *module.buffers()]}
    size = sum(held.values())
    if size >= LARGEST:
        raise TargetError(
            f"The network has {size / 2**30:.1f} GiB of weights in float32; one ONNX file holds less than 2 GiB.",
            hint="Write a .pt2 file instead, which PyTorch loads.",
        )


@contextmanager
def third_party_quiet() -> Iterator[None]:
    """Hide warnings and prints for the time of one call into the exporter, which tells of its insides."""
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


class _Traceable(nn.Module):
    """A module as the exporter wants it: a plain module (the exporter mistakes a GraphModule's graph for its own).

    Args:
        net: the module.
        given: names of weights that are given after the inputs, see ``targets.onnx_weights``.
    """

    def __init__(self, net: nn.Module, given: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.wrapped_module = net
        self._given = given

    def forward(self, *values: Tensor) -> Any:
        count = len(values) - len(self._given)
        weights = dict(zip(self._given, values[count:], strict=True))
        with ExportMode(), held(self.wrapped_module, weights):
            return self.wrapped_module(*values[:count])


@contextmanager
def _temporary_file(path: Path) -> Iterator[Path]:
    """A file in the folder of ``path``, gone at the end unless it was moved away."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    os.close(handle)
    draft = Path(name)
    draft.chmod(0o644)
    try:
        yield draft
    finally:
        draft.unlink(missing_ok=True)


def _export(
    network: nn.Module, inputs: tuple[Tensor, ...], weights: Mapping[str, Tensor], draft: Path, opset: int, dynamic_batch: bool
) -> Calls:  # fmt: skip
    """Write a file in which some weights are inputs; which layers ran, in order."""
    values = (*inputs, *(weight.detach() for weight in weights.values()))
    input_names = _names("input", len(inputs))
    try:
        with third_party_quiet(), torch.no_grad():
            with layer_calls(network, "wrapped_module.") as calls:
                outputs = network(*values)
            output_names = _names("output", 1 if isinstance(outputs, Tensor) else len(outputs))
            torch.onnx.export(
                network,
                values,
                str(draft),
                dynamo=False,
                opset_version=opset,
                input_names=[*input_names, *weights],
                output_names=output_names,
                dynamic_axes={name: {0: "batch"} for name in [*input_names, *output_names]} if dynamic_batch else None,
            )
    except Exception as error:
        raise _export_error(error, opset) from error
    return calls


def _names(stem: str, count: int) -> list[str]:
    return [stem] if count == 1 else [f"{stem}_{i}" for i in range(count)]


def _export_error(error: Exception, opset: int) -> TargetError:
    """Say which operator is to blame where the exporter's message tells."""
    message = str(error)
    operator = re.search(r"\b[a-z_]\w*::\w+", message)
    if operator:
        return TargetError(
            f"Operator {operator[0]} cannot be written as ONNX opset {opset}.",
            hint="Replace it in the model by operators that ONNX has.",
        )
    first_line = message.strip().partition("\n")[0] or type(error).__name__
    return TargetError(f"The module cannot be written as ONNX opset {opset}: {first_line}")


def _check_versions(model: onnx.ModelProto, opset: int) -> None:
    """The exporter may write newer versions than asked for, which older runtimes refuse to read."""
    found = {entry.domain: entry.version for entry in model.opset_import}
    if set(found) - {"", "ai.onnx"}:
        raise TargetError(
            f"The exported file needs operators outside of ONNX: {', '.join(sorted(filter(None, found)))}."
        )
    if found.get("", found.get("ai.onnx")) != opset:
        raise TargetError(f"The exported file has opset {found}, asked for {opset}.")
    newest = helper.find_min_ir_version_for([helper.make_opsetid("", opset)])
    if model.ir_version > newest:
        raise TargetError(f"The exported file has IR version {model.ir_version}; opset {opset} goes with {newest}.")


def _strip_prefix(graph: onnx.GraphProto, name: str) -> None:
    """Remove the wrapper's name from nodes and values, so that they read like the module's own names."""
    if any(attribute.HasField("g") for node in graph.node for attribute in node.attribute):
        return  # inner graphs refer to values of the outer one by name
    for node in graph.node:
        node.name = _without(node.name, name)
        node.input[:] = [_without(value, name) for value in node.input]
        node.output[:] = [_without(value, name) for value in node.output]
    named: Sequence[Any] = [*graph.initializer, *graph.value_info]
    for entry in named:
        entry.name = _without(entry.name, name)


def _without(value: str, name: str) -> str:
    for prefix, rest in ((f"/{name}/{name}.", "/"), (f"/{name}/", "/"), (f"{name}.", "")):
        if value.startswith(prefix):
            return rest + value.removeprefix(prefix)
    return value
