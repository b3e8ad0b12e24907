"""How long work tells whoever is watching that it is alive: implemented by the screen, or by nobody.

A run goes through *stages*, one after the other, which the pipeline tells to the progress that it was given. Inside a stage, work
that takes a while (reading operators, calibration images, layers of a latency table, rounds of a measurement) is a *part*, told to
whoever watches this thread, see :func:`watched_by`: so that nothing has to be handed down through every function in between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Protocol, TypeVar, final

Advance = Callable[[int], None]
"""Told how many more steps of a part are done."""
Item = TypeVar("Item")


class Progress(Protocol):
    """Receives what the pipeline is doing; never influences it."""

    def stage(self, name: str, total: int | None) -> None:
        """Begin a stage of ``total`` steps (unknown if None); the stage before it is over."""

    def advance(self, n: int = 1, **info: float) -> None:
        """Report ``n`` more steps of the current stage, with figures worth showing, for example ``loss=0.31``."""

    def note(self, line: str) -> None:
        """Report a line worth keeping on the screen: the result of an epoch or of an attempt."""

    def part(self, name: str, total: int | None) -> AbstractContextManager[Advance]:
        """Begin a part of ``total`` steps (unknown if None) inside the current stage, until the context is left."""


@final
class Silent:
    """Progress that nobody watches; what the library uses unless told otherwise."""

    def stage(self, name: str, total: int | None) -> None:
        """Ignore the stage."""

    def advance(self, n: int = 1, **info: float) -> None:
        """Ignore the steps."""

    def note(self, line: str) -> None:
        """Ignore the line."""

    @contextmanager
    def part(self, name: str, total: int | None) -> Iterator[Advance]:
        """Ignore the part."""
        yield lambda steps: None


_WATCHING: ContextVar[Progress | None] = ContextVar("watching", default=None)


def watching() -> Progress:
    """Whoever watches what this thread does."""
    return _WATCHING.get() or Silent()


@contextmanager
def watched_by(progress: Progress) -> Iterator[None]:
    """Tell this progress what is done inside."""
    before = _WATCHING.set(progress)
    try:
        yield
    finally:
        _WATCHING.reset(before)


def part(name: str, total: int | None = None) -> AbstractContextManager[Advance]:
    """Tell whoever watches that a part of ``total`` steps begins, until the context is left."""
    return watching().part(name, total)


def counted(
    items: Iterable[Item], name: str, total: int | None = None, size: Callable[[Item], int] = lambda item: 1
) -> Iterator[Item]:
    """Pass items on, and tell how far that is.

    Args:
        items: what the part goes through.
        name: of the part.
        total: sum of the sizes; unknown if None.
        size: what an item counts for, for example the images of a batch.
    """
    with part(name, total) as advance:
        for item in items:
            yield item
            advance(size(item))


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

    def part(self, name: str, total: int | None) -> AbstractContextManager[Advance]:
        """Begin a part: what is not read from the records of before takes its time in any case."""
        return self.progress.part(name, total)

    def _catch_up(self) -> None:
        """Tell of the stage that the run is in now."""
        if self._stage is None or self.is_old():
            return
        self.progress.stage(*self._stage)
        if self._done:
            self.progress.advance(self._done)
        self._stage = None
