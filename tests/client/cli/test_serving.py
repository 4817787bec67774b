"""``pronghorn serve``: one process tree from ready to its end, whatever ends it."""

import asyncio
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

import pytest
from commands import TIMEOUT_S, Commands, Serving, children
from msgspec.msgpack import decode

from pronghorn.broker.streams import EVENTS_ALONE
from pronghorn.broker.wire.trace import Arrival, TraceRecord, TraceStart, read_trace, whole_records
from pronghorn.client.aio import AsyncClient

pytestmark = pytest.mark.slow

SLOW = """
from pathlib import Path
from pronghorn.worker import node
@node
def wait(fifo: str) -> int:
    Path(fifo).write_text("begun")
    Path(fifo).read_text()
    return 1
@node
def nothing() -> None: ...
"""

# The command line with standard input for its controlling terminal.
ON_TERMINAL = """
import fcntl, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
from pronghorn.client.cli import main
sys.exit(main())
"""


def folders(commands: Commands) -> list[str]:
    """The runtime folders of brokers that there are."""
    root = commands.folder / "pronghorn"
    return sorted(os.listdir(root)) if root.is_dir() else []


def test_ready_is_told_with_all_that_is_served(commands: Commands) -> None:
    (commands.folder / "bad.py").write_text("import nothing_of_that_name\n")
    other = f"ipc://{commands.folder}/other.sock"
    arguments = ["nodes.py", "bad.py", "--workers", "1", "--name", "shop", "--bind", other]
    with commands.serving(*arguments) as serving:
        ready = serving.ready
        assert ready["event"] == "ready"
        assert ready["pid"] == serving.process.pid
        expected = [f"ipc://{commands.folder}/pronghorn/shop/broker.sock", other]
        assert ready["endpoints"] == expected
        assert ready["workers"] == 1
        assert "nodes.add" in ready["nodes"]
        (failure,) = ready["failures"]
        assert failure["module"] == "bad.py"
        assert "No module named 'nothing_of_that_name'" in failure["reason"]
        assert commands("call", "add", "a=1", "b=2", "--name", "shop") == (0, b"3\n", "")
        assert commands("call", "add", "a=1", "b=2", "--endpoint", other) == (0, b"3\n", "")
        second = commands("serve", "nodes.py", "--name", "shop")
        assert second.status == 1
        assert "another broker (pid" in second.errors


def test_people_are_told_in_words(commands: Commands) -> None:
    (commands.folder / "bad.py").write_text("import nothing_of_that_name\n")
    with commands.start("serve", "nodes.py", "bad.py", "--workers", "1") as process:
        assert process.stdout is not None
        first = process.stdout.readline().decode()
        assert "is ready: 16 nodes, 1 worker, pid" in first
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=TIMEOUT_S)
    endpoint, nodes, end = output.decode().splitlines()
    assert endpoint == f"  ipc://{commands.folder}/pronghorn/default/broker.sock"
    assert nodes.startswith("  nodes.add, nodes.greet, ")
    assert end == "Pronghorn ends: SIGINT"
    assert errors.startswith(b"warning: bad.py is not served: ModuleNotFoundError")
    assert b"Traceback" in errors


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_the_tree_with_0_and_leaves_nothing(
    number: signal.Signals, commands: Commands
) -> None:
    with commands.serving("nodes.py", "--workers", "1") as serving:
        tree = [serving.supervisor, *children(serving.supervisor)]
        serving.process.send_signal(number)
        assert serving.next_event() == {"event": "end", "reason": number.name}
        assert serving.process.wait(TIMEOUT_S) == 0
        assert serving.process.communicate() == (b"", b"")
    assert [pid for pid in tree if Path(f"/proc/{pid}").exists()] == []
    assert folders(commands) == []


def test_what_nodes_print_is_no_event_but_a_line_of_the_log(commands: Commands) -> None:
    options = ["--workers", "1", "--log-level", "info", "--log-format", "json"]
    with commands.serving("nodes.py", *options) as serving:
        assert commands("call", "nothing") == (0, b"null\n", "")
        serving.process.send_signal(signal.SIGTERM)
        assert serving.next_event()["event"] == "end"
        out, errors = serving.process.communicate(timeout=TIMEOUT_S)
    assert out == b""
    lines = [json.loads(line) for line in errors.splitlines()]
    assert {"supervisor", "broker", "worker"} <= {line["process"] for line in lines}
    (printed,) = [line for line in lines if line["logger"] == "stdout"]
    assert (printed["node"], printed["worker"], printed["message"]) == (
        "nodes.nothing",
        1,
        "a node prints",
    )


