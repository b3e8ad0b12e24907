"""Runs inside the side environment (Python 3.9, OpenVINO 2021.4): runs IR on this machine's processor.

    python ir_worker.py MODEL.xml INPUTS.npz OUTPUTS.npz

The last line of the output is a JSON object: ``error``, empty where it ran.
"""

import json
import sys


def main(model: str, inputs: str, outputs: str) -> None:
    """Run once on inputs that are given in the network's order."""
    import numpy  # noqa: PLC0415 - lives in the side environment only
    from openvino.inference_engine import IECore  # noqa: PLC0415 - the same

    try:
        core = IECore()
        network = core.read_network(model)
        loaded = core.load_network(network, "CPU")
        given = numpy.load(inputs)
        found = loaded.infer({name: given[key] for name, key in zip(network.input_info, given.files)})  # noqa: B905 - 3.9
        numpy.savez(outputs, *[found[name] for name in network.outputs])
    except Exception as error:  # whatever it is, it is what the caller wants to know
        print(json.dumps({"error": str(error) or repr(error)}))
        return
    print(json.dumps({"error": ""}))


if __name__ == "__main__":
    main(*sys.argv[1:4])
