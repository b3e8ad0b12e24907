"""A device that is reached over OpenSSH: files go there, a script runs there, what it prints comes back.

One connection carries one job. Its remote command never changes: it unpacks what arrives on standard input into a new folder,
runs the script in it, and removes the folder. So nothing that a user or a model named is ever part of a shell's text; it travels
as files. Keys only: a question for a password is an error.
"""

from __future__ import annotations

import io
import re
import shlex
import shutil
import subprocess
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass

from fupruner.errors import InputError, TargetError

CONNECT_SECONDS = 10
SCRIPT = "run.sh"
_REMOTE = (
    'umask 077; d=$(mktemp -d "${TMPDIR:-/tmp}/fupruner.XXXXXX") || exit 97; trap \'rm -rf "$d"\' EXIT; '
    f'cd "$d" && tar xf - || exit 97; sh ./{SCRIPT}'
)
_NO_SPACE, _MISSING, _KILLED, _NO_CONNECTION = 97, 127, 137, 255
_ADDRESS = re.compile(
    r"ssh://(?:(?P<user>[A-Za-z0-9_][\w.-]*)@)?(?P<host>[A-Za-z0-9_][\w.-]*|\[[0-9A-Fa-f:.]+\])(?::(?P<port>\d{1,5}))?(?P<python>/[\w./+@-]*)?"
)


@dataclass(frozen=True)
class Address:
    """Where a device is.

    Attributes:
        user: empty for the one that the SSH configuration names.
        host: a name, an address, or a host of the SSH configuration.
        port: None for the one that the SSH configuration names.
        python: full path of the Python with the runtime there; empty for ``python3``.
    """

    host: str
    user: str = ""
    port: int | None = None
    python: str = ""

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read ``ssh://[USER@]HOST[:PORT][/PATH/OF/PYTHON]``.

        Raises:
            InputError: it is something else.
        """
        match = _ADDRESS.fullmatch(text)
        port = int(match["port"]) if match and match["port"] else None
        if match is None or (port is not None and not 0 < port < 65536):
            raise InputError(
                f"--device {text}: must be ssh://[USER@]HOST[:PORT][/PYTHON].",
                hint="For example: ssh://pi@raspberry.local, or ssh://nano:2222/home/me/venv/bin/python",
            )
        python = "" if match["python"] in (None, "/") else match["python"]
        return cls(match["host"].strip("[]"), match["user"] or "", port, python)

    def __str__(self) -> str:
        return f"{f'{self.user}@' if self.user else ''}{self.host}{f':{self.port}' if self.port else ''}"


class Shell:
    """Runs jobs on a device.

    Args:
        address: of the device.
        options: further arguments for ``ssh``, for example a file of keys.
    """

    def __init__(self, address: Address, options: tuple[str, ...] = ()) -> None:
        self.address, self._options = address, options

    def run(self, files: Mapping[str, bytes], seconds: int) -> str:
        """Send files, run ``run.sh`` among them in their folder, and give what it prints.

        Raises:
            TargetError: the device is not reached, a tool is missing there, it runs out of memory or time, or the script fails.
        """
        try:
            done = subprocess.run(  # noqa: S603 - a list of arguments; the remote command is a constant
                self._command(), input=_packed(files), capture_output=True, timeout=seconds, check=False
            )
        except subprocess.TimeoutExpired:
            raise TargetError(f"{self.address} gave no answer within {seconds} s.") from None
        text, said = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace").strip()
        if done.returncode:
            raise self._problem(done.returncode, said or text.strip())
        return text

    def _command(self) -> list[str]:
        ssh = shutil.which("ssh")
        if ssh is None:
            raise TargetError("OpenSSH's client is missing here.", hint="apt-get install openssh-client")
        where = ["-l", self.address.user] if self.address.user else []
        where += ["-p", str(self.address.port)] if self.address.port else []
        keys_only = (
            "BatchMode=yes", "PreferredAuthentications=publickey", "PasswordAuthentication=no", f"ConnectTimeout={CONNECT_SECONDS}",
            "ServerAliveInterval=15", "ServerAliveCountMax=4", "ClearAllForwardings=yes", "RequestTTY=no",
        )  # fmt: skip
        settings = [part for each in keys_only for part in ("-o", each)]
        return [ssh, *settings, *self._options, *where, "--", self.address.host, f"exec sh -c {shlex.quote(_REMOTE)}"]

    def _problem(self, code: int, said: str) -> TargetError:
        last = said.splitlines()[-1][:300] if said else "nothing was said"
        if code == _NO_CONNECTION:
            return TargetError(
                f"{self.address} cannot be reached over ssh: {last}",
                hint=f"'ssh {self.address.host}' has to work without a password; keys only are used.",
            )
        if code == _MISSING:
            return TargetError(f"{last} ({self.address})", hint="Install it on the device.")
        if code == _KILLED or "MemoryError" in said or "out of memory" in said.lower():
            return TargetError(
                f"{self.address} ran out of memory.", hint="Close other programs there, or ask for a smaller network."
            )
        if code == _NO_SPACE:
            return TargetError(f"Files cannot be unpacked on {self.address}: {last}")
        return TargetError(f"The job on {self.address} failed (exit code {code}): {last}")


def _packed(files: Mapping[str, bytes]) -> bytes:
    """A tar archive; names are ours, never the user's."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o600
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()
