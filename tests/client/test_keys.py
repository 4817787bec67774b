"""Mirror of client/keys.py."""

from pathlib import Path

import pytest
import zmq
from key_folders import new_key

from pronghorn.broker.wire.errors import InvalidArgumentError
from pronghorn.broker.wire.keyfiles import write_new
from pronghorn.broker.wire.keys import PrivateKey, written_private
from pronghorn.client.keys import key_for

TCP = "tcp://127.0.0.1:1"
IPC = "ipc:///tmp/x"
SERVER = new_key().public


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PRONGHORN_KEY", "PRONGHORN_SECRET_KEY", "PRONGHORN_SERVER_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def key() -> PrivateKey:
    return new_key(SERVER)


@pytest.fixture
def file(key: PrivateKey, tmp_path: Path) -> Path:
    file = tmp_path / "ada.key"
    write_new(file, written_private(key, "Key"))
    return file


def test_without_a_key_there_is_none() -> None:
    assert key_for(TCP) is None
    assert key_for(IPC) is None


def test_a_key_is_read_from_its_file(key: PrivateKey, file: Path) -> None:
    assert key_for(TCP, file) == key_for(TCP, str(file)) == key
    assert key_for(TCP, key) == key


def test_another_server_key_goes_before_that_of_the_file(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, third = new_key().public, new_key().public
    monkeypatch.setenv("PRONGHORN_SERVER_KEY", other)
    for given, expected in ((None, other), (third, third)):
        found = key_for(TCP, file, given)
        assert found is not None
        assert found.server == expected


def test_the_environment_names_the_file_for_tcp_only(
    key: PrivateKey, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRONGHORN_KEY", str(file))
    assert key_for(TCP) == key
    assert key_for(IPC) is None


def test_the_environment_has_the_secret(key: PrivateKey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRONGHORN_SECRET_KEY", key.secret)
    with pytest.raises(InvalidArgumentError, match="give server_key, or PRONGHORN_SERVER_KEY"):
        key_for(TCP)
    monkeypatch.setenv("PRONGHORN_SERVER_KEY", SERVER)
    assert key_for(TCP) == key
    assert zmq.curve_public(key.secret.encode()) == key.public.encode()


def test_what_makes_no_sense_is_refused(
    file: Path, key: PrivateKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InvalidArgumentError, match="keys are for tcp endpoints only"):
        key_for(IPC, file)
    with pytest.raises(InvalidArgumentError, match="no key to show"):
        key_for(TCP, server_key=SERVER)
    with pytest.raises(InvalidArgumentError, match="the broker's public key is no key"):
        key_for(TCP, file, "short")
    monkeypatch.setenv("PRONGHORN_SECRET_KEY", key.secret[:-1])
    with pytest.raises(InvalidArgumentError, match="PRONGHORN_SECRET_KEY is no key") as caught:
        key_for(TCP)
    assert key.secret[:-1] not in str(caught.value)
