"""An ONNX model that holds many layers side by side, while it grows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from fupruner.targets.runtime import Array

OPSET = 17


class Sheet:
    """A model that grows: nodes, weights and inputs; values are called by name.

    Layer i lies between the values ``p<i>`` (made by a node that leaves it in the caches and in the runtime's preferred
    layout, as a preceding layer would) and ``t<i>`` (its mean, so that the layer's own output stays inside the model).
    """

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.inputs: dict[str, tuple[int, ...]] = {}
        self.weight_bytes = 0
        self._random = np.random.default_rng(0)

    def node(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """Add a node that makes one value."""
        self.nodes.append(helper.make_node(kind, list(inputs), [output], name=output, **attributes))
        return output

    def weight(self, name: str, shape: tuple[int, ...]) -> str:
        """Add random weights; what they are does not change how long a layer takes."""
        array = self._random.standard_normal(math.prod(shape), dtype=np.float32).reshape(shape)
        return self.constant(name, array / np.float32(math.sqrt(max(1, math.prod(shape[1:])))))

    def constant(self, name: str, array: Array) -> str:
        """Add a constant."""
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        self.weight_bytes += array.nbytes
        return name

    def input(self, shape: tuple[int, ...], owner: str = "") -> str:
        """An input of this shape, batch 1: an own one, or the same one for all who name no owner."""
        name = f"x{owner}_" + "x".join(map(str, shape))
        self.inputs[name] = (1, *shape)
        return name

    def model(self, layers: int) -> bytes:
        """The model, with one small output made of all layers' means."""
        outputs = [self.node("Flatten", [f"t{i}"], f"f{i}") for i in range(layers)]
        self.node("Concat", outputs, "end", axis=1)
        graph = helper.make_graph(
            self.nodes,
            "probe",
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in self.inputs.items()],
            [helper.make_tensor_value_info("end", TensorProto.FLOAT, None)],
            self.weights,
        )
        version = helper.make_opsetid("", OPSET)
        ir_version = helper.find_min_ir_version_for([version])
        model = helper.make_model(graph, opset_imports=[version], ir_version=ir_version)
        return bytes(model.SerializeToString())

    def arrays(self) -> list[Array]:
        """Random values for the inputs, in order."""
        return [self._random.standard_normal(shape, dtype=np.float32) for shape in self.inputs.values()]