def test_modules_beside_the_current_folder_are_found(commands: Commands) -> None:
    package = commands.folder / "shop"
    package.mkdir()
    (package / "__init__.py").write_text("")
    source = "from pronghorn.worker import node\n@node\ndef sell() -> int:\n    return 1\n"
    (package / "till.py").write_text(source)
    with commands.serving("shop.till", "--workers", "1") as serving:
        assert serving.ready["nodes"] == ["shop.till.sell"]


def test_new_broker_is_an_event(commands: Commands) -> None:
    with commands.serving("nodes.py", "--workers", "1") as serving:
        os.kill(serving.broker, signal.SIGKILL)
        event = serving.next_event()
        assert event["event"] == "epoch"
        assert event["epoch"] != serving.ready["epoch"]
        assert event["endpoints"] == serving.ready["endpoints"]
        assert commands("call", "add", "a=1", "b=2") == (0, b"3\n", "")


def test_end_of_the_tree_by_itself_is_told(commands: Commands) -> None:
    with commands.serving("nodes.py", "--workers", "1") as serving:
        os.kill(serving.supervisor, signal.SIGKILL)
        end = serving.next_event()
        assert (end["event"], end["reason"]) == ("end", "BROKER_LOST")
        assert "the supervisor with status -9" in end["error"]["message"]
        assert serving.process.wait(TIMEOUT_S) == 3


def test_nothing_to_serve_is_told_with_the_traceback(commands: Commands) -> None:
    (commands.folder / "bad.py").write_text("import nothing_of_that_name\n")
    done = commands("serve", "bad.py")
    assert (done.status, done.output) == (1, "")
    assert done.errors.startswith("error: no node can be served from bad.py\n\nbad.py: Module")
    assert 'bad.py", line 1, in <module>' in done.errors
    done = commands("serve", "bad.py", "--json")
    assert json.loads(done.output)["error"] == json.loads(done.errors)["error"]
    assert folders(commands) == []


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (["nowhere.py"], 1, "there is no file"),
        (["nodes.py", "--bind", "tcp://0.0.0.0:0"], 2, "--insecure"),
        (["nodes.py", "--cpus", "4096"], 1, "can't use CPUs"),
        (["nodes.py", "--cpus", "all"], 2, "expected numbers of CPUs"),
        (["nodes.py", "--name", "a/b"], 2, "is no broker name"),
    ],
)
def test_what_can_not_be_started_is_told(
    arguments: list[str], status: int, told: str, commands: Commands
) -> None:
    done = commands("serve", *arguments)
    assert (done.status, done.output) == (status, "")
    assert told in done.errors


def test_cpus_bound_the_workers(commands: Commands) -> None:
    cpu = min(os.sched_getaffinity(0))
    with commands.serving("nodes.py", "--cpus", str(cpu)) as serving:
        assert serving.ready["workers"] == 1
        assert os.sched_getaffinity(serving.broker) == {cpu}


# --- the end, and what waits for it ------------------------------------------------------------


@contextmanager
def call_begun(commands: Commands, fifo: Path) -> "Iterator[subprocess.Popen[bytes]]":
    """Start a call, in a process of its own, and wait until its node has begun."""
    os.mkfifo(fifo)
    with commands.start("call", "wait", f"fifo={fifo}") as process:
        assert fifo.read_text() == "begun"
        yield process


def test_open_calls_are_waited_for_and_others_refused(commands: Commands, tmp_path: Path) -> None:
    (commands.folder / "slow.py").write_text(SLOW)
    with (
        commands.serving("slow.py", "--workers", "2") as serving,
        call_begun(commands, tmp_path / "fifo") as call,
    ):
        serving.process.send_signal(signal.SIGTERM)
        assert serving.next_event() == {"event": "drain", "reason": "SIGTERM", "drain_s": 10.0}
        refused = commands("call", "slow.nothing")
        assert refused.status == 5
        assert "this pool is about to end" in refused.errors
        (tmp_path / "fifo").write_text("go on")
        assert call.communicate(timeout=TIMEOUT_S) == (b"1\n", b"")
        assert serving.next_event() == {"event": "end", "reason": "SIGTERM"}
        assert serving.process.wait(TIMEOUT_S) == 0


def test_a_drain_ends_within_its_limit(commands: Commands, tmp_path: Path) -> None:
    (commands.folder / "slow.py").write_text(SLOW)
    with (
        commands.serving("slow.py", "--workers", "1", "--drain-s", "0.5") as serving,
        call_begun(commands, tmp_path / "fifo") as call,
    ):
        begun = monotonic()
        serving.process.send_signal(signal.SIGTERM)
        assert serving.next_event()["event"] == "drain"
        assert serving.next_event()["event"] == "end"
        assert serving.process.wait(TIMEOUT_S) == 0
        assert 0.4 < monotonic() - begun < 5.0
        assert call.wait(TIMEOUT_S) == 3


