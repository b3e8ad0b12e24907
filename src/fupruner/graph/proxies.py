"""Symbolic tracing that knows shapes: what depends on the batch alone stays symbolic.

Every node carries ``meta["runs"]``, its value for two batch sizes: tensors without values, or something plain. What is plain and the
same for both is handed to the model as it is, so that code that branches on image sizes, or unpacks shapes, can be traced. Functions
that a library marked as opaque to tracing are traced through.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Iterator
from contextlib import contextmanager
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F
from torch.utils import _pytree as pytree

from fupruner.graph import lowering
from fupruner.graph.shapes import known_shape

BATCHES = (12, 31)
"""Two sizes that do not agree by chance in what is computed from them."""
_NEW = frozenset({"new_zeros", "new_ones", "new_full"})


class UnsupportedError(Exception):
    """This model has to go the long way."""


class _Proxy(fx.Proxy):
    """A value of the traced model; its shape is known but for the batch."""

    def __getattr__(self, k: str) -> Any:
        run = self.node.meta.get("runs", (None, None))[0]
        if isinstance(run, Tensor) and hasattr(run, k) and not callable(getattr(run, k)):
            return self.tracer.create_proxy("call_function", getattr, (self, k), {})
        return super().__getattr__(k)

    def __iter__(self) -> Iterator[Any]:
        count = _length(self.node)
        return super().__iter__() if count is None else iter([operator.getitem(self, i) for i in range(count)])

    def __len__(self) -> int:
        count = _length(self.node)
        return super().__len__() if count is None else count

    # ``x += y`` is kept apart from ``x + y``: the first one also changes what other names of x see
    def __iadd__(self, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", operator.iadd, (self, other), {})

    def __isub__(self, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", operator.isub, (self, other), {})

    def __imul__(self, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", operator.imul, (self, other), {})

    def __itruediv__(self, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", operator.itruediv, (self, other), {})


class Tracer(fx.Tracer):
    """Traces one model.

    Args:
        model: whose calls are traced.
        inputs: example inputs, batch first.
    """

    def __init__(self, model: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        super().__init__()
        self._inputs = list(inputs)
        self._tensors: dict[str, Tensor] = {**dict(model.named_buffers()), **dict(model.named_parameters())}
        self._names = {id(tensor): name for name, tensor in self._tensors.items()}

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Layers of the canonical graph are not looked into."""
        return lowering.is_layer(m)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        """Values know their shapes."""
        return _Proxy(node, self)

    def to_bool(self, obj: fx.Proxy) -> bool:
        """Branches on constants are followed; all others end the trace."""
        value = obj.node.meta.get("constant")
        return bool(value) if isinstance(value, Tensor) else super().to_bool(obj)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        """A parameter as a proxy, found without a search through the whole model."""
        name = self._names.get(id(attr_val)) if isinstance(attr_val, nn.Parameter) else None
        if name is None:
            return attr_val
        if name not in parameter_proxy_cache:
            parameter_proxy_cache[name] = self.create_proxy("get_attr", name, (), {})
        return parameter_proxy_cache[name]

    def create_arg(self, a: Any) -> Any:
        """Parameters and buffers among arguments become attributes, likewise without a search."""
        name = self._names.get(id(a)) if isinstance(a, Tensor) else None
        return super().create_arg(a) if name is None else self.create_node("get_attr", name, (), {})

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        """Every node gets its value for either batch size."""
        node: fx.Node = super().create_node(*args, **kwargs)
        if node.op != "output":
            node.meta["runs"] = self._runs(node)
        return node

    def create_proxy(self, kind: str, target: Any, args: Any, kwargs: Any, *rest: Any, **more: Any) -> Any:
        """A proxy, or what it stands for where that is plain and the same for every batch."""
        if kind == "call_function" and _is_foreign(target):
            return target(*args, **kwargs)
        if target is F.multi_head_attention_forward:
            with _looked_into():
                return target(*args, **kwargs)
        if kind == "call_method" and target in _NEW and not _has_proxy((args[1:], kwargs)):
            options = {k: v for k, v in kwargs.items() if k not in ("device", "dtype")}
            dtype = kwargs.get("dtype") or args[0].node.meta["runs"][0].dtype
            return getattr(torch.empty(0, dtype=dtype), target)(*args[1:], **options)
        return self._plain(super().create_proxy(kind, target, args, kwargs, *rest, **more))

    def _plain(self, proxy: fx.Proxy) -> Any:
        node = proxy.node
        a, b = node.meta.get("runs", (Tensor, Tensor))
        if isinstance(a, torch.device):
            return torch.device("cpu")
        if isinstance(a, torch.Size) and node.target in (getattr, "size"):
            tensor = self.proxy(node.args[0])  # type: ignore[arg-type]
            return tuple(
                x if x == y else self._size(tensor, axis) for axis, (x, y) in enumerate(zip(a, b, strict=True))
            )
        if node.op == "placeholder":
            return node.args[0] if node.args and not isinstance(a, Tensor) else proxy
        if a is b is None or any(_depends_on_batch(n) for n in node.all_input_nodes):
            return proxy
        is_plain = isinstance(a, int | float | str | torch.dtype | torch.layout) or (
            isinstance(a, tuple) and all(isinstance(v, int) for v in a)
        )
        return a if is_plain and a == b else proxy

    def _size(self, tensor: fx.Proxy, axis: int) -> Any:
        return self.create_proxy("call_method", "size", (tensor, axis), {})

    def _runs(self, node: fx.Node) -> tuple[Any, Any]:
        if node.op == "placeholder":
            return self._placeholder(node)
        if node.op == "get_attr":
            name = str(node.target)
            node.meta["constant"] = self._tensors[name] if name in self._tensors else getattr(self.root, name)
            return _without_values(node.meta["constant"])
        if node.op == "call_module":
            return self._layer_runs(node)
        function = function_of(node)
        if function is torch._assert:
            return None, None
        if all("constant" in n.meta for n in node.all_input_nodes):
            args, kwargs = _filled(node, "constant")
            node.meta["constant"] = function(*args, **kwargs)
            return _without_values(node.meta["constant"])
        run = lowering.shape_function(function)
        results = []
        for which in (0, 1):
            args, kwargs = _filled(node, which)
            results.append(_without_values(run(*args, **kwargs))[0])
        return results[0], results[1]

    def _placeholder(self, node: fx.Node) -> tuple[Any, Any]:
        if not self._inputs:
            if not node.args:
                raise UnsupportedError
            return node.args[0], node.args[0]
        x = self._inputs.pop(0)
        first, second = (torch.empty((batch, *x.shape[1:]), dtype=x.dtype, device="meta") for batch in BATCHES)
        return first, second

    def _layer_runs(self, node: fx.Node) -> tuple[Any, Any]:
        module = self.root.get_submodule(str(node.target))
        source = node.args[0] if len(node.args) == 1 and not node.kwargs else None
        if not isinstance(source, fx.Node) or not isinstance(source.meta["runs"][0], Tensor):
            raise UnsupportedError
        if "constant" in source.meta:
            node.meta["constant"] = _untraced(module, "cpu").forward(source.meta["constant"])
            return _without_values(node.meta["constant"])
        first, second = (_layer_shape(module, x) for x in source.meta["runs"])
        return first, second


