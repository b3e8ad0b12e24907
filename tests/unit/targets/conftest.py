"""A device to reach over ssh: an OpenSSH server on loopback, started for the tests, with keys of its own."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Loopback:
    """Attributes: port of the server; folder whose ``bin`` comes first on PATH there; configuration for clients."""

    port: int
    folder: Path
    config: Path

    @property
    def address(self) -> str:
        return f"ssh://{getpass.getuser()}@127.0.0.1:{self.port}"

    def tool(self, name: str, script: str) -> None:
        """Put a program onto the device's PATH."""
        path = self.folder / "bin" / name
        path.write_text(script)
        path.chmod(0o755)


def _sshd() -> str | None:
    return shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loopback]:
    daemon, keygen = _sshd(), shutil.which("ssh-keygen")
    if daemon is None or keygen is None or shutil.which("ssh") is None:
        pytest.skip("needs OpenSSH's server and client: apt-get install openssh-server openssh-client")
    folder = tmp_path_factory.mktemp("sshd")
    (folder / "bin").mkdir()
    for name in ("host", "user"):
        subprocess.run([keygen, "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    shutil.copy(folder / "user.pub", folder / "authorized")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    port = _free_port()
    (folder / "sshd_config").write_text(f"""\
Port {port}
ListenAddress 127.0.0.1
HostKey {folder / "host"}
AuthorizedKeysFile {folder / "authorized"}
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
SetEnv PATH={folder / "bin"}:/usr/bin:/bin
""")
    config = folder / "ssh_config"
    config.write_text(f"""\
IdentityFile {folder / "user"}
IdentitiesOnly yes
StrictHostKeyChecking no
UserKnownHostsFile {folder / "known"}
LogLevel ERROR
""")
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([daemon, "-D", "-e", "-f", str(folder / "sshd_config")], stderr=log)
    try:
        for _ in range(100):
            if process.poll() is not None:
                pytest.skip(f"sshd does not start here: {(folder / 'log').read_text()[-300:]}")
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield Loopback(port, folder, config)
    finally:
        process.terminate()
        process.wait(timeout=10)


@pytest.fixture
def loopback(server: Loopback, monkeypatch: pytest.MonkeyPatch) -> Iterator[Loopback]:
    """The device, reached with the keys of the test; programs put onto it are gone afterwards."""
    monkeypatch.setenv("FUPRUNER_SSH_CONFIG", str(server.config))
    yield server
    for program in (server.folder / "bin").iterdir():
        program.unlink()
