"""Side environments: an older Python with a vendor's last software for a device, beside the user's own environment."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fupruner.errors import TargetError
from fupruner.targets.price_cache import cache_folder

INSTALL_SECONDS = 900


@dataclass(frozen=True)
class SideEnvironment:
    """A virtual environment of another Python with fixed packages.

    Attributes:
        name: of its folder, below ``tools`` in FuPruner's cache folder.
        python: the version, like ``3.9``.
        packages: requirements with versions.
    """

    name: str
    python: str
    packages: tuple[str, ...]

    @property
    def folder(self) -> Path:
        """Where it lies, or would lie."""
        return cache_folder() / "tools" / self.name

    @property
    def interpreter(self) -> Path | None:
        """Its Python, or None where it was not installed."""
        python = self.folder / "bin" / "python"
        return python if (self.folder / "installed.json").is_file() and python.exists() else None

    def install(self) -> Path:
        """Build it, or find it built; its Python.

        Raises:
            TargetError: there is no such Python here, or a package cannot be installed.
        """
        if self.interpreter is not None:
            return self.interpreter
        base = find_python(self.python)
        if base is None:
            raise TargetError(
                f"Python {self.python} is needed for {', '.join(self.packages)}, and none was found on PATH or with pyenv.",
                hint=f"Install it, for example with 'pyenv install {self.python}', and try again.",
            )
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        python = self.folder / "bin" / "python"
        _run([str(base), "-m", "venv", str(self.folder)], "make a virtual environment")
        _run([str(python), "-m", "pip", "install", "--quiet", "--upgrade", "pip<24"], "upgrade pip")
        _run([str(python), "-m", "pip", "install", "--quiet", *self.packages], f"install {', '.join(self.packages)}")
        (self.folder / "installed.json").write_text(json.dumps({"python": self.python, "packages": self.packages}))
        return python

    def run(self, program: str, arguments: Sequence[str], seconds: int) -> str:
        """Run a program that its packages brought; what it prints.

        Raises:
            TargetError: it is not installed, fails, or takes too long.
        """
        if self.interpreter is None:
            raise TargetError(f"The environment {self.name} is not installed.")
        return _run([str(self.folder / "bin" / program), *arguments], f"run {program}", seconds)

    def call(self, script: Path, arguments: Sequence[str], seconds: int, extra: dict[str, str] | None = None) -> Any:
        """Run a script in it that prints one JSON object on its last line.

        Raises:
            TargetError: it is not installed, fails, takes too long, or prints something else.
        """
        if self.interpreter is None:
            raise TargetError(f"The environment {self.name} is not installed.")
        command = [str(self.interpreter), str(script), *arguments]
        text = _run(command, f"run {script.name}", seconds, extra)
        try:
            return json.loads(text.strip().splitlines()[-1])
        except (ValueError, IndexError):
            raise TargetError(f"{script.name} in {self.folder} printed something unexpected: {text[-400:]!r}") from None


def find_python(version: str) -> Path | None:
    """An interpreter of this version that runs: on PATH, else one that pyenv has."""
    for candidate in _candidates(version):
        found = subprocess.run(  # noqa: S603 - an interpreter that was found, fixed arguments
            [str(candidate), "-c", "import sys, venv; print('%d.%d' % sys.version_info[:2])"],
            capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
        if found.returncode == 0 and found.stdout.strip() == version:
            return candidate
    return None


def _candidates(version: str) -> Iterator[Path]:
    named = shutil.which(f"python{version}")
    if named:
        yield Path(named)
    pyenv = shutil.which("pyenv")
    root = os.environ.get("PYENV_ROOT") or (str(Path(pyenv).resolve().parents[1]) if pyenv else "")
    if root:
        yield from sorted(Path(root).glob(f"versions/{version}.*/bin/python{version}"), reverse=True)


def _run(command: list[str], what: str, seconds: int = INSTALL_SECONDS, extra: dict[str, str] | None = None) -> str:
    own = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")  # of the interpreter that runs now
    environment = {key: value for key, value in os.environ.items() if key not in own}
    try:
        done = subprocess.run(  # noqa: S603 - a list of arguments, never a shell
            command, capture_output=True, text=True, timeout=seconds, check=False, stdin=subprocess.DEVNULL,
            env={**environment, **(extra or {})},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise TargetError(f"Could not {what}: no answer within {seconds} s ({' '.join(command[:4])} ...).") from None
    except OSError as error:
        raise TargetError(f"Could not {what}: {error}.") from None
    if done.returncode != 0:
        tail = (done.stderr.strip() or done.stdout.strip())[-600:]
        raise TargetError(f"Could not {what} (exit code {done.returncode}): {tail}")
    return done.stdout
