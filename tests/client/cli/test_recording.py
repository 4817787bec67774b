"""Mirror of client/cli/recording.py: the broker's end of the socket is played here."""

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pronghorn.broker.wire.errors import InvalidArgumentError
from pronghorn.broker.wire.trace import TRACE_FORMAT, Arrival, TraceStart, pack_record, read_trace
from pronghorn.client.cli.recording import RECORD_BYTES, Recorded, TraceFile

START = pack_record(TraceStart(TRACE_FORMAT, "e1", 5, 6))
CALL = pack_record(Arrival(7, 1, "shop.add", 20))
PATIENCE_S = 10.0


class Playing:
    """A trace that is being written, and the socket that the broker would write to."""

    def __init__(self, path: Path, bytes_max: int = RECORD_BYTES) -> None:
        self.told: list[Recorded] = []
        self.has_ended = threading.Event()
        self.trace = TraceFile(str(path), bytes_max)
        self.trace.begin(self._record, self._ended)

    def _record(self, descriptor: int) -> None:
        self.socket = socket.socket(fileno=os.dup(descriptor))

    def _ended(self, recorded: Recorded) -> None:
        self.told.append(recorded)
        self.has_ended.set()

    def close(self) -> Recorded:
        self.socket.close()
        return self.trace.close()


def test_packets_are_the_file(tmp_path: Path) -> None:
    path = tmp_path / "t.trace"
    playing = Playing(path)
    playing.socket.send(START + CALL)
    playing.socket.send(CALL)
    assert playing.close() == Recorded(str(path), 2, len(START + CALL + CALL), None)
    assert path.read_bytes() == START + CALL + CALL
    assert path.stat().st_mode & 0o777 == 0o600
    assert playing.told == []


def test_a_full_file_ends_with_a_whole_record_and_the_broker_is_told(tmp_path: Path) -> None:
    path = tmp_path / "t.trace"
    playing = Playing(path, len(START) + 2 * len(CALL) + 5)
    playing.socket.send(START + CALL)
    playing.socket.send(CALL + CALL)
    assert playing.has_ended.wait(PATIENCE_S)
    with pytest.raises(BrokenPipeError):
        playing.socket.send(CALL)
    playing.close()
    (told,) = playing.told
    assert told.calls == 2
    assert told.reason is not None
    assert told.reason.startswith("it has come to ")
    assert len(list(read_trace([path.read_bytes()], "t"))) == 3


def test_a_disk_that_takes_no_more_is_told_and_the_file_is_a_trace(tmp_path: Path) -> None:
    # A limit of the size of files refuses a write as a full disk does: first it takes a part.
    program = """
import os, resource, signal, socket, sys, threading
from pronghorn.client.cli.recording import TraceFile
from pronghorn.broker.wire.trace import *
start = pack_record(TraceStart(TRACE_FORMAT, "e1", 5, 6))
call = pack_record(Arrival(7, 1, "shop.add", 20))
resource.setrlimit(resource.RLIMIT_FSIZE, (len(start) + len(call) + 5,) * 2)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
trace, ended, taken = TraceFile(sys.argv[1], 1 << 30), threading.Event(), []
def tell(recorded):
    print(recorded.calls, recorded.reason, flush=True)
    ended.set()
trace.begin(lambda fd: taken.append(socket.socket(fileno=os.dup(fd))), tell)
taken[0].send(start + call + call)
ended.wait(10)
taken[0].close()
trace.close()
"""
    path = tmp_path / "t.trace"
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "1 File too large\n"
    assert path.read_bytes() == START + CALL


def test_a_file_that_is_there_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "t.trace"
    path.write_text("somebody's")
    with pytest.raises(InvalidArgumentError, match="is there already"):
        TraceFile(str(path), RECORD_BYTES)
    assert path.read_text() == "somebody's"
    with pytest.raises(InvalidArgumentError, match="No such file or directory"):
        TraceFile(str(tmp_path / "nowhere" / "t"), RECORD_BYTES)


def test_nothing_is_left_where_nothing_came(tmp_path: Path) -> None:
    path = tmp_path / "t.trace"
    TraceFile(str(path), RECORD_BYTES).close()
    assert not path.exists()
