"""One ONNX operator as the functions that import it see it, what they return, and the list that they are in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import onnx
from onnx import helper
from torch import Tensor, nn

from fupruner.onnx_import.values import Array


class UnsupportedError(Exception):
    """An operator has settings that have no counterpart; the message says which, and reads on after its name."""


@dataclass(frozen=True)
class Built:
    """What an operator becomes.

    Attributes:
        run: a layer, or a function, called with the values of ``inputs``; an input that is left out is None.
        inputs: names of values, constants included.
        before: applied to the first input, for example padding that a layer cannot do by itself.
    """

    run: nn.Module | Callable[..., Any]
    inputs: tuple[str, ...]
    before: Callable[[Tensor], Tensor] | None = None


@dataclass(frozen=True)
class Node:
    """An operator of the file.

    Attributes:
        proto: as it is in the file.
        opset: version of the operator set; operators changed over time.
        constants: values that do not depend on the network's inputs.
        shapes: of values, as far as known; open sizes are None.
    """

    proto: onnx.NodeProto
    opset: int
    constants: Mapping[str, Array]
    shapes: Mapping[str, tuple[int | None, ...]] = field(default_factory=dict)

    @property
    def op(self) -> str:
        """Name of the operator."""
        return self.proto.op_type

    @property
    def name(self) -> str:
        """Name of the node, or what it makes where it has none."""
        return self.proto.name or f"the one that makes {self.proto.output[0]!r}"

    def attribute(self, name: str, default: Any = None) -> Any:
        """Value of an attribute, texts as ``str``."""
        for attribute in self.proto.attribute:
            if attribute.name == name:
                value = helper.get_attribute_value(attribute)
                return value.decode() if isinstance(value, bytes) else value
        return default

    def input(self, position: int) -> str:
        """Name of an input; empty when it is left out."""
        return self.proto.input[position] if position < len(self.proto.input) else ""

    def constant(self, position: int) -> Array | None:
        """Value of an input that does not depend on the network's inputs, else None."""
        return self.constants.get(self.input(position))

    def required(self, position: int, what: str) -> Array:
        """Value of an input that must be constant.

        Raises:
            UnsupportedError: it is computed from the network's input.
        """
        value = self.constant(position)
        if value is None:
            raise UnsupportedError(f"with a computed {what}")
        return value

    def shape(self, position: int) -> tuple[int | None, ...] | None:
        """Shape of an input, None when not even the number of axes is known."""
        return self.shapes.get(self.input(position))

    def rank(self, position: int = 0) -> int | None:
        """Number of axes of an input, where known."""
        shape = self.shape(position)
        return None if shape is None else len(shape)

    def axes(self, position: int, default: tuple[int, ...] = (), name: str = "axes") -> tuple[int, ...]:
        """Integers that are an attribute in older operator sets and a constant input in newer ones."""
        given = self.attribute(name)
        if given is None and self.input(position):
            given = self.required(position, name).reshape(-1).tolist()
        return default if given is None else tuple(int(axis) for axis in given)

    def call(self, run: nn.Module | Callable[..., Any], count: int | None = None) -> Built:
        """Call a layer or a function with the first inputs, with all of them when ``count`` is left out."""
        names = tuple(self.proto.input)
        return Built(run, names if count is None else tuple(self.input(i) for i in range(count)))


Importer = Callable[[Node], Built]
OPERATORS: dict[str, Importer] = {}
"""Every operator that can be imported, by name."""


def operator(*names: str) -> Callable[[Importer], Importer]:
    """Enter a function into ``OPERATORS`` under one or more names."""

    def enter(function: Importer) -> Importer:
        for name in names:
            OPERATORS[name] = function
        return function

    return enter
