"""The one tree of errors: each message says what went wrong, where, with which values, and what to do next."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class FuPrunerError(Exception):
    """Base of every error that FuPruner raises on purpose.

    Attributes:
        hint: what the user can do next, or an empty string.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    def __str__(self) -> str:
        message = super().__str__()
        return f"{message}\n{self.hint}" if self.hint else message


class InputError(FuPrunerError):
    """What the user gave cannot be used: a file, a name, an option, a model or a data set."""


class TraceError(InputError):
    """The model cannot be captured as a graph."""


class DataError(InputError):
    """The data set cannot be read or does not fit the model."""


class NotEquivalentError(FuPrunerError):
    """Two networks that must compute the same function do not."""


class TrainingError(FuPrunerError):
    """Training cannot go on, for example because the loss is not a number."""


class DivergedError(TrainingError):
    """The loss is not a number any more."""


class StorageError(FuPrunerError):
    """What a run has to write cannot be written, for example because the disk is full."""


class TargetError(FuPrunerError):
    """A target's tool failed, is missing, or refuses the network."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> InputError:
    """Build the error for a name that is not known, with the nearest known names as the hint."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(near)}?" if near else f"Known: {', '.join(known)}."
    return InputError(f"Unknown {kind} {name!r}.", hint=hint)
