"""The folder of a run: every file is written whole or not at all, and the log grows line by line."""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from fupruner.errors import InputError
from fupruner.training.parallel import World

UNREPEATED = frozenset({"resumed", "interrupted"})
"""Events that are about the process, not about the run, so that going through it again does not bring them again."""


def write_atomically(path: Path, text: str) -> None:
    """Write a text file under another name and move it into place, so that no reader ever sees half of it."""
    write_bytes_atomically(path, text.encode())


def write_bytes_atomically(path: Path, content: bytes) -> None:
    """Write a file under another name and move it into place, so that no reader ever sees half of it.

    Raises:
        OSError: it cannot be written; the file that was there before is, and nothing else is left behind.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


class RunFolder:
    """Where a run keeps what it did. Of several processes only the first writes.

    Args:
        path: a folder that does not exist yet or is empty; it is made when the first file is written.
        world: the processes of the run.
        reopen: whether to go on in the folder of a run that was interrupted; events that it logged are not logged again.

    Attributes:
        best: the best network so far, in words; empty where there is none yet.
        kept: the outcome whose files are in place now.

    Raises:
        InputError: the path is a file, or (unless it is reopened) a folder with something in it.
    """

    def __init__(self, path: Path, world: World | None = None, *, reopen: bool = False) -> None:
        self.path, self.world, self.best = path, world or World(), ""
        self.kept: object = None
        self._logged: list[str] = []
        self.world.share(self._repair if reopen else self._require_empty)

    @property
    def writes(self) -> bool:
        """Whether this process writes."""
        return self.world.is_main

    def _require_empty(self) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"{self.path} is a file; a run needs a folder.", hint="Choose another --out.")
        if self.path.is_dir() and any(self.path.iterdir()):
            raise InputError(
                f"{self.path} exists and is not empty.", hint="Name a new folder, or remove this one first."
            )

    def _repair(self) -> None:
        """Remove what a killed process left half-written, and remember what it logged."""
        for draft in self.path.glob(".*.tmp"):
            draft.unlink(missing_ok=True)
        log = self.path / "events.jsonl"
        text = log.read_bytes() if log.is_file() else b""
        whole = text[: text.rfind(b"\n") + 1]
        if whole != text:
            write_bytes_atomically(log, whole)
        names = [str(json.loads(line)["event"]) for line in whole.splitlines()]
        self._logged = [name for name in names if name not in UNREPEATED]

    def file(self, name: str) -> Path:
        """Path of a file in the folder; the folder exists from now on."""
        if self.writes:
            self.path.mkdir(parents=True, exist_ok=True)
        return self.path / name

    def write(self, name: str, record: BaseModel | Sequence[BaseModel] | dict[str, Any] | list[Any]) -> None:
        """Write records as JSON."""
        if not self.writes:
            return
        write_atomically(self.file(name), json.dumps(_plain(record), indent=2) + "\n")

    def event(self, event: str, **details: Any) -> None:
        """Append one line to ``events.jsonl``, unless it is there from before the run was resumed."""
        if not self.writes:
            return
        if self._logged and self._logged[0] == event:
            self._logged.pop(0)
            return
        line = {
            "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
            "event": event,
            **_plain(details),
        }
        with self.file("events.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value
