"""From a model to its canonical graph: a ``torch.fx`` GraphModule of layers under their original dotted names."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from fupruner.errors import InputError, TraceError
from fupruner.graph import edit
from fupruner.graph.capture import capture, is_in_place, op_name
from fupruner.graph.layers import LAYERS, Layer, Parameter

aten = torch.ops.aten

_NO_OPS = {aten.contiguous.default, aten.clone.default, aten.alias.default, aten.detach.default, aten.lift_fresh_copy.default,
           aten.detach_.default}  # fmt: skip
_RANDOM = {
    "dropout",
    "rand",
    "randn",
    "rand_like",
    "randn_like",
    "bernoulli",
    "randint",
    "normal",
    "feature_dropout",
    "alpha_dropout",
}


def example_tuple(example_inputs: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Bring example inputs into the one form used inside: a tuple of tensors.

    Raises:
        InputError: something else than tensors was given, or no batch dimension is there.
    """
    inputs = (example_inputs,) if isinstance(example_inputs, Tensor) else tuple(example_inputs)
    for i, x in enumerate(inputs):
        if not isinstance(x, Tensor):
            raise InputError(
                f"Example input {i} is a {type(x).__name__}, not a tensor.", hint="Give a tensor or a tuple of tensors."
            )
        if x.is_complex():
            raise InputError(f"Example input {i} has dtype {x.dtype}; complex numbers are not supported.")
    if not inputs:
        raise InputError(
            "No example input was given.", hint="Give a tensor or a tuple of tensors with the batch first."
        )
    return inputs


def trace(model: nn.Module, example_inputs: Tensor | tuple[Tensor, ...]) -> fx.GraphModule:
    """Capture a model as a canonical graph in eval mode. The model given is never modified.

    Layers (convolutions, linear layers, norms, pools, activations) are modules under their original names; everything
    else stays an ATen operator. Values that depend on parameters alone are computed once. The graph accepts any batch
    size if the model does: ``graph.meta["dynamic_batch"]`` tells.

    Args:
        model: any module that ``torch.export`` can capture, or a graph that was traced before.
        example_inputs: a tensor or a tuple of tensors, batch first.

    Raises:
        TraceError: the model cannot be captured, or holds what this tool does not handle (quantised or complex tensors).
        InputError: the example inputs are unusable.
    """
    inputs = example_tuple(example_inputs)
    _refuse_unsupported(model)
    program, dynamic = capture(model, inputs)
    graph_module = _Converter(program).convert()
    graph_module.meta["dynamic_batch"] = dynamic
    graph_module.eval()
    if not any(node.op in ("call_module", "call_function") for node in graph_module.graph.nodes):
        raise TraceError(f"{type(model).__name__} is an empty graph: its output is its input or a constant.")
    return graph_module


def _refuse_unsupported(model: nn.Module) -> None:
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if isinstance(tensor, nn.parameter.UninitializedParameter | nn.parameter.UninitializedBuffer):
            raise TraceError(
                f"{name} of {type(model).__name__} has no values yet.", hint="Run a lazy model once before tracing it."
            )
        if tensor.is_quantized or tensor.is_complex():
            kind = "quantised" if tensor.is_quantized else f"complex ({tensor.dtype})"
            raise TraceError(
                f"{name} of {type(model).__name__} is {kind}; only real floating-point networks can be rewritten."
            )
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise TraceError(
                f"{name} of {type(model).__name__} holds NaN or infinite values.", hint="Load finite weights first."
            )
    for name, module in model.named_modules():
        if "quantized" in type(module).__module__:
            raise TraceError(f"{name} ({type(module).__name__}) is quantised; give the floating-point network.")


