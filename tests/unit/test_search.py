import math

from hypothesis import given
from hypothesis import strategies as st

from fupruner.search import CLOSE, FIRST, STEP, Bracket


def test_steps_up_while_nothing_fails() -> None:
    bracket = Bracket()
    assert bracket.next() == FIRST
    bracket.tell(FIRST, satisfied=True)
    assert bracket.next() == FIRST * STEP


def test_halves_the_bracket_after_a_failure() -> None:
    bracket = Bracket()
    bracket.tell(1.5, satisfied=True)
    bracket.tell(2.0, satisfied=False)
    assert bracket.next() == math.sqrt(3.0)


def test_ends_when_the_bracket_is_narrow() -> None:
    bracket = Bracket(passed=1.5, failed=1.5 * CLOSE * 0.99)
    assert bracket.next() is None


@given(st.floats(1.0, 20.0))
def test_finds_the_fastest_speedup_that_holds(limit: float) -> None:
    bracket = Bracket()
    for _ in range(50):
        asked = bracket.next()
        if asked is None:
            break
        bracket.tell(asked, satisfied=asked <= limit)
    assert bracket.passed <= limit
    assert bracket.passed * CLOSE >= min(limit, bracket.failed) * 0.999
