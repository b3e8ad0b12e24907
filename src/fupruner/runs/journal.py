"""The journal of a run: the outcome of everything that would not come out the same twice, or takes long, in order.

A run is a function of its options, its data and its journal. To resume is to do everything again and to read measurements,
scores and accuracies from the journal as far as it goes, and trained weights from checkpoints (``runs.resumable``); so whatever
is decided in between is decided as before, to the last bit. Prices of layers are looked up by layer; all else in order.

On disk a line is a checksum and an entry. A line that was cut off, or does not have its checksum, ends the journal.
"""

from __future__ import annotations

import json
import logging
import os
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from fupruner.errors import FuPrunerError, InputError
from fupruner.training.parallel import World

FILE = "journal.log"
_log = logging.getLogger(__name__)


class Journal:
    """Outcomes by order and prices by layer. Until it has a file, what it holds lives in memory.

    Args:
        world: the processes of the run; the journal is that of process 0, and all of them read from it.

    Attributes:
        prices: milliseconds by layer.
        damage: in words what was found wrong when the journal was read, or an empty string.
    """

    def __init__(self, world: World | None = None) -> None:
        self.world = world or World()
        self.prices: dict[str, float] = {}
        self.damage = ""
        self._entries: list[dict[str, Any]] = []
        self._position, self._computing = 0, False
        self._file: IO[bytes] | None = None
        self._began, self._before = time.perf_counter(), 0.0

    @property
    def seconds(self) -> float:
        """Time spent on the run, that before it was interrupted included."""
        return self._before + time.perf_counter() - self._began

    @property
    def is_replaying(self) -> bool:
        """Whether the next outcome is known from before."""
        return self._position < len(self._entries)

    @property
    def position(self) -> int:
        """How many outcomes were asked for so far."""
        return self._position

    def __len__(self) -> int:
        """How many outcomes are known."""
        return len(self._entries)

    def known(self, kind: str) -> list[Any]:
        """Outcomes of a kind that were read from disk."""
        return [entry["value"] for entry in self._entries if entry["kind"] == kind]

    def begin(self, folder: Path) -> None:
        """From now on keep the journal in a folder; what it holds already is written.

        Raises:
            InputError: another process is writing there.
        """
        if not self.world.is_main:
            return
        self._file = (folder / FILE).open("ab")
        _lock(self._file, folder)
        if self._file.tell() == 0:
            for entry in self._entries[: self._position]:
                self._write(entry)
            self._write_prices(self.prices)

    def read(self, folder: Path) -> None:
        """Take over the sound part of a journal from disk; what follows it is cut off there.

        Raises:
            InputError: another process is writing it.
        """
        if not self.world.is_main:
            return
        (folder / FILE).touch()
        self._file = (folder / FILE).open("rb+")
        _lock(self._file, folder)
        sound, lines = 0, self._file.read().split(b"\n")
        for number, line in enumerate(lines[:-1], start=1):
            entry = _parse(line)
            if entry is None:
                self.damage = f"{FILE} is damaged in line {number} of {len(lines) - 1}; what follows is measured again"
                break
            self._take(entry)
            sound += len(line) + 1
        self._file.seek(sound)
        self._file.truncate()

    def close(self) -> None:
        """Let others write to the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def once(self, kind: str, compute: Callable[[], Any], *, everywhere: bool = False) -> Any:
        """The outcome of a computation: the recorded one, or what process 0 computes and records now.

        A computation is recorded as a whole: outcomes that it asks for itself are not.

        Args:
            kind: of outcome, to notice when a run does not repeat itself.
            compute: gives plain values: numbers, strings, lists, dictionaries.
            everywhere: whether all processes compute, though process 0's outcome counts; needed where the computation asks
                for prices, which all processes have to ask for in the same order.

        Raises:
            FuPrunerError: another kind of outcome was recorded here.
        """
        if self._computing:
            return compute()
        if everywhere and not self.world.share(lambda: self.is_replaying):
            value = self._alone(compute)
            return self.world.share(lambda: self._next(kind, lambda: value))
        return self.world.share(lambda: self._next(kind, lambda: self._alone(compute)))

    def price(self, keys: list[str], compute: Callable[[list[int]], list[float]]) -> list[float]:
        """Prices by key; ``compute`` gives those that are not known, by their positions."""

        def complete() -> list[float]:
            first = {key: i for i, key in reversed(list(enumerate(keys))) if key not in self.prices}
            missing = sorted(first.values())
            if missing:
                new = {keys[i]: float(ms) for i, ms in zip(missing, compute(missing), strict=True)}
                self.prices.update(new)
                self._write_prices(new)
            return [self.prices[key] for key in keys]

        return self.world.share(complete)

    # -- parts -------------------------------------------------------------------------------------------------------

    def _alone(self, compute: Callable[[], Any]) -> Any:
        self._computing = True
        try:
            return compute()
        finally:
            self._computing = False

    def _next(self, kind: str, compute: Callable[[], Any]) -> Any:
        if self.is_replaying:
            entry = self._entries[self._position]
            if entry["kind"] != kind:
                raise FuPrunerError(
                    f"The run does not repeat itself: it asks for {kind} where the journal has {entry['kind']}.",
                    hint="Was it begun with another version? Start it again with a new --out.",
                )
        else:
            value = json.loads(json.dumps(compute()))  # as it will be read back
            entry = {"kind": kind, "seconds": self.seconds, "value": value}
            self._write(entry)
            self._entries.append(entry)
        self._position += 1
        return entry["value"]

    def _take(self, entry: dict[str, Any]) -> None:
        self._before = max(self._before, entry["seconds"])
        if entry["kind"] == "prices":
            self.prices.update(entry["value"])
        else:
            self._entries.append(entry)

    def _write_prices(self, prices: dict[str, float]) -> None:
        if prices:
            self._write({"kind": "prices", "seconds": self.seconds, "value": prices})

    def _write(self, entry: dict[str, Any]) -> None:
        if self._file is None:
            return
        body = json.dumps(entry).encode()
        self._file.write(b"%08x %s\n" % (zlib.crc32(body), body))
        self._file.flush()
        os.fsync(self._file.fileno())


def _parse(line: bytes) -> dict[str, Any] | None:
    """An entry, or None where the line is not what was written."""
    checksum, _, body = line.partition(b" ")
    if checksum != b"%08x" % zlib.crc32(body):
        return None
    entry: dict[str, Any] = json.loads(body)
    return entry


def _lock(file: IO[bytes], folder: Path) -> None:
    """Keep two processes from writing to one run; the lock ends with the process, however it ends."""
    try:
        import fcntl  # noqa: PLC0415 - not on Windows, where two processes are not noticed
    except ImportError:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(f"Another process is writing to {folder}.", hint="Wait for it to end, or stop it.") from None
    except OSError as error:  # some network file systems know no locks
        _log.info("%s cannot be locked: %s", folder, error)
