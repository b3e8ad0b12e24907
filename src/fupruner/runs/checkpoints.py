"""Checkpoints of a training: whole or not there at all, known by their digest, the last two kept.

A checkpoint is ``checkpoint-PHASE-STEP-DIGEST.pt``: the digest is that of the file's bytes, so that a file that was cut off or
damaged is recognised before anything in it is read. Inside are tensors and plain values only (``weights_only=True``).
"""

from __future__ import annotations

import hashlib
import io
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fupruner.runs.run_folder import write_bytes_atomically

KEPT = 2
_NAME = re.compile(r"checkpoint-(\d+)-(\d+)-([0-9a-f]{16})\.pt")


@dataclass(frozen=True)
class Checkpoint:
    """The state of a training between two steps.

    Attributes:
        phase: number of the phase of training, counted from 0 over the whole run.
        network: number of the network that the phase trains, counted from 0 over the whole run.
        position: entries of the journal that came before the phase.
        step: the next step of the schedule.
        stop: step before which the phase ends.
        model, optimizer, average: their states; that of an average over weights is empty where there is none.
        epochs: results of the epochs of the phase that ended, as plain values.
        losses: of the steps since the last epoch ended: their sum and number.
    """

    phase: int
    network: int
    position: int
    step: int
    stop: int
    model: dict[str, Tensor]
    optimizer: dict[str, Any]
    average: dict[str, Any] = field(default_factory=dict)
    epochs: list[dict[str, Any]] = field(default_factory=list)
    losses: tuple[float, int] = (0.0, 0)

    @property
    def is_final(self) -> bool:
        """Whether the phase is over."""
        return self.step >= self.stop


class Checkpoints:
    """The checkpoints in a run folder.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, checkpoint: Checkpoint, anchors: frozenset[int] = frozenset()) -> Path:
        """Write a checkpoint, then remove what is older than the last two.

        Args:
            checkpoint: tensors may lie on any device.
            anchors: phases whose last checkpoint is kept whatever its age.

        Raises:
            OSError: it cannot be written; nothing was removed.
        """
        buffer = io.BytesIO()
        torch.save(vars(checkpoint), buffer)
        content = buffer.getvalue()
        name = f"checkpoint-{checkpoint.phase:04d}-{checkpoint.step:08d}-{_digest(content)}.pt"
        write_bytes_atomically(self.folder / name, content)
        self._remove_old(anchors)
        return self.folder / name

    def paths(self) -> list[Path]:
        """Files of checkpoints, the latest first; whether they are sound is not known yet."""
        return sorted((p for p in self.folder.glob("checkpoint-*.pt") if _NAME.fullmatch(p.name)), reverse=True)

    def read(self, path: Path) -> Checkpoint | str:
        """A checkpoint, or in words why it cannot be used."""
        try:
            content = path.read_bytes()
        except OSError as error:
            return f"{path.name} cannot be read: {error.strerror}"
        match = _NAME.fullmatch(path.name)
        if match is None or _digest(content) != match[3]:
            return f"{path.name} is damaged: its content does not have the digest in its name"
        return Checkpoint(**torch.load(io.BytesIO(content), map_location="cpu", weights_only=True))

    def clear(self) -> None:
        """Remove all of them: the run is over."""
        for path in self.paths():
            path.unlink(missing_ok=True)

    def _remove_old(self, anchors: frozenset[int]) -> None:
        kept = 0
        anchored: set[int] = set()
        for path in self.paths():
            phase = phase_of(path)
            if phase in anchors and phase not in anchored:
                anchored.add(phase)
            elif kept < KEPT:
                kept += 1
            else:
                path.unlink(missing_ok=True)


def phase_of(path: Path) -> int:
    """The phase that a checkpoint's name tells."""
    match = _NAME.fullmatch(path.name)
    return int(match[1]) if match else -1


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
