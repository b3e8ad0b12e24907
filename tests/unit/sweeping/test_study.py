"""What is proposed next: every combination once, going on where it was cut off, nothing twice."""

from __future__ import annotations

import pytest

from fupruner.errors import InputError
from fupruner.sweeping.space import Range
from fupruner.sweeping.study import Study

GRID = {"fusion": ("none", "basic"), "speedup": (1.5, 2.0)}
ALL = [("none", 1.5), ("none", 2.0), ("basic", 1.5), ("basic", 2.0)]

pytest.importorskip("optuna", reason="needs pip install 'fupruner[sweep]'")


def study(folder, space=None, method="grid", trials=None, seed=0) -> Study:
    return Study(folder / "study.log", space or GRID, method, trials, seed)


def tell(made: Study, proposal, reason: str = "") -> None:
    values = None if reason else (90.0, proposal.values.get("speedup", 1.0))
    made.tell(proposal.number, reason=reason, worker="here", values=values)


def pairs(proposals) -> list[tuple]:
    return [tuple(each.values.values()) for each in proposals]


def all_of(made: Study) -> list:
    proposals = []
    while (proposal := made.ask()) is not None:
        proposals.append(proposal)
        tell(made, proposal)
    return proposals


def test_grid_proposes_every_combination_once_in_order(tmp_path):
    made = study(tmp_path)
    assert made.planned == 4
    proposals = all_of(made)
    assert pairs(proposals) == ALL
    assert [p.folder for p in proposals] == [f"trials/{i:03d}" for i in range(4)]
    assert study(tmp_path).ask() is None


def test_grid_goes_on_where_it_was_cut_off_with_the_interrupted_trial_first_or_later(tmp_path):
    first = study(tmp_path)
    tell(first, first.ask())
    cut_off = first.ask()
    second = study(tmp_path)
    assert [t.number for t in second.trials()] == [0]
    rest = all_of(second)
    assert sorted(pairs(rest)) == sorted(ALL[1:])
    (again,) = [p for p in rest if p.values == cut_off.values]
    assert again.folder == cut_off.folder
    assert len({p.folder for p in rest}) == 3
    assert [t.number for t in sorted(second.trials(), key=lambda t: t.number)] == [0, 1, 2, 3]


def test_failed_trials_are_remembered_with_their_reason_and_not_tried_again(tmp_path):
    made = study(tmp_path)
    tell(made, made.ask(), reason="out of reach")
    all_of(made)
    trials = study(tmp_path).trials()
    assert [t.reason for t in trials] == ["out of reach", "", "", ""]
    assert all(t.worker == "here" for t in trials)


def test_several_trials_may_run_at_once(tmp_path):
    made = study(tmp_path)
    proposals = [made.ask() for _ in range(4)]
    assert made.ask() is None
    assert pairs(proposals) == ALL
    for proposal in reversed(proposals):
        tell(made, proposal)
    assert [t.number for t in made.trials()] == [0, 1, 2, 3]


def test_search_stays_in_the_space_repeats_with_the_seed_and_never_proposes_twice(tmp_path):
    space = {"fusion": ("none", "basic"), "epochs": Range(1, 3), "learning_rate": Range(0.001, 0.1, True)}
    runs = []
    for name in ("a", "b"):
        made = study(tmp_path / name, space, "search", trials=8)
        assert made.planned == 8
        runs.append(pairs(all_of(made)))
    assert runs[0] == runs[1]
    assert len(set(runs[0])) == 8
    for fusion, epochs, rate in runs[0]:
        assert fusion in space["fusion"]
        assert epochs in (1, 2, 3)
        assert 0.001 <= rate <= 0.1


def test_search_ends_when_everything_was_tried(tmp_path):
    assert sorted(pairs(all_of(study(tmp_path, method="search", trials=50)))) == sorted(ALL)


def test_search_is_extended(tmp_path):
    space = {"learning_rate": Range(0.001, 0.1)}
    first = all_of(study(tmp_path, space, "search", trials=3))
    more = all_of(study(tmp_path, space, "search", trials=5))
    assert (len(first), len(more)) == (3, 2)
    assert not set(pairs(first)) & set(pairs(more))


@pytest.mark.parametrize(
    ("space", "method", "trials", "message"),
    [
        ({"epochs": Range(1, 3)}, "grid", None, "A grid needs a list of values for epochs"),
        (GRID, "grid", 3, "A grid tries all of its 4 combinations"),
        (GRID, "search", 0, "A search of 0 trials"),
    ],
)
def test_unsuitable_spaces_are_refused_before_anything_is_written(tmp_path, space, method, trials, message):
    with pytest.raises(InputError, match=message):
        study(tmp_path / "new", space, method, trials)
    assert not (tmp_path / "new").exists()
