"""Small runs in processes of their own that can be killed at any point. Every process is forked from one that has all imports."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fupruner.records import Comparison, LayerTime, Measurement
from fupruner.runs.checkpoints import Checkpoints
from fupruner.runs.journal import Journal

OPTIONS = {
    "--epochs": "2", "--max-drop": "30", "--batch-size": "256", "--checkpoint-every": "0", "--speedup": "1.5", "--set": "ema=0.9",
}  # fmt: skip


@dataclass(frozen=True)
class Finished:
    """A run that nothing happened to.

    Attributes:
        command: its words, without ``--out``.
        folder: of the run.
        points: how many it has, see ``runs.fupruner``.
    """

    command: tuple[str, ...]
    folder: Path
    points: int


def context() -> BaseContext:
    """A server that has imported what runs need, and forks."""
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(
        ["small_runs", "fupruner.cli", "fupruner.runs.resuming", "fupruner.report.html", "sklearn.datasets"]
    )
    return found


def fupruner(
    arguments: Sequence[str],
    log: Path,
    at: int | None = None,
    sign: int = signal.SIGKILL,
    *,
    largest_file: int | None = None,
    diverging: int | None = None,
) -> int:
    """Run the command line in a process; at its ``at``-th point it sends itself a signal. Returns the exit code.

    Points are training steps, entries of the journal and checkpoints (half-written ones too). The log gets what is
    printed, and the number of points in its last line. Files cannot grow beyond ``largest_file`` bytes: the disk is full.
    The ``diverging``-th attempt does not get through its training.
    """
    process = context().Process(target=_child, args=(arguments, str(log), at, sign, None, largest_file, diverging))  # type: ignore[attr-defined]
    process.start()
    process.join(300)
    assert process.exitcode is not None
    return int(process.exitcode)


def together(processes: int, arguments: list[str], log: Path) -> list[int]:
    """Run the command line in several processes that torchrun might have started; logs get the rank's number."""
    started = []
    for rank, place in enumerate(places(processes)):
        named = log.with_name(f"{log.name}{rank}")
        started.append(context().Process(target=_child, args=(arguments, str(named), None, 0, place)))  # type: ignore[attr-defined]
        started[-1].start()
    for process in started:
        process.join(300)
    return [int(process.exitcode) for process in started]


def places(processes: int) -> list[dict[str, str]]:
    """What torchrun tells each of several processes in its environment."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    size = str(processes)
    shared = {"WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "GROUP_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
              "TORCHELASTIC_RUN_ID": "test"}  # fmt: skip
    return [{**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(processes)]


def _child(
    arguments: Sequence[str],
    log: str,
    at: int | None,
    sign: int,
    place: dict[str, str] | None = None,
    largest_file: int | None = None,
    diverging: int | None = None,
) -> None:
    if largest_file is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    os.environ.update(place or {})
    torch.set_num_threads(1)
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1)
    os.dup2(1, 2)
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115 - for good
    sys.argv = ["fupruner", *arguments]
    count = 0

    def point() -> None:
        nonlocal count
        count += 1
        if count == at:
            os.kill(os.getpid(), sign)

    without_clocks()
    _before(Journal, "_write", point)
    _before(Checkpoints, "write", point)
    _before(os, "fsync", point)
    _before(torch.optim.SGD, "step", point)
    from fupruner.cli import main

    if diverging is not None:
        without_end(diverging)
    try:
        main()
    finally:
        print(f"points {count}", flush=True)


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    """Weights of the network that a run came to."""
    return dict(torch.export.load(str(run / "model.pt2")).state_dict)


def _before(owner: Any, name: str, action: Callable[[], None]) -> None:
    original = getattr(owner, name)

    def replaced(*args: Any, **kwargs: Any) -> Any:
        action()
        return original(*args, **kwargs)

    setattr(owner, name, replaced)


def without_end(attempt: int) -> None:
    """The loss of an attempt becomes NaN in its second epoch."""
    from fupruner import search
    from fupruner.training import loop

    run, step, now = search.run_attempt, loop._Diary.step, 0

    def run_attempt(setting: Any, number: int, asked: float) -> Any:
        nonlocal now
        now = number
        return run(setting, number, asked)

    def lose(self: Any, number: int, loss: float, images: int) -> None:
        late = number > self.task.steps_per_epoch
        step(self, number, float("nan") if late and now == attempt else loss, images)

    search.run_attempt = run_attempt
    loop._Diary.step = lose  # type: ignore[method-assign]


def without_clocks() -> None:
    """Latencies by the size of files, prices by the size of layers: quick, and the same every time."""
    from fupruner.targets import cpu
    from fupruner.targets.latency_table import LatencyTable, _elements

    def compare(self: Any, paths: Any, _inputs: Any, *, threads: int = 1) -> Comparison:
        sizes = np.array([path.stat().st_size for path in paths], dtype=float)
        measured = [
            Measurement(
                latency_ms=ms / 1e6, spread=0.0, grade="measured", source="sizes", target="cpu", threads=threads
            )
            for ms in sizes
        ]
        ratios = tuple((sizes[0] / sizes).tolist())
        return Comparison(measurements=tuple(measured), speedups=ratios, spreads=(0.0,) * len(ratios))

    def layer_times(self: Any, path: Path, _inputs: Any, *, threads: int = 1) -> list[LayerTime]:
        return [LayerTime(name=path.name, kind="Conv", ms=1.0)]

    def price(self: Any, layers: Any) -> list[float]:
        return [1e-7 * (layer.macs + 10 * _elements(layer)) for layer in layers]

    cpu.CpuTarget.compare = compare  # type: ignore[method-assign]
    cpu.CpuTarget.layer_times = layer_times  # type: ignore[method-assign]
    LatencyTable.price = price  # type: ignore[method-assign]
