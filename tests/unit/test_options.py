import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fupruner.errors import InputError
from fupruner.options import Options, line_of, parse_options, read_options, write_options
from fupruner.options_file import commented_options

options = st.builds(
    Options,
    max_drop=st.floats(0, 100),
    speedup=st.none() | st.floats(1.01, 50),
    epochs=st.integers(1, 500),
    fusion=st.sampled_from(["none", "basic", "aggressive", "auto"]),
    seed=st.integers(0, 2**31),
)


@given(given_options=options)
def test_options_survive_a_file(tmp_path_factory: pytest.TempPathFactory, given_options: Options) -> None:
    path = tmp_path_factory.mktemp("options") / "options.toml"
    write_options(given_options, path)
    assert read_options(path) == given_options


def test_every_violation_is_named() -> None:
    with pytest.raises(InputError) as caught:
        parse_options({"max_drop": -1, "epochs": 0, "colour": "red"}, "here")
    text = str(caught.value)
    for part in ("max_drop = -1", "epochs = 0", "colour = 'red'"):
        assert f"here: option {part}" in text


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"Cannot read options from .*nowhere\.toml"):
        read_options(tmp_path / "nowhere.toml")


def test_every_option_explains_itself() -> None:
    assert all(field.description for field in Options.model_fields.values())


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("epochs = 1", 1),
        ("# epochs\n\n  epochs=1", 3),
        ('"epochs" = 1', 1),
        ("a = 1\n[epochs]\nb = 2", 2),
        ("my_epochs = 1\nepochs = 2", 2),
    ],
)
def test_line_of_an_option(text: str, line: int) -> None:
    assert line_of(text, "epochs") == line


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('epochs = "five"', "line 1: epochs = 'five': must be a whole number, at least 1."),
        ("distill = 3", "line 1: distill = 3: must be true or false."),
        ("max_drop = 101", "line 1: max_drop = 101: must be a number, at least 0 and at most 100."),
        ("zzz = true", "line 1: zzz = true: there is no such option."),
        ("epochs = = 1", "line 1"),
    ],
)
def test_message_about_a_file_names_line_and_rule(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "options.toml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        read_options(path)
    assert message in caught.value.args[0]


def test_commented_file_is_the_defaults_and_fits_the_page() -> None:
    text = commented_options()
    assert Options.model_validate(tomllib.loads(text)) == Options()
    assert "# speedup = 2.0" in text
    assert max(map(len, text.splitlines())) <= 112


def test_every_option_without_a_value_shows_an_example() -> None:
    assert all(field.examples for field in Options.model_fields.values() if field.default is None)
