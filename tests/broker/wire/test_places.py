"""Mirror of broker/wire/places.py."""

import os
from pathlib import Path

import pytest

from pronghorn.broker.wire.errors import InvalidArgumentError
from pronghorn.broker.wire.places import (
    ENDPOINT_VARIABLE,
    IPC_PATH_BYTES_MAX,
    check_endpoint,
    check_ipc_path,
    data_folder,
    default_endpoint,
    endpoint_in,
    is_tcp,
    keys_folder,
    runtime_folder,
    runtime_root,
    stream_path,
)

USER_ROOT = Path(f"/tmp/pronghorn-{os.getuid()}")


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENDPOINT_VARIABLE, raising=False)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)


def test_the_root_is_in_the_runtime_dir_of_the_session(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert runtime_root() == tmp_path / "pronghorn"


@pytest.mark.parametrize("useless", [None, "", "run/user", "/does/not/exist"])
def test_without_one_the_root_is_the_users_in_tmp(
    monkeypatch: pytest.MonkeyPatch, useless: str | None
) -> None:
    if useless is not None:
        monkeypatch.setenv("XDG_RUNTIME_DIR", useless)
    assert runtime_root() == USER_ROOT


def test_the_default_endpoint_is_that_of_the_default_name() -> None:
    assert default_endpoint() == f"ipc://{USER_ROOT}/default/broker.sock"


def test_the_environment_names_another_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENDPOINT_VARIABLE, "tcp://127.0.0.1:5000")
    assert default_endpoint() == "tcp://127.0.0.1:5000"
    monkeypatch.setenv(ENDPOINT_VARIABLE, "")
    assert default_endpoint() == f"ipc://{USER_ROOT}/default/broker.sock"


@pytest.mark.parametrize("name", ["a", "default", "Shop-1.0_b", "x" * 64])
def test_a_name_is_a_folder_below_the_root(name: str) -> None:
    assert runtime_folder(name) == USER_ROOT / name


@pytest.mark.parametrize("name", ["", ".", "..", ".x", "a/b", "a b", "ä", "x" * 65, "a\n"])
def test_what_can_be_no_folder_is_no_name(name: str) -> None:
    with pytest.raises(InvalidArgumentError, match="is no broker name"):
        runtime_folder(name)


def test_an_endpoint_lies_in_its_folder() -> None:
    assert (
        endpoint_in("/run/shop") == endpoint_in(Path("/run/shop")) == "ipc:///run/shop/broker.sock"
    )


def test_a_path_the_kernel_would_refuse_is_refused_with_advice(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    check_ipc_path("x" * IPC_PATH_BYTES_MAX)
    with pytest.raises(InvalidArgumentError, match="108 bytes, the system's limit is 107"):
        check_ipc_path("x" * (IPC_PATH_BYTES_MAX + 1))
    with pytest.raises(InvalidArgumentError, match="108 bytes"):
        check_ipc_path("ä" * 54)  # bytes, not characters
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(deep))
    with pytest.raises(InvalidArgumentError, match="XDG_RUNTIME_DIR to a shorter path"):
        runtime_folder("default")


@pytest.mark.parametrize(
    "endpoint",
    [
        "ipc:///run/shop/broker.sock",
        "tcp://127.0.0.1:5000",
        "tcp://127.8.8.8:0",
        "tcp://localhost:5000",
        "tcp://[::1]:5000",
    ],
)
def test_unix_sockets_and_loopback_may_be_bound(endpoint: str) -> None:
    check_endpoint(endpoint, insecure=False)


@pytest.mark.parametrize(
    "endpoint",
    [
        "tcp://0.0.0.0:5000",
        "tcp://*:5000",
        "tcp://192.168.1.5:5000",
        "tcp://[::]:5000",
        "tcp://example.org:5000",
        "tcp://lo:5000",
        "tcp://:5000",
    ],
)
def test_what_the_network_can_reach_needs_a_word(endpoint: str) -> None:
    with pytest.raises(InvalidArgumentError, match=r"reached from the network.*--insecure"):
        check_endpoint(endpoint, insecure=False)
    check_endpoint(endpoint, insecure=True)


@pytest.mark.parametrize(
    ("endpoint", "message"),
    [
        ("ipc://relative/path", "needs an absolute path"),
        ("ipc://@abstract", "needs an absolute path"),
        ("ipc:///" + "x" * 107, "the system's limit is 107"),
        ("inproc://x", "begins with ipc:// or tcp://"),
        ("127.0.0.1:5000", "begins with ipc:// or tcp://"),
        ("tcp://127.0.0.1:99999", "Port out of range"),
        ("tcp://127.0.0.1:port", "Port could not be cast"),
        ("tcp://[::1:5000", "Invalid IPv6"),
        ("ipc:///run/broker.sock.stream", r"ends in \.stream is for the stream beside"),
        ("ipc:///run/zero\0.sock", r"'ipc:///run/zero\\x00\.sock' is no endpoint: .* UTF-8"),
        ("ipc:///run/\udcff.sock", r"'ipc:///run/\\udcff\.sock' is no endpoint: .* UTF-8"),
        ("tcp://\ud800:80", "is no endpoint: .* UTF-8"),
    ],
)
def test_what_is_no_endpoint_says_why(endpoint: str, message: str) -> None:
    for insecure in (False, True):
        with pytest.raises(InvalidArgumentError, match=message):
            check_endpoint(endpoint, insecure=insecure)


@pytest.mark.parametrize(
    ("endpoint", "path"),
    [
        ("ipc:///run/shop/broker.sock", "/run/shop/broker.sock.stream"),
        ("ipc:///" + "x" * 99, "/" + "x" * 99 + ".stream"),
        ("ipc:///" + "x" * 100, None),
        ("ipc:///" + "ä" * 50, None),
        ("ipc://relative", None),
        ("ipc://@abstract", None),
        ("tcp://127.0.0.1:5000", None),
    ],
)
def test_a_stream_is_beside_an_ipc_endpoint(endpoint: str, path: str | None) -> None:
    assert stream_path(endpoint) == path


@pytest.mark.parametrize("useless", [None, "", "state"])
def test_what_is_to_last_is_in_the_users_state_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, useless: str | None
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert data_folder("shop") == tmp_path / "pronghorn" / "shop"
    monkeypatch.setenv("HOME", str(tmp_path))
    if useless is None:
        monkeypatch.delenv("XDG_STATE_HOME")
    else:
        monkeypatch.setenv("XDG_STATE_HOME", useless)
    assert data_folder("shop") == tmp_path / ".local" / "state" / "pronghorn" / "shop"
    with pytest.raises(InvalidArgumentError, match="is no broker name"):
        data_folder("../shop")


def test_keys_are_in_the_users_config_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert keys_folder("shop") == tmp_path / "pronghorn" / "shop" / "keys"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative")
    assert keys_folder("shop") == tmp_path / ".config" / "pronghorn" / "shop" / "keys"
    with pytest.raises(InvalidArgumentError, match="is no broker name"):
        keys_folder("../shop")


def test_tcp_is_told_from_unix_sockets() -> None:
    assert is_tcp("tcp://127.0.0.1:1")
    assert not is_tcp("ipc:///tmp/x")
