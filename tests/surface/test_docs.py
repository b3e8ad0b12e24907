"""The documentation builds without a complaint and without a network, and what it shows runs."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

from fupruner.cli import app

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def blocks(language: str) -> list[tuple[str, str]]:
    return [
        (page.name, block)
        for page in PAGES
        for block in re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    ]


def commands() -> list[str]:
    return [line[2:] for _, block in blocks("console") for line in block.splitlines() if line.startswith("$ ")]


def test_site_builds_strictly(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="needs the extra docs")
    pytest.importorskip("material", reason="needs the extra docs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    for page in (*(page.stem for page in PAGES if page.stem != "index"), "results"):
        text = (tmp_path / "site" / page / "index.html").read_text()
        assert not re.findall(r"""(?:src|href)="https://(?:fonts|cdn|unpkg)[^"]*""", text)
    assert "prune_oneshot.py" in (tmp_path / "site" / "results" / "index.html").read_text()


def test_python_runs(tmp_path: Path) -> None:
    """All blocks in one process, each with names of its own: importing takes longer than running."""
    runner = "import json, sys\nfor page, block in json.load(sys.stdin):\n    exec(compile(block, page, 'exec'), {})"
    command = [sys.executable, "-W", "error", "-c", runner]
    shown = json.dumps(blocks("python"))
    result = subprocess.run(command, cwd=tmp_path, input=shown, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("line", commands())
def test_commands_and_flags_exist(line: str) -> None:
    program, command, *rest = shlex.split(line)
    assert program == "fupruner"
    known = {name for parameter in COMMANDS[command].params for name in parameter.opts}
    assert {word for word in rest if word.startswith("--")} <= known


def test_examples_that_are_named_exist() -> None:
    for page in PAGES:
        for name in re.findall(r"examples/[a-z_./]+", page.read_text()):
            assert (ROOT / name.rstrip(".")).exists(), name
