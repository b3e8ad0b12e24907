"""``fupruner init``: a commented options file to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fupruner.cli.inputs import Json
from fupruner.cli.shell import output, print_json
from fupruner.errors import InputError
from fupruner.options_file import commented_options


def init(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="File to write; new.")] = Path("options.toml"),
    *,
    json: Json = False,
) -> None:
    """Write a commented file with every option of 'optimize', its default and what it may be."""
    if file.exists():
        raise InputError(f"{file} exists.", hint="Name another file, or remove this one first.")
    if not file.parent.is_dir():
        raise InputError(f"{file}: there is no folder {file.parent}.", hint=f"mkdir -p {file.parent}")
    file.write_text(commented_options(), encoding="utf-8")
    if json:
        print_json({"file": str(file)})
        return
    output().print(f"Written: {file}", markup=False, soft_wrap=True)
    output().print(
        f"Use it:  fupruner optimize MODEL --data DATA --out RUN --options {file}", markup=False, soft_wrap=True
    )
