"""``fuse`` is proved on images of the user's own too, from Python and from the command line."""

from __future__ import annotations

import json

import torch
from typer.testing import CliRunner

import fupruner
from fupruner.cli.app import app
from fupruner.training.data import load_data
from fupruner.training.task import PROOF_IMAGES, Classification

DIGITS = "fupruner:digits_resnet"
OWN = f"{PROOF_IMAGES}x1x8x8"


def test_python() -> None:
    x = torch.zeros(1, 1, 8, 8)
    alone = fupruner.fuse(DIGITS, x)
    proved = fupruner.fuse(DIGITS, x, data=Classification(load_data("digits")))
    assert proved.log.checked_inputs == (*alone.log.checked_inputs, OWN)
    assert proved.max_error <= 1e-9


def test_command_line() -> None:
    result = CliRunner().invoke(app, ["fuse", DIGITS, "--data", "digits", "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["checked_inputs"][-1] == OWN


def test_images_that_do_not_fit_are_refused() -> None:
    result = CliRunner().invoke(app, ["fuse", "fupruner:resnet20", "--data", "no/such/folder"])
    assert result.exit_code == 2
    assert "no/such/folder" in result.stderr