def test_a_second_signal_ends_it_at_once(commands: Commands, tmp_path: Path) -> None:
    (commands.folder / "slow.py").write_text(SLOW)
    with (
        commands.serving("slow.py", "--workers", "1", "--drain-s", "600") as serving,
        call_begun(commands, tmp_path / "fifo") as call,
    ):
        serving.process.send_signal(signal.SIGINT)
        assert serving.next_event()["event"] == "drain"
        serving.process.send_signal(signal.SIGTERM)
        assert serving.next_event() == {"event": "end", "reason": "SIGTERM"}
        assert serving.process.wait(TIMEOUT_S) == 0
        assert call.wait(TIMEOUT_S) == 3


# --- reloads -----------------------------------------------------------------------------------

ONE = "from pronghorn.worker import node\n@node\ndef one() -> int:\n    return 1\n"
TWO = ONE + "@node\ndef two() -> int:\n    return 2\n"


def test_sighup_reloads_where_there_is_no_terminal(commands: Commands) -> None:
    module = commands.folder / "shop.py"
    module.write_text(ONE)
    with commands.serving("shop.py", "--workers", "1") as serving:
        module.write_text(TWO)
        serving.process.send_signal(signal.SIGHUP)
        event = serving.next_event()
        assert (event["event"], event["error"]) == ("reload", None)
        assert event["nodes"] == ["shop.one", "shop.two"]
        assert commands("call", "two") == (0, b"2\n", "")
        module.write_text("boom(\n")
        serving.process.send_signal(signal.SIGHUP)
        event = serving.next_event()
        assert "SyntaxError" in event["error"]
        assert event["nodes"] == ["shop.one", "shop.two"]
        assert commands("call", "two") == (0, b"2\n", "")


