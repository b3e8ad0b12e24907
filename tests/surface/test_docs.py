"""The documentation builds without a warning, and every block of code in it runs as it stands."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

import fupruner
from fupruner.cli import app

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
BLOCK = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.DOTALL | re.MULTILINE)
PAGES = sorted(
    str(path.relative_to(DOCS))
    for path in DOCS.rglob("*.md")
    if re.search("^```(python|console)", path.read_text(), re.M)
)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of a reader, whose modules are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.timeout(300)
def test_blocks_run(page: str, place: Path) -> None:
    """Blocks with a title are files; Python shares its names within a page; of a console the lines after $ are run."""
    names: dict[str, object] = {"__name__": "__main__"}
    for language, title, text in BLOCK.findall((DOCS / page).read_text(encoding="utf-8")):
        if title:
            (place / title).write_text(text, encoding="utf-8")
        elif language == "python":
            with warnings.catch_warnings():
                exec(compile(text, f"{page}", "exec"), names)  # noqa: S102 - that is what is tested
        elif language == "console":
            for line in re.findall(r"^\$ fupruner (.*)$", text, re.MULTILINE):
                result = CliRunner().invoke(app, shlex.split(line), catch_exceptions=False)
                assert result.exit_code == 0, f"{line}\n{result.output}"


def test_consoles_show_nothing_but_this_program() -> None:
    for path in DOCS.rglob("*.md"):
        for language, _, text in BLOCK.findall(path.read_text(encoding="utf-8")):
            if language == "console":
                assert all(line.startswith("$ fupruner ") for line in text.splitlines()), (path, text)


def test_site_builds_strictly(tmp_path: Path) -> None:
    pytest.importorskip("material", reason="needs pip install 'fupruner[docs]'")
    result = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT, capture_output=True, text=True, check=False, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    rules = (tmp_path / "site" / "fusion-rules" / "index.html").read_text(encoding="utf-8")
    assert rules.count("<svg role") == 2 * rules.count('<div class="rewrite">') == 28
    reference = (tmp_path / "site" / "reference" / "python" / "index.html").read_text(encoding="utf-8")
    assert [name for name in fupruner.__all__ if name != "__version__" and f"fupruner.{name}" not in reference] == []
    for page in (tmp_path / "site").rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert "<!-- generated" not in text, page
        assert not re.findall(r"""(?:src|href)="https://(?:fonts|cdn|unpkg)[^"]*""", text), page
    assert "prune_oneshot.py" in (tmp_path / "site" / "results" / "index.html").read_text(encoding="utf-8")


def test_examples_that_are_named_exist() -> None:
    for page in DOCS.rglob("*.md"):
        for name in re.findall(r"examples/[a-z_./]+", page.read_text(encoding="utf-8")):
            assert (ROOT / name.rstrip(".")).exists(), (page, name)
