"""Reference tables of options and commands, from the definitions that the program itself uses."""

from __future__ import annotations

import inspect
import re

import click
import typer.main

import fupruner
from fupruner.cli.app import COMMANDS, app
from fupruner.options import Options, must_be


def escaped(text: str) -> str:
    """Text as one cell of a table."""
    return re.sub(r"([|<>\[\]*_])", r"\\\1", " ".join(text.split()))


def table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A table in Markdown; cells are Markdown."""
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in lines) + "\n"


def options() -> str:
    """Every option with its default and what it may be."""
    rows = [
        (
            f"`{name}`",
            "not set"
            if field.default is None
            else f"`{str(field.default).lower() if isinstance(field.default, bool) else field.default}`",
            escaped(must_be(name)),
            escaped(str(field.description)),
        )
        for name, field in Options.model_fields.items()
    ]
    return table(("Option", "Default", "Allowed", "What it does"), rows)


def python() -> str:
    """Every public name, from its docstring; functions first."""
    names = sorted(
        (name for name in fupruner.__all__ if name != "__version__"),
        key=lambda name: (inspect.isclass(getattr(fupruner, name)), name),
    )
    homes = {name: getattr(fupruner, name).__module__ for name in names}
    return "\n\n".join(f"::: {homes[name]}.{name}\n    options:\n      heading: fupruner.{name}" for name in names)


def commands() -> str:
    """Every command with its help, example and flags."""
    found = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    parts = []
    for function, example in COMMANDS.items():
        name = function.__name__
        parts += [f"## {name}", _help(found[name]), f"```text\n$ {example}\n```", _flags(found[name])]
    return "\n\n".join(parts)


def _help(command: click.Command) -> str:
    paragraphs = inspect.cleandoc(command.help or "").replace("\\[", "[").split("\n\n")
    return "\n\n".join(
        f"```toml\n{inspect.cleandoc(part.partition(chr(8))[2])}\n```" if part.startswith("\b") else part
        for part in paragraphs
    )


def _flags(command: click.Command) -> str:
    rows = [
        (
            " ".join(f"`{part}`" for part in ([p.metavar or p.name] if p.param_type_name == "argument" else p.opts)),
            "yes" if p.required else "",
            escaped(getattr(p, "help", "") or ""),
        )
        for p in command.params
        if p.name != "help"
    ]
    return table(("Argument or flag", "Required", "What it does"), rows)
