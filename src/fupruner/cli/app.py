"""The list of commands, in the order in which ``fupruner --help`` shows them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

import fupruner
from fupruner.cli.bench import bench
from fupruner.cli.export import export
from fupruner.cli.fuse import fuse
from fupruner.cli.later import init
from fupruner.cli.optimize import optimize
from fupruner.cli.prune import prune
from fupruner.cli.report import report
from fupruner.cli.resume import resume
from fupruner.cli.shell import guarded
from fupruner.cli.sweep import sweep
from fupruner.cli.targets import targets

app = typer.Typer(
    name="fupruner",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

COMMANDS: tuple[Callable[..., int | None], ...] = (optimize, resume, fuse, prune, bench, sweep, export, targets, report)
LATER: tuple[Callable[..., int | None], ...] = (init,)

for command in COMMANDS:
    app.command()(guarded(command))
for command in LATER:
    app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(guarded(command))


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fupruner {fupruner.__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Make a trained convolutional network fast on a device, within an accuracy requirement."""


def main() -> None:
    """Run the command line.

    The process exits with 0 done, 1 requirement not met or failed, 2 bad input, 130 interrupted.
    """
    app(prog_name="fupruner")
