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
