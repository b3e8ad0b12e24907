"""How a target is timed on a device that is reached over ssh."""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fupruner.errors import InputError, TargetError
from fupruner.records import LayerTime
from fupruner.targets.cost_model import CostModel
from fupruner.targets.ssh import Shell
from fupruner.targets.timing import Rounds

HERE = Path(__file__).parent
SECONDS = 600
TIMED_SECONDS = 3.0
"""About how long files are timed."""

_RUN = """\
python=$(cat python.txt)
command -v "$python" > /dev/null 2>&1 || { echo "there is no $python on the device" >&2; exit 127; }
if command -v timeout > /dev/null 2>&1; then exec timeout 590 "$python" harness.py; fi
exec "$python" harness.py
"""


@dataclass(frozen=True)
class Timed:
    """Files that were timed on a device.

    Attributes:
        rounds: interleaved timings.
        source: runtime and device.
    """

    rounds: Rounds
    source: str


class RemoteTool(ABC):
    """The software that runs a target's files on a device."""

    @abstractmethod
    def compare(self, shell: Shell, paths: Sequence[Path], threads: int) -> Timed:
        """Time files in turn there.

        Raises:
            TargetError: the device is not reached, a tool is missing or prints something unexpected.
        """

    @abstractmethod
    def layer_times(self, shell: Shell, path: Path, threads: int) -> list[LayerTime]:
        """Times of a file's layers there; empty where the tool tells none."""

    @abstractmethod
    def cost_model(self, shell: Shell, own: CostModel) -> CostModel:
        """Prices of layers there, kept by device and shape; ``own`` is what is known without the device."""


@dataclass(frozen=True)
class PythonTool:
    """A runtime with a Python package.

    Attributes:
        worker: name of the module beside this one that knows the runtime.
        package: what to install on the device where it is missing.
        beside: ending of a file that belongs to the main one, or empty.
    """

    worker: str
    package: str
    beside: str = ""

    def ask(self, shell: Shell, what: str, files: Sequence[Path | bytes], suffix: str, threads: int = 1) -> Any:
        """Have a job done; what the worker says.

        Raises:
            TargetError: the device is not reached, the runtime is missing there or fails, or something unexpected is printed.
        """
        sent: dict[str, bytes] = {}
        for i, file in enumerate(files):
            sent[f"file{i}{suffix}"] = file if isinstance(file, bytes) else _read(file)
            if self.beside and isinstance(file, Path):
                sent[f"file{i}{self.beside}"] = _read(file.with_suffix(self.beside))
        job = {
            "what": what,
            "files": [name for name in sent if name.endswith(suffix)],
            "threads": threads,
            "seconds": TIMED_SECONDS,
        }
        scripts = {
            "run.sh": _RUN.encode(),
            "python.txt": (shell.address.python or "python3").encode(),
            "job.json": json.dumps(job).encode(),
            "harness.py": (HERE / "harness.py").read_bytes(),
            "worker.py": (HERE / f"{self.worker}.py").read_bytes(),
        }
        text = shell.run({**scripts, **sent}, SECONDS)
        try:
            said = json.loads(text.strip().rpartition("\n")[2])
            missing, error = said.get("missing"), said.get("error")
        except (ValueError, AttributeError):
            raise TargetError(f"{shell.address} printed something unexpected: {text.strip()[-300:]!r}") from None
        if missing:
            where = shell.address.python or "python3"
            raise TargetError(
                f"{where} on {shell.address} lacks the runtime: {missing}",
                hint=f"There, run: {where} -m pip install {self.package}",
            )
        if error:
            raise TargetError(f"The runtime on {shell.address} failed: {str(error)[:400]}")
        if not isinstance(said.get("source"), str):
            raise TargetError(f"{shell.address} did not say which runtime it has: {text.strip()[-300:]!r}")
        return said

    def compare(self, shell: Shell, paths: Sequence[Path], suffix: str, threads: int) -> Timed:
        """Time files in turn."""
        said = self.ask(shell, "compare", paths, suffix, threads)
        times = numbers(said.get("rounds"), shell, len(paths))
        return Timed(Rounds(times, tuple(int(n) for n in said["repeats"])), f"{said['source']} ({shell.address})")


def numbers(found: Any, shell: Shell, columns: int) -> np.typing.NDArray[np.float64]:
    """Times as an array (rounds, files).

    Raises:
        TargetError: they are no positive numbers, or not one per file.
    """
    try:
        times = np.asarray(found, dtype=np.float64)
    except (TypeError, ValueError):
        times = np.zeros(0)
    if times.ndim != 2 or times.shape[1] != columns or not len(times) or not (times > 0).all() or np.isinf(times).any():
        raise TargetError(f"{shell.address} gave times that make no sense: {str(found)[:200]}")
    return times


def read_layers(found: Any, shell: Shell) -> list[LayerTime]:
    """Layers of an answer.

    Raises:
        TargetError: they are something else than names, kinds and times.
    """
    try:
        times = [LayerTime(name=str(name), kind=str(kind), ms=float(ms)) for name, kind, ms in found]
    except (TypeError, ValueError):
        times = []
        found = found or "nothing"
    if (found and not times) or any(not (math.isfinite(time.ms) and time.ms >= 0) for time in times):
        raise TargetError(f"{shell.address} gave layers that make no sense: {str(found)[:200]}")
    return times


def _read(path: Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"Cannot read {path}: {error}.") from None