class _Converter:
    """Walks an exported program once and rebuilds it as layers and operators."""

    def __init__(self, program: ExportedProgram) -> None:
        self.program = program
        self.root = nn.Module()
        self.graph = fx.Graph()
        self.values: dict[fx.Node, Any] = {}
        self.layers: dict[tuple[object, ...], str] = {}
        self.names = edit.Names()

    def convert(self) -> fx.GraphModule:
        """Build the graph module."""
        self._placeholders()
        for node in self.program.graph.nodes:
            if node.op == "call_function":
                self._call(node)
            elif node.op == "output":
                self._output(node)
            elif node.op != "placeholder":
                raise TraceError(
                    f"The captured graph holds {node.op} {node.target!r}, which is not supported (control flow?)."
                )
        graph_module = fx.GraphModule(self.root, self.graph)
        edit.clean(graph_module)
        return graph_module

    def _placeholders(self) -> None:
        signature = self.program.graph_signature
        named = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
        lifted = signature.inputs_to_lifted_tensor_constants
        tensors = {**dict(self.program.named_parameters()), **dict(self.program.named_buffers())}
        for node in self.program.graph.nodes:
            if node.op != "placeholder":
                continue
            if node.name in named:
                name = named[node.name]
                value = tensors[name] if name in tensors else self.program.constants[name]
                self.values[node] = Parameter(value, name)
            elif node.name in lifted:
                self.values[node] = Parameter(self.program.constants[lifted[node.name]])
            elif isinstance(node.meta.get("val"), Tensor):
                self.values[node] = self.graph.placeholder(node.name)
            else:
                self.values[node] = Parameter(node.meta.get("val"))

    def _call(self, node: fx.Node) -> None:
        target, in_place = node.target, is_in_place(node)
        if in_place:
            target = _functional(node)
        arguments = pytree.tree_map(self._value, (node.args, node.kwargs))
        if target in _NO_OPS:
            self.values[node] = arguments[0][0]
        elif self._is_constant(node, arguments):
            self.values[node] = self._fold(target, arguments)
        else:
            self.values[node] = self._layer(node, target, arguments) or self._operator(node, target, arguments)
        if in_place and isinstance(node.args[0], fx.Node):
            self.values[node.args[0]] = self.values[node]  # later readers of the overwritten tensor see the new value

    def _value(self, value: Any) -> Any:
        return self.values[value] if isinstance(value, fx.Node) else value

    @staticmethod
    def _is_constant(node: fx.Node, arguments: Any) -> bool:
        leaves = pytree.tree_leaves(arguments)
        return not any(isinstance(leaf, fx.Node) for leaf in leaves) and op_name(node) not in _RANDOM

    @staticmethod
    def _fold(target: Any, arguments: Any) -> Parameter:
        args, kwargs = pytree.tree_map(lambda v: v.value if isinstance(v, Parameter) else v, arguments)
        with torch.no_grad():
            return Parameter(target(*args, **kwargs))

    def _layer(self, node: fx.Node, target: Any, arguments: Any) -> fx.Node | None:
        builder = LAYERS.get(target)
        if builder is None:
            return None
        bound = _bind(target, *arguments)
        source = bound.get("input", bound.get("self"))
        if not isinstance(source, fx.Node):
            return None
        val = node.args[0].meta["val"] if isinstance(node.args[0], fx.Node) else None
        layer = builder(
            bound, tuple(int(d) if isinstance(d, int) else -1 for d in val.shape) if val is not None else ()
        )
        if layer is None:
            return None
        name = self._layer_name(node, layer)
        return self._keep_meta(self.graph.call_module(name, layer.inputs), node)

    def _layer_name(self, node: fx.Node, layer: Layer) -> str:
        """Reuse the module when the same parameters are used in the same way, so that sharing stays visible."""
        owner = layer.owner
        tensors = [*layer.module.parameters(recurse=False), *layer.module.buffers(recurse=False)]
        shared = (owner.name, repr(layer.module), *(t.data_ptr() for t in tensors)) if owner is not None and owner.name else None
        if shared is not None and shared in self.layers:
            return self.layers[shared]
        base = owner.name.rpartition(".")[0] if owner is not None and owner.name else ""
        path = base or _module_path(node, type(layer.module).__name__.lower())
        name = self.names.fresh(path)
        edit.set_module(self.root, name, layer.module)
        if shared is not None:
            self.layers[shared] = name
        return name

    def _operator(self, node: fx.Node, target: Any, arguments: Any) -> fx.Node:
        args, kwargs = pytree.tree_map(self._materialise, arguments)
        if target is aten.view.default:
            target = aten.reshape.default  # the same function without demands on strides, which rewriting may change
        return self._keep_meta(self.graph.call_function(target, args, kwargs), node)

    def _materialise(self, value: Any) -> Any:
        if not isinstance(value, Parameter):
            return value
        if not isinstance(value.value, Tensor):
            return pytree.tree_map(
                lambda v: self._materialise(Parameter(v)) if isinstance(v, Tensor) else v, value.value
            )
        name = value.name or self.names.fresh("constant")
        if not edit.has_attribute(self.root, name):
            edit.set_tensor(self.root, name, value.value)
        return self.graph.get_attr(name)

    @staticmethod
    def _keep_meta(new: fx.Node, old: fx.Node) -> fx.Node:
        new.meta["path"] = _module_path(old, "")
        return new

    def _output(self, node: fx.Node) -> None:
        flat = pytree.tree_map(self._materialise, pytree.tree_map(self._value, list(node.args[0])))
        spec = self.program.call_spec.out_spec
        self.graph.output(pytree.tree_unflatten(flat, spec) if spec is not None else tuple(flat))


def _functional(node: fx.Node) -> Any:
    """The out-of-place twin of an in-place ATen operator."""
    packet = getattr(aten, op_name(node).removesuffix("_"), None)
    overload = node.target._overloadname if isinstance(node.target, torch._ops.OpOverload) else ""
    twin = getattr(packet, overload, None) if packet is not None else None
    if twin is None:
        raise TraceError(
            f"The in-place operator {node.target} at {_module_path(node, 'the top level')} has no out-of-place form."
        )
    return twin


def _bind(target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
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


def _module_path(node: fx.Node, leaf: str) -> str:
    """Dotted path of the module that made a call; calls made by a module that holds others get ``leaf`` appended."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    path, kind = stack[-1] if stack else ("", "")
    path = str(path).split("@")[0]
    if not path.replace(".", "").replace("_", "").isalnum():
        path = ""
    name = kind if isinstance(kind, str) else getattr(kind, "__qualname__", "")
    if not leaf or (path and name.rpartition(".")[2].lower().replace("_", "").startswith(leaf.rstrip("0123456789d"))):
        return path
    return f"{path}.{leaf}" if path else leaf


def getitem(node: fx.Node) -> bool:
    """Whether a node picks one element of a tuple."""
    return node.target is operator.getitem
