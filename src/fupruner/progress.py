"""How a long stage tells whoever is watching that it is alive: three calls, implemented by the screen or by nobody."""

from __future__ import annotations

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
