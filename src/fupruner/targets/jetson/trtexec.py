"""Reads what ``trtexec`` of TensorRT 8.2 prints and writes: latency of a run, and the profile of its layers."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fupruner.errors import TargetError
from fupruner.records import LayerTime

_ROW = re.compile(r"\[I\] (?P<what>GPU Compute Time|Latency): (?P<rest>min = .*)$", re.MULTILINE)
_VALUE = re.compile(r"(?P<name>min|max|mean|median|percentile\(\d+%\)) = (?P<ms>[\d.]+(?:e-?\d+)?) ms")


@dataclass(frozen=True)
class TrtexecTimes:
    """Milliseconds of one inference.

    Attributes:
        median, mean, least, most: of the time between the first and the last kernel of a run.
        host_median: median with copies to and from the device.
    """

    median: float
    mean: float
    least: float
    most: float
    host_median: float


def parse_log(text: str) -> TrtexecTimes:
    """Read the performance summary of a run.

    Raises:
        TargetError: the run failed or ran out of memory, the summary is missing, or a number in it makes no sense.
    """
    lowered = text.lower()
    if "out of memory" in lowered or "outofmemory" in lowered or "cuda failure: 2" in lowered:
        raise TargetError(
            "The device ran out of memory.", hint="Close other programs, add swap space, or ask for a smaller network."
        )
    if "&&&& FAILED" in text:
        raise TargetError(f"trtexec failed: {_last_error(text)}")
    found = {match["what"]: _values(match["rest"]) for match in _ROW.finditer(text)}
    gpu, host = found.get("GPU Compute Time", {}), found.get("Latency", {})
    if not {"min", "max", "mean", "median"} <= gpu.keys():
        raise TargetError(
            f"trtexec printed no summary of GPU Compute Time; its last line: {text.strip().rpartition(chr(10))[2][:200]!r}.",
            hint="This reads the output of TensorRT 8.2.",
        )
    times = TrtexecTimes(gpu["median"], gpu["mean"], gpu["min"], gpu["max"], host.get("median", gpu["median"]))
    if not 0 < times.least <= times.median <= times.most:
        raise TargetError(f"trtexec printed times that contradict each other: {times}.")
    return times


def _values(row: str) -> dict[str, float]:
    return {match["name"]: float(match["ms"]) for match in _VALUE.finditer(row)}


def _last_error(text: str) -> str:
    errors = [line.partition("[E]")[2].strip() for line in text.splitlines() if "[E]" in line]
    return errors[-1][:300] if errors else "no error was printed"


def parse_profile(text: str) -> list[LayerTime]:
    """Read the file of ``--exportProfile``: a list whose first entry counts the runs, then one entry per layer.

    Raises:
        TargetError: it is something else.
    """
    try:
        entries: Any = json.loads(text)
        layers = [entry for entry in entries if "name" in entry]
        times = [
            LayerTime(
                name=str(entry["name"]), kind=_kind(str(entry["name"])), ms=float(entry["averageMs"]), grade="measured"
            )
            for entry in layers
        ]
    except (ValueError, TypeError, KeyError) as error:
        raise TargetError(f"The profile of trtexec reads like something else: {error!r}.") from None
    if not times or any(not time.ms >= 0 for time in times):
        raise TargetError("The profile of trtexec holds no layer with a time.")
    return times


def _kind(name: str) -> str:
    """What TensorRT did for a layer, from its name: convolutions end in ``Conv_12``, copies begin with ``Reformatting``."""
    if name.startswith("Reformatting"):
        return "Reformat"
    first = name.partition(" + ")[0].rpartition("/")[2]
    return re.sub(r"[_\d]+$", "", first) or "Layer"


def read_run(log: Path, profile: Path) -> tuple[TrtexecTimes, list[LayerTime]]:
    """Read what the script that ships with a network leaves behind on the device.

    Raises:
        TargetError: a file is missing or unreadable.
    """
    try:
        return parse_log(log.read_text(errors="replace")), parse_profile(profile.read_text())
    except OSError as error:
        raise TargetError(f"What trtexec left behind cannot be read: {error}.") from None
