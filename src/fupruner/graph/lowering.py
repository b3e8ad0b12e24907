"""From calls of layers, functions and methods, as they are traced, to those of the canonical graph."""

from __future__ import annotations

import copy
import operator
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from fupruner.graph.aten_calls import CALLS, UNCHANGED, Calls
from fupruner.graph.build import module_path
from fupruner.graph.capture import RANDOM, VIEWS
from fupruner.graph.channelwise import ChannelClip, ReservedNorm

aten = torch.ops.aten

_LAYERS = frozenset({
    nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear,
    nn.BatchNorm1d, nn.BatchNorm2d,
    nn.BatchNorm3d, nn.LayerNorm, nn.GroupNorm, nn.PReLU, nn.ReLU, nn.ReLU6, nn.SiLU, nn.Mish, nn.GELU, nn.Hardswish, nn.Hardsigmoid,
    nn.Sigmoid,
    nn.Tanh, nn.ELU, nn.LeakyReLU, nn.Hardtanh, nn.Softplus,
    nn.Dropout, nn.Dropout2d,
    nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d,
    nn.AvgPool2d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.Identity, ChannelClip, ReservedNorm,
})  # fmt: skip
_IN_PLACE_OPERATORS: dict[Any, Any] = {
    operator.iadd: operator.add, operator.isub: operator.sub, operator.imul: operator.mul, operator.itruediv: operator.truediv,
    Tensor.add_: Tensor.add, Tensor.mul_: Tensor.mul, Tensor.sub_: Tensor.sub, Tensor.div_: Tensor.div, Tensor.relu_: Tensor.relu,
    Tensor.sigmoid_: Tensor.sigmoid,
}  # fmt: skip


def is_layer(module: nn.Module) -> bool:
    """Whether a module is a layer of the canonical graph as it stands: no subclass, no hooks, nothing that needs another operator."""
    if type(module) is nn.Flatten:
        return module.start_dim >= 1
    if type(module) not in _LAYERS or module._forward_hooks or module._forward_pre_hooks:
        return False
    if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d) and (module.weight is None) != (
        module.bias is None
    ):
        return False
    if getattr(module, "return_indices", False):
        return False
    return getattr(module, "padding_mode", "zeros") == "zeros"


def plain_layer(module: nn.Module) -> nn.Module:
    """A layer without the flag to overwrite its input."""
    if not getattr(module, "inplace", False):
        return module
    layer = copy.copy(module)
    layer.inplace = False  # type: ignore[assignment]
    return layer


def path_of(stack: Any) -> str:
    """Dotted path of the module that made a call."""
    return module_path(stack, "")


def is_view(function: Any) -> bool:
    """Whether a function may return memory of its argument."""
    return getattr(function, "__name__", "") in VIEWS


def is_in_place(function: Any, kwargs: dict[str, Any]) -> bool:
    """Whether a function overwrites its first argument."""
    name = getattr(function, "__name__", "")
    return (
        bool(kwargs.get("inplace"))
        or function in _IN_PLACE_OPERATORS
        or (name.endswith("_") and not name.endswith("__"))
    )


def shape_function(function: Any) -> Any:
    """What to run on tensors without values: the function itself, but out of place."""
    if function is Tensor.view:
        return Tensor.reshape  # tensors without values do not follow every change of strides
    return _IN_PLACE_OPERATORS.get(function, function) if _hashable(function) else function


def size_axis(function: Any, args: Any) -> int | None:
    """The axis that ``x.size(axis)`` asks for."""
    return int(args[1]) if function is Tensor.size and len(args) == 2 else None


def lower(function: Any, args: Any, kwargs: dict[str, Any], runs: Any) -> Calls:
    """The ATen calls of a function, ``UNCHANGED``, or None.

    Args:
        function: as it was traced; methods as functions of ``Tensor``.
        args: its arguments, tensors being nodes or parameters.
        kwargs: likewise.
        runs: its result for two batch sizes, tensors without values.
    """
    if isinstance(function, torch._ops.OpOverload):
        return None if function._schema.is_mutable else [(function, args, kwargs)]
    if getattr(function, "__name__", "") == "stochastic_depth":
        return UNCHANGED if not (args[3] if len(args) > 3 else kwargs.get("training", True)) else None
    if function is Tensor.to or function is Tensor.type_as:
        return None
    entry = CALLS.get(function) if _hashable(function) else None
    if entry is None:
        return None
    kwargs = {k: v for k, v in kwargs.items() if k != "inplace"}
    try:
        return entry(*args, **kwargs)
    except TypeError:  # arguments that the entry does not know
        return None


def is_cast(function: Any) -> bool:
    """Whether a function may do no more than change a tensor's type."""
    return function in (Tensor.to, Tensor.type_as, Tensor.float)


def builtin(function: Any, args: Any, kwargs: Any, sample_args: Any, sample_kwargs: Any) -> Calls:
    """The ATen operator of the same name as a built-in function, chosen by sample arguments; None where there is none.

    Args:
        function: as it was traced; Python functions are not built in.
        args: as in ``lower``.
        kwargs: likewise.
        sample_args: the same with tensors in place of nodes.
        sample_kwargs: likewise.
    """
    name = getattr(function, "__name__", "_")
    if (
        isinstance(function, FunctionType | torch._ops.OpOverload)
        or name.endswith("_")
        or name in RANDOM
        or is_cast(function)
    ):
        return None
    packet = getattr(aten, name, None)
    if packet is None:
        return None
    try:
        overload = getattr(
            packet, torch._C._jit_resolve_packet(packet._qualified_op_name, *sample_args, **sample_kwargs)
        )
    except (RuntimeError, AttributeError):  # no overload takes these arguments
        return None
    return None if overload._schema.is_mutable else [(overload, args, kwargs)]


def _hashable(function: Any) -> bool:
    try:
        hash(function)
    except TypeError:
        return False
    return True
