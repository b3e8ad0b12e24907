"""The vendor's Model Optimizer in a side environment: ONNX to IR version 10 in half precision, which every runtime for the sticks reads."""

from __future__ import annotations

import tempfile
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from fupruner.errors import TargetError
from fupruner.targets.runtime import Array
from fupruner.targets.side_env import SideEnvironment

ENVIRONMENT = SideEnvironment(
    "model-optimizer", "3.9", ("openvino-dev[onnx]==2021.4.2", "openvino==2021.4.2", "setuptools<70")
)
SECONDS = 300
WORKER = Path(__file__).with_name("ir_worker.py")
VERSION = "10"


def installed() -> bool:
    """Whether the Model Optimizer can be run here."""
    return ENVIRONMENT.interpreter is not None


def write_ir(model: Path, folder: Path) -> tuple[Path, Path]:
    """Turn an ONNX file into ``NAME.xml`` and ``NAME.bin`` in a folder.

    Args:
        model: opset 11, batch 1.
        folder: where they go.

    Raises:
        TargetError: the Model Optimizer refuses the file, or writes something else than IR 10 in half precision.
    """
    with tempfile.TemporaryDirectory(prefix="fupruner-mo-") as name:
        arguments = ["--input_model", str(model.resolve()), "--data_type", "FP16", "--output_dir", name]
        ENVIRONMENT.run("mo", [*arguments, "--model_name", "model", "--silent"], SECONDS)
        xml, weights = Path(name) / "model.xml", Path(name) / "model.bin"
        if not xml.is_file() or not weights.is_file():
            raise TargetError(f"The Model Optimizer wrote nothing for {model}.")
        require_ir(xml)
        files = (folder / f"{model.stem}.xml", folder / f"{model.stem}.bin")
        for file, made in zip(files, (xml, weights), strict=True):
            file.write_bytes(made.read_bytes())
    return files


def run_ir(xml: Path, values: list[Array]) -> list[Array]:
    """Outputs of an IR file on this machine's processor, in the runtime of the same years.

    Raises:
        TargetError: the runtime refuses the file or the inputs.
    """
    with tempfile.TemporaryDirectory(prefix="fupruner-mo-") as name:
        given, found = Path(name) / "inputs.npz", Path(name) / "outputs.npz"
        np.savez(given, *values)
        answer = ENVIRONMENT.call(WORKER, [str(xml.resolve()), str(given), str(found)], SECONDS)
        if answer.get("error"):
            raise TargetError(f"OpenVINO 2021.4 refuses {xml}: {str(answer['error'])[:300]}")
        outputs = np.load(found)
        return [outputs[key] for key in outputs.files]


def require_ir(xml: Path) -> None:
    """Make sure that a file is IR version 10 with weights in half precision.

    Raises:
        TargetError: it is something else.
    """
    try:
        root = ElementTree.parse(xml).getroot()  # noqa: S314 - written by the Model Optimizer just now
    except ElementTree.ParseError as error:
        raise TargetError(f"The Model Optimizer wrote something that is no IR: {error}.") from None
    constants = {
        data.get("element_type")
        for layer in root.iter("layer")
        if layer.get("type") == "Const"
        for data in layer.iter("data")
    }
    if root.tag != "net" or root.get("version") != VERSION or "f32" in constants:
        raise TargetError(
            f"The Model Optimizer wrote {root.tag} version {root.get('version')} with constants {sorted(map(str, constants))}; "
            f"asked for IR {VERSION} in FP16."
        )
