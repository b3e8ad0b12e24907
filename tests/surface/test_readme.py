"""What the README shows and links to is there and works."""

from __future__ import annotations

import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

from fupruner.cli import app

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text_of(page), flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for link in re.findall(r"\]\(([^)]+)\)", text_of(page)):
        assert link.startswith("https://") or (ROOT / link.partition("#")[0]).exists(), link


def shown_commands() -> list[str]:
    shown = re.findall(r"^\$ (fupruner .*)$|`(fupruner [a-z]+[^`]*)`", text_of("README.md"), flags=re.MULTILINE)
    return [block or inline for block, inline in shown]


@pytest.mark.parametrize("line", shown_commands())
def test_commands_and_flags_exist(line: str) -> None:
    _, command, *rest = shlex.split(line)
    known = {name for parameter in COMMANDS[command].params for name in parameter.opts}
    assert {word for word in rest if word.startswith("--")} <= known


@pytest.mark.parametrize("block", blocks("README.md", "python"))
def test_python_runs(block: str, tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", block], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


def test_make_lists_every_target() -> None:
    listed = subprocess.run(["make", "-C", str(ROOT)], capture_output=True, text=True, check=True).stdout
    for target in ("demo", "test", "lint", "types", "docs", "bench", "package", "clean"):
        assert f"make {target} " in listed


def test_the_table_is_that_of_the_results(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "site_hooks"))
    readme = importlib.import_module("readme")
    assert text_of("README.md") == readme.filled(text_of("README.md")), "python site_hooks/readme.py"
    assert text_of("README.md").count("| ResNet-") > 8
