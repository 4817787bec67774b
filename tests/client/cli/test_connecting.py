"""Which broker is meant, and that its absence is told at once."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from pronghorn.broker.wire.errors import BrokerLostError, InvalidArgumentError
from pronghorn.client.cli.connecting import check_listening, endpoint_of


@pytest.fixture(autouse=True)
def _environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.delenv("PRONGHORN_ENDPOINT", raising=False)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


def test_what_is_given_goes_before_the_environment_and_that_before_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert endpoint_of(None, None) == f"ipc://{tmp_path}/pronghorn/default/broker.sock"
    monkeypatch.setenv("PRONGHORN_ENDPOINT", "tcp://elsewhere:1")
    assert endpoint_of(None, None) == "tcp://elsewhere:1"
    assert endpoint_of("tcp://here:2", None) == "tcp://here:2"
    assert endpoint_of(None, "shop") == f"ipc://{tmp_path}/pronghorn/shop/broker.sock"


def test_endpoint_and_name_together_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="not both"):
        endpoint_of("tcp://here:2", "shop")


def test_missing_socket_is_told(tmp_path: Path) -> None:
    with pytest.raises(BrokerLostError, match=r"no broker at ipc://.*/s \(No such file") as caught:
        check_listening(f"ipc://{tmp_path}/s")
    assert caught.value.outcome == "not_started"
    assert "pronghorn serve" in str(caught.value)


def test_socket_that_nobody_listens_on_is_told(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "s"))
        with pytest.raises(BrokerLostError, match="Connection refused"):
            check_listening(f"ipc://{tmp_path}/s")


def test_path_that_is_too_long_is_told() -> None:
    with pytest.raises(BrokerLostError, match="too long"):
        check_listening("ipc:///" + "x" * 200)


def test_listening_sockets_are_found(tmp_path: Path, listener: socket.socket) -> None:
    check_listening(f"tcp://127.0.0.1:{listener.getsockname()[1]}")
    for path in (str(tmp_path / "s"), f"\0{tmp_path}"):
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(path)
            bound.listen()
            check_listening("ipc://" + path.replace("\0", "@"))


def test_closed_port_is_told(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    listener.close()
    with pytest.raises(BrokerLostError, match="Connection refused"):
        check_listening(f"tcp://127.0.0.1:{port}")


@pytest.mark.parametrize("endpoint", ["foo", "tcp://", "tcp://host", "tcp://host:x", "udp://a:1"])
def test_malformed_endpoint_is_left_to_the_client(endpoint: str) -> None:
    check_listening(endpoint)
