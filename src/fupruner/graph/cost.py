"""What a graph costs: operators by type, multiply-adds, parameters, and the layers as a device sees them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from torch import fx, nn

from fupruner.graph import edit
from fupruner.graph.layer_shape import LayerShape
from fupruner.graph.shapes import shape_of
from fupruner.graph.text import kind_of
from fupruner.records import GraphFigures

CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)

_MERGED_ACTIVATIONS = {nn.ReLU: "relu", nn.ReLU6: "relu6", nn.LeakyReLU: "leaky_relu", nn.Hardtanh: "clip", nn.Sigmoid: "sigmoid",
                       nn.Tanh: "tanh", nn.Hardsigmoid: "hardsigmoid"}  # fmt: skip
_FREE = {"Identity", "Dropout", "Dropout2d", "Dropout3d", "Flatten", "reshape", "view", "flatten", "sym_size", "getitem", "unsqueeze",
         "squeeze", "size"}  # fmt: skip


@dataclass(frozen=True)
class PricedLayer:
    """A layer shape, the node that it stands for, and the nodes that a runtime merges into it."""

    node: fx.Node
    shape: LayerShape
    merged: tuple[fx.Node, ...] = ()


def figures(graph_module: fx.GraphModule) -> GraphFigures:
    """Operators by type, multiply-adds at batch 1 and parameters of a graph whose shapes were propagated."""
    kinds = Counter(
        kind_of(graph_module, node) for node in graph_module.graph.nodes if node.op in ("call_module", "call_function")
    )
    macs = sum(layer.shape.macs for layer in layer_shapes(graph_module))
    params = sum(p.numel() for p in graph_module.parameters())
    return GraphFigures(operators=dict(sorted(kinds.items())), macs=macs, params=params)


def layer_shapes(graph_module: fx.GraphModule) -> list[PricedLayer]:
    """Layers in order, the way runtimes merge them: a convolution takes the norm, the add and the activation that follow it.

    Args:
        graph_module: shapes must have been propagated.
    """
    taken: set[fx.Node] = set()
    layers = []
    position = {node: i for i, node in enumerate(graph_module.graph.nodes)}
    for node in graph_module.graph.nodes:
        if node in taken or node.op not in ("call_module", "call_function") or not shape_of(node):
            continue
        module = edit.module_of(graph_module, node)
        if kind_of(graph_module, node) in _FREE:
            continue
        if isinstance(module, (*CONVS, *TRANSPOSED, nn.Linear)):
            layer = _merge(graph_module, node, module, position)
        else:
            layer = PricedLayer(node, _plain_shape(graph_module, node, module))
        taken.update(layer.merged)
        layers.append(layer)
    return layers


def _merge(graph_module: fx.GraphModule, node: fx.Node, module: nn.Module, position: dict[fx.Node, int]) -> PricedLayer:
    merged: list[fx.Node] = []
    last, activation, add = node, "", False
    while len(last.users) == 1:
        user = next(iter(last.users))
        kind = edit.module_of(graph_module, user)
        if isinstance(kind, (*NORMS, nn.Identity, nn.Dropout)) and not activation and not add:
            pass
        elif (
            is_add(user)
            and not activation
            and not add
            and not isinstance(module, nn.Linear)
            and _computed_last(user, last, position)
        ):
            add = True
        elif type(kind) in _MERGED_ACTIVATIONS and not activation:
            activation = _MERGED_ACTIVATIONS[type(kind)]
        else:
            break
        merged.append(user)
        last = user
    return PricedLayer(node, _window_shape(module, node, activation, add), tuple(merged))


def _computed_last(add: fx.Node, operand: fx.Node, position: dict[fx.Node, int]) -> bool:
    """Only the operand that is computed last can take the add in: the other one must exist by then."""
    return all(position[other] <= position[operand] for other in add.all_input_nodes)


def is_add(node: fx.Node) -> bool:
    """Whether a node adds two tensors of the same shape."""
    if node.op != "call_function" or "aten.add.Tensor" not in str(node.target) or node.kwargs.get("alpha", 1) != 1:
        return False
    operands = [o for o in node.args if isinstance(o, fx.Node)]
    return len(node.args) == len(operands) == 2 and shape_of(operands[0]) == shape_of(operands[1])


def shape_at_batch_1(node: fx.Node) -> tuple[int, ...]:
    """Shape of a node's tensor without the batch: also where the batch is not the first axis or is merged into it (tokens first)."""
    shape = shape_of(node)
    batch = next((shape_of(n)[0] for n in node.graph.nodes if n.op == "placeholder" and shape_of(n)), 1)
    if shape[:1] in ((), (batch,)):
        return shape[1:]
    if batch in shape:
        at = shape.index(batch)
        return (*shape[:at], *shape[at + 1 :])
    return (shape[0] // batch, *shape[1:]) if shape[0] % batch == 0 else shape[1:]


def _window_shape(module: Any, node: fx.Node, activation: str, add: bool) -> LayerShape:
    source, out = shape_at_batch_1(node.all_input_nodes[0]), shape_at_batch_1(node)
    common: dict[str, Any] = {
        "in_shape": source,
        "out_shape": out,
        "bias": True,
        "activation": activation,
        "fused_add": add,
    }
    if isinstance(module, nn.Linear):
        return LayerShape(kind="linear", **common)
    padding = _padding(module)
    kind = "conv_transpose" if isinstance(module, TRANSPOSED) else "conv"
    return LayerShape(kind=kind, kernel=module.kernel_size, stride=module.stride, padding=padding, dilation=module.dilation,
                      groups=module.groups, **common)  # fmt: skip


def _padding(module: Any) -> tuple[int, ...]:
    if module.padding == "same":
        return tuple(d * (k - 1) // 2 for d, k in zip(module.dilation, module.kernel_size, strict=True))
    return (0,) * len(module.kernel_size) if module.padding == "valid" else tuple(module.padding)


def _plain_shape(graph_module: fx.GraphModule, node: fx.Node, module: nn.Module | None) -> LayerShape:
    sources = [n for n in node.all_input_nodes if shape_of(n)]
    in_shape = shape_at_batch_1(sources[0]) if sources else ()
    kind = snake(kind_of(graph_module, node))
    window: dict[str, Any] = {}
    if module is not None and hasattr(module, "kernel_size"):
        dims = len(shape_of(node)) - 2
        window = {"kernel": _tuple(module.kernel_size, dims), "stride": _tuple(module.stride, dims),
                  "padding": _tuple(getattr(module, "padding", 0), dims)}  # fmt: skip
    return LayerShape(
        kind=kind,
        in_shape=in_shape,
        out_shape=shape_at_batch_1(node),
        bias=False,
        inputs=max(1, len(sources)),
        **window,
    )


def _tuple(value: Any, dims: int) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, tuple | list) else (int(value),) * dims


def snake(name: str) -> str:
    """``MaxPool2d`` -> ``max_pool2d``; names that are in lower case already stay."""
    return "".join(
        ("_" if c.isupper() and i and not name[i - 1].isupper() else "") + c.lower() for i, c in enumerate(name)
    )
