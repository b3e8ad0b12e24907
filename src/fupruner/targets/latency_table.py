"""Times of single layers, measured on this machine when first asked for."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import onnx

from fupruner.graph.layer_shape import LayerShape
from fupruner.progress import part
from fupruner.records import Grade
from fupruner.targets.cost_model import CostModel
from fupruner.targets.onnx_int8 import quantise
from fupruner.targets.price_cache import PriceCache
from fupruner.targets.probe import add_layer
from fupruner.targets.probe_ops import can_build
from fupruner.targets.profiler import NodeTime, node_times
from fupruner.targets.runtime import Array, runtime_name
from fupruner.targets.sheet import Sheet

SHEET_BYTES = 8 * 2**20
SHEET_LAYERS = 64

_STREAM = LayerShape("add", (64, 32, 32), (64, 32, 32), bias=False, inputs=2)
# Convolutions of common sizes, to tell the pace of the machine by.
_REFERENCES = tuple(
    LayerShape("conv", (width, size, size), (width, size, size), (3, 3), (1, 1), (1, 1), (1, 1), activation="relu")
    for width, size in ((16, 32), (64, 16), (128, 8))
)
_TINY = LayerShape("add", (16, 1, 1), (16, 1, 1), bias=False, inputs=2)


class Profile(Protocol):
    """Runs an ONNX model and tells the times of its nodes, in the order of execution."""

    def __call__(
        self, model: bytes, inputs: list[Array], /, *, threads: int = 1, seconds: float = 1.0
    ) -> list[NodeTime]:
        """Typical times over about so many seconds of runs."""
        ...


@dataclass(frozen=True)
class Engine:
    """A runtime that layers are timed in.

    Attributes:
        source: runtime and processor; what prices are kept under.
        profile: tells the times of nodes.
        by_name: whether a node is told to belong to a layer by its name; else by its place between marks.
        int8: whether layers compute in int8; their models are quantised as networks are.
    """

    source: str
    profile: Profile
    by_name: bool = False
    int8: bool = False


class LatencyTable(CostModel):
    """What layers cost in a runtime, on this machine unless the engine runs elsewhere.

    Layers that were never priced are put side by side into one model, each behind a small convolution that leaves its
    input as a preceding layer would, and timed with the runtime's profiler. Reorders of the layout that the layer asks
    for belong to its price. Every model also holds a few reference layers: how long these take compared to the first
    time tells how fast the machine is now, and prices are brought to the pace of then. They are kept on disk.

    Weights come from a cache, at most 8 MiB of them per model, whatever network the layer is for: so prices do not
    depend on what else is asked for. A network whose weights do not fit into the processor's caches takes longer than
    the sum, by the time that reading them from memory takes; its speed-up by cutting weights is larger than predicted.

    Monotone in widths up to noise: a price is the smallest of three blocks of runs, each of which drops its slowest
    runs. Nothing is smoothed, because steps and even falls are real (33 channels may cost more than 36).

    A kind of layer without a builder is priced by the elements it reads and writes, at the speed of an addition.

    Ask for many layers in one call: each call that meets a new layer has to build and start a model.

    Args:
        threads: threads inside an operator.
        engine: the runtime; ONNX Runtime on this machine in float32 where None.
    """

    grade: Grade = "table"

    def __init__(self, threads: int = 1, engine: Engine | None = None) -> None:
        self._engine = engine or Engine(runtime_name(), node_times)
        self.source = f"{self._engine.source}{', int8' if self._engine.int8 else ''}"
        self.threads = threads
        self._cache = PriceCache(self.source, threads)

    def price(self, layers: Sequence[LayerShape]) -> list[float]:
        """Time of each layer in milliseconds at batch 1, in the order given.

        Raises:
            TargetError: the runtime refuses a model of such layers.
        """
        known = [layer for layer in layers if can_build(layer)]
        if len(known) < len(layers):
            known += [_STREAM, _TINY]
        missing = [layer for layer in dict.fromkeys(known) if self._cache.get(layer) is None]
        if missing:
            asked = set(missing)
            with part("fill the latency table, layers", len(missing)) as advance:
                for sheet, group in _sheets(missing):
                    self._measure(sheet, group)
                    advance(sum(layer in asked for layer in group))
        return [self._price(layer) for layer in layers]

    def _measure(self, sheet: Sheet, group: Sequence[LayerShape]) -> None:
        """Time a sheet and keep its layers' times, as if the machine were as fast now as when the table was begun."""
        model, arrays = sheet.model(len(group)), sheet.arrays()
        if self._engine.int8:
            model = quantise(
                onnx.load_from_string(model), [dict(zip(sheet.inputs, arrays, strict=True))]
            ).SerializeToString()
        nodes = self._engine.profile(model, arrays, threads=self.threads, seconds=_seconds(len(group)))
        found = _times_by_name(nodes, len(group)) if self._engine.by_name else _times(nodes, len(group))
        times = dict(zip(group, found, strict=True))
        begun = {layer: self._cache.get(layer) or times[layer] for layer in _REFERENCES}
        pace = sum(begun.values()) / sum(times[layer] for layer in _REFERENCES)
        self._cache.add({**{layer: ms * pace for layer, ms in times.items()}, **begun})

    def _price(self, layer: LayerShape) -> float:
        price = self._cache.get(layer) if can_build(layer) else None
        return self._by_elements(layer) if price is None else price

    def _by_elements(self, layer: LayerShape) -> float:
        stream, tiny = self._cache.get(_STREAM) or 0.0, self._cache.get(_TINY) or 0.0
        return max(tiny, stream * _elements(layer) / _elements(_STREAM))


