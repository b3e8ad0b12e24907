"""ONNX models in int8: scales from the user's images, weights per channel, the same file on every processor.

    q = clip(round(x / scale) + zero)         activations: 8 bits without sign, one scale per tensor
    w = clip(round(w / scale_c)), zero = 0    weights: 7 bits and a sign less, one scale per output channel

Products of 8-bit activations and 8-bit weights are summed in pairs in 16 bits by processors with AVX2 or AVX-512 but without VNNI, where
they may overflow without a word. Weights of 7 bits cannot, so the file gives the same numbers everywhere.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
from onnx import helper

from fupruner.errors import TargetError
from fupruner.targets.onnx_clean import simplify
from fupruner.targets.onnx_int8_forms import PADDED, with_int8_forms
from fupruner.targets.runtime import Array


def quantise(model: onnx.ModelProto, batches: Sequence[Mapping[str, Array]]) -> onnx.ModelProto:
    """Quantise a float32 model statically, with nodes that quantise and dequantise around every operator (QDQ).

    Args:
        model: float32, batch norms folded.
        batches: arrays by name of the input, over which the range of every activation is taken.

    Raises:
        TargetError: the quantiser fails.
    """
    with _quiet(), tempfile.TemporaryDirectory(prefix="fupruner-") as folder:
        from onnxruntime.quantization import (  # noqa: PLC0415 - slow to import, and used by int8 alone
            QuantFormat,
            QuantType,
            quantize_static,
        )

        file = Path(folder) / "int8.onnx"
        try:
            quantize_static(
                with_int8_forms(simplify(model)), str(file), _reader(batches), quant_format=QuantFormat.QDQ, per_channel=True,
                reduce_range=True, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, nodes_to_exclude=[PADDED],
            )  # fmt: skip
        except Exception as error:
            first = str(error).strip().partition("\n")[0]
            raise TargetError(f"The network cannot be quantised: {first or type(error).__name__}") from error
        quantised = onnx.load(str(file))
    return _without_unused_imports(quantised)


def _reader(batches: Sequence[Mapping[str, Array]]) -> Any:
    from onnxruntime.quantization import CalibrationDataReader  # noqa: PLC0415 - see above

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._rest = iter(batches)

        def get_next(self) -> Any:
            return next(self._rest, None)

    return Reader()


def _without_unused_imports(model: onnx.ModelProto) -> onnx.ModelProto:
    """The quantiser imports operator sets that nothing in the file uses, and old runtimes refuse to read those."""
    used = {node.domain for node in model.graph.node}
    kept = [helper.make_opsetid(each.domain, each.version) for each in model.opset_import if each.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    return model


def is_quantised(model: onnx.ModelProto) -> bool:
    """Whether a model computes in int8."""
    return any(node.op_type in ("QuantizeLinear", "QLinearConv") for node in model.graph.node)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide advice that the quantiser logs, and its warnings."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
