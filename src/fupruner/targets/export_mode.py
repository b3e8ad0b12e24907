"""Says the same in other words while a module is traced for ONNX, where the exporter does not follow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

aten = torch.ops.aten

_ADAPTIVE_POOLS = (F.adaptive_avg_pool2d, torch._C._nn.adaptive_avg_pool2d, aten.adaptive_avg_pool2d.default)


class ExportMode(TorchFunctionMode):
    """Within this context three kinds of calls are replaced by equal ones.

    - ATen operators that take a list of sizes, one of which depends on the batch, as in ``aten.reshape.default(x,
      [n, 256])``: the tracer sees a traced size only through the method of the same name.
    - ``aten.sym_size.int`` becomes ``Tensor.size`` for the same reason.
    - ``adaptive_avg_pool2d`` to more than one output pixel becomes an average pool, or two matrix products where the
      windows have unequal sizes; ONNX has no such operator.
    """

    def __torch_function__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run one call of the traced module, possibly in other words."""
        kwargs = dict(kwargs or {})
        if func is aten.sym_size.int:
            return args[0].size(*args[1:])
        if func in _ADAPTIVE_POOLS:
            return _adaptive_avg_pool2d(func, *args, **kwargs)
        if isinstance(func, torch._ops.OpOverload) and _has_traced_size(args):
            return _by_name(func)(*args, **kwargs)
        return func(*args, **kwargs)


def _has_traced_size(args: tuple[Any, ...]) -> bool:
    lists = (argument for argument in args if isinstance(argument, list | tuple))
    return any(
        isinstance(item, Tensor) and item.dim() == 0 and not item.is_floating_point()
        for entry in lists
        for item in entry
    )


def _by_name(func: torch._ops.OpOverload) -> Callable[..., Any]:
    """The method or function of torch behind an ATen operator, or the operator itself where there is none."""
    name = func._schema.name.partition("::")[2]
    found: Callable[..., Any] = getattr(Tensor, name, None) or getattr(torch, name, None) or func
    return found


def _adaptive_avg_pool2d(func: Any, x: Tensor, output_size: Any) -> Tensor:
    size = (output_size, output_size) if isinstance(output_size, int) else tuple(output_size)
    height, width = int(x.shape[-2]), int(x.shape[-1])
    rows, columns = (height if size[0] is None else size[0]), (width if size[1] is None else size[1])
    if (rows, columns) == (1, 1):
        return aten.adaptive_avg_pool2d.default(x, [1, 1])  # type: ignore[no-any-return]
    if height % rows == 0 and width % columns == 0:
        return F.avg_pool2d(x, (height // rows, width // columns))
    return _windows(height, rows) @ x @ _windows(width, columns).T


def _windows(size: int, bins: int) -> Tensor:
    """Matrix (bins, size) whose row b averages the pixels floor(b*size/bins) ... ceil((b+1)*size/bins) - 1."""
    matrix = torch.zeros(bins, size)
    for b in range(bins):
        start, end = b * size // bins, -(-(b + 1) * size // bins)
        matrix[b, start:end] = 1 / (end - start)
    return matrix
