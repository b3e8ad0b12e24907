"""The file's graph as data: operators in order, constants, shapes; with what is constant computed once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import onnx
from onnx import helper, numpy_helper

from fupruner.errors import FuPrunerError
from fupruner.onnx_import.reader import opset_of
from fupruner.onnx_import.values import Array
from fupruner.targets.runtime import open_session, run_session

_RANDOM = {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial"}


@dataclass(frozen=True)
class Input:
    """An input of the network; open sizes are None, and so is the shape when not even the number of axes is known."""

    name: str
    shape: tuple[int | None, ...] | None
    kind: int


@dataclass(frozen=True)
class Graph:
    """Operators in the order in which they run, and what is known about values."""

    nodes: tuple[onnx.NodeProto, ...]
    inputs: tuple[Input, ...]
    outputs: tuple[str, ...]
    constants: dict[str, Array]
    shapes: dict[str, tuple[int | None, ...]]
    opset: int
    weights: frozenset[str] = field(default=frozenset())

    def only_live(self) -> Graph:
        """Without operators whose results nobody reads."""
        wanted, kept = set(self.outputs), []
        for node in reversed(self.nodes):
            if wanted & set(node.output):
                kept.append(node)
                wanted |= set(node.input)
        return replace(self, nodes=tuple(reversed(kept)))


def read_graph(model: onnx.ModelProto) -> Graph:
    """Take a model apart."""
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    inputs = tuple(
        Input(value.name, _shape(value), value.type.tensor_type.elem_type)
        for value in model.graph.input
        if value.name not in constants
    )
    outputs = tuple(value.name for value in model.graph.output)
    graph = Graph(
        tuple(model.graph.node), inputs, outputs, constants, _shapes(model), opset_of(model), frozenset(constants)
    )
    return _fold(graph.only_live())


def _shapes(model: onnx.ModelProto) -> dict[str, tuple[int | None, ...]]:
    try:
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    except Exception:  # larger than a message may be, or wrong in itself: then shapes are unknown, which is allowed
        inferred = model.graph
    values = (*inferred.input, *inferred.value_info, *inferred.output)
    known = {value.name: _shape(value) for value in values}
    known |= {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    return {name: shape for name, shape in known.items() if shape is not None}


def _shape(value: onnx.ValueInfoProto) -> tuple[int | None, ...] | None:
    kind = value.type.tensor_type
    if not kind.HasField("shape"):
        return None
    return tuple(size.dim_value if size.dim_value > 0 else None for size in kind.shape.dim)


def _fold(graph: Graph) -> Graph:
    """Compute what depends on nothing but constants, in the runtime."""
    constants, kept, folded = dict(graph.constants), [], []
    computed: set[str] = set()
    for node in graph.nodes:
        value = _given(node, constants)
        if value is not None:
            constants[node.output[0]] = value
        elif _is_constant(node, constants.keys() | computed):
            folded.append(node)
            computed |= set(node.output)
        else:
            kept.append(node)
    wanted = computed & {name for node in kept for name in node.input} | computed & set(graph.outputs)
    if wanted:
        constants |= _compute(folded, sorted(wanted), constants, graph.opset)
    return replace(graph, nodes=tuple(kept), constants=constants)


def _given(node: onnx.NodeProto, constants: dict[str, Array]) -> Array | None:
    """Value of a node that only names or renames a constant."""
    if node.op_type == "Identity":
        return constants.get(node.input[0])
    if node.op_type == "Constant" and node.attribute[0].name == "value":
        return numpy_helper.to_array(node.attribute[0].t)
    return None


def _is_constant(node: onnx.NodeProto, known: Iterable[str]) -> bool:
    if node.op_type in _RANDOM or node.domain not in ("", "ai.onnx") or any(a.HasField("g") for a in node.attribute):
        return False
    return all(name in known for name in node.input if name)


def _compute(
    nodes: list[onnx.NodeProto], wanted: list[str], constants: dict[str, Array], opset: int
) -> dict[str, Array]:
    used = {name for node in nodes for name in node.input}
    weights = [numpy_helper.from_array(value, name) for name, value in constants.items() if name in used]
    outputs = [onnx.ValueInfoProto(name=name) for name in wanted]
    model = helper.make_model(
        helper.make_graph(nodes, "constants", [], outputs, weights),
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=8,
    )
    try:
        values = run_session(open_session(model.SerializeToString()), {})
    except FuPrunerError:
        return {}  # whatever the runtime cannot compute is refused by name later, like any unknown operator
    return dict(zip(wanted, values, strict=True))
