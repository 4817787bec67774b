"""Mirror of client/cli/notify.py."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from pronghorn.client.cli.notify import notify, notify_reloading


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The end of systemd."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield sock


def test_assignments_are_lines_of_one_datagram(manager: socket.socket) -> None:
    notify("READY=1", "STATUS=all is well")
    assert manager.recv(1000) == b"READY=1\nSTATUS=all is well"


def test_a_reload_says_when_it_began(manager: socket.socket) -> None:
    notify_reloading()
    first, second = manager.recv(1000).decode().splitlines()
    assert first == "RELOADING=1"
    assert int(second.removeprefix("MONOTONIC_USEC=")) > 0


@pytest.mark.parametrize("address", ["", "relative", "/nowhere/notify"])
def test_where_nobody_listens_nothing_happens(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    notify("READY=1")
    monkeypatch.delenv("NOTIFY_SOCKET")
    notify("READY=1")


def test_names_without_a_file_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(b"\0pronghorn-test-notify")
        monkeypatch.setenv("NOTIFY_SOCKET", "@pronghorn-test-notify")
        notify("STOPPING=1")
        assert sock.recv(1000) == b"STOPPING=1"


def test_a_manager_that_reads_nothing_holds_up_nobody(manager: socket.socket) -> None:
    for _ in range(2000):
        notify("READY=1")
    assert manager.recv(1000) == b"READY=1"
