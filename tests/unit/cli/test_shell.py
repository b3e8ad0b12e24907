from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable

import pytest
import typer
from rich.console import Console

from fupruner.cli import shell
from fupruner.errors import FuPrunerError, InputError, StorageError, TargetError, TrainingError
from unit.report.builder import summary


def code_of(action: Callable[[], int | None]) -> int:
    with pytest.raises(typer.Exit) as left:
        shell.guarded(action)()
    return left.value.exit_code


def raising(error: BaseException) -> Callable[[], None]:
    def command() -> None:
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InputError("x"), 2),
        (TrainingError("x"), 2),
        (StorageError("x"), 2),
        (TargetError("x"), 1),
        (FuPrunerError("x"), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_exit_codes_of_errors(error: BaseException, code: int) -> None:
    assert code_of(raising(error)) == code


def test_exit_codes_of_results() -> None:
    assert code_of(lambda: None) == 0
    assert code_of(lambda: 1) == 1


def test_other_errors_are_bugs_and_pass_through() -> None:
    with pytest.raises(ZeroDivisionError):
        shell.guarded(lambda: 1 // 0)()


def test_error_goes_to_stderr_with_the_hint_on_its_own_line(capsys: pytest.CaptureFixture[str]) -> None:
    shell.show_error(InputError("No [bold]such[/bold] file.", hint="Look elsewhere."))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == ["Error: No [bold]such[/bold] file.", "Look elsewhere."]


def test_long_messages_are_not_broken_into_lines(capsys: pytest.CaptureFixture[str]) -> None:
    shell.show_error(InputError("word " * 60))
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize(
    ("variables", "coloured"), [({"FORCE_COLOR": "1"}, True), ({"NO_COLOR": "1"}, False), ({}, False)]
)
def test_colour_is_for_terminals_that_want_it(variables: dict[str, str], coloured: bool) -> None:
    inherited = {name: value for name, value in os.environ.items() if name not in ("FORCE_COLOR", "NO_COLOR")}
    result = subprocess.run(
        [sys.executable, "-m", "fupruner", "resume", "nowhere"],
        capture_output=True,
        text=True,
        env={**inherited, **variables},
        check=False,
    )
    assert result.returncode == 2
    assert ("\x1b[1;31m" in result.stderr) is coloured
    assert result.stdout == ""


def test_json_is_one_object_and_records_are_objects(capsys: pytest.CaptureFixture[str]) -> None:
    shell.print_json({"summary": summary(), "path": None})
    found = json.loads(capsys.readouterr().out)
    assert found["summary"]["speedup"] == 2.0


def test_what_libraries_print_does_not_reach_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    with shell.results_only(True):
        print("noise")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "noise\n"


def test_consoles_write_where_they_say() -> None:
    assert shell.output().file is not shell.messages().file
    assert Console(file=io.StringIO()).is_terminal is False


def levels(command: Callable[..., None], **flags: bool) -> None:
    with pytest.raises(typer.Exit):
        shell.guarded(command)(**flags)


def tell() -> None:
    shell.messages().print("on the way")
    shell.output().print("result")
    logging.getLogger("fupruner.x").debug("detail of %s", "x")
    logging.getLogger("fupruner.x").warning("careful")


@pytest.mark.parametrize(
    ("flags", "lines"),
    [
        ({}, ["on the way", "Warning: careful"]),
        ({"quiet": True}, []),
        ({"verbose": True}, ["on the way", "Debug: detail of x", "Warning: careful"]),
    ],
)
def test_quiet_and_verbose(flags: dict[str, bool], lines: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    levels(tell, **flags)
    captured = capsys.readouterr()
    assert captured.out == "result\n"
    assert captured.err.splitlines() == lines


def test_level_ends_with_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    levels(tell, quiet=True)
    capsys.readouterr()
    shell.messages().print("heard again")
    assert capsys.readouterr().err == "heard again\n"
    assert logging.getLogger("fupruner").handlers == []


def test_quiet_does_not_swallow_errors(capsys: pytest.CaptureFixture[str]) -> None:
    levels(raising(InputError("broken")), quiet=True)
    assert capsys.readouterr().err == "Error: broken\n"


def test_quiet_and_verbose_exclude_each_other() -> None:
    assert code_of(lambda: None) == 0
    with pytest.raises(typer.Exit) as left:
        shell.guarded(lambda: None)(quiet=True, verbose=True)
    assert left.value.exit_code == 2


def test_json_error_is_an_object_too(capsys: pytest.CaptureFixture[str]) -> None:
    def command(json: bool) -> None:
        raise InputError("broken", hint="mend it")

    with pytest.raises(typer.Exit):
        shell.guarded(command)(json=True)
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"error": "broken", "hint": "mend it"}
    assert "broken" in captured.err


@pytest.mark.parametrize(("given", "expected"), [(None, "1"), ("0", "0")])
def test_large_pages_are_asked_for_unless_somebody_decided(given: str | None, expected: str) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "THP_MEM_ALLOC_ENABLE"}
    environment |= {} if given is None else {"THP_MEM_ALLOC_ENABLE": given}
    words = "import os, fupruner.cli; print(os.environ['THP_MEM_ALLOC_ENABLE'])"
    done = subprocess.run([sys.executable, "-c", words], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == expected
