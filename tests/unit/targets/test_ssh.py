"""Jobs on a device: what arrives there, what comes back, and what goes wrong in words."""

from __future__ import annotations

import pytest

from fupruner.errors import InputError, TargetError
from fupruner.targets.ssh import Address, Shell


def shell(loopback: object, **more: str) -> Shell:
    address = Address.parse(f"{loopback.address}{more.get('python', '')}")  # type: ignore[attr-defined]
    return Shell(address, ("-F", str(loopback.config)))  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ssh://board", Address("board")),
        ("ssh://pi@board.local:2222", Address("board.local", "pi", 2222)),
        ("ssh://pi@10.0.0.7/home/pi/venv/bin/python3", Address("10.0.0.7", "pi", None, "/home/pi/venv/bin/python3")),
        ("ssh://[fe80::1]:22/", Address("fe80::1", "", 22)),
    ],
)
def test_address_is_read(text: str, expected: Address) -> None:
    assert Address.parse(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "board", "pi@board", "http://board", "ssh://", "ssh://pi@", "ssh://-oProxyCommand=true", "ssh://-pi@board", "ssh://board;id",
        "ssh://board:0", "ssh://board:70000", "ssh://board:22x", "ssh://bo ard", "ssh://pi@board/bin/py thon", "ssh://pi@board/$(id)",
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"must be ssh://\[USER@\]HOST\[:PORT\]\[/PYTHON\]"):
        Address.parse(text)


def test_files_arrive_and_output_comes_back(loopback: object) -> None:
    files = {"run.sh": b"cat name.txt; ls", "name.txt": b"$(touch /tmp/never); 'quoted' \"too\"\n"}
    text = shell(loopback).run(files, 20)
    assert text == "$(touch /tmp/never); 'quoted' \"too\"\nname.txt\nrun.sh\n"


def test_folder_on_the_device_is_removed(loopback: object) -> None:
    folder = shell(loopback).run({"run.sh": b"pwd"}, 20).strip()
    assert "fupruner." in folder
    assert shell(loopback).run({"run.sh": f"ls -d {folder} 2>/dev/null || echo gone".encode()}, 20) == "gone\n"


def test_failure_says_the_last_line(loopback: object) -> None:
    with pytest.raises(TargetError, match=r"failed \(exit code 3\): it is too hot"):
        shell(loopback).run({"run.sh": b"echo first >&2; echo it is too hot >&2; exit 3"}, 20)


def test_missing_tool_is_named(loopback: object) -> None:
    with pytest.raises(TargetError, match=r"there is no trtexec .*\nInstall it on the device"):
        shell(loopback).run({"run.sh": b"echo there is no trtexec >&2; exit 127"}, 20)


@pytest.mark.parametrize("script", [b"kill -9 $$", b"echo CUDA out of memory >&2; exit 1", b"exit 137"])
def test_device_that_runs_out_of_memory_says_so(loopback: object, script: bytes) -> None:
    with pytest.raises(TargetError, match="ran out of memory"):
        shell(loopback).run({"run.sh": script}, 20)


def test_device_that_does_not_answer_in_time(loopback: object) -> None:
    with pytest.raises(TargetError, match="gave no answer within 1 s"):
        shell(loopback).run({"run.sh": b"sleep 30"}, 1)


def test_unreachable_device_is_an_error(loopback: object) -> None:
    nobody = Shell(Address.parse("ssh://127.0.0.1:9"), ("-F", str(loopback.config)))  # type: ignore[attr-defined]
    with pytest.raises(TargetError, match=r"127.0.0.1:9 cannot be reached over ssh: .*refused"):
        nobody.run({"run.sh": b"true"}, 20)


def test_a_password_is_never_asked_for(loopback: object, tmp_path: object) -> None:
    config = tmp_path / "config"  # type: ignore[operator]
    lines = (
        "IdentityFile none",
        "IdentitiesOnly yes",
        "StrictHostKeyChecking no",
        f"UserKnownHostsFile {tmp_path}/known",
    )
    config.write_text("\n".join(lines))
    stranger = Shell(Address.parse(loopback.address), ("-F", str(config)))  # type: ignore[attr-defined]
    with pytest.raises(TargetError, match=r"(?s)cannot be reached over ssh: .*Permission denied.*without a password"):
        stranger.run({"run.sh": b"true"}, 20)