def _elements(layer: LayerShape) -> int:
    return math.prod(layer.in_shape) * layer.inputs + math.prod(layer.out_shape)


def _seconds(layers: int) -> float:
    """Time to spend on running a sheet: 0.1 s, and 20 ms more for each layer."""
    return 0.1 + 0.02 * layers


def _sheets(layers: Sequence[LayerShape]) -> Iterator[tuple[Sheet, list[LayerShape]]]:
    """Spread layers over models of moderate size; each holds the reference layers too."""
    waiting = list(layers)
    while waiting:
        sheet, group = Sheet(), list[LayerShape]()
        while waiting and sheet.weight_bytes < SHEET_BYTES and len(group) < SHEET_LAYERS:
            _append(sheet, group, waiting.pop(0))
        for layer in _REFERENCES:
            _append(sheet, group, layer)
        yield sheet, group


def _append(sheet: Sheet, group: list[LayerShape], layer: LayerShape) -> None:
    if layer not in group:
        add_layer(sheet, len(group), layer)
        group.append(layer)


def _times(nodes: Sequence[NodeTime], layers: int) -> list[float]:
    """Milliseconds of each layer of a sheet: all that runs after ``p<i>`` and before ``t<i>``.

    A reorder of the layout just before ``t<i>`` is left out: whichever layer follows in a network answers for it.
    """
    times, trailing = [0.0] * layers, 0.0
    current: int | None = None
    for node in nodes:
        role, index = _role(node.name)
        if role == "p":
            current, trailing = index, 0.0
        elif role == "t":
            if current == index:
                times[index] -= trailing
            current = None
        elif current is not None and role not in ("s", "f"):
            times[current] += node.ms
            trailing = node.ms if node.kind == "ReorderOutput" else 0.0
    return [max(ms, 1e-4) for ms in times]


def _times_by_name(nodes: Sequence[NodeTime], layers: int) -> list[float]:
    """Milliseconds of each layer of an int8 sheet: nodes that are named after it, quantising in between included.

    There is no blocked layout in int8: what stands before a layer is channels last already, as in a network.
    """
    times = [0.0] * layers
    for node in nodes:
        match = re.match(r"q(\d+)(?!\d)", node.name)
        if match is not None:
            times[int(match[1])] += node.ms
    return [max(ms, 1e-4) for ms in times]


def _role(name: str) -> tuple[str, int]:
    """What a node of a sheet is there for: ``p7_nchwc`` -> ("p", 7); the runtime's own nodes have none."""
    match = re.fullmatch(r"([pt])(\d+)(?:_nchwc)?|([sf])\d+.*|p(\d+)_c.*", name)
    if match is None:
        return "", -1
    return (match[1], int(match[2])) if match[1] else ("s", -1)