def test_the_end_of_the_terminal_is_the_end(commands: Commands) -> None:
    (commands.folder / "shop.py").write_text(ONE)
    ours, theirs = os.openpty()
    command = [sys.executable, "-c", ON_TERMINAL, "serve", "shop.py", "--workers", "1", "--json"]
    with subprocess.Popen(
        command,
        cwd=commands.folder,
        env=commands.environment,
        stdin=theirs,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        os.close(theirs)
        assert process.stdout is not None
        assert b'"ready"' in process.stdout.readline()
        os.kill(process.pid, signal.SIGHUP)  # the terminal is there: a reload
        assert b'"reload"' in process.stdout.readline()
        os.close(ours)  # which hangs it up
        assert b'"reason":"SIGHUP"' in process.stdout.readline()
        assert process.wait(TIMEOUT_S) == 0


def test_changes_of_files_are_reloaded_where_that_was_asked_for(commands: Commands) -> None:
    module, imported = commands.folder / "shop.py", commands.folder / "shelf.py"
    imported.write_text("ITEMS = 1\n")
    module.write_text("import shelf\n" + ONE.replace("return 1", "return shelf.ITEMS"))
    with commands.serving("shop.py", "--workers", "1", "--reload") as serving:
        assert commands("call", "one") == (0, b"1\n", "")
        imported.write_text("ITEMS = 7\n")
        assert serving.next_event()["error"] is None
        assert commands("call", "one") == (0, b"7\n", "")
        module.unlink()
        assert "there is no file" in serving.next_event()["error"]
        assert commands("call", "one") == (0, b"7\n", "")
        module.write_text(TWO)
        assert serving.next_event()["nodes"] == ["shop.one", "shop.two"]


def test_systemd_is_told(commands: Commands, tmp_path: Path) -> None:
    (commands.folder / "shop.py").write_text(ONE)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(TIMEOUT_S)
        commands.environment["NOTIFY_SOCKET"] = str(tmp_path / "notify")
        with commands.serving("shop.py", "--workers", "1") as serving:
            assert manager.recv(1000) == b"READY=1"
            serving.process.send_signal(signal.SIGHUP)
            assert manager.recv(1000).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
            assert manager.recv(1000) == b"READY=1"
            serving.process.send_signal(signal.SIGTERM)
            assert manager.recv(1000) == b"STOPPING=1"
            assert serving.process.wait(TIMEOUT_S) == 0


def test_calls_are_recorded_over_the_death_of_a_broker(commands: Commands) -> None:
    path = commands.folder / "calls.trace"
    with commands.serving("nodes.py", "--workers", "1", "--record", str(path)) as serving:
        assert commands("call", "add", "a=1", "b=2").output == "3\n"
        os.kill(serving.broker, signal.SIGKILL)
        assert serving.next_event()["event"] == "epoch"
        assert commands("call", "add", "a=1", "b=2").output == "3\n"
        serving.process.send_signal(signal.SIGTERM)
        assert serving.next_event()["event"] == "end"
        told = serving.next_event()
        assert serving.process.wait(TIMEOUT_S) == 0
    starts = [each for each in kept(path) if isinstance(each, TraceStart)]
    assert len({each.epoch for each in starts}) == len(starts) == 2
    assert {each.node for each in kept(path) if isinstance(each, Arrival)} == {"nodes.add"}
    assert told == {
        "event": "recorded",
        "path": str(path),
        "calls": len(kept(path)) - 2,
        "bytes": path.stat().st_size,
        "reason": None,
    }
    assert 1 <= told["calls"] <= 2  # what had not left the broker has died with it


def test_calls_that_come_together_over_one_connection_are_all_recorded_in_their_order(
    commands: Commands,
) -> None:
    # Far more than a client gets done in its turn: the broker comes back for the rest.
    path = commands.folder / "calls.trace"
    count = 50 * EVENTS_ALONE
    with commands.serving("nodes.py", "--workers", "1", "--record", str(path)) as serving:
        assert asyncio.run(sums_at_once(commands.endpoint, count)) == list(range(1, count + 1))
        serving.process.send_signal(signal.SIGTERM)
        assert serving.next_event()["event"] == "end"
        assert serving.next_event()["calls"] == count
        assert serving.process.wait(TIMEOUT_S) == 0
    arrivals = [each for each in kept(path) if isinstance(each, Arrival)]
    assert [decode(each.params) for each in arrivals] == [[number, 1] for number in range(count)]
    assert {each.client for each in arrivals} == {1}


def test_a_trace_is_replayed_up_to_where_its_writer_was_killed(commands: Commands) -> None:
    path = commands.folder / "calls.trace"
    with commands.start(
        *("serve", "nodes.py", "--workers", "1", "--json", "--record", str(path))
    ) as process:
        serving = Serving(process)
        tree = [serving.supervisor, *children(serving.supervisor)]
        asyncio.run(sums_at_once(commands.endpoint, 1000))
        asyncio.run(sums_until(commands.endpoint, lambda: path.stat().st_size > 30_000))
        process.kill()  # it writes the file
        process.wait()
        for each in tree:
            await_end(each)
    written = path.read_bytes()
    before = len(list(read_trace([written], "t"))) - 1
    assert before >= 500
    assert whole_records(written) == len(written)  # packets are whole, and writes are of packets
    path.write_bytes(written[:-1])  # but a machine that goes down may keep a part of the last
    with commands.serving("nodes.py", "--workers", "1"):
        done = commands("load", "--replay", str(path), "--speed", "2", "--json")
    counts = json.loads(done.output)["counts"]
    assert counts["planned"] == counts["results"] == before - 1
    assert done.status in (0, 5)  # 5: the machine had something else to do


def test_a_recording_that_is_full_is_told_and_harms_no_call(commands: Commands) -> None:
    path = commands.folder / "full.trace"
    options = ["--record", str(path), "--record-bytes", "300", "--record-sizes"]
    with commands.serving("nodes.py", "--workers", "1", *options) as serving:
        done = commands("map", "add", "--chunk-size", "1", stdin='{"a": 1, "b": 2}\n' * 40)
        assert done.output == "3\n" * 40
        told = serving.next_event()
        assert told["event"] == "recorded"
        assert told["reason"] == "it has come to 300 bytes"
        assert commands("call", "add", "a=1", "b=2").output == "3\n"
        serving.process.send_signal(signal.SIGTERM)
        assert serving.next_event()["event"] == "end"
        assert serving.process.communicate() == (b"", b"")  # it is told once
    assert 0 < path.stat().st_size <= 300
    assert len(kept(path)) == told["calls"] + 1


def test_what_can_not_be_recorded_is_told_before_anything_is_served(commands: Commands) -> None:
    (commands.folder / "there").write_text("somebody's")
    done = commands("serve", "nodes.py", "--record", "there")
    assert done.status == 2
    assert "there is there already" in done.errors
    done = commands("serve", "nodes.py", "--record-bytes", "1M")
    assert done.status == 2
    assert "are for --record FILE" in done.errors


async def sums_at_once(endpoint: str, count: int) -> list[int]:
    """Add one to so many numbers, all under way at once over one connection."""
    async with AsyncClient(endpoint) as client:
        return list(await asyncio.gather(*(client.call("add", each, 1) for each in range(count))))


async def sums_until(endpoint: str, is_enough: Callable[[], bool]) -> None:
    """Add numbers one after the other until there have been enough."""
    async with AsyncClient(endpoint) as client:
        while not is_enough():
            assert await client.call("add", 1, 1) == 2


def await_end(pid: int) -> None:
    """Wait for the end of a process that is no child of ours."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([descriptor], [], [], TIMEOUT_S)[0], f"{pid} is still there"
    finally:
        os.close(descriptor)


def kept(path: Path) -> list[TraceRecord]:
    return list(read_trace([path.read_bytes()], str(path)))
