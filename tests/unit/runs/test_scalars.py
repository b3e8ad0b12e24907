from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from fupruner.errors import InputError
from fupruner.runs.scalars import Scalars, require_tensorboard

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the library's own


def read(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Scalars of the event files in a folder, as TensorBoard itself reads them."""
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = reader.EventAccumulator(str(folder))
    found.Reload()
    return {tag: [(event.step, event.value) for event in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def test_figures_come_back_from_the_event_file(tmp_path: Path) -> None:
    scalars = Scalars(tmp_path / "attempt-1")
    scalars.write(3, **{"loss/step": 0.5, "accuracy": 90.0})
    scalars.write(4, **{"loss/step": 0.25})
    scalars.close()
    assert read(tmp_path / "attempt-1") == {"loss/step": [(3, 0.5), (4, 0.25)], "accuracy": [(3, 90.0)]}


def test_nothing_is_written_where_it_is_not_asked_for(tmp_path: Path) -> None:
    scalars = Scalars(None)
    scalars.write(1, loss=1.0)
    scalars.close()
    assert list(tmp_path.iterdir()) == []


def test_what_was_written_before_an_interruption_is_not_written_again(tmp_path: Path) -> None:
    old = True
    scalars = Scalars(tmp_path / "a", lambda: old)
    scalars.write(1, loss=1.0)
    assert not (tmp_path / "a").exists()
    old = False
    scalars.write(2, loss=0.5)
    scalars.close()
    assert read(tmp_path / "a") == {"loss": [(2, 0.5)]}


def test_a_missing_library_is_told_before_anything_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"not installed\.\s*pip install 'fupruner\[tensorboard\]'"):
        require_tensorboard()
