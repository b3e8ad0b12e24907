"""ONNX Runtime 1.10, of the same years as TensorRT 8.2, in a side environment: what it cannot load, TensorRT cannot parse."""

from __future__ import annotations

from pathlib import Path

from fupruner.errors import TargetError
from fupruner.targets.side_env import SideEnvironment

ENVIRONMENT = SideEnvironment("onnxruntime-1.10", "3.6", ("onnxruntime==1.10.0",))
WORKER = Path(__file__).with_name("worker.py")
SOURCE = "ONNX Runtime 1.10, Python 3.6"


def check(model: Path) -> str:
    """Load a file there and run it once on zeros; the shapes of its outputs in words.

    Raises:
        TargetError: it does not load, or does not run.
    """
    answer = ENVIRONMENT.call(WORKER, [str(model.resolve())], seconds=120)
    if answer.get("error"):
        raise TargetError(
            f"{SOURCE} refuses {model}: {str(answer['error'])[:400]}",
            hint="The file uses something newer than TensorRT 8.2; report this with the file.",
        )
    return "yes, output " + ", ".join("x".join(map(str, shape)) for shape in answer["outputs"])
