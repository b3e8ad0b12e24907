"""Trials on a Ray cluster. Nothing but Ray has to be shared: a worker sends the files of its run back."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, final

from fupruner.errors import InputError
from fupruner.sweeping.pools import Ended, Work, run_elsewhere
from fupruner.sweeping.study import Proposal

LOCAL = "local"
"""The address that starts a cluster of this machine's cores, for as long as the sweep runs."""

Files = dict[str, bytes]


@final
class RayPool:
    """As many trials at once as the cluster has cores for, each with a GPU where the cluster has any.

    Trials that run side by side on one machine disturb each other's timings; speed-ups are ratios of runs in turn and suffer
    little, and the sweep times all networks once more at the end.

    Args:
        work: what a trial does; model, data and task are sent to the workers once.
        folder: of the sweep.
        address: of the cluster, as ``ray.init`` takes it, or ``local``. A connection that is there is used as it is.
        threads: cores per trial.

    Raises:
        InputError: Ray is not installed, or there is no cluster at the address.
    """

    def __init__(self, work: Work, folder: Path, address: str, threads: int = 1) -> None:
        self.ray, self.folder = _ray(), folder
        self._started = not self.ray.is_initialized()
        if self._started:
            self._connect(address)
        resources = self.ray.cluster_resources()
        gpus = 1 if resources.get("GPU", 0) >= 1 else 0
        most = resources["GPU"] if gpus else resources.get("CPU", 1) / threads
        self.slots = max(1, int(most))
        self._work = self.ray.put(work)
        self._run = self.ray.remote(num_cpus=threads, num_gpus=gpus)(_run_and_pack)
        self._running: dict[Any, Proposal] = {}

    def submit(self, proposal: Proposal) -> None:
        """Send a trial to the cluster."""
        self._running[self._run.remote(self._work, proposal.values)] = proposal

    def collect(self) -> Ended:
        """Wait for the first trial that is over, and write its files."""
        (ready,), _ = self.ray.wait(list(self._running), num_returns=1)
        proposal = self._running.pop(ready)
        try:
            reason, worker, files = self.ray.get(ready)
        except self.ray.exceptions.RayError as error:
            return Ended(proposal, f"The worker was lost: {str(error).splitlines()[0]}", "")
        if not reason:
            _unpack(files, self.folder / proposal.folder)
        return Ended(proposal, reason, worker)

    def close(self) -> None:
        """Leave the cluster; trials that still run there are stopped."""
        for reference in self._running:
            self.ray.cancel(reference, force=True)
        if self._started:
            self.ray.shutdown()

    def _connect(self, address: str) -> None:
        local = {"num_cpus": os.cpu_count(), "include_dashboard": False} if address == LOCAL else {}
        try:
            self.ray.init(address=address, log_to_driver=False, logging_level="warning", **local)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise InputError(
                f"There is no Ray cluster at {address}: {str(error).splitlines()[0]}",
                hint="Give the address of one (auto: the one of this machine), or 'local' to start one for this sweep.",
            ) from None


def _run_and_pack(work: Work, values: dict[str, Any]) -> tuple[str, str, Files]:
    with tempfile.TemporaryDirectory(prefix="fupruner-trial-") as name:
        folder = Path(name) / "run"
        reason, worker = run_elsewhere(work, values, folder)
        paths = [path for path in folder.rglob("*") if path.is_file()] if not reason else []
        return reason, worker, {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def _unpack(files: Files, folder: Path) -> None:
    """Write all files or none."""
    draft = folder.with_name(f".{folder.name}.draft")
    for leftover in (draft, folder):
        shutil.rmtree(leftover, ignore_errors=True)
    for name, content in files.items():
        path = draft / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    draft.rename(folder)


def _ray() -> Any:
    try:
        import ray  # noqa: PLC0415 - optional and heavy
    except ImportError as error:
        raise InputError(
            f"Trials on a cluster need Ray, which cannot be imported: {error}.",
            hint="Install it: pip install 'fupruner[ray]'",
        ) from None
    return ray
