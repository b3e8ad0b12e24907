"""Of several processes that ``torchrun`` started for one run, the first is the one that talks."""

from __future__ import annotations

import os


def is_main() -> bool:
    """Whether this process prints results and looks after the run folder."""
    return os.environ.get("RANK", "0") == "0"


def may_complain() -> bool:
    """Whether this process says what goes wrong: the first one of each machine, which may lack what the others have."""
    return is_main() or os.environ.get("LOCAL_RANK", "0") == "0"
