"""A sweep's work without training: figures that follow from the options."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fupruner.errors import InputError
from fupruner.records import Figures, Requirement, Summary
from fupruner.runs.run_folder import write_atomically


def figures(accuracy: float, latency: float) -> Figures:
    return Figures(accuracy=accuracy, latency_ms=latency, latency_grade="measured", macs=1000, params=100)


def fake_run(out: Path, options: dict[str, Any]) -> None:
    """Faster networks are worse; level ``basic`` is better than ``none`` at every speed; 3x is out of reach."""
    speedup = options["speedup"]
    if speedup >= 3:
        raise InputError(
            "A speed-up of 3.00x is out of reach on cpu: 2.50x is the largest predicted one.", hint="Less."
        )
    accuracy = 90 - 4 * (speedup - 1) - (2 if options.get("fusion") == "none" else 0)
    out.mkdir(parents=True)
    summary = Summary(
        requirement=Requirement(max_drop=3, satisfied=accuracy >= 87), baseline=figures(90, 2.0),
        final=figures(accuracy, 2.0 / speedup), speedup=speedup, target="cpu", epochs=1, seconds=2.0, hardware="made up", version="0",
    )  # fmt: skip
    (out / "nested").mkdir()
    (out / "nested" / "weights").write_bytes(bytes(range(256)))
    write_atomically(out / "result.json", summary.model_dump_json())


@dataclass(frozen=True)
class TogetherWork:
    """Stands for ``pools.Work``: the first two trials wait for each other, so that two workers have to be there."""

    meeting: Path

    def run(self, values: dict[str, Any], folder: Path, progress: object) -> str:
        name = "-".join(map(str, values.values()))
        (self.meeting / name).touch()
        waited = 0.0
        while len(list(self.meeting.iterdir())) < 2 and waited < 60:
            time.sleep(0.1)
            waited += 0.1
        try:
            fake_run(folder, values)
        except InputError as error:
            return str(error).splitlines()[0]
        return ""
