"""Says which operators of a file cannot be imported: all of them at once, with counts and names."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from fupruner.errors import InputError
from fupruner.onnx_import.node import OPERATORS

_QUANTISED = {
    "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger",
    "QLinearAdd", "QLinearMul", "QLinearConcat", "QLinearGlobalAveragePool", "QLinearAveragePool", "QLinearLeakyRelu", "QLinearSigmoid",
}  # fmt: skip
_CONTROL_FLOW = {"If", "Loop", "Scan"}
_SHOWN = 3


@dataclass(frozen=True)
class Problem:
    """An operator that cannot be imported: its kind, with the setting that is to blame if it is not the kind itself."""

    what: str
    node: str


def refuse_kinds(nodes: Sequence[onnx.NodeProto], path: Path) -> None:
    """Refuse whole kinds of networks: quantised ones, and those with control flow.

    Raises:
        InputError: the graph is of such a kind.
    """
    quantised = [Problem(node.op_type, name_of(node)) for node in nodes if node.op_type in _QUANTISED]
    if quantised:
        raise InputError(
            f"{path} is quantised: {_listed(quantised)}.", hint="Give the float model that it was made from."
        )
    flow = [Problem(node.op_type, name_of(node)) for node in nodes if node.op_type in _CONTROL_FLOW]
    if flow:
        raise InputError(
            f"{path} has control flow, which cannot be captured: {_listed(flow)}.",
            hint="Export the model without branches and loops that depend on values.",
        )


def unknown(node: onnx.NodeProto) -> Problem | None:
    """The problem of an operator that is not in the list, else None."""
    if node.domain not in ("", "ai.onnx"):
        return Problem(f"{node.domain}.{node.op_type}", name_of(node))
    return None if node.op_type in OPERATORS else Problem(node.op_type, name_of(node))


def refuse(problems: Sequence[Problem], path: Path) -> None:
    """Name everything that is in the way of an import.

    Raises:
        InputError: there is something.
    """
    if problems:
        raise InputError(
            f"{path} uses operators that cannot be imported: {_listed(problems)}.",
            hint="Replace them in the model, or give the PyTorch model itself.",
        )


def name_of(node: onnx.NodeProto) -> str:
    """A node's name, or what tells it apart where it has none."""
    return node.name or f"the one that makes {node.output[0]!r}"


def _listed(problems: Sequence[Problem]) -> str:
    places: dict[str, list[str]] = defaultdict(list)
    for problem in problems:
        places[problem.what].append(problem.node)
    return "; ".join(f"{what} ({len(names)}x: {_shown(names)})" for what, names in sorted(places.items()))


def _shown(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
