"""From the graph of a file to a module: one step per operator, layers under their names, constants where they belong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

from fupruner.graph import edit
from fupruner.onnx_import.graph import Graph
from fupruner.onnx_import.module import ImportedNetwork, Step
from fupruner.onnx_import.names import LayerNames, dotted
from fupruner.onnx_import.node import Built, Node, UnsupportedError
from fupruner.onnx_import.operators import OPERATORS
from fupruner.onnx_import.refusals import Problem, name_of, refuse, unknown
from fupruner.onnx_import.values import Array


def build(graph: Graph, path: Path, batch: int | None) -> ImportedNetwork:
    """Make the module of a graph.

    Args:
        graph: with constants computed and patterns joined.
        path: of the file, for messages.
        batch: the only batch size that works, or None.

    Raises:
        InputError: operators are not supported; all of them are named.
    """
    return _Builder(graph).build(path, batch)


class _Builder:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.names = LayerNames(graph.nodes, graph.weights)
        self.layers: dict[str, nn.Module] = {}
        self.called: dict[tuple[object, ...], str] = {}
        self.problems: list[Problem] = []

    def build(self, path: Path, batch: int | None) -> ImportedNetwork:
        """Build every operator, then hang layers and constants into one module."""
        steps = [step for node in self.graph.nodes if (step := self._step(node)) is not None]
        refuse(self.problems, path)
        read = {name for step in steps for name in step.inputs} | set(self.graph.outputs)
        sizes = _read_as_sizes(self.graph)
        constants = {name: value for name, value in self.graph.constants.items() if name in read}
        tensors = {name: value for name, value in constants.items() if _belongs_to_module(value) and name not in sizes}
        arrays = {name: value for name, value in constants.items() if name not in tensors}
        inputs = tuple(entry.name for entry in self.graph.inputs)
        where = {name: dotted(name) for name in tensors}
        network = ImportedNetwork(steps, inputs, self.graph.outputs, arrays, where, batch)
        for name, layer in self.layers.items():
            edit.set_module(network, name, layer)
        for name, value in tensors.items():
            where[name] = _free_name(network, where[name])
            edit.set_tensor(network, where[name], self._tensor(name, value))
        return network.eval()

    def _step(self, proto: onnx.NodeProto) -> Step | None:
        problem = unknown(proto)
        if problem is not None:
            self.problems.append(problem)
            return None
        node = Node(proto, self.graph.opset, self.graph.constants, self.graph.shapes)
        try:
            built = OPERATORS[node.op](node)
        except UnsupportedError as error:
            self.problems.append(Problem(f"{node.op} {error}", name_of(proto)))
            return None
        run = self._hang(proto, built) if isinstance(built.run, nn.Module) else built.run
        label = f"in {node.op} {name_of(proto)}"
        return Step(run, _trimmed(built.inputs), tuple(proto.output), built.before, label)

    def _hang(self, proto: onnx.NodeProto, built: Built) -> str:
        """Name of a layer; a layer that is called with the same weights in the same way again is the same one.

        Only weights of two axes or more tell: exporters store equal biases and scales of different layers once.
        """
        key = self._key(proto)
        if key is not None and key in self.called:
            return self.called[key]
        assert isinstance(built.run, nn.Module)  # noqa: S101 - the caller has asked
        name = self.names.of(proto)
        self.layers[name] = built.run
        if key is not None:
            self.called[key] = name
        return name

    def _key(self, proto: onnx.NodeProto) -> tuple[object, ...] | None:
        constants = tuple(name for name in proto.input if name in self.graph.constants)
        if not any(self.graph.constants[name].ndim >= 2 for name in constants):
            return None
        settings = sorted(attribute.SerializeToString() for attribute in proto.attribute)
        return (proto.op_type, constants, *settings)

    def _tensor(self, name: str, value: Array) -> torch.Tensor:
        """What the file stores is a parameter and trains; what was computed from it is not."""
        made = torch.from_numpy(np.array(value))
        return nn.Parameter(made) if name in self.graph.weights and made.is_floating_point() else made


def _read_as_sizes(graph: Graph) -> set[str]:
    """Constants that take part in computing sizes, for which they have to stay on the host."""
    made: set[str] = set()
    found: set[str] = set()
    for node in graph.nodes:
        if node.op_type in ("Resize", "Upsample"):
            found |= set(node.input[1:])
        elif node.op_type in ("Shape", "Size"):
            made |= set(node.output)
        elif made & set(node.input) and all(name in made or name in graph.constants for name in node.input if name):
            made |= set(node.output)
            found |= set(node.input)
    return found & graph.constants.keys()


def _free_name(network: nn.Module, name: str) -> str:
    while edit.has_attribute(network, name):
        name += "_"
    return name


def _belongs_to_module(value: Array) -> bool:
    """Whether a constant moves and changes precision with the module; single numbers and indices do not."""
    return np.issubdtype(value.dtype, np.floating) and value.size > 1


def _trimmed(inputs: tuple[str, ...]) -> tuple[Any, ...]:
    """Without inputs left out at the end, for which functions have defaults."""
    count = len(inputs)
    while count and not inputs[count - 1]:
        count -= 1
    return inputs[:count]
