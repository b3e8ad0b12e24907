"""How a long stage tells whoever is watching that it is alive: three calls, implemented by the screen or by nobody."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, final


class Progress(Protocol):
    """Receives what the pipeline is doing; never influences it."""

    def stage(self, name: str, total: int | None) -> None:
        """Begin a stage of ``total`` steps (unknown if None); the stage before it is over."""

    def advance(self, n: int = 1, **info: float) -> None:
        """Report ``n`` more steps of the current stage, with figures worth showing, for example ``loss=0.31``."""

    def note(self, line: str) -> None:
        """Report a line worth keeping on the screen: the result of an epoch or of an attempt."""


@final
class Silent:
    """Progress that nobody watches; what the library uses unless told otherwise."""

    def stage(self, name: str, total: int | None) -> None:
        """Ignore the stage."""

    def advance(self, n: int = 1, **info: float) -> None:
        """Ignore the steps."""

    def note(self, line: str) -> None:
        """Ignore the line."""


@final
class Catching:
    """Passes on what is new: nothing while a resumed run goes through what was done before.

    Args:
        progress: told the rest.
        is_old: whether what happens now was done, and told, before.
    """

    def __init__(self, progress: Progress, is_old: Callable[[], bool]) -> None:
        self.progress, self.is_old = progress, is_old
        self._stage: tuple[str, int | None] | None = None
        self._done = 0

    def stage(self, name: str, total: int | None) -> None:
        """Begin a stage."""
        self._stage, self._done = (name, total), 0
        self._catch_up()

    def advance(self, n: int = 1, **info: float) -> None:
        """Report steps."""
        self._done += n
        if self._stage is not None:
            self._catch_up()
        elif not self.is_old():
            self.progress.advance(n, **info)

    def note(self, line: str) -> None:
        """Report a line."""
        self._catch_up()
        if not self.is_old():
            self.progress.note(line)

    def _catch_up(self) -> None:
        """Tell of the stage that the run is in now."""
        if self._stage is None or self.is_old():
            return
        self.progress.stage(*self._stage)
        if self._done:
            self.progress.advance(self._done)
        self._stage = None
