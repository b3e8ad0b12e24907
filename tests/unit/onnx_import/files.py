"""ONNX files made by hand for the tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Shape = Sequence[int | str | None] | None


def model_of(
    nodes: Sequence[onnx.NodeProto],
    *,
    shape: Shape = ("batch", 3, 8, 10),
    constants: Mapping[str, Any] | None = None,
    opset: int = 17,
    outputs: Sequence[str] = ("y",),
    kind: int = TensorProto.FLOAT,
    inputs: Sequence[str] = ("x",),
    out_kind: int | None = None,
) -> onnx.ModelProto:
    """A model of some nodes between inputs of one shape and outputs of unknown shape."""
    weights = [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()]
    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info(name, kind, shape) for name in inputs],
        [helper.make_tensor_value_info(name, out_kind or kind, None) for name in outputs],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def saved(model: onnx.ModelProto, folder: Path, name: str = "model.onnx") -> Path:
    """Write a model to a folder."""
    path = folder / name
    onnx.save(model, str(path))
    return path


def node(op: str, inputs: str = "x", outputs: str = "y", name: str = "", **attributes: Any) -> onnx.NodeProto:
    """One node; names of values separated by spaces, a dash for one that is left out."""
    named = [["" if part == "-" else part for part in text.split()] for text in (inputs, outputs)]
    return helper.make_node(
        op, *named, name or f"/{op.lower() if outputs == 'y' else outputs.split(maxsplit=1)[0]}/{op}", **attributes
    )


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def positive(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0.5, 2.0, shape).astype(np.float32)
