"""Whether two graphs over the same modules do the same computation, told from their structure alone."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from torch import fx, nn

from fupruner.graph import edit

_IDLE = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)


def same_computation(left: fx.GraphModule, right: fx.GraphModule) -> bool:
    """Whether outputs are bound to be identical in eval mode, because the same modules are called on the same values.

    False means no more than that it cannot be told this way.
    """
    known: dict[Hashable, int] = {}
    return _output_of(left, known) == _output_of(right, known)


def _output_of(graph_module: fx.GraphModule, known: dict[Hashable, int]) -> str:
    values: dict[fx.Node, int] = {}
    inputs = 0

    def text(arguments: Any) -> str:
        named: Any = lambda node: _Value(values[node])  # noqa: E731 - typed as any, for it stands for a node
        return repr(fx.node.map_arg(arguments, named))

    for node in graph_module.graph.nodes:
        key: Hashable
        if node.op == "output":
            return text(node.args)
        if node.op == "placeholder":
            key, inputs = ("input", inputs), inputs + 1
        elif node.op == "get_attr":
            key = ("tensor", id(edit.get_attribute(graph_module, str(node.target))))
        elif node.op == "call_module":
            module = graph_module.get_submodule(str(node.target))
            if isinstance(module, _IDLE) and len(node.all_input_nodes) == 1:
                values[node] = values[node.all_input_nodes[0]]
                continue
            key = ("module", _identity(module), text((node.args, node.kwargs)))
        else:
            key = (node.op, node.target, text((node.args, node.kwargs)))
        values[node] = known.setdefault(key, len(known))
    return ""


def _identity(module: nn.Module) -> Hashable:
    """What a layer is: its kind and the very objects that it holds, other than what hangs below it."""
    held = ((name, value) for name, value in vars(module).items() if name != "_modules")
    parts = (
        (_identity(child) for child in module._modules.values() if child is not None) if edit.has_parts(module) else ()
    )
    return (
        type(module),
        tuple((n, tuple(map(id, v.values())) if isinstance(v, dict) else id(v)) for n, v in held),
        tuple(parts),
    )


class _Value:
    """Stands for a value among arguments when they are written out."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __repr__(self) -> str:
        return f"#{self.number}"
