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


def write_atomically(path: Path, text: str) -> None:
    """Write a text file under another name and move it into place, so that no reader ever sees half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


class RunFolder:
    """Where a run keeps what it did.

    Args:
        path: a folder that does not exist yet or is empty; it is made when the first file is written.

    Raises:
        InputError: the path is a file, or a folder with something in it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.exists() and not path.is_dir():
            raise InputError(f"{path} is a file; a run needs a folder.", hint="Choose another --out.")
        if path.is_dir() and any(path.iterdir()):
            raise InputError(f"{path} exists and is not empty.", hint="Name a new folder, or remove this one first.")

    def file(self, name: str) -> Path:
        """Path of a file in the folder; the folder exists from now on."""
        self.path.mkdir(parents=True, exist_ok=True)
        return self.path / name

    def write(self, name: str, record: BaseModel | Sequence[BaseModel] | dict[str, Any] | list[Any]) -> None:
        """Write records as JSON."""
        write_atomically(self.file(name), json.dumps(_plain(record), indent=2) + "\n")

    def event(self, event: str, **details: Any) -> None:
        """Append one line to ``events.jsonl``."""
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
