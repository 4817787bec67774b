"""``pronghorn version``: what is installed."""

import json
import platform

import msgspec
import pytest
import zmq
from commands import Commands

from pronghorn.broker.wire.limits import PROTOCOL_VERSION
from pronghorn.broker.wire.version import VERSION
from pronghorn.client.cli import versions

pytestmark = pytest.mark.slow


def test_versions_are_told_without_a_broker(commands: Commands) -> None:
    found = json.loads(commands("version", "--json").output)
    assert found.pop("uvloop")
    assert found == {
        "pronghorn": VERSION,
        "protocol": PROTOCOL_VERSION,
        "python": platform.python_version(),
        "libzmq": zmq.zmq_version(),
        "pyzmq": zmq.__version__,
        "msgspec": msgspec.__version__,
    }


def test_people_get_one_a_line(commands: Commands) -> None:
    first, *_ = commands("version").output.splitlines()
    assert first.split() == ["pronghorn", VERSION]


def test_what_is_not_installed_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(versions, "_installed", lambda package: None)
    versions.print_versions(as_json=False)
    assert "uvloop     not installed" in capsys.readouterr().out
