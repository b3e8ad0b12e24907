"""From a model to its canonical graph: a ``torch.fx`` GraphModule of layers under their original dotted names."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from fupruner.errors import InputError, TraceError
from fupruner.graph.borrowed import unborrow
from fupruner.graph.build import GraphBuilder, fold, module_path
from fupruner.graph.capture import RANDOM, capture, is_in_place, op_name
from fupruner.graph.layers import Parameter
from fupruner.graph.symbolic import capture_symbolically
from fupruner.progress import counted

aten = torch.ops.aten

_CHECKS = {"_assert_tensor_metadata", "_assert_scalar"}
_FILLED = {"new_zeros", "new_ones", "new_full"}
_NO_OPS = {aten.contiguous.default, aten.clone.default, aten.alias.default, aten.detach.default, aten.lift_fresh_copy.default,
           aten.detach_.default}  # fmt: skip


Example = Tensor | tuple[Tensor, ...]
"""Example inputs of a network, batch first."""


def example_tuple(example_inputs: Example) -> tuple[Tensor, ...]:
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


def trace(model: nn.Module, example_inputs: Example, *, borrow: bool = False) -> fx.GraphModule:
    """Capture a model as a canonical graph in eval mode. The model given is never modified.

    Layers (convolutions, linear layers, norms, pools, activations) are modules under their original names; everything
    else stays an ATen operator. Values that depend on parameters alone are computed once. The graph accepts any batch
    size if the model does: ``graph.meta["dynamic_batch"]`` tells.

    Args:
        model: any module that ``torch.export`` can capture, or a graph that was traced before.
        example_inputs: a tensor or a tuple of tensors, batch first.
        borrow: let the graph show the memory of the model's own tensors: free, but then neither may be trained.

    Raises:
        TraceError: the model cannot be captured, or holds what this tool does not handle (quantised or complex tensors).
        InputError: the example inputs are unusable.
    """
    inputs = example_tuple(example_inputs)
    _refuse_unsupported(model)
    graph_module = capture_symbolically(model, inputs)
    dynamic = graph_module is not None
    if graph_module is None:
        program, dynamic = capture(model, inputs)
        graph_module = _Converter(program).convert()
    elif not borrow:
        unborrow(graph_module, model)
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
        if tensor.is_floating_point() and not _is_usable(tensor):
            raise TraceError(
                f"{name} of {type(model).__name__} holds NaN or infinite values.", hint="Load finite weights first."
            )
    for name, module in model.named_modules():
        if "quantized" in type(module).__module__:
            raise TraceError(f"{name} ({type(module).__name__}) is quantised; give the floating-point network.")
        _refuse_negative_variance(name or type(module).__name__, module)


def _refuse_negative_variance(name: str, module: nn.Module) -> None:
    variance, eps = getattr(module, "running_var", None), getattr(module, "eps", None)
    if isinstance(variance, Tensor) and isinstance(eps, float) and bool((variance + eps <= 0).any()):
        raise TraceError(
            f"{name}.running_var holds {float(variance.min()):.3g}: a variance below zero, whose norm gives NaN.",
            hint="Load the running statistics of the trained network first.",
        )


def _is_usable(tensor: Tensor) -> bool:
    """Parameters must be finite; buffers may hold infinite bounds, but no NaN."""
    total = tensor.detach().sum()
    if bool(torch.isfinite(total)):
        return True
    return (
        bool(torch.isfinite(tensor).all()) if isinstance(tensor, nn.Parameter) else not bool(torch.isnan(tensor).any())
    )


class _Converter:
    """Walks an exported program once and rebuilds it as layers and operators."""

    def __init__(self, program: ExportedProgram) -> None:
        self.program = program
        self.builder = GraphBuilder()
        self.values: dict[fx.Node, Any] = {}

    def convert(self) -> fx.GraphModule:
        """Build the graph module."""
        self._placeholders()
        for node in counted(self.program.graph.nodes, "trace, operators", len(self.program.graph.nodes)):
            if node.op == "call_function":
                self._call(node)
            elif node.op == "output":
                self._output(node)
            elif node.op != "placeholder":
                raise TraceError(
                    f"The captured graph holds {node.op} {node.target!r}, which is not supported (control flow?)."
                )
        return self.builder.finish()

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
                self.values[node] = self.builder.graph.placeholder(node.name)
            else:
                self.values[node] = Parameter(node.meta.get("val"))

    def _call(self, node: fx.Node) -> None:
        target, in_place = node.target, is_in_place(node)
        if in_place:
            target = _functional(node)
        args, kwargs = pytree.tree_map(self._value, (node.args, node.kwargs))
        if op_name(node) in _CHECKS:
            return
        if target in _NO_OPS:
            self.values[node] = args[0]
        elif op_name(node) in _FILLED and all(isinstance(size, int) for size in args[1]):
            like = torch.empty(0, dtype=node.meta["val"].dtype)  # only the type of the first argument matters
            self.values[node] = fold(target, (like, *args[1:]), kwargs)
        elif self._is_constant(node, (args, kwargs)):
            self.values[node] = fold(target, args, kwargs)
        else:
            stack = node.meta.get("nn_module_stack")
            self.values[node] = self.builder.call(
                target, args, kwargs, shape=_first_shape(node), path=module_path(stack, ""), stack=stack
            )
        if in_place and isinstance(node.args[0], fx.Node):
            self.values[node.args[0]] = self.values[node]  # later readers of the overwritten tensor see the new value

    def _value(self, value: Any) -> Any:
        return self.values[value] if isinstance(value, fx.Node) else value

    @staticmethod
    def _is_constant(node: fx.Node, arguments: Any) -> bool:
        leaves = pytree.tree_leaves(arguments)
        return not any(isinstance(leaf, fx.Node) for leaf in leaves) and op_name(node) not in RANDOM

    def _output(self, node: fx.Node) -> None:
        flat = pytree.tree_map(self.builder.materialise, pytree.tree_map(self._value, list(node.args[0])))  # type: ignore[arg-type]
        spec = self.program.call_spec.out_spec
        self.builder.graph.output(pytree.tree_unflatten(flat, spec) if spec is not None else tuple(flat))


def _first_shape(node: fx.Node) -> tuple[int, ...]:
    """Shape of the first argument of an exported call; -1 where it is not a number."""
    val = node.args[0].meta["val"] if node.args and isinstance(node.args[0], fx.Node) else None
    return tuple(int(d) if isinstance(d, int) else -1 for d in val.shape) if isinstance(val, Tensor) else ()


def _functional(node: fx.Node) -> Any:
    """The out-of-place twin of an in-place ATen operator."""
    packet = getattr(aten, op_name(node).removesuffix("_"), None)
    overload = node.target._overloadname if isinstance(node.target, torch._ops.OpOverload) else ""
    twin = getattr(packet, overload, None) if packet is not None else None
    if twin is None:
        raise TraceError(
            f"The in-place operator {node.target} at {module_path(node.meta.get('nn_module_stack'), 'the top level')} "
            "has no out-of-place form."
        )
    return twin


def getitem(node: fx.Node) -> bool:
    """Whether a node picks one element of a tuple."""
    return node.target is operator.getitem
