"""Compares two networks that call the same layers without computing the same product twice."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

_PRODUCTS = (torch.conv1d, torch.conv2d, torch.conv3d, F.linear)
_LEAST = 1 << 14
"""Weights below this many elements are computed again: comparing arguments would take as long."""


class Recall(TorchFunctionMode):
    """Remembers convolutions and matrix products, and answers with what it knows when all arguments are the same to the last bit."""

    def __init__(self) -> None:
        super().__init__()
        self._known: dict[Any, list[tuple[Tensor, int, Tensor]]] = defaultdict(list)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Answer calls of convolutions and linear layers."""
        if func not in _PRODUCTS or kwargs or len(args) < 2 or args[1].numel() < _LEAST:
            return func(*args, **(kwargs or {}))
        x, *rest = args
        known = self._known[func, *map(_told_apart, rest)]
        for before, version, result in known:
            if before._version == version and before.shape == x.shape and torch.equal(before, x):
                return result.clone()
        result = func(*args)
        known.append((x, x._version, result.clone()))  # layers that follow may overwrite the result
        return result


def _told_apart(argument: Any) -> Any:
    """What tells arguments apart: the memory of tensors, which stay as they are meanwhile, and the text of anything else."""
    if isinstance(argument, Tensor):
        return argument.data_ptr(), tuple(argument.shape), argument.stride(), argument._version
    return repr(argument)
