"""Batches that are made ahead of their use."""

from __future__ import annotations

import threading
import time

import pytest

from fupruner.training.ahead import AHEAD, read_ahead


def test_results_come_in_order() -> None:
    assert list(read_ahead(lambda index: index**2, range(3, 20))) == [index**2 for index in range(3, 20)]
    assert list(read_ahead(lambda index: index, range(1))) == [0]
    assert list(read_ahead(lambda index: index, ())) == []


def test_what_comes_next_is_made_while_a_batch_is_in_use_and_no_more() -> None:
    made: list[int] = []
    enough = threading.Event()

    def make(index: int) -> int:
        made.append(index)
        if index == AHEAD:
            enough.set()
        return index

    batches = read_ahead(make, range(100))
    assert next(batches) == 0
    assert enough.wait(10)
    time.sleep(0.05)
    assert made == list(range(AHEAD + 1))


def test_an_error_comes_where_its_batch_would() -> None:
    def make(index: int) -> int:
        if index == 2:
            raise ValueError("broken")
        return index

    batches = read_ahead(make, range(5))
    assert [next(batches), next(batches)] == [0, 1]
    with pytest.raises(ValueError, match="broken"):
        next(batches)


def test_nothing_is_made_once_nobody_wants_it() -> None:
    made: list[int] = []
    batches = read_ahead(made.append, range(100))
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    count = len(made)
    time.sleep(0.05)
    assert len(made) == count <= AHEAD + 1
    assert not any(thread.name.startswith("read-ahead") for thread in threading.enumerate())
