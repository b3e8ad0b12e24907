"""What all commands share: where output goes, how errors are told, and the exit codes."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from typing import ParamSpec

import typer
from pydantic import BaseModel
from rich.console import Console
from rich.text import Text

from fupruner.errors import FuPrunerError, InputError

Arguments = ParamSpec("Arguments")

REQUIREMENT_NOT_MET = 1
BAD_INPUT = 2
INTERRUPTED = 130


def output() -> Console:
    """Standard output: results."""
    return Console(highlight=False)


def messages() -> Console:
    """Standard error: progress and problems."""
    return Console(stderr=True, highlight=False)


def guarded(command: Callable[Arguments, int | None]) -> Callable[Arguments, None]:
    """Turn errors that a user can act on into a message and an exit code; a command may return its own exit code."""

    @functools.wraps(command)
    def run(*args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
        try:
            code = command(*args, **kwargs) or 0
        except FuPrunerError as error:
            show_error(error)
            code = BAD_INPUT if isinstance(error, InputError) else REQUIREMENT_NOT_MET
        except KeyboardInterrupt as interrupt:
            messages().print(Text(str(interrupt) or "Interrupted.", style="yellow"), soft_wrap=True)
            code = INTERRUPTED
        raise typer.Exit(code)

    return run


def show_error(error: FuPrunerError) -> None:
    """Print what went wrong, and on a line of its own what to do next."""
    console = messages()
    console.print(Text("Error: ", style="bold red").append(str(error.args[0]), style="default"), soft_wrap=True)
    if error.hint:
        console.print(Text(error.hint), soft_wrap=True)


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
