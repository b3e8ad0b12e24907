"""Two kinds of values flow through an imported graph: tensors, and arrays on the host (sizes, indices, scalars).

Sizes stay on the host because a captured graph must not read them from a tensor: an array of sizes may hold the symbol
of a free batch, and arithmetic on it (Shape, Gather, Concat, ...) is arithmetic on that symbol. While a network is traced,
proxies stand for tensors and symbols; hence an array is told by being one, and everything else counts as a tensor.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fupruner.errors import InputError

Array = npt.NDArray[Any]
Value = Tensor | Array


def on_host(*values: Value | None) -> bool:
    """Whether no value is a tensor, nor the proxy of one."""
    return all(isinstance(value, np.ndarray) for value in values if value is not None)


def host(sizes: Iterable[Any]) -> Array:
    """Array of sizes: of integers, or of objects where one of them is a symbol."""
    listed = list(sizes)
    if all(isinstance(size, int) for size in listed):
        return np.array(listed, dtype=np.int64)
    made = np.empty(len(listed), dtype=object)
    for i, size in enumerate(listed):
        made[i] = size
    return made


def array(value: Any) -> Array:
    """What arithmetic on arrays gave, as an array again: for a single number numpy gives the bare number."""
    if isinstance(value, np.ndarray | np.generic):
        return settle(np.asarray(value))
    made = np.empty((), dtype=object)
    made[()] = value
    return settle(made)


def settle(value: Array) -> Array:
    """Turn an array of objects into one of integers once no symbol is left in it."""
    plain = value.dtype == object and all(isinstance(item, int | np.integer) for item in value.flat)
    return value.astype(np.int64) if plain else value


def integers(value: Value | None) -> list[Any]:
    """The numbers in an array of sizes, as Python integers and symbols.

    Raises:
        InputError: they would have to be read from a tensor.
    """
    if value is None:
        return []
    if not isinstance(value, np.ndarray):
        raise InputError("A size or an index depends on the values of a tensor; such graphs cannot be captured.")
    return [item.item() if isinstance(item, np.generic) else item for item in value.reshape(-1)]


def tensor(value: Value, like: Tensor) -> Tensor:
    """A value as a tensor beside another one: floating-point numbers get the other's precision."""
    if not isinstance(value, np.ndarray):
        return value
    plain = settle(value)
    if plain.dtype == object:
        raise InputError("The size of the batch is used as a number in a computation; that is not supported.")
    made = torch.from_numpy(np.array(plain)).to(like.device)
    return made.to(like.dtype) if made.is_floating_point() and like.is_floating_point() else made


def operand(value: Value, like: Tensor) -> Any:
    """A value as an operand beside a tensor: single numbers stay numbers, so that they take its precision."""
    if not isinstance(value, np.ndarray) or value.size != 1 or (value.ndim > 0 and value.ndim > like.dim()):
        return tensor(value, like)
    return integers(value)[0]


def first_tensor(*values: Value | None) -> Tensor:
    """The first tensor among values, of which one must be a tensor."""
    return next(value for value in values if value is not None and not isinstance(value, np.ndarray))


def product(sizes: Iterable[Any]) -> Any:
    """Product of sizes, symbols included."""
    return math.prod(sizes)
