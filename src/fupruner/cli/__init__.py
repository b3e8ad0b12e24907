"""The command line: every command parses, calls one public function, and prints what came back."""

from fupruner.cli.app import app, main

__all__ = ["app", "main"]
