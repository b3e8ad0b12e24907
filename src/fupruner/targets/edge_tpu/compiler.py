"""Google's ``edgetpu_compiler``: run where it is installed, and its log read."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from fupruner.errors import TargetError
from fupruner.records import Fact

GET = "edgetpu_compiler (Debian package of https://packages.cloud.google.com/apt coral-edgetpu-stable, x86-64)"
SECONDS = 300
_UNITS = {"B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}
_ROW = re.compile(r"^([A-Z0-9_]+)\s+(\d+)\s+(\S.*?)\s*$", re.MULTILINE)
MAPPED = "Mapped to Edge TPU"


@dataclass(frozen=True)
class CompilerLog:
    """What the compiler says of a model.

    Attributes:
        version: of the compiler.
        on_chip, remaining, off_chip: bytes of parameters kept on the chip, left there, and streamed at every run.
        subgraphs: parts that run on the device; more than one means that the host works in between.
        operators: (operator, count, status).
    """

    version: str
    on_chip: int
    remaining: int
    off_chip: int
    subgraphs: int
    operators: tuple[tuple[str, int, str], ...]


def parse_log(text: str) -> CompilerLog:
    """Read what ``edgetpu_compiler -s`` prints.

    Raises:
        TargetError: it failed, or printed something else than version 16 does.
    """
    if "Model compiled successfully" not in text:
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        reason = next(
            (line for line in lines if "nvalid" in line or "rror" in line or "not quantized" in line),
            lines[-1] if lines else "",
        )
        raise TargetError(f"edgetpu_compiler failed: {reason[:300] or 'it printed nothing'}")
    operators = tuple((kind, int(count), status) for kind, count, status in _ROW.findall(text))
    version = re.search(r"Edge TPU Compiler version (\S+)", text)
    subgraphs = re.search(r"Number of Edge TPU subgraphs: (\d+)", text)
    if not operators or version is None or subgraphs is None:
        raise TargetError("edgetpu_compiler printed something unexpected.", hint="This reads the log of version 16.")
    return CompilerLog(
        version[1],
        _bytes(text, "On-chip memory used for caching model parameters"),
        _bytes(text, "On-chip memory remaining for caching model parameters"),
        _bytes(text, "Off-chip memory used for streaming uncached model parameters"),
        int(subgraphs[1]),
        operators,
    )


def _bytes(text: str, name: str) -> int:
    found = re.search(rf"{re.escape(name)}: ([\d.]+)(B|KiB|MiB|GiB)", text)
    if found is None:
        raise TargetError(f"edgetpu_compiler printed no {name!r}.", hint="This reads the log of version 16.")
    return round(float(found[1]) * _UNITS[found[2]])


def installed() -> str:
    """Where the compiler is; empty where it is missing."""
    return shutil.which("edgetpu_compiler") or ""


def compile_file(model: Path, folder: Path) -> CompilerLog:
    """Compile a file; ``NAME_edgetpu.tflite`` appears in the folder.

    Raises:
        TargetError: the compiler is missing, fails, takes too long, or leaves operators to the host.
    """
    command = [installed(), "-s", "-o", str(folder), str(model)]
    if not command[0]:
        raise TargetError("edgetpu_compiler is not installed.", hint=GET)
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)  # noqa: S603 - no shell
    except subprocess.TimeoutExpired:
        raise TargetError(f"edgetpu_compiler gave no answer within {SECONDS} s.") from None
    log = parse_log(done.stdout + done.stderr)
    left = ", ".join(f"{kind} ({status})" for kind, _, status in log.operators if status != MAPPED)
    if left:
        raise TargetError(f"edgetpu_compiler leaves operators to the host: {left}.")
    return log


def facts(log: CompilerLog) -> list[Fact]:
    """What is said of a compiled file in the report."""
    mapped = sum(count for _, count, status in log.operators if status == MAPPED)
    lines = {
        "operators on the device": f"{mapped} of {sum(count for _, count, _ in log.operators)}, in {log.subgraphs} part(s)",
        "parameters on the chip": f"{log.on_chip / 2**20:.2f} MiB, {log.remaining / 2**20:.2f} MiB left",
        "parameters streamed at every run": f"{log.off_chip / 2**20:.2f} MiB",
    }
    return [Fact(name=name, value=value, source=f"edgetpu_compiler {log.version}") for name, value in lines.items()]
