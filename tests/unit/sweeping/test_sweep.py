"""A sweep from end to end without training: the front, going on, what failed, two workers, the page, the command."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import fupruner
from fupruner.cli import app
from fupruner.errors import InputError, TargetError
from fupruner.records import Comparison, Measurement, Metric
from fupruner.report.sweep_page import front_chart, render
from fupruner.sweeping import pools
from fupruner.sweeping import sweep as module
from fupruner.sweeping.records import Trial, pareto_front, read_sweep
from unit.sweeping import fakes

pytest.importorskip("optuna", reason="needs pip install 'fupruner[sweep]'")

SPACE = {"fusion": ["none", "basic"], "speedup": [1.25, 1.5, 2.0, 3.0]}
IMAGES = torch.zeros(1, 3, 8, 8)


class Task:
    metric = Metric(name="mean IoU")


class Device:
    """Times every network as its folder's result says, a quarter slower than in its own run."""

    name, suffix, grade = "cpu", ".onnx", "measured"

    def compare(self, paths: list[Path], inputs: object, *, threads: int = 1) -> Comparison:
        times = [
            2.5,
            *(1.25 * json.loads((p.parent / "result.json").read_text())["final"]["latency_ms"] for p in paths[1:]),
        ]
        made = tuple(
            Measurement(latency_ms=t, spread=0, grade="measured", source="made up", target="cpu") for t in times
        )
        return Comparison(measurements=made, speedups=tuple(2.5 / t for t in times), spreads=(0.0,) * len(times))


