"""Several processes that do one run together: one of them decides, measures and writes, all of them train.

``torchrun`` starts the processes and tells each its place by environment variables. Everything that is not training happens
in process 0 alone, and the others are told what came of it; so all of them take the same decisions. On one machine and on two:

    torchrun --nproc-per-node 2 -m fupruner optimize MODEL --data DATA --out RUN
    torchrun --nnodes 2 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint HOST:29500 -m fupruner optimize ...
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist

from fupruner.errors import FuPrunerError

Value = TypeVar("Value")

PATIENCE = datetime.timedelta(hours=12)
"""How long processes wait for process 0, which may be measuring a device."""


@dataclass(frozen=True)
class World:
    """The processes of a run.

    Attributes:
        rank: of this process.
        size: how many there are.
        local_size: how many of them run on this machine.
    """

    rank: int = 0
    size: int = 1
    local_size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process decides, measures and writes."""
        return self.rank == 0

    def share(self, compute: Callable[[], Value]) -> Value:
        """What ``compute`` gives in process 0, in every process; an error that we raise on purpose is raised in all of them.

        What is shared while process 0 computes stays there: the others do not compute, and so do not ask for it.
        """
        if self.size == 1 or _STATE.get("alone"):
            return compute()
        message: list[Any] = [None]
        if self.is_main:
            _STATE["alone"] = True
            try:
                message = [(True, compute())]
            except FuPrunerError as error:
                message = [(False, error)]
            finally:
                _STATE["alone"] = False
        dist.broadcast_object_list(message, src=0, group=_messages())
        succeeded, value = message[0]
        if not succeeded:
            raise value
        result: Value = value
        return result

    def together(self, compute: Callable[[], Value]) -> Value:
        """What ``compute`` gives in this process; an error that we raise on purpose in one process is raised in all of them."""
        if self.size == 1:
            return compute()
        value, error = None, None
        try:
            value = compute()
        except FuPrunerError as raised:
            error = raised
        if self.any(error is not None):
            errors: list[FuPrunerError | None] = [None] * self.size
            dist.all_gather_object(errors, error, group=_messages())
            raise next(found for found in errors if found is not None)
        return cast("Value", value)

    def mean(self, value: float, share: float) -> float:
        """Mean of a figure over the processes, each weighed by its share of the whole; the same in all of them."""
        if self.size == 1:
            return value
        total = torch.tensor(value * share, dtype=torch.float64)
        dist.all_reduce(total, group=_messages())
        return float(total)

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in at least one process; the same in all of them."""
        return flag if self.size == 1 else self.mean(float(flag), 1.0) > 0


_STATE: dict[str, Any] = {}


def join() -> World:
    """This process's place; where ``torchrun`` started it, meet the others first."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 or "RANK" not in os.environ:
        return World()
    if not dist.is_initialized():
        gpu = torch.cuda.is_available()
        if gpu:
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        dist.init_process_group("nccl" if gpu else "gloo", timeout=PATIENCE)
    return World(int(os.environ["RANK"]), size, int(os.environ.get("LOCAL_WORLD_SIZE", str(size))))


def _messages() -> Any:
    """The group for messages between processors, whatever gradients travel on."""
    if "group" not in _STATE:
        _STATE["group"] = dist.new_group(backend="gloo", timeout=PATIENCE)
    return _STATE["group"]
