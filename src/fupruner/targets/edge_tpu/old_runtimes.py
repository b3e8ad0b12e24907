"""Runtimes of the compiler's years, in side environments: what they make of a file has to be what LiteRT makes of it."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from fupruner.errors import TargetError
from fupruner.records import Fact
from fupruner.targets.edge_tpu.convert import open_interpreter
from fupruner.targets.side_env import SideEnvironment

ENVIRONMENTS = tuple(
    SideEnvironment(f"tflite-runtime-{version}", "3.9", (f"tflite-runtime=={version}.0", "numpy<2"))
    for version in ("2.7", "2.14")
)
WORKER = Path(__file__).with_name("worker.py")
IMAGES = 8
MOST_STEPS = 4
"""Runtimes round sums differently: so many steps of the output's scale are no other network."""


def check(model: Path) -> list[Fact]:
    """Run a file on the same random images in LiteRT and in every old runtime that is installed.

    Raises:
        TargetError: an old runtime refuses the file, or gives something else.
    """
    installed = [environment for environment in ENVIRONMENTS if environment.interpreter is not None]
    if not installed:
        return []
    interpreter = open_interpreter(model.read_bytes())
    (entry,), (out, *_) = interpreter.get_input_details(), interpreter.get_output_details()
    limits = np.iinfo(entry["dtype"])
    images = np.random.default_rng(0).integers(limits.min, limits.max, (IMAGES, *entry["shape"]), dtype=entry["dtype"])
    expected = []
    for image in images:
        interpreter.set_tensor(entry["index"], image)
        interpreter.invoke()
        expected.append(interpreter.get_tensor(out["index"]).astype(np.int64))
    with tempfile.TemporaryDirectory(prefix="fupruner-") as folder:
        np.save(Path(folder) / "images.npy", images)
        return [_compare(environment, model, Path(folder), np.stack(expected)) for environment in installed]


def _compare(environment: SideEnvironment, model: Path, folder: Path, expected: np.typing.NDArray[np.int64]) -> Fact:
    answer = environment.call(WORKER, [str(model.resolve()), str(folder / "images.npy"), str(folder / "out.npy")], 120)
    if answer.get("error"):
        raise TargetError(f"{environment.packages[0]} refuses {model}: {str(answer['error'])[:300]}")
    found = np.load(folder / "out.npy")
    steps = int(np.abs(found - expected).max()) if found.shape == expected.shape else -1
    if not 0 <= steps <= MOST_STEPS:
        raise TargetError(
            f"{environment.packages[0]} gives something else for {model}: {steps} steps of the output's scale apart."
        )
    text = f"within {steps} of 256 steps of LiteRT on {IMAGES} images"
    return Fact(name=f"in {environment.packages[0].replace('==', ' ')}", value=text, source="FuPruner")
