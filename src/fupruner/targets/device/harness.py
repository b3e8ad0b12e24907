"""Runs on the device, under whatever Python is there (3.6 or newer): times networks in turn, tells times of layers.

Beside it lie ``job.json``, the files, and ``worker.py``, a module that knows the runtime. It prints one JSON object on its last line.
"""

import importlib
import json
import sys
import time
from typing import Any

SLOT_SECONDS = 0.02
LEAST_ROUNDS = 9
MOST_ROUNDS = 101


def timed(run: Any) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def median(values: Any) -> float:
    """Middle value."""
    ordered = sorted(values)
    middle = len(ordered) // 2
    return float(ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2)


def slot(run: Any, repeats: int) -> float:
    """Milliseconds: the median of some calls, after one that is not timed."""
    run()
    return 1e3 * median([timed(run) for _ in range(repeats)])


def interleave(runs: Any, seconds: float) -> Any:
    """Time callables in rounds A B C A B C ...; milliseconds per round and callable, and calls per slot."""
    for run in runs:
        run()
    single = [max(1e-7, min(timed(run) for _ in range(3))) for run in runs]
    repeats = [max(1, int(SLOT_SECONDS / took) + 1) for took in single]
    length = sum(took * (count + 1) for took, count in zip(single, repeats))  # noqa: B905 - older than strict
    rounds = int(min(MOST_ROUNDS, max(LEAST_ROUNDS, seconds / length)))
    return [[slot(run, count) for run, count in zip(runs, repeats)] for _ in range(rounds)], repeats  # noqa: B905


def open_all(worker: Any, job: Any) -> Any:
    """A callable per file."""
    return [worker.open_run(name, job["threads"]) for name in job["files"]]


def processor() -> str:
    """The processor's model name, or the board's."""
    for path, key in (("/proc/device-tree/model", ""), ("/proc/cpuinfo", "model name")):
        try:
            with open(path, errors="replace") as file:
                text = file.read()
        except OSError:
            continue
        if not key:
            return text.strip("\0\n ")
        for line in text.splitlines():
            if line.startswith(key):
                return line.partition(":")[2].strip()
    import platform  # noqa: PLC0415 - rarely needed

    return platform.machine()


def answer(job: Any) -> Any:
    """Do what the job asks for."""
    worker = importlib.import_module("worker")
    said: Any = {"source": "{} on {}".format(worker.about(), processor())}  # noqa: UP032 - readable by old Pythons alike
    if job["what"] == "compare":
        said["rounds"], said["repeats"] = interleave(open_all(worker, job), job["seconds"])
    if job["what"] == "layers":
        said["layers"] = worker.layers(job["files"][0], job["threads"])
    if job["what"] == "each":
        times, _ = interleave(open_all(worker, job), job["seconds"])
        said["times"] = [min(column) for column in zip(*times)]  # noqa: B905
    return said


def main() -> int:
    """Read the job, print the answer; 137 where memory ran out."""
    with open("job.json") as file:
        job = json.load(file)
    try:
        said = answer(job)
    except MemoryError:
        return 137
    except ImportError as error:
        said = {"missing": str(error)}
    except Exception as error:  # whatever it is, it is what the caller wants to know
        said = {"error": "{}: {}".format(type(error).__name__, error)}  # noqa: UP032
    print(json.dumps(said))
    return 0


if __name__ == "__main__":
    sys.exit(main())
