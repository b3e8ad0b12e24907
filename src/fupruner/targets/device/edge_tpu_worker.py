"""Runs on the machine with the Edge TPU: tflite_runtime with Google's delegate."""

from typing import Any


def about() -> str:
    """Runtime and version."""
    import tflite_runtime  # noqa: PLC0415 - lives on the device

    return "tflite_runtime {} with libedgetpu".format(getattr(tflite_runtime, "__version__", ""))


def open_run(name: str, threads: int) -> Any:
    """A function that runs the compiled file once on zeros."""
    import numpy  # noqa: PLC0415 - the same
    from tflite_runtime.interpreter import Interpreter, load_delegate  # noqa: PLC0415 - the same

    interpreter = Interpreter(model_path=name, experimental_delegates=[load_delegate("libedgetpu.so.1")])
    interpreter.allocate_tensors()
    for entry in interpreter.get_input_details():
        interpreter.set_tensor(entry["index"], numpy.zeros(entry["shape"], entry["dtype"]))
    return interpreter.invoke


def layers(name: str, threads: int) -> Any:
    """Nothing: a compiled network is one operator."""
    return []
