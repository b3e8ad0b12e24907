"""Figures of a run for TensorBoard, where it was asked for: event files in the run folder, written as training goes on."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, final

from fupruner.errors import InputError

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

FOLDER = "tensorboard"
"""Below the run folder; each attempt is a run of its own there."""


def require_tensorboard() -> None:
    """Refuse before anything is trained what could not be written.

    Raises:
        InputError: the library is not installed.
    """
    if importlib.util.find_spec("tensorboard") is None:
        raise InputError(
            "Logging for TensorBoard needs a library that is not installed.",
            hint="pip install 'fupruner[tensorboard]', or set tensorboard to false.",
        )


@final
class Scalars:
    """Figures over steps; a file is made when the first one is written.

    Args:
        folder: where to; nothing is written if None.
        is_old: whether what happens now was done, and written, before the run was interrupted.
    """

    def __init__(self, folder: Path | None = None, is_old: Callable[[], bool] = lambda: False) -> None:
        self._folder, self._is_old = folder, is_old
        self._writer: SummaryWriter | None = None

    def write(self, step: int, **figures: float) -> None:
        """Write figures by name."""
        if self._folder is None or self._is_old():
            return
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - optional, and slow to import

            self._writer = SummaryWriter(str(self._folder))
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Bring to disk what is not there yet."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
