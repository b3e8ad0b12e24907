"""From a file to a model that has been checked: one precision, no functions of its own, weights inside."""

from __future__ import annotations

from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import inliner

from fupruner.errors import InputError
from fupruner.onnx_import.precision import to_float32

OLDEST_OPSET = 9
HINT = "Give the floating-point model as its framework exported it, for example with torch.onnx.export(model, inputs, path)."


def read_model(path: Path) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """Read an ONNX file and bring it into the form that the importer works on. The file is only read.

    Returns:
        The model, and what was changed on the way, in words.

    Raises:
        InputError: there is no such file, it is damaged, no ONNX, or of an operator set that is too old.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder, not an ONNX file.")
    if not path.is_file():
        raise InputError(f"There is no ONNX file {path}.")
    model = _with_weights(_parse(path), path)
    try:
        onnx.checker.check_model(_with_shapes(model))
    except (onnx.checker.ValidationError, ValueError) as error:
        raise InputError(f"{path} is not a valid ONNX model: {_first_line(error)}", hint=HINT) from None
    _check_version(model, path)
    if model.functions:
        model = inliner.inline_local_functions(model)
    kinds = to_float32(model)
    notes = (f"{path.name} holds {' and '.join(kinds)} numbers; the network is imported in float32.",) if kinds else ()
    return model, notes


def opset_of(model: onnx.ModelProto) -> int:
    """Version of the standard operator set that a model uses."""
    return max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)


def _parse(path: Path) -> onnx.ModelProto:
    try:
        model = onnx.load(str(path), load_external_data=False)
    except (DecodeError, OSError) as error:
        raise InputError(
            f"{path} cannot be read as ONNX (damaged, cut short, or another format): {_first_line(error)}", hint=HINT
        ) from None
    if not model.graph.node or not model.graph.output:
        raise InputError(f"{path} cannot be read as ONNX: it holds no network.", hint=HINT)
    return model


def _with_weights(model: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    """Load the weights that lie in files beside the model."""
    try:
        onnx.external_data_helper.load_external_data_for_model(model, str(path.parent))
    except Exception as error:  # a missing, short or forbidden file each leads to another error
        raise InputError(
            f"The weights of {path} lie in another file, which cannot be read: {_first_line(error)}",
            hint="Keep the files that were exported together in one folder.",
        ) from None
    return model


def _with_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """A model as the checker wants it: with shapes of its outputs, whatever they are; every runtime does without."""
    if all(value.type.tensor_type.HasField("shape") for value in model.graph.output):
        return model
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    for value in copied.graph.output:
        value.type.tensor_type.shape.SetInParent()
    return copied


def _check_version(model: onnx.ModelProto, path: Path) -> None:
    opset = opset_of(model)
    newest = onnx.defs.onnx_opset_version()
    if not OLDEST_OPSET <= opset <= newest:
        raise InputError(
            f"{path} uses operator set {opset}; {OLDEST_OPSET} to {newest} can be imported.",
            hint="Export the model again with opset_version=17, or convert it with onnx.version_converter.",
        )


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__
