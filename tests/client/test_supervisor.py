"""A supervisor that was started waits for its config, and does not outlive who was to send it."""

from pronghorn.client.supervisor import start_supervisor


def test_supervisor_ends_when_its_host_lets_go_of_it() -> None:
    process, channel = start_supervisor()
    with process:
        channel.close()
        assert process.wait(10.0) == 1