@pytest.fixture(autouse=True)
def without_training(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    ran: list[dict[str, Any]] = []

    def optimize(model, inputs, task, *, out, progress, **options) -> None:
        ran.append(options)
        fakes.fake_run(out, options)

    monkeypatch.setattr(pools, "optimize", optimize)
    monkeypatch.setattr(module, "get_target", lambda *_: Device())
    return ran


def run(out: Path, **changed: Any) -> fupruner.SweepResult:
    given: dict[str, Any] = {"space": SPACE, "options": {"epochs": 1}, "out": out, **changed}
    return fupruner.sweep(nn.Conv2d(3, 4, 3), IMAGES, Task(), **given)


def test_front_holds_what_no_other_network_beats(tmp_path, without_training):
    result = run(tmp_path / "sweep")
    assert len(result.trials) == 8
    assert [tuple(trial.values.values()) for trial in result.front] == [("basic", 2.0), ("basic", 1.5), ("basic", 1.25)]
    assert [trial.latency_ms for trial in result.front] == [1.25, pytest.approx(1.25 * 2 / 1.5), 2.0]
    assert [trial.accuracy for trial in result.front] == [86.0, 88.0, 89.0]
    assert [trial.satisfied for trial in result.front] == [False, True, True]
    assert result.baseline.latency_ms == 2.5
    assert all(options["epochs"] == 1 for options in without_training)
    record = read_sweep(tmp_path / "sweep")
    assert record.together
    assert record.front == tuple(trial.number for trial in result.front)
    assert (record.planned, record.seconds, record.metric.name) == (8, 12.0, "mean IoU")


def test_failed_trials_say_why_and_stop_nothing(tmp_path):
    failed = [trial for trial in run(tmp_path / "sweep").trials if trial.reason]
    assert [trial.values["speedup"] for trial in failed] == [3.0, 3.0]
    assert all("3.00x is out of reach" in trial.reason for trial in failed)
    assert all(trial.accuracy is None for trial in failed)


def test_interrupted_sweep_goes_on(tmp_path, without_training, monkeypatch):
    real, calls = pools.optimize, []

    def interrupted(*args, out, **more):
        calls.append(out)
        if len(calls) == 3:
            out.mkdir(parents=True)
            (out / "half").write_text("of a run")
            raise KeyboardInterrupt
        real(*args, out=out, **more)

    with monkeypatch.context() as patch:
        patch.setattr(pools, "optimize", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "sweep")
    assert len(read_sweep(tmp_path / "sweep").trials) == 2
    result = run(tmp_path / "sweep")
    assert len(without_training) == 8
    assert [trial.number for trial in result.trials] == list(range(8))
    assert not (calls[2] / "half").exists()
    run(tmp_path / "sweep")
    assert len(without_training) == 8


def test_search_is_extended_and_another_sweep_is_refused(tmp_path, without_training):
    space = {"speedup": {"low": 1.1, "high": 2.0}}
    run(tmp_path / "sweep", space=space, method="search", trials=3)
    assert len(run(tmp_path / "sweep", space=space, method="search", trials=5).trials) == len(without_training) == 5
    with pytest.raises(InputError, match="holds another sweep: its setup"):
        run(tmp_path / "sweep")


def test_folders_of_others_are_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="exists and is not empty"):
        run(tmp_path)
    with pytest.raises(InputError, match="is a file; a sweep needs a folder"):
        run(tmp_path / "mine.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_bad_space_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(InputError, match="Unknown option in the space of sweep"):
        run(tmp_path / "sweep", space={"speed": [2.0]})
    assert not (tmp_path / "sweep").exists()


def test_latencies_stay_those_of_each_run_where_the_target_cannot_compare(tmp_path, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise TargetError("No board is connected.")

    monkeypatch.setattr(Device, "compare", fail)
    result = run(tmp_path / "sweep")
    assert not read_sweep(tmp_path / "sweep").together
    assert [trial.latency_ms for trial in result.front] == [1.0, pytest.approx(2 / 1.5), 1.6]


def test_task_may_depend_on_the_options_of_a_trial(tmp_path):
    seen = []

    def task(options):
        seen.append(options.batch_size)
        return Task()

    fupruner.sweep(
        nn.Conv2d(3, 4, 3), IMAGES, task, {"batch_size": [8, 16]}, options={"speedup": 1.5}, out=tmp_path / "s"
    )
    assert seen[-2:] == [8, 16]


def test_trials_run_on_a_local_ray_with_two_workers(tmp_path, monkeypatch):
    ray = pytest.importorskip("ray", reason="needs pip install 'fupruner[ray]'")
    ray.cloudpickle.register_pickle_by_value(fakes)
    (tmp_path / "meeting").mkdir()
    monkeypatch.setattr(module, "Work", lambda *_: fakes.TogetherWork(tmp_path / "meeting"))
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    try:
        result = run(tmp_path / "sweep", ray="auto")
    finally:
        ray.shutdown()
        ray.cloudpickle.unregister_pickle_by_value(fakes)
    assert len(result.trials) == 8
    assert len({trial.worker for trial in result.trials}) == 2
    assert [tuple(trial.values.values()) for trial in result.front] == [("basic", 2.0), ("basic", 1.5), ("basic", 1.25)]
    assert [trial.values["speedup"] for trial in result.trials if trial.reason] == [3.0, 3.0]
    for trial in result.trials:
        if not trial.reason:
            assert (tmp_path / "sweep" / trial.folder / "nested" / "weights").read_bytes() == bytes(range(256))


def test_missing_libraries_are_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"need Ray, which cannot be imported(.|\n)*fupruner\[ray\]"):
        run(tmp_path / "sweep", ray="local")
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(InputError, match=r"needs Optuna, which cannot be imported(.|\n)*fupruner\[sweep\]"):
        run(tmp_path / "other")


def test_equal_networks_share_no_place_on_the_front():
    def trial(number: int, accuracy: float | None, latency: float | None) -> Trial:
        return Trial(number=number, folder="", values={}, accuracy=accuracy, latency_ms=latency)

    trials = [
        trial(0, 90, 2),
        trial(1, 90, 2),
        trial(2, 91, 2),
        trial(3, 89, 1),
        trial(4, 88, 1.5),
        trial(5, None, None),
    ]
    assert pareto_front(trials) == (3, 2)
    assert pareto_front([]) == ()


def test_page_shows_every_trial_once_and_escapes_names(tmp_path):
    run(tmp_path / "sweep")
    record = read_sweep(tmp_path / "sweep").model_copy(update={"model": "<script>alert(1)</script>"})
    page = render(record, "sweep")
    assert "<script>alert" not in page
    assert page.count('href="trials/') == 6
    assert page.count("failed: A speed-up of 3.00x") == 2
    assert "Mean IoU against latency" in page
    assert "taken in turn, at the end" in page
    drawn = {trace["name"]: len(trace["x"]) for trace in front_chart(record).data}
    assert drawn == {
        "Pareto front": 3,
        "on the front": 3,
        "requirement met": 3,
        "requirement not met": 3,
        "original": 1,
    }
    assert (tmp_path / "sweep" / "report.html").is_file()


def test_page_of_a_sweep_without_any_network_says_so(tmp_path):
    run(tmp_path / "sweep", space={"speedup": [3.0, 4.0]})
    page = (tmp_path / "sweep" / "report.html").read_text()
    assert "2 trials, and no network" in page
    assert 'class="chart"' not in page


def command(*words: object) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_command_runs_a_sweep_and_the_report_again(tmp_path, without_training):
    file = write(
        tmp_path / "sweep.toml",
        'model = "fupruner:digits_resnet"\ndata = "digits"\n[options]\nepochs = 1\n[space]\nspeedup = [1.5, 2.0]\nbatch_size = [32]\n',
    )
    result = command("sweep", file, "--out", tmp_path / "out", "--json")
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    assert {**printed, "out": None} == {**json.loads((tmp_path / "out" / "sweep.json").read_text()), "out": None}
    assert [trial["values"] for trial in printed["trials"]] == [
        {"speedup": 1.5, "batch_size": 32}, {"speedup": 2.0, "batch_size": 32},
    ]  # fmt: skip
    (tmp_path / "out" / "report.html").unlink()
    assert command("report", tmp_path / "out").exit_code == 0
    assert (tmp_path / "out" / "report.html").is_file()
    shown = command("sweep", file, "--out", tmp_path / "out")
    assert shown.exit_code == 0
    assert "2 networks of 2 that no other one beats" in shown.stdout
    assert len(without_training) == 2


BAD = {
    "no file": (None, "Cannot read a sweep from"),
    "no toml": ("model = ", "Cannot read a sweep from"),
    "no model": ('data = "digits"\n[space]\nspeedup = [1.5]\n', "model: Field required"),
    "unknown entry": ('model = "m"\ndata = "digits"\nmodle = 1\n', "Unknown entry in"),
    "unknown method": (
        'model = "m"\ndata = "digits"\nmethod = "gird"\n[space]\nspeedup = [1.5]\n',
        "'grid' or 'search'",
    ),
    "empty space": ('model = "m"\ndata = "digits"\n[space]\n', "the space is empty; nothing varies"),
    "unknown option": ('model = "m"\ndata = "digits"\n[space]\nfushion = ["none"]\n', "Did you mean fusion"),
    "bad value": ('model = "m"\ndata = "digits"\n[space]\nfusion = ["most"]\n', "aggressive"),
}


@pytest.mark.parametrize("case", BAD)
def test_unusable_files_are_refused_in_words_and_write_nothing(case, tmp_path):
    text, message = BAD[case]
    file = tmp_path / "sweep.toml" if text is None else write(tmp_path / "sweep.toml", text)
    result = command("sweep", file, "--out", tmp_path / "out")
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert "Traceback" not in result.output
    assert not (tmp_path / "out").exists()


def test_example_file_is_valid():
    from fupruner.sweeping.file import read_sweep_file

    found = read_sweep_file(Path(__file__).parents[3] / "examples" / "sweep.toml")
    assert found.space.keys() == {"speedup", "fusion"}
