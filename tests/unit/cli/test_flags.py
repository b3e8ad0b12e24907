from __future__ import annotations

import pytest

from fupruner.cli import flags
from fupruner.errors import InputError
from fupruner.options import Options


@pytest.mark.parametrize("name", list(Options.model_fields))
def test_default_is_accepted_and_comes_from_the_options(name: str) -> None:
    assert getattr(flags.parse(**{name: flags.default(name)}), name) == getattr(Options(), name)


@pytest.mark.parametrize("name", list(Options.model_fields))
def test_help_is_the_description_of_the_option(name: str) -> None:
    assert str(flags.option(name).help).startswith(str(Options.model_fields[name].description))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("max_drop", -1.0, "--max-drop -1.0: must be at least 0 and at most 100."),
        ("max_drop", float("nan"), "--max-drop nan: must be at least 0 and at most 100."),
        ("speedup", 1.0, "--speedup 1.0: must be more than 1."),
        ("fusion", "most", "--fusion most: must be one of none, basic, aggressive, auto."),
        ("batch_size", 0, "--batch-size 0: must be at least 1."),
    ],
)
def test_message_names_flag_value_and_range(name: str, value: object, message: str) -> None:
    with pytest.raises(InputError) as caught:
        flags.parse(**{name: value})
    assert caught.value.args[0] == message


def test_all_violations_are_told_at_once() -> None:
    with pytest.raises(InputError) as caught:
        flags.parse(max_drop=-1, epochs=0, seed=1)
    assert len(caught.value.args[0].splitlines()) == 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ema=0.99", ("ema", 0.99)),
        ("augment = strong", ("augment", "strong")),
        ('augment="strong"', ("augment", "strong")),
        ("distill=false", ("distill", False)),
        ("label-smoothing=0.1", ("label_smoothing", 0.1)),
    ],
)
def test_assignments_are_read_like_lines_of_an_options_file(text: str, expected: tuple[str, object]) -> None:
    assert flags.assigned(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ema", "--set ema: give it as NAME=VALUE."),
        ("emma=1", "Unknown option in --set 'emma'"),
        ("", "--set : give it as NAME=VALUE."),
    ],
)
def test_what_is_no_assignment_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        flags.assigned(text)
