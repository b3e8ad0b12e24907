"""Runs on the device: LiteRT, or the older tflite_runtime, on its processor."""

from typing import Any


def _runtime() -> Any:
    try:
        from ai_edge_litert import interpreter  # noqa: PLC0415 - lives on the device
    except ImportError:
        from tflite_runtime import interpreter  # noqa: PLC0415 - the same
    return interpreter


def about() -> str:
    """Runtime and version."""
    name = _runtime().__name__.partition(".")[0]
    try:
        from importlib.metadata import version  # noqa: PLC0415 - not in every Python

        return "{} {}".format(name.replace("ai_edge_litert", "LiteRT"), version(name.replace("_", "-")))
    except Exception:  # an older Python, or a package without metadata
        return str(name)


def open_run(name: str, threads: int) -> Any:
    """A function that runs the file once on zeros."""
    import numpy  # noqa: PLC0415 - lives on the device

    interpreter = _runtime().Interpreter(model_path=name, num_threads=threads)
    interpreter.allocate_tensors()
    for entry in interpreter.get_input_details():
        interpreter.set_tensor(entry["index"], numpy.zeros(entry["shape"], entry["dtype"]))
    return interpreter.invoke


def layers(name: str, threads: int) -> Any:
    """Nothing: single operators are sent as files of their own."""
    return []
