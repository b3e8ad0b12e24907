from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fupruner.errors import InputError
from fupruner.options import Options, parse_options, read_options, write_options

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
