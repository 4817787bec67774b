"""Instructions per call, counted by the processor where `perf stat` can: steady under any noise.

Counts user-space instructions of the server's processes only (broker and workers; of the floor:
proxy and worker), so a client's cost is left out, and the kernel's. Virtual machines often have
no counter: `unsupported` says why. Printed without a budget: it depends on processor, Python and
libzmq.

Mirror: tests/bench/test_instructions.py.
"""

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence

EVENT = "instructions:u"


class CountError(RuntimeError):
    """`perf stat` gave no count."""


def unsupported(event: str = EVENT) -> str | None:
    """Say why the event can't be counted here; `None` when it can."""
    perf = shutil.which("perf")
    if perf is None:
        return "perf is not installed"
    command = [perf, "stat", "-x", ",", "-e", event, "--", "true"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        parse(done.stderr, event)
    except CountError as error:
        return str(error)
    return None


@contextlib.contextmanager
def counting(pids: Sequence[int], event: str = EVENT) -> Iterator[list[float]]:
    """Count an event in running processes during the block; the list holds the count after it.

    Attached but disabled at first; counting is switched on and off over perf's control pipes and
    each switch is acknowledged, so that the count has sharp edges.
    """
    counts: list[float] = []
    control_read, control_write = os.pipe()
    ack_read, ack_write = os.pipe()
    command = ["perf", "stat", "-x", ",", "-e", event, "--delay", "-1"]
    command += ["--control", f"fd:{control_read},{ack_write}", "-p", ",".join(map(str, pids))]
    perf = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, pass_fds=(control_read, ack_write)
    )
    os.close(control_read)
    os.close(ack_write)
    try:
        _switch(control_write, ack_read, b"enable\n")
        yield counts
        _switch(control_write, ack_read, b"disable\n")
        perf.send_signal(signal.SIGINT)
        counts.append(parse(perf.communicate(timeout=10)[1], event))
    finally:
        os.close(control_write)
        os.close(ack_read)
        if perf.poll() is None:
            perf.kill()
            perf.wait()
        if perf.stderr is not None:
            perf.stderr.close()


def parse(text: str, event: str = EVENT) -> float:
    """Read the count out of what ``perf stat -x,`` writes: value, unit, event, and more."""
    for line in text.splitlines():
        fields = line.split(",")
        if len(fields) > 2 and fields[2] == event:
            try:
                return float(fields[0])
            except ValueError:
                raise CountError(f"{event}: {fields[0].strip('<>')}") from None
    raise CountError(f"perf did not count {event}: {text.strip()[:200]}")


def _switch(control: int, ack: int, command: bytes) -> None:
    os.write(control, command)
    if not os.read(ack, 64):
        raise CountError("perf ended too soon")
