"""The commented ``options.toml`` that a user starts from, made from the fields of ``Options``."""

from __future__ import annotations

import textwrap

import tomli_w

from fupruner.options import Options, must_be

HEADER = """\
Options of 'fupruner optimize --options THIS_FILE'. Flags of the command line override what is written here.
Every option is listed with its default; what is left out or commented out keeps it."""
WIDTH = 110


def commented_options(options: Options | None = None) -> str:
    """TOML text with every option, what it does and what it may be; options without a value are commented out.

    Args:
        options: values to write; by default the defaults.
    """
    options = options or Options()
    parts = [_comment(HEADER), *(_entry(name, getattr(options, name)) for name in Options.model_fields)]
    return "\n\n".join(parts) + "\n"


def _entry(name: str, value: object) -> str:
    field = Options.model_fields[name]
    unset = "" if value is not None else " Not set unless you do."
    comment = _comment(f"{field.description}{unset} Allowed: {must_be(name)}.")
    example = (field.examples or [""])[0] if value is None else value
    setting = tomli_w.dumps({name: example}).strip()
    return f"{comment}\n{'# ' if value is None else ''}{setting}"


def _comment(text: str) -> str:
    lines = (
        line for paragraph in text.splitlines() for line in textwrap.wrap(paragraph, WIDTH, break_on_hyphens=False)
    )
    return "\n".join(f"# {line}" for line in lines)
