import math
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fupruner.options import Options
from fupruner.progress import Silent
from fupruner.search import AIM, CLOSE, FIRST, FURTHER, STEP, Bracket, search


def test_begins_with_a_speedup_that_most_networks_bear() -> None:
    assert Bracket(1.0).next() == FIRST


def test_goes_where_most_of_the_allowance_is_expected_to_be_used_up() -> None:
    bracket = Bracket(1.0)
    bracket.tell(1.5, AIM / 2)
    assert bracket.next() == pytest.approx(1.5 ** math.sqrt(2))


def test_takes_no_longer_step_than_allowed_however_little_was_lost() -> None:
    for lost in (-0.5, 0.0, 0.01):
        bracket = Bracket(1.0)
        bracket.tell(1.5, lost)
        assert bracket.next() == pytest.approx(1.5 * STEP)


def test_comes_back_by_as_much_as_was_lost_too_much() -> None:
    bracket = Bracket(1.0)
    bracket.tell(1.5, 1.2)
    asked = bracket.next()
    assert asked == pytest.approx(math.exp(math.log(1.5) * math.sqrt(AIM / 1.2)))
    assert asked > math.sqrt(1.5)


def test_lies_between_what_held_and_what_did_not() -> None:
    bracket = Bracket(1.0)
    bracket.tell(1.5, 0.2)
    bracket.tell(2.2, 2.0)
    asked = bracket.next()
    assert asked is not None
    assert 1.5 * CLOSE < asked < 2.2


def test_halves_the_bracket_where_a_speedup_was_out_of_reach() -> None:
    bracket = Bracket(1.0)
    bracket.tell(1.5, 0.2)
    bracket.tell(2.0, math.inf)
    assert bracket.next() == math.sqrt(3.0)


@pytest.mark.parametrize("lost", [AIM, 0.9, 1.0])
def test_goes_on_as_long_as_nothing_has_failed(lost: float) -> None:
    bracket = Bracket(1.0)
    bracket.tell(1.5, lost)
    assert bracket.next() == pytest.approx(1.5 * FURTHER)
    bracket.tell(1.5 * FURTHER, 1.0)
    assert bracket.next() == pytest.approx(1.5 * FURTHER**2)
    bracket.tell(1.5 * FURTHER**2, 1.1)
    assert bracket.next() is None


def test_halves_the_bracket_where_little_is_expected_of_more_than_half() -> None:
    bracket = Bracket(1.0)
    bracket.tell(1.5, 0.7)
    bracket.tell(2.0, 5.0)
    assert bracket.next() == math.sqrt(3.0)


@pytest.mark.parametrize("tried", [[(1.5, 0.7), (1.5 * CLOSE**2 * 0.99, 5.0)], [(1.5, 0.1), (1.5 * CLOSE * 0.99, 1.5)]])
def test_ends_when_no_further_gain_is_likely(tried: list[tuple[float, float]]) -> None:
    bracket = Bracket(1.0)
    for speedup, lost in tried:
        bracket.tell(speedup, lost)
    assert bracket.next() is None


def test_goes_on_as_long_as_nothing_has_held() -> None:
    bracket = Bracket(0.0)
    bracket.tell(1.5, 30.0)
    assert bracket.next() == CLOSE
    bracket.tell(CLOSE, 30.0)
    assert bracket.next() is None


@given(st.floats(1.1, 20.0), st.floats(1.0, 3.0), st.floats(0.1, 5.0))
def test_finds_most_of_what_there_is_in_a_few_attempts(limit: float, power: float, allowed: float) -> None:
    """The limit is where exactly the allowance is lost; what is lost grows with some power of the logarithm."""
    bracket, attempts = Bracket(allowed), 0
    while (asked := bracket.next()) is not None:
        bracket.tell(asked, allowed * (math.log(asked) / math.log(limit)) ** power)
        attempts += 1
    assert attempts <= 12
    assert bracket.passed <= limit * (1 + 1e-9)
    assert math.log(bracket.passed) >= 0.6 * math.log(limit) - 1.1 * math.log(CLOSE)


@pytest.mark.parametrize("shipping", [1.0, 2.4])
def test_what_shipping_alone_gains_is_where_a_search_begins(shipping: float, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[float] = []

    def attempt(setting: Any, number: int, asked: float) -> Any:
        tried.append(asked)
        lost = math.log(asked / shipping) ** 2
        figures = SimpleNamespace(accuracy=90.0 - lost)
        return SimpleNamespace(figures=figures, speedup=asked)

    monkeypatch.setattr("fupruner.search.run_attempt", attempt)
    for name in ("keep", "_record"):
        monkeypatch.setattr(f"fupruner.search.{name}", lambda *_: None)
    setting: Any = SimpleNamespace(options=Options(max_drop=0.5), shipping=shipping, progress=Silent())
    original: Any = SimpleNamespace(accuracy=90.0)
    found = search(setting, SimpleNamespace(), original)  # type: ignore[arg-type]
    assert tried[0] == pytest.approx(FIRST * shipping)
    assert tried == pytest.approx([shipping * each for each in _alone(len(tried))])
    assert [outcome.speedup for outcome in found] == sorted(
        (s for s in tried if math.log(s / shipping) ** 2 <= 0.5), reverse=True
    )


def test_nothing_slower_than_the_original_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where shipping alone makes a network slower, half of the way to it may be no gain."""
    tried: list[float] = []

    def attempt(setting: Any, number: int, asked: float) -> Any:
        tried.append(asked)
        return SimpleNamespace(figures=SimpleNamespace(accuracy=80.0), speedup=asked)

    monkeypatch.setattr("fupruner.search.run_attempt", attempt)
    monkeypatch.setattr("fupruner.search._record", lambda *_: None)
    setting: Any = SimpleNamespace(options=Options(max_drop=0.5), shipping=0.8, progress=Silent())
    original: Any = SimpleNamespace(accuracy=90.0)
    assert search(setting, SimpleNamespace(), original) == []  # type: ignore[arg-type]
    assert tried == pytest.approx([0.8 * FIRST])


def _alone(attempts: int) -> list[float]:
    """Speed-ups that a bracket asks for where nothing is gained by shipping."""
    bracket, tried = Bracket(0.5), list[float]()
    for _ in range(attempts):
        asked = bracket.next()
        assert asked is not None
        bracket.tell(asked, math.log(asked) ** 2)
        tried.append(asked)
    return tried
