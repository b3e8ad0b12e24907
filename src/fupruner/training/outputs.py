"""What a network gives: one tensor, or several of them in a fixed order."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree

from fupruner.errors import InputError

Outputs = Tensor | tuple[Tensor, ...]
"""A tensor, or all tensors that a network gives, in order: tuples, lists and dictionaries laid flat, as in shipped files."""


def lay_flat(outputs: Any) -> Outputs:
    """Bring what a network returns into the one form that its shipped file gives.

    Raises:
        InputError: there is no tensor in it.
    """
    if isinstance(outputs, Tensor):
        return outputs
    tensors = tuple(leaf for leaf in pytree.tree_leaves(outputs) if isinstance(leaf, Tensor))
    if not tensors:
        raise InputError(f"The network gives a {type(outputs).__name__} without a tensor in it.")
    return tensors if len(tensors) > 1 else tensors[0]


def as_tuple(outputs: Outputs) -> tuple[Tensor, ...]:
    """All outputs as a tuple, also where there is one."""
    return (outputs,) if isinstance(outputs, Tensor) else outputs
