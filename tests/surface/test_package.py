"""What is shipped: a wheel with the package alone, and a source archive that builds the same."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

import fupruner

ROOT = Path(__file__).parents[2]
pytest.importorskip("build", reason="needs pip install build hatchling")
CORE = {"torch", "numpy", "scipy", "onnx", "onnxruntime"}
EXTRAS = {"targets", "sweep", "docs", "dev", "tensorboard", "digits"}
SOURCES = {".py", ".typed", ".jinja", ".css", ".js", ".toml", ".json"}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> zipfile.ZipFile:
    (file,) = built.glob("*.whl")
    assert file.name == f"fupruner-{fupruner.__version__}-py3-none-any.whl"
    return zipfile.ZipFile(file)


def test_wheel_holds_the_package_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    expected = {
        str(path.relative_to(ROOT / "src"))
        for path in (ROOT / "src" / "fupruner").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert names == expected
    assert {Path(name).suffix for name in names} <= SOURCES
    assert "fupruner/py.typed" in names
    assert not [name for name in names if "test" in Path(name).name]
    assert sum(info.compress_size for info in wheel.infolist()) < 1e6


def test_wheel_says_what_it_needs(wheel: zipfile.ZipFile) -> None:
    (path,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    metadata = Parser().parsestr(wheel.read(path).decode())
    needed = [line for line in metadata.get_all("Requires-Dist") or [] if "extra ==" not in line]
    assert {line.split("<")[0].split(">")[0].strip() for line in needed} >= CORE
    assert set(metadata.get_all("Provides-Extra") or []) >= EXTRAS
    assert metadata["Version"] == "0.1.0" == fupruner.__version__
    assert metadata["License-Expression"] == "Apache-2.0"
    (entry,) = [name for name in wheel.namelist() if name.endswith("entry_points.txt")]
    assert "fupruner = fupruner.cli:main" in wheel.read(entry).decode()


def test_source_archive_is_enough_to_build(built: Path) -> None:
    (file,) = built.glob("*.tar.gz")
    with tarfile.open(file) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert names >= {"pyproject.toml", "README.md", "LICENSE", "src/fupruner/__init__.py"}
    assert not [name for name in names if name.startswith(("tests", "benchmarks", "docs"))]
