"""Ctrl-C while a network trains: the step is finished first, so that what is saved is whole."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupts:
    """Remembers that the user, or whoever runs the machine, asked to stop.

    Attributes:
        asked: whether that happened.
    """

    def __init__(self) -> None:
        self.asked = False

    @contextmanager
    def deferred(self, *, heard: bool = True) -> Iterator[Interrupts]:
        """While this lasts, the first Ctrl-C (or a SIGTERM) is only remembered; the second Ctrl-C ends at once.

        Args:
            heard: False for processes that follow another one's word; they take no notice.
        """
        if threading.current_thread() is not threading.main_thread():
            yield self  # signals go to the main thread, where somebody else handles them
            return
        self.asked = False

        def remember(number: int, _frame: FrameType | None) -> None:
            if heard and self.asked and number == signal.SIGINT:
                raise KeyboardInterrupt
            self.asked = self.asked or heard

        before = {number: signal.signal(number, remember) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
