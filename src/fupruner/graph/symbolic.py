"""The fast front end: symbolic tracing of the models that allow it, into the same canonical graph as ``torch.export``.

Exporting takes 5 to 20 ms an operator, tracing a hundredth. The model runs once with proxies; every call is then looked up in the
table of ``aten_calls``, while tensors without values, for two batch sizes, tell what depends on the batch. Whatever is not in the
table, writes to a tensor that another view shows, or branches on values, makes the whole model go through ``torch.export``
instead; and the graph is kept only if it computes what the model computes.
"""

from __future__ import annotations

import copy
import operator
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from fupruner.errors import TraceError
from fupruner.graph import aten_calls, check, edit, lowering
from fupruner.graph.borrowed import ReadOnly, WriteError, borrowed
from fupruner.graph.build import GraphBuilder, fold
from fupruner.graph.layers import Parameter
from fupruner.graph.proxies import Tracer, UnsupportedError, function_of
from fupruner.graph.recall import Recall
from fupruner.progress import counted

_TOLERANCE = 1e-4
_SMALL = 64


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


def capture_symbolically(model: nn.Module, inputs: tuple[Tensor, ...]) -> fx.GraphModule | None:
    """Trace a model with proxies; None when it does not allow that. The model is not modified.

    The graph may show the memory of the model's own tensors.
    """
    if any(x.dim() < 2 or not x.is_floating_point() for x in inputs):
        return None
    try:
        copied = borrowed(model)
        with ReadOnly(model):
            return _captured(copied, inputs)
    except WriteError:
        return _captured_from_copy(model, inputs)
    except Exception:  # it cannot be copied: the long way says so
        return None


def _captured_from_copy(model: nn.Module, inputs: tuple[Tensor, ...]) -> fx.GraphModule | None:
    """The graph of a model that writes to its own tensors, which only matters if they change."""
    copied = copy.deepcopy(model).eval()
    for parameter in copied.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    graph_module = _captured(copied, inputs)
    _refuse_side_effects(model, copied)
    return graph_module


def _captured(copied: nn.Module, inputs: tuple[Tensor, ...]) -> fx.GraphModule | None:
    try:
        tracer = Tracer(copied, inputs)
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            graph_module = _Lowerer(copied, tracer.trace(copied), tracer.root, inputs).lower()
    except WriteError:
        raise
    except (
        Exception
    ):  # code of other people runs here, with proxies that it was not written for: anything may be raised
        return None
    graph_module.eval()
    return graph_module if _agrees(copied, graph_module, inputs) else None


def _refuse_side_effects(model: nn.Module, copied: nn.Module) -> None:
    """A model that writes to its own weights when it is called has no fixed function."""
    now = {**dict(copied.named_parameters()), **dict(copied.named_buffers())}
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if name not in now or not torch.equal(tensor, now[name]):
            raise TraceError(f"{type(model).__name__} changes its own {name} when it is called in eval mode.")


@torch.no_grad()
def _agrees(model: nn.Module, graph_module: fx.GraphModule, inputs: tuple[Tensor, ...]) -> bool:
    """Whether the graph computes what the model computes, for another batch size and, where that is possible, a small image.

    Sizes of images are constants in the graph, as they are in an exported one: what matters is the size that was traced.
    """
    for probe in _probes(inputs):
        try:
            with Recall():
                expected = model(*probe)
                actual = graph_module(*probe)
        except (RuntimeError, ValueError, AssertionError, TypeError, IndexError):
            continue
        if check.relative_error(expected, actual) <= _TOLERANCE:
            return True
    return False


def _probes(inputs: tuple[Tensor, ...]) -> Iterator[tuple[Tensor, ...]]:
    largest = max([d for x in inputs if x.dim() == 4 for d in x.shape[2:]], default=0)
    if largest > _SMALL:
        yield tuple(check.random_like(x, batch=3, delta=_SMALL - largest, seed=3) for x in inputs)
    batch = 1 if largest > 2 * _SMALL else 3  # large images take their time
    yield tuple(check.random_like(x, batch=batch, seed=3) for x in inputs)


class _Lowerer:
    """Walks a traced graph once and rebuilds it from layers and ATen operators."""

    def __init__(self, model: nn.Module, traced: fx.Graph, root: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.model, self.traced, self.root, self.inputs = model, traced, root, inputs
        self.builder = GraphBuilder()
        self.values: dict[fx.Node, _Value] = {}

    def lower(self) -> fx.GraphModule:
        """Build the graph module."""
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
        first = self._first_runs(node)[0]
        listed = function is operator.getitem and isinstance(first, list | tuple)
        if not listed:
            args = tuple(self._spread(old, new) for old, new in zip(node.args, args, strict=True))
        if function is operator.getitem and isinstance(first, Tensor):
            args = (args[0], aten_calls.without_ellipsis(args[1], first.dim()))
        found = [(function, args, {})] if listed else lowering.lower(function, args, kwargs, runs)
        if found is None:
            if lowering.is_cast(function) and isinstance(first, Tensor) and first.dtype == runs[0].dtype:
                found = aten_calls.UNCHANGED
            else:
                found = lowering.builtin(function, args, kwargs, *self._arguments(node))
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
        base = (
            (source.base if source is not None and source.base is not None else source.canon)
            if source and lowering.is_view(function)
            else None
        )
        result = _Value(value, runs, base)
        if lowering.is_in_place(function, kwargs):
            self._overwrite(node, result)
        return result

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
