"""Resizing of images: Resize, and Upsample of older operator sets."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from fupruner.errors import InputError
from fupruner.onnx_import.node import Built, Node, UnsupportedError, operator
from fupruner.onnx_import.values import Value, integers

_LINEAR = {3: "linear", 4: "bilinear", 5: "trilinear"}


@operator("Upsample")
def upsample(node: Node) -> Built:
    """Resizing by scales, corners aside."""
    mode = node.attribute("mode", "nearest")
    if mode not in ("nearest", "linear", "bilinear"):
        raise UnsupportedError(f"with mode {mode}")
    if mode != "nearest":
        # its linear mode keeps pixel 0 in place and so has no counterpart in PyTorch
        raise UnsupportedError("with mode linear in operator set 9, which places pixels in a way of its own")
    if node.attribute("scales") is not None:
        scales = np.array(node.attribute("scales"), np.float32)
        return node.call(partial(_resize, scales=scales, sizes=None, mode=mode), 1)
    return Built(partial(_resize, sizes=None, mode=mode), (node.input(0), node.input(1)))


@operator("Resize")
def resize(node: Node) -> Built:
    """Nearest neighbour, linear or cubic resizing, as far as PyTorch places pixels the same way."""
    mode = node.attribute("mode", "nearest")
    place = node.attribute("coordinate_transformation_mode", "half_pixel" if node.opset >= 11 else "asymmetric")
    settings: dict[str, Any] = {
        "mode": _mode(mode, place, node.attribute("nearest_mode", "round_prefer_floor"), node.opset)
    }
    if node.attribute("antialias", 0) or node.attribute("exclude_outside", 0):
        raise UnsupportedError("with antialias or exclude_outside")
    if node.attribute("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise UnsupportedError("with a kept aspect ratio")
    if mode == "cubic" and abs(node.attribute("cubic_coeff_a", -0.75) + 0.75) > 1e-6:
        raise UnsupportedError("with mode cubic and a coefficient other than -0.75")
    corners = place == "align_corners" if mode != "nearest" else None
    axes = node.attribute("axes")
    run = partial(_resize, axes=None if axes is None else tuple(axes), corners=corners, **settings)
    if node.opset < 11:
        return Built(partial(run, sizes=None), (node.input(0), node.input(1)))
    return Built(run, (node.input(0), node.input(2), node.input(3)))


def _mode(mode: str, place: str, rounding: str, opset: int) -> str:
    """PyTorch's name of a way to resize."""
    if mode == "nearest":
        if place == "asymmetric" and (rounding == "floor" or opset < 11):
            return "nearest"
        if place in ("half_pixel", "pytorch_half_pixel") and rounding.startswith("round_prefer"):
            return "nearest-exact"
    elif mode in ("linear", "cubic") and place in ("half_pixel", "pytorch_half_pixel", "align_corners"):
        return mode
    raise UnsupportedError(f"with mode {mode}, {place}" + (f", {rounding}" if mode == "nearest" else ""))


def _resize(
    x: Tensor,
    scales: Value | None = None,
    sizes: Value | None = None,
    *,
    mode: str,
    axes: tuple[int, ...] | None = None,
    corners: bool | None = None,
) -> Tensor:
    by_size = sizes is not None and len(integers(sizes)) > 0
    given = dict(zip(axes or range(x.dim()), integers(sizes if by_size else scales), strict=True))
    if any(given.get(axis) not in (None, 0, x.shape[axis] if by_size else 1) for axis in (0, 1)):
        raise InputError("A Resize changes the batch or the channels; only images can be resized.")
    wanted = [given.get(axis, x.shape[axis] if by_size else 1.0) for axis in range(2, x.dim())]
    settings: dict[str, Any] = {
        "mode": _LINEAR[x.dim()] if mode == "linear" else "bicubic" if mode == "cubic" else mode
    }
    settings["align_corners"] = corners
    factors = [want / have if by_size else want for want, have in zip(wanted, x.shape[2:], strict=True)]
    if mode.startswith("nearest") and all(factor == int(factor) for factor in factors):
        settings["mode"] = "nearest"  # by whole numbers every way to round gives the same pixels
    return F.interpolate(x, size=wanted, **settings) if by_size else F.interpolate(x, scale_factor=wanted, **settings)
