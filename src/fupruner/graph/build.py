"""Builds a canonical graph node by node: what both front ends share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from fupruner.graph import edit
from fupruner.graph.layers import LAYERS, Layer, Parameter

aten = torch.ops.aten


class GraphBuilder:
    """A graph in the making: layers hang at their own names, constants are computed, everything else is an operator."""

    def __init__(self) -> None:
        self.root = nn.Module()
        self.graph = fx.Graph()
        self.layers: dict[tuple[object, ...], str] = {}
        self.names = edit.Names()

    def finish(self) -> fx.GraphModule:
        """The graph module, without dead nodes."""
        graph_module = fx.GraphModule(self.root, self.graph)
        edit.clean(graph_module)
        return graph_module

    def call(
        self,
        target: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        shape: tuple[int, ...],
        path: str,
        stack: Any,
    ) -> Any:
        """Add an ATen call, as a layer where there is one for it.

        Args:
            target: ATen overload, or a plain function.
            args: nodes of this graph, ``Parameter`` values and plain values.
            kwargs: likewise.
            shape: of the first input; -1 for sizes that depend on the batch.
            path: dotted path of the module that made the call.
            stack: the modules inside which the call was made, which name a layer without parameters.
        """
        return self._layer(target, args, kwargs, shape, path, stack) or self.operator(target, args, kwargs, path=path)

    def _layer(
        self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any], shape: tuple[int, ...], path: str, stack: Any
    ) -> fx.Node | None:
        builder = LAYERS.get(target)
        if builder is None:
            return None
        bound = bind(target, args, kwargs)
        if not isinstance(bound.get("input", bound.get("self")), fx.Node):
            return None
        layer = builder(bound, shape)
        if layer is None:
            return None
        node = self.graph.call_module(self._layer_name(layer, stack), layer.inputs)
        node.meta["path"] = path
        return node

    def _layer_name(self, layer: Layer, stack: Any) -> str:
        """Reuse the module when the same parameters are used in the same way, so that sharing stays visible."""
        owner = layer.owner
        tensors = [*layer.module.parameters(recurse=False), *layer.module.buffers(recurse=False)]
        named = owner is not None and bool(owner.name)
        shared = (
            (owner.name, repr(layer.module), *(t.data_ptr() for t in tensors)) if named and owner is not None else None
        )
        if shared is not None and shared in self.layers:
            return self.layers[shared]
        base = owner.name.rpartition(".")[0] if owner is not None and owner.name else ""
        name = self.names.fresh(base or module_path(stack, type(layer.module).__name__.lower()))
        edit.set_module(self.root, name, layer.module)
        if shared is not None:
            self.layers[shared] = name
        return name

    def module(self, name: str, module: nn.Module, source: fx.Node) -> fx.Node:
        """Call a layer that is a module already, under its own name."""
        key = ("module", name)
        if key not in self.layers:
            self.layers[key] = self.names.fresh(name)
            edit.set_module(self.root, self.layers[key], module)
        node = self.graph.call_module(self.layers[key], (source,))
        node.meta["path"] = name
        return node

    def operator(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any], *, path: str) -> fx.Node:
        """Add a call of an operator; parameters among its arguments become attributes."""
        args, kwargs = pytree.tree_map(self.materialise, (args, kwargs))
        node = self.graph.call_function(_any_stride(target), args, kwargs)
        node.meta["path"] = path
        return node

    def materialise(self, value: Any) -> Any:
        """What stands in the graph for a value: an attribute for a tensor, the value itself for anything plain."""
        if not isinstance(value, Parameter):
            return value
        if not isinstance(value.value, Tensor):
            return pytree.tree_map(
                lambda v: self.materialise(Parameter(v)) if isinstance(v, Tensor) else v, value.value
            )
        name = value.name or self.names.fresh("constant")
        if not edit.has_attribute(self.root, name):
            edit.set_tensor(self.root, name, value.value)
        return self.graph.get_attr(name)


def fold(target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Parameter:
    """Compute a call that depends on parameters and plain values alone."""
    args, kwargs = pytree.tree_map(lambda v: v.value if isinstance(v, Parameter) else v, (args, kwargs))
    with torch.no_grad():
        return Parameter(_any_stride(target)(*args, **kwargs))


def _any_stride(target: Any) -> Any:
    """The same function without demands on strides, which rewriting may change."""
    return aten.reshape.default if target in (aten.view.default, aten._unsafe_view.default) else target


def bind(target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Name every argument of an ATen call, defaults included."""
    bound: dict[str, Any] = {}
    for i, argument in enumerate(target._schema.arguments):
        if i < len(args):
            bound[argument.name] = args[i]
        elif argument.name in kwargs:
            bound[argument.name] = kwargs[argument.name]
        else:
            bound[argument.name] = argument.default_value
    return bound


def module_path(stack: Any, leaf: str) -> str:
    """Dotted path of the module that made a call; calls made by a module that holds others get ``leaf`` appended."""
    entries = list((stack or {}).values())
    path, kind = entries[-1] if entries else ("", "")
    path = str(path).split("@")[0]
    if not path.replace(".", "").replace("_", "").isalnum():
        path = ""
    name = kind if isinstance(kind, str) else getattr(kind, "__qualname__", "")
    if not leaf or (path and name.rpartition(".")[2].lower().replace("_", "").startswith(leaf.rstrip("0123456789d"))):
        return path
    return f"{path}.{leaf}" if path else leaf
