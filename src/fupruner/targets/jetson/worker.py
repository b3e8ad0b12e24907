"""Runs inside the side environment (Python 3.6, ONNX Runtime 1.10): loads a file and runs it once on zeros."""

import json
import sys


def main(model: str) -> None:
    """Print a JSON object: ``outputs`` (their shapes), ``error`` (empty where it ran)."""
    import numpy  # noqa: PLC0415 - lives in the side environment only
    import onnxruntime  # noqa: PLC0415 - the same

    try:
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        feeds = {entry.name: numpy.zeros(entry.shape, numpy.float32) for entry in session.get_inputs()}
        outputs = session.run(None, feeds)
    except Exception as error:  # whatever it is, it is what the caller wants to know
        print(json.dumps({"outputs": [], "error": str(error) or repr(error)}))
        return
    print(json.dumps({"outputs": [list(output.shape) for output in outputs], "error": ""}))


if __name__ == "__main__":
    main(sys.argv[1])
