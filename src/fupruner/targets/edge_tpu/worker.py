"""Runs inside a side environment (Python 3.9, an old tflite_runtime): runs a file on images and saves its first output."""

import json
import sys


def main(model: str, images: str, out: str) -> None:
    """Print a JSON object: ``error``, empty where it ran."""
    import numpy  # noqa: PLC0415 - lives in the side environment only
    from tflite_runtime.interpreter import Interpreter  # noqa: PLC0415 - the same

    try:
        interpreter = Interpreter(model_path=model)
        interpreter.allocate_tensors()
        entry, found = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
        outputs = []
        for image in numpy.load(images):
            interpreter.set_tensor(entry["index"], image)
            interpreter.invoke()
            outputs.append(interpreter.get_tensor(found["index"]).astype(numpy.int64))
        numpy.save(out, numpy.stack(outputs))
    except Exception as error:  # whatever it is, it is what the caller wants to know
        print(json.dumps({"error": str(error) or repr(error)}))
        return
    print(json.dumps({"error": ""}))


if __name__ == "__main__":
    main(*sys.argv[1:4])
