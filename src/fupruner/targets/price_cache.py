"""Keeps layer times on disk between runs, one file per processor, runtime and number of threads."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import tempfile
from collections.abc import Mapping
from dataclasses import astuple
from pathlib import Path

from fupruner.graph.layer_shape import LayerShape

FORMAT = 1
_log = logging.getLogger(__name__)


def cache_folder() -> Path:
    """``$FUPRUNER_CACHE_DIR``, or ``fupruner`` in the user's cache folder."""
    own = os.environ.get("FUPRUNER_CACHE_DIR")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fupruner"


def layer_key(layer: LayerShape) -> str:
    """One line that stands for a layer, for example ``conv|16x8x8|32x8x8|3x3|1x1|1x1|1x1|1|True|relu|False|1``."""
    return "|".join("x".join(map(str, part)) if isinstance(part, tuple) else str(part) for part in astuple(layer))


class PriceCache:
    """Times in milliseconds by layer, read when made and written at every ``add``.

    A file that cannot be read is left out and later replaced; a folder that cannot be written to is not an error,
    times then live as long as this object. Both are logged.
    """

    def __init__(self, source: str, threads: int) -> None:
        self.source = source
        digest = hashlib.sha256(f"{FORMAT}|{source}|{threads}".encode()).hexdigest()[:16]
        self.path = cache_folder() / "latency" / f"{digest}.json"
        self._times = self._read()

    def get(self, layer: LayerShape) -> float | None:
        """Milliseconds of a layer, or None where it was never measured."""
        return self._times.get(layer_key(layer))

    def add(self, times: Mapping[LayerShape, float]) -> None:
        """Keep new times, along with what other processes wrote meanwhile."""
        new = {layer_key(layer): ms for layer, ms in times.items()}
        self._times = {**self._read(), **self._times, **new}
        try:
            self._write()
        except OSError as error:
            _log.warning("Layer times cannot be kept in %s: %s", self.path, error)

    def _read(self) -> dict[str, float]:
        try:
            content = json.loads(self.path.read_text())
            times = {str(key): float(ms) for key, ms in content["times"].items()}
            if not all(math.isfinite(ms) and ms >= 0 for ms in times.values()):
                raise ValueError("a time is not a positive number")
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            _log.warning("Layer times in %s are unusable and will be measured again: %s", self.path, error)
            return {}
        return times

    def _write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        content = json.dumps({"source": self.source, "times": dict(sorted(self._times.items()))}, indent=0)
        handle, draft = tempfile.mkstemp(prefix=f".{self.path.name}.", dir=self.path.parent)
        try:
            with os.fdopen(handle, "w") as file:
                file.write(content)
            os.replace(draft, self.path)
        except OSError:
            Path(draft).unlink(missing_ok=True)
            raise
