"""Command-line flags made from the fields of ``Options``: one source of defaults, help texts and allowed values."""

from __future__ import annotations

from typing import Any, Literal, get_args, get_origin

import typer
from annotated_types import Ge, Gt, Le, Lt
from typer.models import OptionInfo

from fupruner.errors import InputError
from fupruner.options import Options, parse_options


def flag(name: str) -> str:
    """The flag of an option: ``max_drop`` is ``--max-drop``."""
    return "--" + name.replace("_", "-")


def option(name: str) -> OptionInfo:
    """Declare the flag of an option with the option's own help text."""
    field = Options.model_fields[name]
    rule = allowed(name)
    help_text = f"{field.description} Allowed: {rule}." if rule else field.description
    info: OptionInfo = typer.Option(flag(name), help=help_text)
    return info


def default(name: str) -> Any:
    """The default of an option."""
    return Options.model_fields[name].default


def allowed(name: str) -> str:
    """What values an option takes, in words; empty where everything of its type is fine."""
    field = Options.model_fields[name]
    if get_origin(field.annotation) is Literal:
        return "one of " + ", ".join(map(str, get_args(field.annotation)))
    return " and ".join(_bound(bound) for bound in field.metadata if isinstance(bound, Ge | Gt | Le | Lt))


def _bound(bound: Ge | Gt | Le | Lt) -> str:
    match bound:
        case Ge():
            return f"at least {bound.ge}"
        case Gt():
            return f"more than {bound.gt}"
        case Le():
            return f"at most {bound.le}"
        case Lt():
            return f"less than {bound.lt}"


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
