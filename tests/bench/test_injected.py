"""Mirror of bench/injected.py and bench/tapping.py: what is counted is what was sent."""

import os
import socket
import subprocess
import sys

import pytest

from pronghorn.bench import tapping
from pronghorn.bench.injected import ask, counting_children

SENDER = """
import socket, sys
ours, theirs = socket.socketpair()
for line in sys.stdin:
    how, size = line.split()
    piece = bytes(int(size))
    if how == "send":
        ours.send(piece)
    else:
        ours.sendmsg([piece, piece])
    if size != "0":
        theirs.recv(1 << 16)
    print("done", flush=True)
"""


def test_the_environment_is_as_it_was() -> None:
    before = dict(os.environ)
    with counting_children(tapping) as folder:
        assert os.environ["PYTHONPATH"].startswith(str(folder))
        assert os.environ[tapping.FOLDER] == str(folder)
    assert dict(os.environ) == before
    assert not folder.exists()


@pytest.mark.slow
def test_bytes_that_a_process_sends_are_counted() -> None:
    send = socket.socket.send
    with counting_children(tapping) as folder:
        command = [sys.executable, "-c", SENDER]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            counts = []
            for line in ("send 100", "sendmsg 1000", "send 0"):
                process.stdin.write(f"{line}\n")
                process.stdin.flush()
                assert process.stdout.readline() == "done\n"
                counts.append(ask(folder, [process.pid]))
            process.stdin.close()
    assert counts == [100, 2000, 0]
    assert socket.socket.send is send, "nothing is counted in this process"
