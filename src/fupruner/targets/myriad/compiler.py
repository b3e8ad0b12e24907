"""The vendor's own compiler for the sticks, run in a side environment, with no stick attached."""

from __future__ import annotations

import ctypes.util
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from fupruner.errors import TargetError
from fupruner.records import Fact
from fupruner.targets.myriad.stage_graph import StageGraph, read_stage_graph
from fupruner.targets.side_env import SideEnvironment

ENVIRONMENT = SideEnvironment("myriad", "3.9", ("openvino==2021.4.2",))
SECONDS = 300
WORKER = Path(__file__).with_name("worker.py")


@dataclass(frozen=True)
class Compiled:
    """What the compiler made of a file.

    Attributes:
        graph: the schedule.
        layers: layers of the network as the compiler reads it, all of them supported.
        blob_bytes: size of the blob.
        version: of OpenVINO.
    """

    graph: StageGraph
    layers: int
    blob_bytes: int
    version: str

    @property
    def source(self) -> str:
        """The compiler's name, as written beside its figures."""
        return f"Myriad compiler of OpenVINO {self.version.partition('-')[0]}, no stick attached"


def installed() -> bool:
    """Whether the compiler can be run here."""
    return ENVIRONMENT.interpreter is not None


def usb_library() -> str:
    """The file name of libusb, which the compiler's plug-in loads; empty where it is missing."""
    return ctypes.util.find_library("usb-1.0") or ""


def compile_file(model: Path, platform: str, blob: Path | None = None) -> Compiled:
    """Compile an ONNX file.

    Args:
        model: opset 11, batch 1.
        platform: ``VPU_MYRIAD_2480`` (Myriad X) or ``VPU_MYRIAD_2450`` (Myriad 2).
        blob: where the compiled network goes, or None.

    Raises:
        TargetError: the device lacks an operator, which is named with its layer; or the compiler fails or prints something else.
    """
    compiled, content = _compile(model.resolve(), model.stat().st_mtime_ns if model.exists() else 0, platform)
    if blob is not None:
        blob.write_bytes(content)
    return compiled


@lru_cache(maxsize=2)
def _compile(model: Path, _: int, platform: str) -> tuple[Compiled, bytes]:
    """What came of a file, and the blob; asked for once when a file is shipped, and again when it is reported on."""
    with tempfile.TemporaryDirectory(prefix="fupruner-myriad-") as name:
        folder = Path(name)
        answer = ENVIRONMENT.call(WORKER, [str(model), platform, str(folder)], SECONDS)
        try:
            version, layers, missing, error = (answer[key] for key in ("version", "layers", "missing", "error"))
        except (KeyError, TypeError):
            raise TargetError(f"The Myriad compiler answered something unexpected: {str(answer)[:300]}") from None
        if missing:
            named = ", ".join(f"{kind} {layer!r}" for layer, kind in missing[:5])
            raise TargetError(
                f"The device lacks operators that {model} needs: {named}.", hint="Replace these layers in the model."
            )
        if error:
            raise TargetError(f"The Myriad compiler refuses {model}: {error.strip()[:600]}")
        graph = read_stage_graph(folder / "stages.dot")
        if not answer.get("blob_bytes"):
            raise TargetError(f"The Myriad compiler wrote no blob for {model}.")
        content = (folder / "model.blob").read_bytes()
        return Compiled(graph, int(layers), len(content), str(version)), content


def facts(compiled: Compiled) -> list[Fact]:
    """What is said of a compiled network in the report."""
    graph = compiled.graph
    kinds = ", ".join(f"{count} {kind}" for kind, count in graph.kinds.most_common())
    executed = sum(stage.executed for stage in graph.stages)
    lines = {
        "stages": f"{len(graph.stages)}, of which {executed} are executed",
        "stages by layer": kinds,
        "compiler cost": f"{graph.cost} cycles per pixel, summed over the engine's stages",
        "layers supported": f"{compiled.layers} of {compiled.layers}",
        "on-chip memory": f"{graph.memory.get('CMX', 0) / 1024:.0f} KiB",
        "blob": f"{compiled.blob_bytes / 1024:.0f} KiB",
    }
    return [Fact(name=name, value=value, source=compiled.source) for name, value in lines.items()]
