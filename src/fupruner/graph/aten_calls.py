"""Which ATen calls stand for a PyTorch function or method: the table of the fast front end.

An entry takes the function's own arguments and returns a list of (ATen overload, arguments, keyword arguments), ``UNCHANGED`` if
the function returns its input, or None where it has no simple counterpart.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

aten = torch.ops.aten

UNCHANGED = object()
"""The function returns its first argument."""
PREVIOUS = object()
"""Stands for the result of the call before, in a list of calls."""

Calls = Any


def _one(target: Any, *args: Any, **kwargs: Any) -> Calls:
    return [(target, args, kwargs)]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _binary(target: Any, swapped: Any = None) -> Callable[..., Calls]:
    def entry(a: Any, b: Any) -> Calls:
        if _is_number(a):
            return None if swapped is None else _one(swapped, b, a)
        return _one(target, a, b)

    return entry


def _unary(target: Any) -> Callable[..., Calls]:
    return lambda x: _one(target, x)


def _sizes(sizes: Any) -> list[Any]:
    return list(sizes[0]) if len(sizes) == 1 and isinstance(sizes[0], tuple | list) else list(sizes)


def _reshape(x: Any, *sizes: Any, shape: Any = None) -> Calls:
    wanted = _sizes(sizes) if sizes else list(shape)
    return None if any(isinstance(s, torch.dtype) for s in wanted) else _one(aten.reshape.default, x, wanted)


def _mean(target: Any) -> Callable[..., Calls]:
    def entry(x: Any, dim: Any = None, keepdim: bool = False) -> Calls:
        if dim is None:
            return None
        return _one(target, x, [dim] if isinstance(dim, int) else list(dim), keepdim)

    return entry


def _split(x: Any, split_size_or_sections: Any = None, dim: int = 0, *, split_size: Any = None) -> Calls:
    wanted = split_size if split_size_or_sections is None else split_size_or_sections
    if isinstance(wanted, int):
        return _one(aten.split.Tensor, x, wanted, dim)
    return _one(aten.split_with_sizes.default, x, list(wanted), dim)


def _index(x: Any, index: Any) -> Calls:
    """Slices, whole numbers and new axes; everything else is left to the exporter."""
    if isinstance(x, tuple | list) or (not isinstance(index, tuple | slice | int) and index is not None):
        return None
    calls: list[Any] = []
    source: Any = x
    axis = 0
    for item in index if isinstance(index, tuple) else (index,):
        if isinstance(item, slice):
            if item != slice(None):
                if not all(v is None or isinstance(v, int) for v in (item.start, item.stop, item.step)):
                    return None
                stop = 2**63 - 1 if item.stop is None else item.stop
                calls.append((aten.slice.Tensor, (source, axis, item.start or 0, stop, item.step or 1), {}))
                source = PREVIOUS
            axis += 1
        elif item is None:
            calls.append((aten.unsqueeze.default, (source, axis), {}))
            source, axis = PREVIOUS, axis + 1
        elif isinstance(item, int) and not isinstance(item, bool):
            calls.append((aten.select.int, (source, axis, item), {}))
            source = PREVIOUS
        else:
            return None
    return calls or UNCHANGED


def without_ellipsis(index: Any, rank: int) -> Any:
    """An index with the slices that ``...`` stands for written out."""
    items = index if isinstance(index, tuple) else (index,)
    at = [i for i, item in enumerate(items) if item is ...]
    if len(at) != 1:
        return index
    taken = sum(item is not None for item in items) - 1
    return (*items[: at[0]], *[slice(None)] * (rank - taken), *items[at[0] + 1 :])


def _pad(x: Any, pad: Any, mode: str = "constant", value: Any = None) -> Calls:
    if mode == "constant" and value in (None, 0):
        return _one(aten.pad.default, x, list(pad))
    return _one(aten.pad.default, x, list(pad), mode, value)


def _conv(default: Any, padded: Any) -> Callable[..., Calls]:
    def entry(
        x: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
    ) -> Calls:
        lists = [padding if isinstance(padding, str) else _list(padding), _list(dilation)]
        return _one(padded if isinstance(padding, str) else default, x, weight, bias, _list(stride), *lists, groups)

    return entry


def _list(value: Any) -> list[Any]:
    return [value] if isinstance(value, int) else list(value)


def _batch_norm(x: Any, running_mean: Any, running_var: Any, weight: Any = None, bias: Any = None, training: bool = False,
                momentum: float = 0.1, eps: float = 1e-5) -> Calls:  # fmt: skip
    return _one(aten.batch_norm.default, x, weight, bias, running_mean, running_var, training, momentum, eps, False)


def _layer_norm(x: Any, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Calls:
    return _one(aten.layer_norm.default, x, list(normalized_shape), weight, bias, eps)


def _group_norm(x: Any, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Calls:
    return _one(aten.group_norm.default, x, num_groups, weight, bias, eps)


def _normalize(x: Any, p: float = 2.0, dim: int = 1, eps: float = 1e-12, out: Any = None) -> Calls:
    return [
        (aten.linalg_vector_norm.default, (x, p, [dim], True), {}),
        (aten.clamp_min.default, (PREVIOUS, eps), {}),
        (aten.expand_as.default, (PREVIOUS, x), {}),
        (aten.div.Tensor, (x, PREVIOUS), {}),
    ]


def _norm(x: Any, p: Any = "fro", dim: Any = None, keepdim: bool = False) -> Calls:
    if p not in ("fro", 2) or dim is None:
        return None
    return _one(aten.linalg_vector_norm.default, x, 2, _list(dim), keepdim)


def _dropout(x: Any, p: float = 0.5, training: bool = True) -> Calls:
    return None if training else UNCHANGED


def _avg_pool2d(x: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False, count_include_pad: bool = True,
                divisor_override: Any = None) -> Calls:  # fmt: skip
    stride = _list(kernel_size if stride is None else stride)
    return _one(
        aten.avg_pool2d.default,
        x,
        _list(kernel_size),
        stride,
        _list(padding),
        ceil_mode,
        count_include_pad,
        divisor_override,
    )


def _max_pool2d(x: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False,
                return_indices: bool = False) -> Calls:  # fmt: skip
    if return_indices:
        return None
    stride = _list(kernel_size if stride is None else stride)
    return _one(aten.max_pool2d.default, x, _list(kernel_size), stride, _list(padding), _list(dilation), ceil_mode)


def _adaptive(x: Any, output_size: Any) -> Calls:
    return _one(
        aten.adaptive_avg_pool2d.default, x, [output_size] * 2 if isinstance(output_size, int) else list(output_size)
    )


def _adaptive_max(x: Any, output_size: Any, return_indices: bool = False) -> Calls:
    if return_indices:
        return None
    size = [output_size] * 2 if isinstance(output_size, int) else list(output_size)
    return [(aten.adaptive_max_pool2d.default, (x, size), {}), (operator.getitem, (PREVIOUS, 0), {})]


def _interpolate(x: Any, size: Any = None, scale_factor: Any = None, mode: str = "nearest", align_corners: Any = None,
                 recompute_scale_factor: Any = None, antialias: bool = False) -> Calls:  # fmt: skip
    if recompute_scale_factor or antialias or mode not in ("nearest", "bilinear"):
        return None
    scales = (
        None
        if scale_factor is None
        else [float(s) for s in ([scale_factor] * 2 if _is_number(scale_factor) else scale_factor)]
    )
    sizes = None if size is None else ([size] * 2 if isinstance(size, int) else list(size))
    if mode == "nearest":
        return _one(aten.upsample_nearest2d.vec, x, sizes, scales)
    return _one(aten.upsample_bilinear2d.vec, x, sizes, bool(align_corners), scales)


_BINARY: list[tuple[Callable[..., Calls], tuple[Any, ...]]] = [
    (_binary(aten.add.Tensor, aten.add.Tensor), (operator.add, operator.iadd, torch.add, Tensor.add, Tensor.add_)),
    (
        _binary(aten.mul.Tensor, aten.mul.Tensor),
        (operator.mul, operator.imul, torch.mul, Tensor.mul, Tensor.mul_, torch.multiply),
    ),
    (_binary(aten.sub.Tensor, aten.rsub.Scalar), (operator.sub, operator.isub, torch.sub, Tensor.sub, Tensor.sub_)),
    (_binary(aten.div.Tensor), (operator.truediv, operator.itruediv, torch.div, Tensor.div, Tensor.div_)),
    (_binary(aten.matmul.default), (operator.matmul, torch.matmul, Tensor.matmul)),
    (_unary(aten.relu.default), (F.relu, torch.relu, Tensor.relu, Tensor.relu_)),
    (_unary(aten.sigmoid.default), (torch.sigmoid, Tensor.sigmoid, Tensor.sigmoid_, F.sigmoid)),
    (_unary(aten.tanh.default), (torch.tanh, Tensor.tanh, F.tanh)),
    (_unary(aten.neg.default), (operator.neg, torch.neg, Tensor.neg)),
]
_VARIADIC: list[tuple[Callable[..., Calls], tuple[Any, ...]]] = [
    (_reshape, (Tensor.view, Tensor.reshape, torch.reshape)),
    (lambda x, *dims: _one(aten.permute.default, x, _sizes(dims)), (Tensor.permute, torch.permute)),
    (lambda x, *sizes: _one(aten.repeat.default, x, _sizes(sizes)), (Tensor.repeat,)),
    (lambda x, *sizes: _one(aten.expand.default, x, _sizes(sizes)), (Tensor.expand,)),
    (
        lambda x, start_dim=0, end_dim=-1: _one(aten.flatten.using_ints, x, start_dim, end_dim),
        (Tensor.flatten, torch.flatten),
    ),
    (
        lambda x, dim0, dim1: _one(aten.transpose.int, x, dim0, dim1),
        (Tensor.transpose, torch.transpose, torch.swapaxes, Tensor.swapaxes),
    ),
    (lambda x, chunks, dim=0: _one(aten.chunk.default, x, chunks, dim), (Tensor.chunk, torch.chunk)),
    (_split, (Tensor.split, torch.split, torch.functional.split)),
    (lambda x, dim=0: _one(aten.unbind.int, x, dim), (Tensor.unbind, torch.unbind)),
    (lambda x, dim, sizes: _one(aten.unflatten.int, x, dim, list(sizes)), (Tensor.unflatten, torch.unflatten)),
    (lambda x, dim: _one(aten.unsqueeze.default, x, dim), (Tensor.unsqueeze, torch.unsqueeze)),
    (lambda x, dim: _one(aten.squeeze.dim, x, dim), (Tensor.squeeze, torch.squeeze)),
    (lambda x: UNCHANGED, (Tensor.contiguous, Tensor.clone, torch.clone, Tensor.detach)),
    (_mean(aten.mean.dim), (Tensor.mean, torch.mean)),
    (_mean(aten.sum.dim_IntList), (Tensor.sum, torch.sum)),
    (lambda tensors, dim=0: _one(aten.cat.default, list(tensors), dim), (torch.cat, torch.concat)),
    (lambda tensors, dim=0: _one(aten.stack.default, list(tensors), dim), (torch.stack,)),
    (lambda x, dim, **_: _one(aten.softmax.int, x, dim), (torch.softmax, Tensor.softmax, F.softmax)),
    (lambda x, dims: _one(aten.flip.default, x, list(dims)), (torch.flip,)),
    (lambda x, groups: _one(aten.channel_shuffle.default, x, groups), (torch.channel_shuffle,)),
    (lambda x, dim, index: _one(aten.index_select.default, x, dim, index), (torch.index_select, Tensor.index_select)),
    (
        lambda equation, *operands: _one(aten.einsum.default, equation, _sizes(operands)),
        (torch.einsum, torch.functional.einsum),
    ),
    (_index, (operator.getitem,)),
]
_FUNCTIONAL: list[tuple[Callable[..., Calls], tuple[Any, ...]]] = [
    (_pad, (F.pad,)),
    (_conv(aten.conv1d.default, aten.conv1d.padding), (F.conv1d,)),
    (_conv(aten.conv2d.default, aten.conv2d.padding), (F.conv2d,)),
    (_conv(aten.conv3d.default, aten.conv3d.padding), (F.conv3d,)),
    (lambda x, weight, bias=None: _one(aten.linear.default, x, weight, bias), (F.linear,)),
    (_batch_norm, (F.batch_norm,)),
    (_layer_norm, (F.layer_norm,)),
    (_group_norm, (F.group_norm,)),
    (_normalize, (F.normalize,)),
    (_norm, (Tensor.norm, torch.norm)),
    (_dropout, (F.dropout, F.dropout2d)),
    (_avg_pool2d, (F.avg_pool2d,)),
    (_max_pool2d, (F.max_pool2d,)),
    (_adaptive, (F.adaptive_avg_pool2d,)),
    (_adaptive_max, (F.adaptive_max_pool2d,)),
    (_interpolate, (F.interpolate,)),
    (lambda x: _one(aten.silu.default, x), (F.silu,)),
    (lambda x, approximate="none": _one(aten.gelu.default, x, approximate=approximate), (F.gelu,)),
    (lambda x: _one(aten.hardswish.default, x), (F.hardswish,)),
    (lambda x: _one(aten.hardsigmoid.default, x), (F.hardsigmoid,)),
    (lambda x: _one(aten.relu6.default, x), (F.relu6,)),
    (lambda x, negative_slope=0.01: _one(aten.leaky_relu.default, x, negative_slope), (F.leaky_relu,)),
    (lambda x, min_val=-1.0, max_val=1.0: _one(aten.hardtanh.default, x, min_val, max_val), (F.hardtanh,)),
]

CALLS: dict[Any, Callable[..., Calls]] = {
    function: entry
    for table in (_BINARY, _VARIADIC, _FUNCTIONAL)
    for entry, functions in table
    for function in functions
}
"""Entries by the function that they stand for."""
