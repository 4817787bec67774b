"""Starting servers and commands for real."""

import pytest

from pronghorn.bench.subjects import first_call

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("client_waits", [False, True])
def test_a_server_is_started_and_called(client_waits: bool) -> None:
    with first_call.serve_to_first_call(client_waits=client_waits) as measure:
        assert len(measure(1).latencies_ns) == 1


def test_commands_are_timed() -> None:
    with first_call.help_text() as help_text, first_call.bare_interpreter() as floor:
        assert min(help_text(1).latencies_ns) > 0
        assert min(floor(1).latencies_ns) > 0
