"""A Jetson that is reached over ssh: engines are built there and timed in turn by ``trtexec``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fupruner.errors import InputError, TargetError
from fupruner.records import LayerTime
from fupruner.targets.cost_model import CostModel
from fupruner.targets.device.networks import CorrectedModel
from fupruner.targets.device.tool import RemoteTool, Timed, numbers
from fupruner.targets.jetson.trtexec import parse_log, parse_profile
from fupruner.targets.ssh import Shell
from fupruner.targets.timing import Rounds

ROUNDS = 3
RUNS = 200
SECONDS = 1800
"""An engine takes minutes to build on a Jetson."""

_SCRIPT = f"""\
trtexec=/usr/src/tensorrt/bin/trtexec
[ -x "$trtexec" ] || trtexec=$(command -v trtexec) || {{ echo "there is no trtexec (JetPack 4.6, package libnvinfer-bin)" >&2; exit 127; }}
for model in file*.onnx; do
    "$trtexec" --onnx="$model" --fp16 --workspace=1024 --saveEngine="$model.plan" > build.log 2>&1 || {{
        echo "==== log $model"; cat build.log; echo "==== end"; exit 0
    }}
done
for round in {" ".join(str(i) for i in range(ROUNDS))}; do
    for model in file*.onnx; do
        echo "==== log $model"
        "$trtexec" --loadEngine="$model.plan" --iterations={RUNS} --avgRuns=100 --useSpinWait 2>&1
    done
done
if [ -f profile ]; then
    "$trtexec" --loadEngine=file000.onnx.plan --iterations={RUNS} --dumpProfile --exportProfile=layers.json > profile.log 2>&1
    echo "==== profile"; cat layers.json; echo
fi
echo "==== end"
"""


@dataclass(frozen=True)
class TrtexecTool(RemoteTool):
    """TensorRT 8.2 on the device.

    Attributes:
        title: of the device.
    """

    title: str

    def compare(self, shell: Shell, paths: Sequence[Path], threads: int) -> Timed:
        """Build engines and time them there, in rounds."""
        logs = [part for part in self._run(shell, paths) if part.startswith("log ")]
        medians: dict[str, list[float]] = {}
        for part in logs:
            name, _, text = part.removeprefix("log ").partition("\n")
            medians.setdefault(name, []).append(parse_log(text).median)
        rows = [list(row) for row in zip(*(medians[name] for name in sorted(medians)), strict=False)]
        times = numbers(rows, shell, len(paths))
        return Timed(Rounds(times, (RUNS,) * len(paths)), f"TensorRT on {self.title} ({shell.address})")

    def layer_times(self, shell: Shell, path: Path, threads: int) -> list[LayerTime]:
        """Times of the engine's layers, from trtexec's profile."""
        parts = self._run(shell, [path], {"profile": b""})
        for part in parts:
            if part.startswith("log "):
                parse_log(part)  # says what went wrong where something did
        profiles = [part.partition("\n")[2] for part in parts if part.startswith("profile")]
        if not profiles:
            raise TargetError(f"trtexec on {shell.address} wrote no profile.", hint="This reads TensorRT 8.2.")
        return parse_profile(profiles[0])

    def _run(self, shell: Shell, paths: Sequence[Path], more: dict[str, bytes] | None = None) -> list[str]:
        files = {f"file{i:03}.onnx": _read(path) for i, path in enumerate(paths)}
        text = shell.run({"run.sh": _SCRIPT.encode(), **files, **(more or {})}, SECONDS)
        parts = re.split(r"^==== ", text, flags=re.MULTILINE)
        if not parts[-1].startswith("end") or len(parts) < 3:
            raise TargetError(f"{shell.address} printed something unexpected: {text.strip()[-300:]!r}")
        return parts[1:-1]

    def cost_model(self, shell: Shell, own: CostModel) -> CostModel:
        """Estimates, corrected by what ran there."""
        return CorrectedModel(own, f"TensorRT on {self.title} at {shell.address}")


def _read(path: Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"Cannot read {path}: {error}.") from None
