"""The command line is a contract: scripts outside the project use its names."""

from __future__ import annotations

import pytest
import typer.main
from typer.testing import CliRunner

from fupruner.cli import app

FLAGS = {
    "optimize": {
        "--batch-size", "--checkpoint-every", "--data", "--epochs", "--fusion", "--help", "--importance", "--json", "--learning-rate",
        "--max-drop", "--out", "--seed", "--speedup", "--target", "--threads", "--train-split", "--validation-split",
        "--weights", "MODEL",
    },
    "fuse": {"--only", "--target", "--without", "--help", "--input-shape", "--json", "--level", "--out", "--weights", "MODEL"},
    "prune": {"--data", "--help", "--input-shape", "--json", "--out", "--ratio", "--speedup", "--target", "--weights", "MODEL"},
    "bench": {"--help", "--json", "--target", "--threads", "FILE"},
    "export": {"--data", "--help", "--input-shape", "--json", "--out", "--target", "--weights", "MODEL"},
    "targets": {"--help", "--install", "--json"},
    "report": {"--help", "--json", "RUN"},
    "sweep": {"--help", "--json", "--out", "--ray", "OPTIONS.toml"},
    "init": {"--help"},
    "resume": {"--help", "--json", "RUN"},
}  # fmt: skip
COMMANDS = typer.main.get_command(app)


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
    assert names == FLAGS[command]


@pytest.mark.parametrize("command", list(FLAGS))
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_is_printed(command: str, flag: str) -> None:
    result = CliRunner().invoke(app, [command, flag], env={"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"})
    assert result.exit_code == 0
    assert f"fupruner {command}" in result.stdout.replace("root", "fupruner")
    for name in FLAGS[command]:
        assert name in result.stdout
