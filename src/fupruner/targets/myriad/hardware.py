"""The convolution engines of the Myriad X: what a convolution costs, and into how many pieces it is cut.

An engine runs in one of five modes, which say how many input channels share a block of its memory and how many output
channels one descriptor makes. The compiler takes the cheapest mode that fits. In mode (L, M, o), for kernel k x k:

    cost = ceil(min(Cout, ...) / M) * (ceil(Cin / L) * k * k + o)      engine cycles per output pixel

A mode fits where the engine's 128 KiB hold enough lines of every input channel, and its coefficient memory a block's
kernels. Where nothing fits, or the output is larger than the on-chip memory that is left for it, the convolution is cut:
over height, over width, or over input channels, whose partial sums other processors add.

Constants are those of the open source of the compiler (OpenVINO 2021.4, graph transformer of the VPU plug-in); the result
is held against what the compiler makes of whole networks.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from math import ceil

MODES = ((1, 256, 0), (2, 128, 5), (4, 64, 11), (8, 32, 19), (16, 16, 31))
"""Input channels per block, output channels per descriptor, set-up cycles per descriptor."""
ENGINE_BYTES = 128 * 1024
LARGEST_CHANNELS = 2048
LARGEST_COEFFICIENTS = 256
OUTPUT_BYTES = 589_824
"""On-chip memory that the compiler leaves to the output of one piece, with 9 slices."""
MOST_PIECES = 15
LEAST_WIDTH = 64


@dataclass(frozen=True)
class Window:
    """Geometry of a convolution or pool over one plane, square kernel: sizes in pixels."""

    channels: int
    height: int
    width: int
    outputs: int
    out_height: int
    out_width: int
    kernel: int
    stride: int
    padding: int


@dataclass(frozen=True)
class Cut:
    """How a window operator is run.

    Attributes:
        cost: engine cycles per output pixel of one piece.
        block: input channels per block of the chosen mode; input channels are rounded up to it.
        rows, columns, depths: pieces over height, width and input channels.
        trimmed: pieces whose output holds lines that are cut off again.
        cycles: engine cycles of the whole operator.
    """

    cost: int
    block: int
    rows: int
    columns: int
    depths: int
    trimmed: int
    cycles: float


@dataclass(frozen=True)
class _Piece:
    """A stretch of one axis: input read, output made, output kept."""

    read: int
    made: int
    kept: int


@lru_cache(maxsize=65536)
def cut_convolution(w: Window) -> Cut | None:
    """The cheapest way to run a convolution on an engine, or None where it cannot."""
    best: tuple[tuple[float, int], Cut] | None = None
    for depths in range(1, MOST_PIECES + 1):
        channels = ceil(w.channels / depths)
        for columns, rows in product(range(1, MOST_PIECES + 1), repeat=2):
            wide, high = _pieces(w, w.width, w.out_width, columns), _pieces(w, w.height, w.out_height, rows)
            if not wide or not high or (columns > 1 and ceil(w.width / columns) < LEAST_WIDTH):
                break
            found = _try(w, channels, depths, wide, high)
            if found is not None:
                overhead = (depths - 1) * w.out_height * w.out_width * w.outputs
                key = (found.cost * depths * len(wide) * len(high) + overhead, rows * columns * depths)
                if best is None or key < best[0]:
                    best = key, found
                break  # fewer rows are never dearer
    return best[1] if best else None


def _try(w: Window, channels: int, depths: int, wide: list[_Piece], high: list[_Piece]) -> Cut | None:
    modes = [_mode(w, channels, piece.read, across.read) for piece, across in product(high, wide)]
    if any(mode is None for mode in modes):
        return None
    if any(_bytes(w.outputs, piece.made, across.made) > OUTPUT_BYTES for piece, across in product(high, wide)):
        return None
    first = modes[0]
    assert first is not None  # noqa: S101 - checked above
    cycles = sum(
        mode[0] * depths * piece.made * across.made
        for mode, (piece, across) in zip(modes, product(high, wide), strict=True)
        if mode is not None
    )
    trimmed = sum(piece.made > piece.kept or across.made > across.kept for piece, across in product(high, wide))
    return Cut(first[0], first[1], len(high), len(wide), depths, trimmed, float(cycles))


def _mode(w: Window, channels: int, height: int, width: int) -> tuple[int, int] | None:
    """Cost and input channels per block of the cheapest mode that fits."""
    fitting = []
    for block, per_descriptor, setup in MODES:
        blocks, outputs = ceil(channels / block), min(per_descriptor, ceil(w.outputs / 8) * 8)
        if channels > LARGEST_CHANNELS or blocks * w.kernel**2 > LARGEST_COEFFICIENTS:
            continue
        if not _lines_fit(w, blocks * block, height, width):
            continue
        descriptors = ceil(w.outputs / outputs)
        fitting.append((descriptors * (blocks * w.kernel**2 + setup), descriptors, block))
    return (min(fitting)[0], min(fitting)[2]) if fitting else None


def _lines_fit(w: Window, channels: int, height: int, width: int) -> bool:
    line = ceil(2 * width / 16) * 16
    held = min(ENGINE_BYTES // (channels * line), height)
    return min(w.kernel + w.stride + 2 + (width <= 8), height) <= held


def cut_pool(w: Window) -> Cut | None:
    """How a pool is run on an engine, or None where it cannot: pieces over height alone."""
    for rows in range(1, MOST_PIECES + 1):
        high = _pieces(w, w.height, w.out_height, rows)
        if not high:
            return None
        if all(_pool_fits(w, piece) for piece in high):
            cycles = ceil(w.channels / 16) * w.kernel**2 * w.out_width * sum(piece.made for piece in high)
            trimmed = sum(piece.made > piece.kept for piece in high)
            return Cut(ceil(w.channels / 16) * w.kernel**2, 16, len(high), 1, 1, trimmed, float(cycles))
    return None


def _pool_fits(w: Window, piece: _Piece) -> bool:
    line = ceil(2 * w.width / 16) * 16
    padded = w.padding > 0
    plane = line * (piece.read - 1 + w.kernel - 1)
    return (
        _bytes(w.channels, piece.made, w.out_width) <= OUTPUT_BYTES
        and piece.read >= w.kernel
        and min(ENGINE_BYTES // 16 // line, piece.read) >= w.kernel
        and (not padded or plane <= 0x1000)
    )


def _bytes(channels: int, height: int, width: int) -> int:
    """On-chip bytes of a plane in half precision: lines of 16 bytes, channels in eights."""
    return ceil(2 * width / 16) * 16 * height * ceil(channels / 8) * 8


def _pieces(w: Window, size: int, out_size: int, count: int) -> list[_Piece]:
    """Cut an axis into pieces of equal input; empty where a piece would be smaller than the kernel.

    Lines at an inner edge are computed with padding that is not there: the piece makes them, and they are cut off.
    """
    if count == 1:
        return [_Piece(size, out_size, out_size)]
    read = ceil(ceil(size / count) / w.stride) * w.stride
    least = ceil(out_size / count)
    made = (read - w.kernel + 2 * w.padding) // w.stride + 1
    if made < least:
        read = (least - 1) * w.stride + w.kernel - 2 * w.padding
        made = least
    if read < w.kernel:
        return []
    pieces, start = [], 0
    after = w.padding // w.stride
    while start < out_size:
        first = start * w.stride - w.padding
        before = start if first < 0 else (first % w.stride + w.padding) // w.stride
        end = min(out_size, start + made)
        while end > start and before + end - start + (after if end < out_size else 0) > made:
            end -= 1
        if end <= start:
            return []
        junk = before + (after if end < out_size else 0)
        lead = max(first, 0) % w.stride if first >= 0 else 0
        stop = min((end - 1) * w.stride + w.kernel - w.padding, size)
        pieces.append(_Piece(stop - max(first, 0) + lead, end - start + junk, end - start))
        start = end
    return pieces
