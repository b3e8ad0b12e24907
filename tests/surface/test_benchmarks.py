"""Benchmarks run by hand, seldom: they have to keep up with the names that they import."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

SCRIPTS = sorted((Path(__file__).parents[2] / "benchmarks").glob("*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_script_can_be_loaded(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(script.parent))  # some read another one's networks
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", "1")  # which some set
    assert runpy.run_path(str(script), run_name=script.stem)["__doc__"]