def function_of(node: fx.Node) -> Any:
    """What a node calls; methods as functions of ``Tensor``."""
    return getattr(Tensor, str(node.target)) if node.op == "call_method" else node.target


def _is_foreign(target: Any) -> bool:
    """Whether a function is Python code of a library other than PyTorch, which can be traced through."""
    return isinstance(target, FunctionType) and target.__module__.partition(".")[0] != "torch"


@contextmanager
def _looked_into() -> Iterator[None]:
    """Let a Python function of ``torch.nn.functional`` run on proxies instead of being recorded as one call."""
    functional: Any = F
    original = functional.has_torch_function
    functional.has_torch_function = lambda *_: False
    try:
        yield
    finally:
        functional.has_torch_function = original


def _depends_on_batch(node: fx.Node) -> bool:
    """Whether a node is a number or shape, not a tensor, that was computed from the batch."""
    value = node.meta["runs"][0]
    if isinstance(value, Tensor) or node.op == "placeholder":
        return False
    return type(value) in (int, float, bool) or any(_depends_on_batch(n) for n in node.all_input_nodes)


def _has_proxy(arguments: Any) -> bool:
    return any(isinstance(leaf, fx.Proxy) for leaf in pytree.tree_leaves(arguments))


def _length(node: fx.Node) -> int | None:
    """How many elements a value has along its first axis, if that does not depend on the batch."""
    a, b = node.meta.get("runs", (None, None))
    if isinstance(a, tuple | list):
        return len(a)
    if isinstance(a, Tensor) and a.dim() and a.shape[0] == b.shape[0]:
        return int(a.shape[0])
    return None


def _value_of(node: fx.Node, which: int | str) -> Any:
    return node.meta["constant"] if which == "constant" else node.meta["runs"][which]


def _filled(node: fx.Node, which: int | str) -> tuple[Any, Any]:
    """Arguments of a call: constants as they are, or without values on the device of tensors without values."""
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda n: _value_of(n, which))
    if which == "constant":
        return args, kwargs
    moved = fx.node.map_aggregate((args, kwargs), lambda v: torch.device("meta") if isinstance(v, torch.device) else v)
    return moved


def _without_values(value: Any) -> tuple[Any, Any]:
    meta = pytree.tree_map(lambda v: v.to("meta") if isinstance(v, Tensor) else v, value)
    return meta, meta


def _layer_shape(module: nn.Module, x: Tensor) -> Tensor:
    shape = known_shape(module, tuple(x.shape))
    if shape is not None:
        return torch.empty(shape, dtype=x.dtype, device="meta")
    return _untraced(module, "meta").forward(x)  # type: ignore[no-any-return]


def _untraced(module: nn.Module, device: str) -> Any:
    """A layer that can be run while its model is being traced: tracing takes calls of the model's own parameters for its own."""
    twin: Any = copy.copy(module)
    twin._parameters = {
        name: None if p is None else nn.Parameter(p.detach().to(device), requires_grad=False)
        for name, p in module._parameters.items()
    }
    twin._buffers = {name: None if b is None else b.detach().to(device) for name, b in module._buffers.items()}
    return twin
