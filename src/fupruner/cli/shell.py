"""What all commands share: where output goes and how much of it, how errors are told, and the exit codes."""

from __future__ import annotations

import functools
import inspect
import json
import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from contextvars import ContextVar
from typing import Annotated, Literal

import typer
from pydantic import BaseModel
from rich.console import Console
from rich.text import Text

from fupruner.cli.processes import may_complain
from fupruner.errors import FuPrunerError, InputError, StorageError, TrainingError

REQUIREMENT_NOT_MET = 1
BAD_INPUT = 2
INTERRUPTED = 130
_STOPPED = (InputError, TrainingError, StorageError)
"""The run came to no end, and what the user gave, data and disk included, has to change before it can."""

Level = Literal["quiet", "normal", "verbose"]
_LEVEL: ContextVar[Level] = ContextVar("level", default="normal")
_LOGGED: dict[Level, int] = {"quiet": logging.ERROR, "normal": logging.WARNING, "verbose": logging.DEBUG}

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Results and errors only, no progress.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Tell more on the way.")]


def output() -> Console:
    """Standard output: results."""
    return Console(highlight=False)


def messages() -> Console:
    """Standard error: progress and remarks; nowhere with ``--quiet``, nor in a process that only follows."""
    return Console(stderr=True, highlight=False, quiet=_LEVEL.get() == "quiet" or not may_complain())


def guarded(command: Callable[..., int | None]) -> Callable[..., None]:
    """Make a command out of a function: with ``--quiet`` and ``--verbose``, and with exit codes in place of errors.

    Errors that a user can act on become a message and an exit code; with ``--json`` also an object with ``error`` and
    ``hint``. A function may return an exit code of its own.
    """

    @functools.wraps(command)
    def run(*args: object, quiet: bool = False, verbose: bool = False, **kwargs: object) -> None:
        try:
            with _told(_level(quiet, verbose)):
                code = command(*args, **kwargs) or 0
        except FuPrunerError as error:
            show_error(error)
            if kwargs.get("json"):
                print_json({"error": str(error.args[0]), "hint": error.hint})
            code = BAD_INPUT if isinstance(error, _STOPPED) else REQUIREMENT_NOT_MET
        except KeyboardInterrupt as interrupt:
            _errors().print(Text(str(interrupt) or "Interrupted.", style="yellow"), soft_wrap=True)
            code = INTERRUPTED
        raise typer.Exit(code)

    own = inspect.signature(command, eval_str=True)
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=annotation)
        for name, annotation in (("quiet", Quiet), ("verbose", Verbose))
    ]
    run.__signature__ = own.replace(parameters=[*own.parameters.values(), *added])  # type: ignore[attr-defined]
    return run


def _level(quiet: bool, verbose: bool) -> Level:
    if quiet and verbose:
        raise InputError("--quiet and --verbose exclude each other.")
    return "quiet" if quiet else "verbose" if verbose else "normal"


class _ToMessages(logging.Handler):
    """Shows what the library logs, in order with everything else that is told."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one line."""
        style = "yellow" if record.levelno >= logging.WARNING else "dim"
        _errors().print(Text(f"{record.levelname.capitalize()}: {record.getMessage()}", style=style), soft_wrap=True)


@contextmanager
def _told(level: Level) -> Iterator[None]:
    """Tell as much as the level says, until the command ends."""
    logger, handler, before = logging.getLogger("fupruner"), _ToMessages(), _LEVEL.set(level)
    threshold = logger.level
    logger.addHandler(handler)
    logger.setLevel(_LOGGED[level])
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(threshold)
        _LEVEL.reset(before)


def show_error(error: FuPrunerError) -> None:
    """Print what went wrong, and on a line of its own what to do next."""
    console = _errors()
    console.print(Text("Error: ", style="bold red").append(str(error.args[0]), style="default"), soft_wrap=True)
    if error.hint:
        console.print(Text(error.hint), soft_wrap=True)


def _errors() -> Console:
    return Console(stderr=True, highlight=False, quiet=not may_complain())


@contextmanager
def results_only(wanted: bool) -> Iterator[None]:
    """Where ``--json`` is wanted, keep standard output free of what libraries print while they work."""
    if not wanted:
        yield
        return
    with redirect_stdout(sys.stderr):
        yield


def print_json(values: Mapping[str, object]) -> None:
    """Print one JSON object on standard output; records become objects."""
    typer.echo(json.dumps(values, default=_plain, allow_nan=False))


def _plain(value: object) -> object:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    return str(value)
