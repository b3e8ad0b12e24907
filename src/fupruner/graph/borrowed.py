"""A model's own memory, looked at without a copy: a second module over the same tensors, and a guard against writing to them."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode


class WriteError(Exception):
    """Something was about to write to memory that is only looked at."""


def borrowed(model: nn.Module) -> nn.Module:
    """A copy of a model, in eval mode, whose parameters and buffers show the memory of the model's own.

    Floating-point parameters require a gradient in the copy, as they do in a network that is going to be trained.
    """
    memo: dict[int, Any] = {}
    for tensor in [*model.parameters(), *model.buffers()]:
        if type(tensor) is nn.Parameter:
            memo[id(tensor)] = nn.Parameter(tensor.detach(), tensor.is_floating_point())
        elif type(tensor) is Tensor:
            memo[id(tensor)] = tensor.detach()
    return copy.deepcopy(model, memo).eval()


def memory_of(tensors: Iterable[Tensor]) -> frozenset[int]:
    """Addresses of the memory that some tensors show; what has no memory has no address."""
    return frozenset(t.untyped_storage().data_ptr() for t in tensors if t.device.type != "meta") - {0}


def unborrow(module: nn.Module, lender: nn.Module) -> None:
    """Copy every parameter and buffer that shows memory of another module's; ties within the module stay."""
    lent = memory_of([*lender.parameters(), *lender.buffers()])
    known: dict[int, Tensor] = {}
    for part in module.modules():
        held: Any
        for held in (part._parameters, part._buffers):
            for name, tensor in held.items():
                if tensor is None or not memory_of([tensor]) & lent:
                    continue
                if id(tensor) not in known:
                    own = tensor.detach().clone()
                    known[id(tensor)] = (
                        nn.Parameter(own, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else own
                    )
                held[name] = known[id(tensor)]


class ReadOnly(TorchDispatchMode):
    """While this lasts, no operator writes to the memory of some tensors; the first that is going to ends with an error.

    Args:
        module: whose parameters and buffers are protected.

    Raises:
        WriteError: from the operator that would have written.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self._protected = memory_of([*module.parameters(), *module.buffers()])

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Look at what an operator writes to before it runs."""
        kwargs = kwargs or {}
        if func._schema.is_mutable:
            named = dict(zip((a.name for a in func._schema.arguments), args, strict=False)) | kwargs
            for argument in func._schema.arguments:
                if argument.alias_info is not None and argument.alias_info.is_write:
                    self._require_free(named.get(argument.name), func)
        return func(*args, **kwargs)

    def _require_free(self, written: Any, func: Any) -> None:
        tensors = [leaf for leaf in pytree.tree_leaves(written) if isinstance(leaf, Tensor)]
        if memory_of(tensors) & self._protected:
            raise WriteError(f"{func} writes to the model's own memory")
