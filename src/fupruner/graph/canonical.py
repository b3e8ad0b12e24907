"""What symbolic tracing recorded, rebuilt from layers and ATen operators: the canonical graph.

Every call is looked up in the table of ``aten_calls``, while tensors without values, for two batch sizes, tell what depends on the
batch.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from fupruner.graph import aten_calls, edit, lowering
from fupruner.graph.build import GraphBuilder, fold
from fupruner.graph.layers import Parameter
from fupruner.graph.proxies import UnsupportedError, function_of
from fupruner.progress import counted


def canonical(traced: fx.Graph, root: nn.Module, inputs: tuple[Tensor, ...]) -> fx.GraphModule:
    """The canonical graph of a traced one.

    Args:
        traced: nodes carry what they give for either batch size, as ``proxies.Tracer`` leaves them.
        root: holds the layers and tensors that it names.
        inputs: batch first.

    Raises:
        UnsupportedError: a call is not in the table, or writes to memory that is read elsewhere.
    """
    return _Rebuilding(traced, root, inputs).walk()


@dataclass
class _Value:
    """What a node of the traced graph stands for.

    Attributes:
        canon: a node of the new graph, a ``Parameter``, or a plain value.
        runs: the value for either batch size: a tensor without values, or something plain.
        base: the node that a view shows.
    """

    canon: Any
    runs: tuple[Any, Any]
    base: Any = None


class _Rebuilding:
    """Walks a traced graph once."""

    def __init__(self, traced: fx.Graph, root: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.traced, self.root, self.inputs = traced, root, inputs
        self.builder = GraphBuilder()
        self.values: dict[fx.Node, _Value] = {}

    def walk(self) -> fx.GraphModule:
        """The new graph."""
        rest = list(self.inputs)
        for node in counted(self.traced.nodes, "trace, operators", len(self.traced.nodes)):
            if node.op == "placeholder":
                self.values[node] = self._placeholder(node, rest)
            elif node.op == "get_attr":
                value = edit.get_attribute(self.root, str(node.target))
                named = isinstance(value, nn.Parameter) or not str(node.target).startswith("_tensor_constant")
                self.values[node] = self._constant(Parameter(value, str(node.target) if named else ""))
            elif node.op == "output":
                self.builder.graph.output(self.builder_arguments(node.args[0]))
            else:
                self._call(node)
        if rest:
            raise UnsupportedError
        return self.builder.finish()

    def builder_arguments(self, argument: Any) -> Any:
        """Arguments as they stand in the new graph."""
        canon = fx.node.map_arg(argument, lambda n: self.values[n].canon)
        return pytree.tree_map(self.builder.materialise, canon)

    def _placeholder(self, node: fx.Node, rest: list[Tensor]) -> _Value:
        if not rest:
            if not node.args:
                raise UnsupportedError
            return _Value(node.args[0], (node.args[0], node.args[0]))
        rest.pop(0)
        return _Value(self.builder.graph.placeholder(str(node.target).lstrip("*")), node.meta["runs"])

    def _constant(self, parameter: Parameter) -> _Value:
        value = pytree.tree_map(self._to_meta, parameter.value)
        return _Value(parameter, (value, value))

    def _to_meta(self, value: Any) -> Any:
        return value.to("meta") if isinstance(value, Tensor) else value

    def _call(self, node: fx.Node) -> None:
        if node.op == "call_module":
            self._call_layer(node)
            return
        canon_args, canon_kwargs = fx.node.map_arg((node.args, node.kwargs), lambda n: self.values[n].canon)
        function = function_of(node)
        if function is torch._assert:
            return
        if not _has_node((canon_args, canon_kwargs)):
            self.values[node] = self._folded(function, canon_args, canon_kwargs)
            return
        self.values[node] = self._lowered(node, function, canon_args, canon_kwargs, node.meta["runs"])

    def _folded(self, function: Callable[..., Any], args: Any, kwargs: Any) -> _Value:
        result = fold(function, args, kwargs)
        if isinstance(result.value, Tensor):
            return self._constant(result)
        if isinstance(result.value, tuple | list) and any(isinstance(v, Tensor) for v in result.value):
            parts = [Parameter(v) if isinstance(v, Tensor) else v for v in result.value]
            value = pytree.tree_map(self._to_meta, result.value)
            return _Value(
                type(result.value)(parts) if type(result.value) in (tuple, list) else tuple(parts), (value, value)
            )
        return _Value(result.value, (result.value, result.value))

    def _lowered(self, node: fx.Node, function: Any, args: Any, kwargs: Any, runs: tuple[Any, ...]) -> _Value:
        if not any(isinstance(leaf, Tensor) for leaf in pytree.tree_leaves(runs[0])):
            return _Value(self._plain(function, args, kwargs, runs), runs)
        source = next((self.values[n] for n in node.all_input_nodes if isinstance(self.values[n].canon, fx.Node)), None)
        found = self._looked_up(node, function, args, kwargs, runs)
        if found is aten_calls.UNCHANGED and source is not None:
            return source
        if not isinstance(found, list):
            raise UnsupportedError
        stack = node.meta.get("nn_module_stack")
        path = lowering.path_of(stack)
        value: Any = None
        for target, call_args, call_kwargs in found:
            filled = [value if a is aten_calls.PREVIOUS else a for a in call_args]
            shape = _merged_shape(self._first_runs(node)) if value is None else ()
            value = self.builder.call(target, tuple(filled), call_kwargs, shape=shape, path=path, stack=stack)
        base = None
        if source is not None and lowering.is_view(function):
            base = source.canon if source.base is None else source.base
        result = _Value(value, runs, base)
        if lowering.is_in_place(function, kwargs):
            self._overwrite(node, result)
        return result

    def _looked_up(self, node: fx.Node, function: Any, args: Any, kwargs: Any, runs: tuple[Any, ...]) -> Any:
        """The calls that stand for one: a list, or ``UNCHANGED``; None where it is not in the table."""
        first = self._first_runs(node)[0]
        if function is operator.getitem and isinstance(first, list | tuple):
            return [(function, args, {})]
        args = tuple(self._spread(old, new) for old, new in zip(node.args, args, strict=True))
        if function is operator.getitem and isinstance(first, Tensor):
            args = (args[0], aten_calls.without_ellipsis(args[1], first.dim()))
        found = lowering.lower(function, args, kwargs, runs)
        if found is not None:
            return found
        if lowering.is_cast(function) and isinstance(first, Tensor) and first.dtype == runs[0].dtype:
            return aten_calls.UNCHANGED
        return lowering.builtin(function, args, kwargs, *self._arguments(node))

    def _first_runs(self, node: fx.Node) -> tuple[Any, Any]:
        first = node.args[0] if node.args else None
        return self.values[first].runs if isinstance(first, fx.Node) else ((), ())

    def _spread(self, old: Any, new: Any) -> Any:
        """A node that stands for several tensors as a list of nodes for each."""
        parts = old.meta["runs"][0] if isinstance(old, fx.Node) else None
        if not isinstance(parts, tuple | list) or not isinstance(new, fx.Node):
            return new
        return [self.builder.graph.call_function(operator.getitem, (new, i)) for i in range(len(parts))]

    @staticmethod
    def _arguments(node: fx.Node) -> Any:
        return fx.node.map_arg((node.args, node.kwargs), lambda n: n.meta["runs"][0])

    def _plain(self, function: Any, args: Any, kwargs: Any, runs: tuple[Any, ...]) -> Any:
        """A number, shape or type: itself if it is the same for every batch, else nodes that compute it."""
        if _same(runs[0], runs[1]):
            return runs[0]
        tensor = args[0]
        if isinstance(runs[0], torch.Size | tuple) and isinstance(tensor, fx.Node):
            return tuple(self._size(tensor, axis, a, b) for axis, (a, b) in enumerate(zip(*runs, strict=True)))
        if function is operator.getitem and isinstance(args[0], tuple):
            return args[0][args[1]]
        if lowering.size_axis(function, args) is not None:
            return self._size(tensor, lowering.size_axis(function, args), *runs)
        if function in (operator.add, operator.sub, operator.mul, operator.floordiv, operator.neg):
            return self.builder.graph.call_function(function, tuple(args))
        raise UnsupportedError

    def _size(self, tensor: fx.Node, axis: Any, a: int, b: int) -> Any:
        return a if a == b else self.builder.graph.call_function(torch.ops.aten.sym_size.int, (tensor, axis))

    def _call_layer(self, node: fx.Node) -> None:
        module = self.root.get_submodule(str(node.target))
        source = self.values[node.args[0]] if node.args and isinstance(node.args[0], fx.Node) else None
        if source is None or len(node.args) != 1 or node.kwargs:
            raise UnsupportedError
        if isinstance(source.canon, Parameter):
            self.values[node] = self._folded(module, (source.canon,), {})
            return
        if not isinstance(source.canon, fx.Node):
            raise UnsupportedError
        if isinstance(module, nn.Identity):
            self.values[node] = source
            return
        runs = node.meta["runs"]
        in_place = bool(getattr(module, "inplace", False)) and not isinstance(
            module, nn.Dropout | nn.Dropout2d
        )  # idle in eval mode
        layer = lowering.plain_layer(module)
        result = _Value(
            self.builder.module(str(node.target), layer, source.canon),
            runs,
            source.canon if isinstance(module, nn.Flatten) else None,
        )
        if in_place:
            self._overwrite(node, result)
        self.values[node] = result

    def _overwrite(self, node: fx.Node, result: _Value) -> None:
        """Let later readers of an overwritten tensor see the new value."""
        written = self.values[node.args[0]] if isinstance(node.args[0], fx.Node) else None
        if written is None or not isinstance(written.canon, fx.Node):
            raise UnsupportedError
        root = written.canon if written.base is None else written.base
        if root.op == "placeholder" and written.base is not None:
            raise UnsupportedError  # a part of the input is overwritten
        for other, value in self.values.items():
            shows = value.canon is root or value.base is root
            if shows and value.canon is not written.canon and any(node < user for user in other.users):
                raise UnsupportedError  # another view shows the same memory, and is read later
        for other, value in list(self.values.items()):
            if value.canon is written.canon:
                self.values[other] = result


def _has_node(arguments: Any) -> bool:
    return any(isinstance(leaf, fx.Node) for leaf in pytree.tree_leaves(arguments))


def _same(a: Any, b: Any) -> bool:
    try:
        return bool(a == b)
    except (RuntimeError, TypeError):
        return False


def _merged_shape(runs: tuple[Any, Any]) -> tuple[int, ...]:
    a, b = runs
    if not isinstance(a, Tensor) or a.dim() != b.dim():
        return ()
    return tuple(x if x == y else -1 for x, y in zip(a.shape, b.shape, strict=True))
