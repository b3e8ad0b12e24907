"""Batches that take time to make are made while the ones before them are in use."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

AHEAD = 2
"""Batches that are made, or being made, beyond the one in use."""


def read_ahead(make: Callable[[int], T], indices: Iterable[int]) -> Iterator[T]:
    """``map(make, indices)``, each called before it is asked for, in a thread of its own; an error comes where its result would.

    Args:
        make: makes the batch of an index.
        indices: of the batches, in order.
    """
    maker = ThreadPoolExecutor(1, thread_name_prefix="read-ahead")
    made: deque[Future[T]] = deque()
    try:
        for index in indices:
            made.append(maker.submit(make, index))
            if len(made) > AHEAD:
                yield made.popleft().result()
        while made:
            yield made.popleft().result()
    finally:  # an epoch that is not gone through to its end as well
        maker.shutdown(cancel_futures=True)
