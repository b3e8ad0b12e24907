"""What varies: lists, ranges, and words for what cannot vary."""

from __future__ import annotations

import pytest

from fupruner.errors import InputError
from fupruner.sweeping.space import Range, combinations, parse_space


def test_lists_and_ranges_are_read():
    space = parse_space(
        {"fusion": ["none", "auto"], "epochs": {"low": 1, "high": 3}, "learning_rate": {"low": 0.001, "high": 0.1, "log": True}},
        {"max_drop": 2.0}, "sweep.toml",
    )  # fmt: skip
    assert space == {"fusion": ("none", "auto"), "epochs": Range(1, 3), "learning_rate": Range(0.001, 0.1, True)}
    assert space["epochs"].whole
    assert not space["learning_rate"].whole
    assert parse_space(space, {}, "sweep()") == space


def test_grid_is_every_combination_with_the_last_option_fastest():
    space = parse_space({"fusion": ["none", "basic"], "speedup": [1.5, 2]}, {}, "sweep.toml")
    assert combinations(space) == [
        {"fusion": "none", "speedup": 1.5}, {"fusion": "none", "speedup": 2.0},
        {"fusion": "basic", "speedup": 1.5}, {"fusion": "basic", "speedup": 2.0},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("space", "options", "message"),
    [
        ({}, {}, "the space is empty; nothing varies.\nMay vary: .*fusion"),
        ({"fushion": ["none"]}, {}, "Unknown option in the space of sweep.toml 'fushion'.\nDid you mean fusion"),
        ({"fusion": []}, {}, "must be a list of values, or a range"),
        ({"fusion": "none"}, {}, "must be a list of values, or a range"),
        ({"fusion": ["none", "fast"]}, {}, "fast(.|\n)*(aggressive|allowed)"),
        ({"epochs": [0]}, {}, "epochs"),
        ({"epochs": [1, 1]}, {}, "names a value twice"),
        ({"target": ["cpu", "ncs2"]}, {}, "target may not vary: latencies would not compare"),
        ({"epochs": [1, 2]}, {"epochs": 3}, "epochs is both fixed and varied"),
        ({"epochs": {"low": 3, "high": 3}}, {}, "low must be less than high"),
        ({"epochs": {"low": 3}}, {}, "a range has low and high"),
        ({"epochs": {"low": 1, "high": 3, "step": 1}}, {}, "a range has low and high"),
        ({"fusion": {"low": 1, "high": 3}}, {}, "fusion"),
        ({"fusion": {"low": "none", "high": "auto"}}, {}, "'none' is not a number"),
        ({"weight_decay": {"low": 0.0, "high": 0.1, "log": True}}, {}, "takes numbers above 0"),
        ({"epochs": [1, 2]}, {"speedup": 0.5}, "speedup"),
    ],
)
def test_what_cannot_vary_is_refused_in_words(space, options, message):
    with pytest.raises(InputError, match=message):
        parse_space(space, options, "sweep.toml")


def test_a_range_has_no_combinations():
    with pytest.raises(InputError, match=r"list of values for epochs, not a range.\nList values, or choose method"):
        combinations({"epochs": Range(1, 3)})
