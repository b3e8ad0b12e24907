"""Command-line flags made from the fields of ``Options``: one source of defaults, help texts and allowed values."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import typer
from typer.models import OptionInfo

from fupruner.errors import InputError, unknown_name
from fupruner.options import Options, allowed, parse_options, read_options


def flag(name: str) -> str:
    """The flag of an option: ``max_drop`` is ``--max-drop``."""
    return "--" + name.replace("_", "-")


def option(name: str, panel: str | None = None) -> OptionInfo:
    """Declare the flag of an option with the option's own help text; its values complete in the shell.

    Args:
        name: of the option, as in ``Options``.
        panel: heading under which the help page lists it.
    """
    shown = "" if default(name) is None or default(name) is False else f"default {default(name)}"
    facts = [allowed(name, brief=True), shown]
    more = "; ".join(fact for fact in facts if fact)
    help_text = f"{Options.model_fields[name].description}{f' ({more})' if more else ''}"
    info: OptionInfo = typer.Option(
        flag(name), help=help_text, rich_help_panel=panel, autocompletion=_completion(name), show_default=False
    )
    return info


def _completion(name: str) -> Callable[[str], list[str]] | None:
    """Find what a shell may offer for a value."""
    values = get_args(Options.model_fields[name].annotation)
    if get_origin(Options.model_fields[name].annotation) is Literal:
        return lambda incomplete: [value for value in values if str(value).startswith(incomplete)]
    return _targets if name == "target" else None


def _targets(incomplete: str) -> list[str]:
    from fupruner.targets.registry import target_names  # noqa: PLC0415 - imports what only this needs

    return [name for name in target_names() if name.startswith(incomplete)]


def default(name: str) -> Any:
    """The default of an option."""
    return Options.model_fields[name].default


def combined(context: typer.Context, file: Path | None, assignments: Iterable[str] = ()) -> Options:
    """Options of a command: its flags and assignments, where they were given, else those of a file, else the defaults.

    Args:
        context: of the command.
        file: of options.
        assignments: like ``ema=0.99``, for options without a flag of their own.

    Raises:
        InputError: the file cannot be read, a value cannot be used, or an assignment is none.
    """
    named = dict(assigned(each) for each in assignments)
    flags = {name: value for name, value in context.params.items() if name in Options.model_fields}
    if file is None:
        return parse(**{**flags, **named})
    given = {name: value for name, value in flags.items() if _was_given(context, name)}
    return parse(**{**read_options(file).model_dump(exclude_unset=True), **given, **named})


def assigned(text: str) -> tuple[str, object]:
    """Name and value of an assignment; the value is written as in TOML, a text without quotes.

    Raises:
        InputError: it is no assignment, or there is no such option.
    """
    name, sign, value = (part.strip() for part in text.partition("="))
    if not sign:
        raise InputError(f"--set {text}: give it as NAME=VALUE.", hint="For example: --set ema=0.99")
    name = name.replace("-", "_")
    if name not in Options.model_fields:
        raise unknown_name("option in --set", name, Options.model_fields)
    try:
        return name, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return name, value


def _was_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def parse(**values: object) -> Options:
    """Validate the values of flags; every violation is named by its flag, with the value and what is allowed.

    Raises:
        InputError: at least one value cannot be used.
    """
    problems = [problem for name, value in values.items() if (problem := _problem(name, value))]
    if problems:
        raise InputError("\n".join(problems), hint="See 'fupruner optimize --help' for every option.")
    return parse_options(values)


def _problem(name: str, value: object) -> str:
    """Validate one value alone, so that the message can be about one flag."""
    try:
        parse_options({name: value})
    except InputError as error:
        rule = allowed(name)
        return f"{flag(name)} {value}: must be {rule}." if rule else f"{flag(name)} {value}: {error.args[0]}"
    return ""
