"""Runs inside the side environment (Python 3.9, OpenVINO 2021.4): compiles one ONNX file for a stick that need not be there.

    python worker.py MODEL.onnx PLATFORM FOLDER

FOLDER receives ``model.blob`` and ``stages.dot``. The last line of the output is a JSON object: ``version``, ``layers`` (how
many), ``missing`` (name and kind of layers that the device lacks), ``error`` (empty where it compiled) and ``blob_bytes``.
"""

import json
import os
import sys
from typing import Any


def main(model: str, platform: str, folder: str) -> None:
    """Compile, and say what came of it."""
    from openvino.inference_engine import IECore, get_version  # noqa: PLC0415 - lives in the side environment only

    core = IECore()
    core.set_config({"CACHE_DIR": folder}, "")
    network = core.read_network(model)
    layers = _layers(network)
    supported = core.query_network(network, "MYRIAD")
    missing = [[name, kind] for name, kind in layers if name not in supported]
    result = {"version": get_version(), "layers": len(layers), "missing": missing, "error": ""}
    if not missing:
        result["error"] = _compile(core, network, platform, folder)
        result["blob_bytes"] = _extract(folder)
    print(json.dumps(result))


def _layers(network: Any) -> list[tuple[str, str]]:
    """Name and kind of every layer that is not a constant."""
    import ngraph  # noqa: PLC0415 - lives in the side environment only

    function = ngraph.function_from_cnn(network)
    nodes = [(op.get_friendly_name(), op.get_type_name()) for op in function.get_ordered_ops()]
    return [(name, kind) for name, kind in nodes if kind not in ("Constant", "Parameter", "Result")]


def _compile(core: Any, network: Any, platform: str, folder: str) -> str:
    """The blob is written before the stick is looked for: that there is none is no failure."""
    dump = os.path.join(folder, "stages")
    try:
        core.load_network(
            network, "MYRIAD", {"VPU_MYRIAD_PLATFORM": platform, "MYRIAD_DUMP_INTERNAL_GRAPH_FILE_NAME": dump + ".dot"}
        )
    except RuntimeError as error:
        text = str(error)
        absent = "no available devices" in text or "NC_ERROR" in text or "Can not init Myriad" in text
        return "" if absent else text
    return ""


def _extract(folder: str) -> int:
    """Take the blob out of the compiler's cache file: one line of XML, then the blob, its magic number at byte 52."""
    files = [name for name in os.listdir(folder) if name.endswith(".blob") and name != "model.blob"]
    if not files:
        return 0
    with open(os.path.join(folder, files[0]), "rb") as file:
        content = file.read()
    blob = content[content.index(b"\n") + 1 :]
    if int.from_bytes(blob[52:56], "little") != 9709:
        return 0
    with open(os.path.join(folder, "model.blob"), "wb") as file:
        file.write(blob)
    os.remove(os.path.join(folder, files[0]))
    return len(blob)


if __name__ == "__main__":
    main(*sys.argv[1:4])
