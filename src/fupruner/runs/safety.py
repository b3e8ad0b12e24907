"""What happens to a run that is stopped: by the user, by a full disk, by a training that diverged."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from fupruner.errors import StorageError, TrainingError
from fupruner.runs.run_folder import RunFolder

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_WRITING = {*_FULL, errno.EROFS, errno.EIO}


@contextmanager
def kept_safe(run: RunFolder) -> Iterator[None]:
    """Say what was saved and how to go on when a run is stopped.

    Raises:
        KeyboardInterrupt: the user stopped it.
        StorageError: the folder cannot be written to.
        TrainingError: training cannot go on.
    """
    try:
        yield
    except KeyboardInterrupt:
        _log(run, "interrupted")
        raise KeyboardInterrupt(f"Interrupted. {_saved(run)}\nGo on with: fupruner resume {run.path}") from None
    except TrainingError as error:
        _log(run, "failed", reason=str(error.args[0]))
        raise TrainingError(f"{error.args[0]} {_saved(run)}", hint=error.hint) from error.__cause__
    except OSError as error:
        if error.errno not in _WRITING:
            raise
        what = "The disk is full" if error.errno in _FULL else "The disk cannot be written to"
        raise StorageError(
            f"{what}: {error.strerror}, while {run.path} was written. {_saved(run)} The last checkpoint is kept.",
            hint=f"Make room, then: fupruner resume {run.path}",
        ) from error


def _log(run: RunFolder, event: str, **details: str) -> None:
    """Log why a run stops; a disk that is full as well must not hide that."""
    with suppress(OSError):
        run.event(event, **details)


def _saved(run: RunFolder) -> str:
    return f"Best so far: {run.best}." if run.best else "No faster network that meets the requirement was found so far."
