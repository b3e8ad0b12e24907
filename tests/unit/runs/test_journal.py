"""The journal: what it read back is what was written, and what is damaged is not believed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from fupruner.errors import FuPrunerError, InputError
from fupruner.graph.layer_shape import LayerShape
from fupruner.records import Grade
from fupruner.runs.journal import FILE, Journal
from fupruner.runs.recorded import RecordedTarget
from fupruner.targets.cost_model import CostModel
from fupruner.targets.cpu import CpuTarget


def never() -> float:
    raise AssertionError("this is known already")


def written(folder: Path) -> Journal:
    journal = Journal()
    journal.price(["early"], lambda missing: [0.5 for _ in missing])
    journal.begin(folder)
    assert journal.once("score", lambda: 0.1 + 0.2) == 0.1 + 0.2
    assert journal.price(["a", "b", "a"], lambda missing: [1.0 + i for i in missing]) == [1.0, 2.0, 1.0]
    assert journal.once("compare", lambda: {"speedups": (1.0, 1.5)}) == {"speedups": [1.0, 1.5]}
    journal.close()
    return journal


OPEN: list[Journal] = []


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    while OPEN:
        OPEN.pop().close()


def read(folder: Path) -> Journal:
    OPEN.append(Journal())
    OPEN[-1].read(folder)
    return OPEN[-1]


def test_outcomes_come_back_in_order_and_bit_for_bit(tmp_path: Path) -> None:
    written(tmp_path)
    journal = read(tmp_path)
    assert journal.damage == ""
    assert journal.is_replaying
    assert journal.price(["b", "early"], lambda missing: [never() for _ in missing]) == [2.0, 0.5]
    assert journal.once("score", never) == 0.1 + 0.2
    assert journal.once("compare", never) == {"speedups": [1.0, 1.5]}
    assert not journal.is_replaying
    assert journal.once("score", lambda: 7.0) == 7.0
    journal.close()
    assert len(read(tmp_path)) == 3


def test_time_goes_on_where_it_stopped(tmp_path: Path) -> None:
    first = written(tmp_path)
    assert read(tmp_path).seconds >= first._entries[-1]["seconds"] > 0


@pytest.mark.parametrize("cut", [1, 9, 20])
def test_line_that_was_cut_off_is_dropped_in_silence(tmp_path: Path, cut: int) -> None:
    written(tmp_path)
    file = tmp_path / FILE
    whole = file.read_bytes()
    file.write_bytes(whole[:-cut])
    journal = read(tmp_path)
    assert journal.damage == ""
    assert len(journal) == 1
    journal.once("score", never)
    journal.once("compare", lambda: {"speedups": [1.0, 1.5]})
    journal.close()
    assert [len(line) for line in file.read_bytes().splitlines()][:-1] == [len(line) for line in whole.splitlines()][
        :-1
    ]


def test_flipped_byte_ends_the_journal_and_is_said(tmp_path: Path) -> None:
    written(tmp_path)
    file = tmp_path / FILE
    content = bytearray(file.read_bytes())
    content[content.index(b"score") + 1] ^= 1
    file.write_bytes(content)
    journal = read(tmp_path)
    assert f"{FILE} is damaged in line 2 of 4" in journal.damage
    assert len(journal) == 0
    assert journal.prices == {"early": 0.5}


def test_another_kind_of_outcome_is_refused(tmp_path: Path) -> None:
    written(tmp_path)
    with pytest.raises(FuPrunerError, match="asks for compare where the journal has score"):
        read(tmp_path).once("compare", never)


def test_second_process_is_kept_out(tmp_path: Path) -> None:
    journal = Journal()
    OPEN.append(journal)
    journal.begin(tmp_path)
    with pytest.raises(InputError, match="Another process is writing"):
        read(tmp_path)
    journal.close()
    read(tmp_path)


def test_computation_is_recorded_as_a_whole(tmp_path: Path) -> None:
    journal = Journal()
    OPEN.append(journal)
    journal.begin(tmp_path)
    assert journal.once("outer", lambda: 1 + journal.once("inner", lambda: 2), everywhere=True) == 3
    assert journal.once("after", lambda: 4) == 4
    journal.close()
    again = read(tmp_path)
    assert again.once("outer", never) == 3
    assert again.once("after", never) == 4


def test_prices_in_two_number_formats_are_kept_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    class Made(CostModel):
        grade: Grade = "table"

        def __init__(self, source: str, ms: float) -> None:
            self.source, self.ms = source, ms

        def price(self, layers: Sequence[LayerShape]) -> list[float]:
            return [self.ms for _ in layers]

    monkeypatch.setattr(
        CpuTarget, "cost_model", lambda self: Made("int8", 1.0) if self.precision == "int8" else Made("float32", 2.0)
    )
    target = RecordedTarget(CpuTarget(int8=True), Journal())
    assert target.reference is not None
    layer = LayerShape("linear", (8,), (4,))
    assert target.cost_model().price([layer]) == [1.0]
    assert target.reference.cost_model().price([layer]) == [2.0]
    assert target.cost_model().price([layer]) == [1.0]
