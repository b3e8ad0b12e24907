from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from fupruner.cli import app
from unit.cli.test_inputs import write_onnx


def test_bench_times_files_side_by_side(tmp_path: Path) -> None:
    files = [str(write_onnx(tmp_path / name, ["batch", 3, 8, 8])) for name in ("a.onnx", "b.onnx")]
    result = CliRunner().invoke(app, ["bench", *files, "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["files"] == files
    assert found["speedups"][0] == 1
    assert [each["grade"] for each in found["measurements"]] == ["measured", "measured"]
    assert "interleaved" in CliRunner().invoke(app, ["bench", *files], env={"COLUMNS": "200"}).stdout


def test_networks_with_different_inputs_are_not_compared(tmp_path: Path) -> None:
    files = [str(write_onnx(tmp_path / f"{size}.onnx", [1, 3, size, size])) for size in (8, 9)]
    result = CliRunner().invoke(app, ["bench", *files])
    assert result.exit_code == 2
    assert "take different inputs" in result.stderr
