"""Mirror of client/conformance/walking.py: the clients in other languages, and bad ones."""

import sys
from pathlib import Path

import foreign_clients
import pytest

from pronghorn.client.conformance import walking
from pronghorn.client.conformance.walking import StartError, walk


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("programs")


@pytest.mark.slow
@pytest.mark.parametrize("name", foreign_clients.NAMES)
def test_a_client_in_another_language_conforms(name: str, programs: Path) -> None:
    found = walk(foreign_clients.walk_or_skip(name, programs))
    assert [one for one in found if one.verdict == "failed"] == []
    speaks_msgpack = name in ("c", "node")
    assert [one.verdict for one in found].count("skipped") == (0 if speaks_msgpack else 3)


def verdicts(command: list[str]) -> dict[str, str]:
    return {one.name: one.reason for one in walk(command) if one.verdict == "failed"}


def test_a_client_that_fails_at_once() -> None:
    wrong = verdicts(["false"])
    assert wrong["walk: end"] == "it ends with exit code 1"
    assert "it did not come to this" in wrong["walk: call"]


def test_a_client_that_does_nothing_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walking, "PATIENCE_S", 0.1)
    wrong = verdicts([sys.executable, "-S", "-c", "import time; time.sleep(60)"])
    assert "it did nothing" in wrong["walk: end"]


def test_a_client_that_is_not_there() -> None:
    with pytest.raises(StartError, match="no-such-client can't be started"):
        walk(["no-such-client"])
