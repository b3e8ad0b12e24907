"""Names nodes of an ONNX file after the layers that they came from.

The exporter names a node after the last part of its layer's name and counts where that is not unique: ``/conv1_3/Conv``. Once a block
is gone, the same layer has another number, and the times of a network and of its pruned self cannot be laid side by side. With the
layer's whole name, ``/layer2.0.conv1/Conv``, they can.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import onnx
from torch import fx, nn

OPERATORS: dict[type[nn.Module], tuple[str, ...]] = {
    nn.Conv1d: ("Conv",),
    nn.Conv2d: ("Conv",),
    nn.Conv3d: ("Conv",),
    nn.ConvTranspose2d: ("ConvTranspose",),
    nn.Linear: ("Gemm",),
    nn.ReLU: ("Relu",),
    nn.MaxPool2d: ("MaxPool",),
    nn.AvgPool2d: ("AveragePool",),
    nn.AdaptiveAvgPool2d: ("GlobalAveragePool",),
}
"""The operator that a layer becomes."""

Calls = Mapping[str, Sequence[str]]
"""Names of the layers that become an operator, by operator, in the order in which they run."""


@contextmanager
def layer_calls(network: nn.Module, prefix: str) -> Iterator[dict[str, list[str]]]:
    """Note which layers run inside; sums of a traced graph are there from the beginning.

    Args:
        network: holds the layers.
        prefix: of their names, with the dot, that is left out.
    """
    found: dict[str, list[str]] = defaultdict(list)
    for module in network.modules():
        if isinstance(module, fx.GraphModule):
            found["Add"] += [node.name for node in module.graph.nodes if _adds_tensors(node)]
    handles = []
    for name, module in network.named_modules():
        for operator in OPERATORS.get(type(module), ()):
            shown = name.removeprefix(prefix)
            handles.append(
                module.register_forward_pre_hook(
                    lambda *_, shown=shown, operator=operator: found[operator].append(shown)
                )
            )
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _adds_tensors(node: fx.Node) -> bool:
    return node.op == "call_function" and "aten.add.Tensor" in str(node.target)


def name_after_layers(graph: onnx.GraphProto, calls: Calls) -> None:
    """Rename nodes in place; those of an operator that layers do not explain to the last one keep their names."""
    by_kind: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in graph.node:
        by_kind[node.op_type].append(node)
    taken = Counter(node.name for node in graph.node)
    for kind, names in calls.items():
        if len(names) != len(by_kind[kind]):
            continue
        for node, name in zip(by_kind[kind], names, strict=True):
            taken[node.name] -= 1
            node.name = _free(f"/{name}/{kind}", taken)
            taken[node.name] += 1


def _free(name: str, taken: Counter[str]) -> str:
    """The name itself, or with a number where a layer runs more than once."""
    number, free = 1, name
    while taken[free]:
        number, free = number + 1, f"{name}_{number}"
    return free
