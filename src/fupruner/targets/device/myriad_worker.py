"""Runs on the machine with the stick: the last OpenVINO for it."""

from typing import Any

RUNS = 20


def about() -> str:
    """Runtime and version."""
    from openvino.inference_engine import IECore, get_version  # noqa: PLC0415 - lives on the device

    if "MYRIAD" not in " ".join(IECore().available_devices):
        raise RuntimeError("no Neural Compute Stick is plugged in")
    return "OpenVINO {} on MYRIAD".format(get_version().partition("-")[0])


def _network(name: str) -> Any:
    import numpy  # noqa: PLC0415 - the same
    from openvino.inference_engine import IECore  # noqa: PLC0415 - the same

    core = IECore()
    network = core.read_network(name)
    loaded = core.load_network(network, "MYRIAD", {"PERF_COUNT": "YES"})
    random = numpy.random.RandomState(0)
    feeds = {
        key: random.standard_normal(entry.input_data.shape).astype("float32")
        for key, entry in network.input_info.items()
    }
    return loaded, feeds


def open_run(name: str, threads: int) -> Any:
    """A function that runs the file once on noise."""
    loaded, feeds = _network(name)
    return lambda: loaded.infer(feeds)


def layers(name: str, threads: int) -> Any:
    """Name, kind and milliseconds of every stage that ran."""
    loaded, feeds = _network(name)
    totals: Any = {}
    for _ in range(RUNS):
        loaded.infer(feeds)
        for stage, entry in loaded.requests[0].get_perf_counts().items():
            if entry["status"] == "EXECUTED":
                totals.setdefault(stage, [entry["layer_type"], []])[1].append(entry["real_time"] / 1e3)
    return [(stage, kind, sorted(times)[len(times) // 2]) for stage, (kind, times) in totals.items()]
