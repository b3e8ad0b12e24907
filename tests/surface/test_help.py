"""The command line is a contract: scripts outside the project use its names."""

from __future__ import annotations

import re
import shlex

import pytest
import typer.main
from typer.testing import CliRunner

from fupruner.cli import app

FLAGS = {
    "optimize": {
        "--batch-size", "--checkpoint-every", "--data", "--epochs", "--fusion", "--help", "--importance", "--json", "--learning-rate",
        "--max-drop", "--options", "--dry-run", "--out", "--seed", "--set", "--speedup", "--target", "--threads",
        "--tensorboard", "--train-split", "--ship", "--device", "--fit-on-chip", "--validation-split",
        "--input-shape", "--mean-std", "--weights", "MODEL",
    },
    "fuse": {"--data", "--only", "--target", "--without", "--help", "--input-shape", "--mean-std",
        "--json", "--level", "--out", "--weights", "MODEL"},
    "prune": {
        "--data", "--device", "--fit-on-chip", "--help", "--input-shape", "--mean-std",
        "--json", "--out", "--plans", "--ratio", "--ship", "--speedup",
        "--target", "--weights", "MODEL",
    },
    "bench": {"--device", "--help", "--json", "--target", "--threads", "FILE"},
    "export": {"--data", "--help", "--input-shape", "--mean-std", "--json", "--out", "--ship", "--target", "--weights", "MODEL"},
    "targets": {"--help", "--install", "--json"},
    "report": {"--help", "--json", "--out", "RUN"},
    "sweep": {"--help", "--json", "--out", "--ray", "OPTIONS.toml"},
    "init": {"--help", "--json", "FILE"},
    "resume": {"--help", "--json", "RUN"},
}  # fmt: skip
COMMANDS = typer.main.get_command(app)
SCREEN = (100, 45)
"""Columns and lines of a screen that every help page fits on."""


def test_commands_are_these() -> None:
    assert set(COMMANDS.commands) == set(FLAGS)  # type: ignore[attr-defined]


@pytest.mark.parametrize("command", list(FLAGS))
def test_flags_are_these_and_each_is_explained(command: str) -> None:
    found = COMMANDS.commands[command]  # type: ignore[attr-defined]
    assert found.help
    names = {"--help"}
    for parameter in found.params:
        assert parameter.help, parameter.name
        metavar = (parameter.metavar or "").rstrip(".")
        names |= {metavar} if parameter.param_type_name == "argument" else {parameter.opts[0]}
    assert names == FLAGS[command] | {"--quiet", "--verbose"}


@pytest.mark.parametrize("command", list(FLAGS))
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_is_printed(command: str, flag: str) -> None:
    result = CliRunner().invoke(app, [command, flag], env={"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"})
    assert result.exit_code == 0
    assert f"fupruner {command}" in result.stdout.replace("root", "fupruner")
    for name in FLAGS[command]:
        assert name in result.stdout


@pytest.mark.parametrize("command", sorted(FLAGS.keys() - {"sweep", "resume"}))
def test_help_fits_a_screen_and_has_an_example_with_known_flags(command: str) -> None:
    environment = {"COLUMNS": str(SCREEN[0]), "NO_COLOR": "1", "TERM": "dumb"}
    page = CliRunner().invoke(app, [command, "--help"], env=environment).stdout.rstrip()
    assert len(page.splitlines()) <= SCREEN[1]
    (example,) = re.findall(rf"Example: fupruner {command}(.*)", page)
    known = {name for parameter in COMMANDS.commands[command].params for name in parameter.opts}  # type: ignore[attr-defined]
    assert {word for word in shlex.split(example) if word.startswith("-")} <= known


def test_list_of_commands_fits_a_screen() -> None:
    page = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "80", "NO_COLOR": "1", "TERM": "dumb"}).stdout
    assert len(page.splitlines()) <= SCREEN[1]


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("fupruner opt", "optimize"),
        ("fupruner optimize --fusion agg", "aggressive"),
        ("fupruner optimize --target c", "cpu"),
        ("fupruner report --js", "--json"),
    ],
)
def test_shell_completes(words: str, offered: str) -> None:
    environment = {
        "_FUPRUNER_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1),
    }  # fmt: skip
    result = CliRunner().invoke(app, [], prog_name="fupruner", env=environment)
    assert offered in result.stdout.split()


def test_no_colour_without_a_terminal() -> None:
    result = CliRunner().invoke(app, ["targets"])
    assert "\x1b" not in result.output
