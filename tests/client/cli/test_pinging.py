"""``pronghorn ping``: the time to the broker and back."""

import json

import pytest
from commands import Commands

pytestmark = pytest.mark.slow


def test_times_are_told(served: Commands) -> None:
    done = served("ping", "-c", "3")
    assert (done.status, done.errors) == (0, "")
    assert "broker.sock: 3 round trips, min 0." in done.output


def test_json_has_every_time(served: Commands) -> None:
    found = json.loads(served("ping", "--json", "-c", "3").output)
    assert found["endpoint"].endswith("/pronghorn/default/broker.sock")
    assert len(found["round_trips_ms"]) == 3
    assert all(0 < each < 1000 for each in found["round_trips_ms"])


def test_absent_broker_is_told(commands: Commands) -> None:
    assert commands("ping").status == 3
    assert commands("ping", "--timeout", "-1").status == 2
