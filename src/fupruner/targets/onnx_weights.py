"""Large weights on their way into an ONNX file, past the exporter.

PyTorch's exporter serialises every weight several times, to infer shapes and to write. For a network of gigabytes that takes most of
the time of an export and four times its memory. So weights that it would only pass on are inputs while it works, and become
initialisers afterwards.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
from torch import Tensor, fx, nn

from fupruner.graph import edit
from fupruner.graph.cost import CONVS, NORMS

LARGE = 1 << 18
"""Elements from which on a weight goes past the exporter: 1 MiB in float32."""
_PASSED_ON = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear)


def take_out(module: nn.Module) -> dict[str, Tensor]:
    """Take the weights that the exporter would only pass on from a graph's layers; by name.

    Norms after large convolutions are folded, as the exporter would do it. What several layers share it has to see. Of modules other
    than graphs it is not known what follows what, so they keep all.

    Args:
        module: a copy for the exporter; it does not run any more unless :func:`held` gives the weights back.
    """
    taken: dict[str, Tensor] = {}
    if not isinstance(module, fx.GraphModule):
        return taken
    owners = Counter(id(t) for part in module.modules() for t in part._parameters.values() if t is not None)
    sites = edit.calls(module)
    for name, nodes in sites.items():
        layer: Any = edit.layer_at(module, name)
        if type(layer) not in _PASSED_ON or layer.weight.numel() < LARGE or owners[id(layer.weight)] > 1:
            continue
        norms = [user for node in nodes for user in node.users if isinstance(edit.module_of(module, user), NORMS)]
        if norms and not _folded(module, layer, nodes, norms):
            continue
        taken[f"{name}.weight"] = layer.weight.detach()
    edit.clean(module)
    for name in taken:
        del module.get_submodule(name.rpartition(".")[0])._parameters["weight"]
    return taken


def _folded(module: fx.GraphModule, layer: Any, nodes: list[fx.Node], norms: list[fx.Node]) -> bool:
    """Fold the norm that alone reads a convolution into it; says whether that could be done."""
    norm: Any = edit.module_of(module, norms[0])
    if not isinstance(layer, CONVS) or len(nodes) > 1 or len(nodes[0].users) > 1 or norm.running_var is None:
        return False
    layer.weight, layer.bias = nn.utils.fuse_conv_bn_weights(
        layer.weight, layer.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )
    edit.bypass(norms[0], nodes[0])
    return True


@contextmanager
def held(module: nn.Module, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Let layers have the weights that were taken out, or values that stand for them, as long as this lasts."""
    layers = {name: module.get_submodule(name.rpartition(".")[0]) for name in weights}
    for name, weight in weights.items():
        layers[name].__dict__["weight"] = weight  # not a parameter: the exporter would make it one of its own
    try:
        yield
    finally:
        for layer in layers.values():
            del layer.__dict__["weight"]


def save_with(model: onnx.ModelProto, weights: Mapping[str, Tensor], path: Path) -> None:
    """Write a model in which some inputs have become weights, without a copy of those in memory.

    Args:
        model: small; changed in place: the inputs are no longer there, nor are nodes that did nothing but transpose one.
        weights: values (float32) of inputs, by name.
        path: the file.
    """
    tensors = list(_become_weights(model.graph, weights))
    graph = model.graph.SerializeToString()
    model.ClearField("graph")
    size = len(graph) + sum(len(head) + tensor.numel() * tensor.element_size() for head, tensor in tensors)
    with path.open("wb") as file:
        file.write(model.SerializeToString() + _tag(onnx.ModelProto, "graph", size) + graph)
        for head, tensor in tensors:
            file.write(head)
            file.write(tensor.contiguous().numpy().data)


def _become_weights(graph: onnx.GraphProto, weights: Mapping[str, Tensor]) -> Iterator[tuple[bytes, Tensor]]:
    """Initialisers in place of inputs; those that are only read transposed, transposed. With what goes before each one's numbers."""
    inputs = [entry for entry in graph.input if entry.name not in weights]
    del graph.input[:]
    graph.input.extend(inputs)
    readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            readers[name].append(node)
    for name, weight in weights.items():
        transposing = [node for node in readers[name] if node.op_type == "Transpose"]
        for node in transposing:
            order = list(node.attribute[0].ints) if node.attribute else list(reversed(range(weight.dim())))
            yield _initialiser(node.output[0], weight.permute(order))
            graph.node.remove(node)
        if len(readers[name]) > len(transposing):
            yield _initialiser(name, weight)


def _initialiser(name: str, weight: Tensor) -> tuple[bytes, Tensor]:
    """An entry of a graph's ``initializer`` up to its numbers, and these."""
    size = weight.numel() * weight.element_size()
    described = onnx.TensorProto(name=name, dims=weight.shape, data_type=onnx.TensorProto.FLOAT).SerializeToString()
    described += _tag(onnx.TensorProto, "raw_data", size)
    return _tag(onnx.GraphProto, "initializer", len(described) + size) + described, weight


def _tag(message: type[Any], field: str, size: int) -> bytes:
    """What precedes the bytes of a field in protobuf's encoding: its number and kind (2: with a length), and how many there are."""
    return _varint(message.DESCRIPTOR.fields_by_name[field].number << 3 | 2) + _varint(size)


def _varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first; the top bit says that more follow (protobuf.dev/programming-guides/encoding)."""
    groups = [number & 0x7F]
    while number := number >> 7:
        groups.append(number & 0x7F)
    return bytes([*(group | 0x80 for group in groups[:-1]), groups[-1]])
