"""The list of commands, in the order in which ``fupruner --help`` shows them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

import fupruner
from fupruner.cli.bench import bench
from fupruner.cli.export import export
from fupruner.cli.fuse import fuse
from fupruner.cli.init import init
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

COMMANDS: dict[Callable[..., int | None], str] = {
    init: "fupruner init options.toml",
    optimize: "fupruner optimize fupruner:digits_resnet --data digits --max-drop 1 --out runs/first",
    resume: "fupruner resume runs/first",
    fuse: "fupruner fuse fupruner:resnet20 --level aggressive --out fused.onnx",
    prune: "fupruner prune fupruner:resnet20 --speedup 1.5 --out pruned.onnx",
    bench: "fupruner bench fused.onnx pruned.onnx --threads 1",
    sweep: "fupruner sweep examples/sweep.toml --out runs/sweep",
    export: "fupruner export runs/first --target cpu --out shipped",
    targets: "fupruner targets",
    report: "fupruner report runs/first",
}
"""Commands with an example that works as it stands, in the order of a first day."""

for command, example in COMMANDS.items():
    app.command(epilog=f"Example: {example}")(guarded(command))


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
