"""Parts of tensors and tensors from parts: slices, splits, concatenation, gathering, padding, pixel shuffles."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fupruner.errors import InputError
from fupruner.onnx_import.node import Built, Node, UnsupportedError, operator
from fupruner.onnx_import.values import Value, array, first_tensor, integers, on_host, settle, tensor

_PAD_MODES = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}


@operator("Concat")
def concat(node: Node) -> Built:
    """Values side by side along an axis."""
    return node.call(partial(_concat, axis=node.attribute("axis")))


def _concat(*values: Value, axis: int) -> Any:
    if on_host(*values):
        return settle(np.concatenate([np.asarray(value) for value in values], axis=axis))
    like = first_tensor(*values)
    return torch.cat([tensor(value, like) for value in values], dim=axis)


@operator("Slice")
def cut(node: Node) -> Built:
    """A range per axis; attributes before operator set 10, inputs since."""
    if node.opset >= 10:
        return node.call(_slice)
    given = [np.array(node.attribute(name)) for name in ("starts", "ends")]
    axes = node.attribute("axes")
    return node.call(partial(_slice, starts=given[0], ends=given[1], axes=None if axes is None else np.array(axes)), 1)


def _slice(x: Value, starts: Value, ends: Value, axes: Value | None = None, steps: Value | None = None) -> Any:
    begins, stops = integers(starts), integers(ends)
    along = (
        [axis if axis >= 0 else axis + len(x.shape) for axis in integers(axes)]
        if axes is not None
        else list(range(len(begins)))
    )
    strides = integers(steps) if steps is not None else [1] * len(begins)
    for axis, begin, stop, stride in zip(along, begins, stops, strides, strict=True):
        if stride > 0 or isinstance(x, np.ndarray):
            x = x[(slice(None),) * axis + (slice(begin, stop, stride),)]
        else:
            positions = list(range(*slice(begin, stop, stride).indices(int(x.shape[axis]))))
            x = x.index_select(axis, torch.tensor(positions, dtype=torch.int64))
    return x


@operator("Split")
def split(node: Node) -> Built:
    """Parts of given sizes, or equal ones."""
    sizes, axis = node.axes(1, name="split"), node.attribute("axis", 0)
    count = node.attribute("num_outputs", len(node.proto.output))
    return node.call(partial(_split, sizes=sizes, count=count, axis=axis), 1)


def _split(x: Value, sizes: tuple[int, ...], count: int, axis: int) -> Any:
    if not isinstance(x, np.ndarray):
        return x.split(list(sizes), axis) if sizes else x.chunk(count, axis)
    return tuple(np.split(x, np.cumsum(sizes)[:-1].tolist() if sizes else count, axis=axis))


@operator("Gather")
def gather(node: Node) -> Built:
    """Slices along an axis at given positions."""
    return node.call(partial(_gather, axis=node.attribute("axis", 0)))


def _gather(x: Value, indices: Value, axis: int) -> Any:
    if isinstance(x, np.ndarray):
        return array(x.take(np.array(integers(indices), np.int64).reshape(indices.shape), axis=axis))
    axis = axis if axis >= 0 else axis + x.dim()
    if not isinstance(indices, np.ndarray):
        picked = x.index_select(axis, indices.reshape(-1))
        return picked.reshape([*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]])
    if indices.ndim == 0:
        return x.select(axis, integers(indices)[0])
    positions = indices.astype(np.int64)
    positions = (
        np.where(positions < 0, positions + int(x.shape[axis]), positions) if (positions < 0).any() else positions
    )
    picked = x.index_select(axis, torch.from_numpy(positions.reshape(-1)))
    return picked if indices.ndim == 1 else picked.reshape([*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]])


@operator("ScatterND")
def scatter_nd(node: Node) -> Built:
    """A copy with other values at given positions, as assignments to slices are exported."""
    how = node.attribute("reduction", "none")
    if how not in ("none", "add"):
        raise UnsupportedError(f"with reduction {how}")
    return node.call(partial(_scatter_nd, adds=how == "add"))


def _scatter_nd(x: Value, indices: Value, updates: Value, adds: bool) -> Any:
    """Write ``updates`` (*K, *rest) to ``x`` at ``indices`` (*K, depth): the last axis holds positions along the first axes of x."""
    positions = np.array(integers(indices), np.int64).reshape(indices.shape)
    where = tuple(positions[..., axis] for axis in range(positions.shape[-1]))
    if on_host(x, updates):
        written = np.array(x)
        if adds:
            np.add.at(written, where, np.asarray(updates))
        else:
            written[where] = updates
        return settle(written)
    like = first_tensor(x, updates)
    placed = tuple(torch.from_numpy(axis) for axis in where)
    return tensor(x, like).index_put(placed, tensor(updates, like), accumulate=adds)


@operator("Pad")
def pad(node: Node) -> Built:
    """Padding with a constant, by reflection, by the edge or around; attributes before operator set 11, inputs since."""
    mode = node.attribute("mode", "constant")
    if mode not in _PAD_MODES:
        raise UnsupportedError(f"with mode {mode}")
    if node.opset < 11:
        value = node.attribute("value", 0.0)
        return node.call(partial(_pad, pads=np.array(node.attribute("pads")), fixed=value, mode=_PAD_MODES[mode]), 1)
    axes = tuple(node.required(3, "list of axes").reshape(-1).tolist()) if node.input(3) else None
    value = float(node.required(2, "value").reshape(-1)[0]) if node.input(2) else 0.0
    return Built(partial(_pad, fixed=value, mode=_PAD_MODES[mode], axes=axes), (node.input(0), node.input(1)))


def _pad(x: Value, pads: Value, *, fixed: float, mode: str, axes: tuple[int, ...] | None = None) -> Tensor:
    if isinstance(x, np.ndarray):
        raise InputError("An array of sizes is padded; that is not supported.")
    sides = integers(pads)
    half = len(sides) // 2
    rank = half if axes is None else x.dim()
    sides_of: dict[int, tuple[Any, Any]] = {
        axis % rank: (sides[i], sides[half + i]) for i, axis in enumerate(axes or range(half))
    }
    padded = [axis for axis, pair in sides_of.items() if pair != (0, 0)]
    if not padded:
        return x
    # reflection needs all spatial axes in its list, padded or not
    first = min(padded) if mode == "constant" else min(2, *padded)
    flat = [side for axis in reversed(range(first, rank)) for side in sides_of.get(axis, (0, 0))]
    return F.pad(x, flat, mode, fixed) if mode == "constant" else F.pad(x, flat, mode)


@operator("DepthToSpace")
def depth_to_space(node: Node) -> Built:
    """Channels to pixels; the order CRD is PyTorch's pixel shuffle."""
    block = node.attribute("blocksize")
    if node.attribute("mode", "DCR") == "CRD":
        return node.call(torch.nn.PixelShuffle(block))
    return node.call(partial(_depth_to_space, block=block))


def _depth_to_space(x: Tensor, block: int) -> Tensor:
    n, c, h, w = x.shape
    x = x.reshape(n, block, block, c // block**2, h, w).permute(0, 3, 4, 1, 5, 2)
    return x.reshape(n, c // block**2, h * block, w * block)


@operator("SpaceToDepth")
def space_to_depth(node: Node) -> Built:
    """Pixels to channels, the block's position slower than the channel."""
    return node.call(partial(_space_to_depth, block=node.attribute("blocksize")))


def _space_to_depth(x: Tensor, block: int) -> Tensor:
    n, c, h, w = x.shape
    x = x.reshape(n, c, h // block, block, w // block, block).permute(0, 3, 5, 1, 2, 4)
    return x.reshape(n, c * block**2, h // block, w // block)
