"""Every program in scripts/examples runs, and the demo does what its users may do to it."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

import pytest
import zmq

from pronghorn.client import Pool

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).resolve().parents[1] / "scripts" / "examples"
MARK = "PRONGHORN_TEST_MARK"
TIMEOUT_S = 60.0


@contextmanager
def started(program: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Start an example with pipes, and see that at its end no process of its tree is left."""
    mark = uuid.uuid4().hex
    process = subprocess.Popen(
        [sys.executable, str(EXAMPLES / program), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {MARK: mark, "PYTHONUNBUFFERED": "1", "COLUMNS": "100"},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()
    assert marked(mark) == []


def marked(mark: str) -> list[str]:
    """List the command lines of the processes that inherited the mark."""
    sought = f"{MARK}={mark}".encode()
    found: list[str] = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            if sought in (folder / "environ").read_bytes().split(b"\0"):
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:  # gone meanwhile, or another user's
            continue
    return found


def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    with started(program, *arguments) as process:
        output, errors = process.communicate(timeout=TIMEOUT_S)
        return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Make a folder with one good file, one that can't be parsed, and some that don't count."""
    folder = tmp_path / "source"
    for name in ("deep/er", ".hidden", "site-packages"):
        (folder / name).mkdir(parents=True)
    (folder / "good.py").write_text(
        "import os\nimport sys.x\n\n\ndef long():\n    a = 1\n    return a\n"
    )
    (folder / "deep/er/latin.py").write_bytes(b"# coding: latin-1\nfrom os import path  # \xe9\n")
    (folder / "deep/bad.py").write_text("def broken(:\n")
    (folder / "deep/null.py").write_bytes(b"a = 1\0\n")
    for ignored in (".hidden/a.py", "site-packages/b.py", "deep/notes.txt"):
        (folder / ignored).write_text("import never\n")
    return folder


def test_quickstart_shows_each_way_to_call() -> None:
    done = run("quickstart.py")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "call by name: 3",
        "call by function: pronghorn",
        "submit: [0, 2, 4, 6, 8]",
        "map: 50005000",
        "executor: [0, 2, 4, 6, 8]",
        "an error of the node: ZeroDivisionError - float division by zero",
    ]


def test_async_client_shows_each_way_to_call() -> None:
    done = run("async_client.py")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "call: 3",
        "gather: 500500",
        "map: ['a b', 'c d', 'e f']",
    ]


def test_plain_socket_calls_a_node() -> None:
    with Pool(str(EXAMPLES / "tiny.py"), workers=1) as pool:
        done = run("req_json.py", pool.endpoint)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == {"jsonrpc": "2.0", "id": 1, "result": 3}


def test_plain_socket_needs_an_endpoint() -> None:
    done = run("req_json.py")
    assert done.returncode == 1
    assert done.stderr.startswith("usage:")


def test_demo_measures_a_folder(source: Path) -> None:
    done = run("demo.py", str(source))
    assert done.returncode == 0, done.stderr
    told = [line for line in done.stderr.splitlines() if " pronghorn." in line]
    assert len(re.findall(r"signal 9 \(SIGKILL\)", done.stderr)) == 2, done.stderr
    assert all(re.search("ended with (signal 9|exit status 0)", line) for line in told)
    text = re.sub(r"[^\S\n]+", " ", re.sub("[^\x00-\x7f]", " ", done.stdout))
    assert f"Census of {source}: 4 files" in text
    for row in (" lines 9 ", " functions 1 ", " 3 long good.py:5 ", " os 2 ", " sys 1 "):
        assert row in text
    assert "2 files could not be parsed" in text
    assert "deep/bad.py: line 1: invalid syntax" in text
    assert "never" not in text
    assert "killed: the worker that conducts it" in text
    assert "killed: the broker" in text
    assert text.count(" files, 9 lines, 1 functions") == 2
    assert re.search(r"add\(1, 2\) 2,000 \d+ \d+ ", text)
    assert re.search(r"\d+ workers \d+\.\d\d \d", text)
    assert re.search(r"one process \d+\.\d\d \S+ \S+ 1\.00x", text)


def test_demo_refuses_a_folder_that_is_not_there(tmp_path: Path) -> None:
    done = run("demo.py", str(tmp_path / "nowhere"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"{tmp_path / 'nowhere'} is no folder\n"


def test_demo_refuses_a_folder_without_source(tmp_path: Path) -> None:
    done = run("demo.py", str(tmp_path))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"no .py files in {tmp_path}\n"


def test_demo_ends_with_one_line_when_interrupted() -> None:
    with started("demo.py") as process:
        assert process.stdout is not None
        assert any(line.startswith("Census of") for line in process.stdout)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=TIMEOUT_S)
        assert (process.returncode, errors) == (130, "Interrupted.\n")


# --- services ----------------------------------------------------------------------------------


def served_by(command: list[str], runtime: Path) -> None:
    """Serve as a unit or an image does, with its options and our installation, and end it."""
    serve = [sys.executable, "-m", "pronghorn.client.cli", *command[1:], "--json"]
    with subprocess.Popen(
        serve,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env=os.environ | {"XDG_RUNTIME_DIR": str(runtime)},
    ) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["event"] == "ready"
        process.send_signal(signal.SIGTERM)
        assert json.loads(process.stdout.readline()) == {"event": "end", "reason": "SIGTERM"}
        assert process.wait(TIMEOUT_S) == 0


@pytest.fixture
def runtime() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield Path(folder)


def test_the_unit_serves_with_its_options(runtime: Path) -> None:
    unit = (EXAMPLES / "pronghorn.service").read_text()
    (command,) = re.findall(r"^ExecStart=(.*)$", unit, re.MULTILINE)
    words = command.replace("/srv/pronghorn/nodes.py", str(EXAMPLES / "tiny.py")).split()
    assert words[0].endswith("/bin/pronghorn")
    served_by(words, runtime)


def test_the_image_serves_with_its_options(runtime: Path) -> None:
    text = (EXAMPLES / "Containerfile").read_text()
    (command,) = re.findall(r"^ENTRYPOINT (\[.*\])$", text, re.MULTILINE)
    (copied,) = re.findall(r"^COPY (\S+) /srv/nodes.py$", text, re.MULTILINE)
    module = EXAMPLES.parents[1] / copied
    words = [word.replace("/srv/nodes.py", str(module)) for word in json.loads(command)]
    assert words[0] == "pronghorn"
    served_by(words, runtime)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd")
def test_systemd_has_nothing_to_say_against_the_unit(tmp_path: Path) -> None:
    unit = (EXAMPLES / "pronghorn.service").read_text()
    copy = tmp_path / "pronghorn.service"
    copy.write_text(unit.replace("/opt/pronghorn/bin/pronghorn", sys.executable))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(copy)], capture_output=True, text=True, timeout=TIMEOUT_S
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_stalling_service_answers_and_stands_still(tmp_path: Path) -> None:
    endpoint = f"ipc://{tmp_path}/stalling.sock"
    with (
        started("stalling.py", endpoint),
        zmq.Context() as context,
        context.socket(zmq.REQ) as socket,
    ):
        socket.setsockopt(zmq.LINGER, 0)
        socket.connect(endpoint)

        def seconds_of_a_call() -> float:
            begun = monotonic()
            socket.send(b"hello")
            assert socket.poll(TIMEOUT_S * 1000)
            assert socket.recv() == b"hello"
            return monotonic() - begun

        seconds_of_a_call()  # until it is there
        took_s = [seconds_of_a_call()]
        while took_s[-1] < 0.15:
            took_s.append(seconds_of_a_call())
    assert min(took_s) < 0.1
