"""A network's size and operators, and what fusion did to it."""

from __future__ import annotations

from fupruner.records.base import Record


class GraphFigures(Record):
    """Size of a network: layers and operators by type, multiply-adds at batch 1, parameters."""

    operators: dict[str, int]
    macs: int
    params: int


class GraphNode(Record):
    """One operator of a network.

    Attributes:
        kind: the layer's class, or the function's name; ``input`` and ``output`` for the ends.
        inputs: names of the nodes that it reads.
        layer: the dotted name of the layer, or an empty string for a function.
        shape: of the output without the batch.
        params: parameters of the layer.
    """

    name: str
    kind: str
    inputs: tuple[str, ...] = ()
    layer: str = ""
    shape: tuple[int, ...] = ()
    params: int = 0


class GraphRecord(Record):
    """A network as operators in the order in which they run."""

    nodes: tuple[GraphNode, ...]


class Fired(Record):
    """One application of a fusion rule."""

    rule: str
    node: str
    detail: str = ""


class Refusal(Record):
    """One place where a fusion rule matched but must not or need not be applied."""

    rule: str
    node: str
    reason: str


class FusionLog(Record):
    """What fusion did, what it refused, and how equal the result is.

    Attributes:
        max_error: largest absolute difference of outputs in float64, relative to the largest output.
        max_error_float32: the same in float32, after the fused weights were rounded once.
        checked_inputs: a line per input that was tried, for example ``2x3x32x32``.
    """

    level: str
    fired: tuple[Fired, ...]
    refused: tuple[Refusal, ...]
    before: GraphFigures
    after: GraphFigures
    max_error: float
    max_error_float32: float
    checked_inputs: tuple[str, ...] = ()
    seconds: float = 0.0
