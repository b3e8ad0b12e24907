"""What layers cost in LiteRT: each alone in a model of its own, less what starting a run costs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

import numpy as np

from fupruner.graph.layer_shape import LayerShape
from fupruner.records import Grade
from fupruner.targets.cost_model import CostModel
from fupruner.targets.edge_tpu.convert import open_interpreter
from fupruner.targets.litert_cpu.small_models import build, can_build
from fupruner.targets.price_cache import PriceCache
from fupruner.targets.profiler import typical

Times = Callable[[Sequence[bytes], int], list[float]]
"""Milliseconds of one run of each model, on so many threads."""

_STREAM = LayerShape("add", (64, 32, 32), (64, 32, 32), bias=False, inputs=2)
_TINY = LayerShape("relu", (8, 1, 1), (8, 1, 1), bias=False)
_REFERENCE = LayerShape("conv", (64, 16, 16), (64, 16, 16), (3, 3), (1, 1), (1, 1), (1, 1), activation="relu")
_LEAST_MS = 1e-4
_SECONDS = 0.02
"""About how long a layer is run."""


class LiteRtTable(CostModel):
    """Times of single layers in LiteRT, measured when first asked for and kept on disk.

    A reference layer is timed beside every group of new ones: how long it takes compared to the first time tells how fast the
    machine is now, and prices are brought to the pace of then. A kind of layer without a model is priced by its elements, at the
    speed of an addition.

    Args:
        source: runtime and processor; what prices are kept under.
        times: runs models, here or on another machine.
        int8: whether layers compute in int8.
        threads: of the runtime.
    """

    grade: Grade = "table"

    def __init__(self, source: str, times: Times, *, int8: bool = False, threads: int = 1) -> None:
        self.source = f"{source}{', int8' if int8 else ''}"
        self.threads, self._int8, self._times = threads, int8, times
        self._cache = PriceCache(self.source, threads)

    def price(self, layers: Sequence[LayerShape]) -> list[float]:
        """Time of each layer in milliseconds at batch 1, in the order given."""
        known = [layer for layer in layers if can_build(layer)]
        if len(known) < len(layers):
            known.append(_STREAM)
        missing = [layer for layer in dict.fromkeys(known) if self._cache.get(layer) is None]
        if missing:
            self._measure(list(dict.fromkeys([_REFERENCE, _TINY, *missing])))
        return [self._price(layer) for layer in layers]

    def _measure(self, layers: list[LayerShape]) -> None:
        found = self._times([build(layer, int8=self._int8) for layer in layers], self.threads)
        times = dict(zip(layers, found, strict=True))
        start = times[_TINY]  # next to nothing is computed there
        begun = self._cache.get(_REFERENCE) or times[_REFERENCE] - start
        pace = begun / max(_LEAST_MS, times[_REFERENCE] - start)
        new = {layer: max(_LEAST_MS, (ms - start) * pace) for layer, ms in times.items() if layer is not _REFERENCE}
        self._cache.add({_REFERENCE: max(_LEAST_MS, begun), **new})

    def _price(self, layer: LayerShape) -> float:
        if can_build(layer):
            return self._cache.get(layer) or _LEAST_MS
        return max(_LEAST_MS, (self._cache.get(_STREAM) or 0.0) * _elements(layer) / _elements(_STREAM))


def _elements(layer: LayerShape) -> int:
    return math.prod(layer.in_shape) * layer.inputs + math.prod(layer.out_shape)


def model_times(models: Sequence[bytes], threads: int = 1) -> list[float]:
    """Typical milliseconds of one run of each model on zeros, on this machine."""
    return [_time(model, threads) for model in models]


def _time(model: bytes, threads: int) -> float:
    interpreter = open_interpreter(model, threads)
    for entry in interpreter.get_input_details():
        interpreter.set_tensor(entry["index"], np.zeros(entry["shape"], entry["dtype"]))
    first = [_seconds(interpreter.invoke) for _ in range(3)]
    runs = int(np.clip(_SECONDS / max(1e-7, min(first)), 15, 3000))
    return 1e3 * typical([_seconds(interpreter.invoke) for _ in range(runs)])


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
