"""The command line: every command parses, calls one public function, and prints what came back."""

import os

# Fresh memory for weights of gigabytes costs more time than computing with them; large pages are a third of it on Linux.
# PyTorch reads this once, when it allocates for the first time.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

from fupruner.cli.app import app, main

__all__ = ["app", "main"]
