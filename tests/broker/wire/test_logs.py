"""Mirror of broker/wire/logs.py: real processes, whose standard error is read here."""

import json
import os
import select
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from pronghorn.broker.wire.limits import LOG_LINES_BURST

HEAD = """
import logging, os, sys, threading
from pronghorn.broker.wire.logline import RunningCall
from pronghorn.broker.wire.logs import capture_prints, set_up_logs
log = logging.getLogger("shop")
running = RunningCall("shop.add", "17", "00-ab")
"""


def run(text: str, **options: Any) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(
        [sys.executable, "-c", HEAD + textwrap.dedent(text)],
        capture_output=True,
        timeout=30,
        check=True,
        **options,
    )


def lines(done: "subprocess.CompletedProcess[bytes]") -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stderr.splitlines()]


def test_records_carry_the_ids_of_process_and_call() -> None:
    done = run(
        """
        set_up_logs("worker", "INFO", "json", worker_id=3, running=lambda: running)
        log.debug("off")
        log.info("adding %d", 5)
        """
    )
    (line,) = lines(done)
    assert line.pop("time").endswith("Z")
    assert line.pop("pid")
    assert line == {
        "level": "INFO",
        "process": "worker",
        "worker": 3,
        "node": "shop.add",
        "request": "17",
        "traceparent": "00-ab",
        "logger": "shop",
        "message": "adding 5",
    }


def test_nothing_is_formatted_when_it_is_off() -> None:
    done = run(
        """
        class Never:
            def __str__(self): raise AssertionError
        set_up_logs("broker", "WARNING", "json")
        log.info("%s", Never())
        """
    )
    assert done.stderr == b""


def test_a_traceback_and_a_record_that_does_not_fit() -> None:
    done = run(
        """
        set_up_logs("worker", "INFO", "json")
        try: 1 / 0
        except ZeroDivisionError: log.exception("failed")
        log.error("%d", "x")
        log.error("stack", stack_info=True)
        """
    )
    failed, odd, stack = lines(done)
    assert failed["exception"].endswith("ZeroDivisionError: division by zero")
    assert odd["message"].startswith("'%d' can't be formatted: TypeError: ")
    assert stack["exception"].startswith("Stack (most recent call last)")


def test_a_record_of_a_thread_names_its_call_itself() -> None:
    done = run(
        """
        set_up_logs("worker", "INFO", "json", running=lambda: None)
        log.error("ours", extra={"node": "shop.sub", "request_id": 18})
        log.error("not ours", extra={"request_id": 18})
        """
    )
    ours, others = lines(done)
    assert (ours["node"], ours["request"]) == ("shop.sub", "18")
    assert "node" not in others


def test_what_is_printed_becomes_lines() -> None:
    done = run(
        """
        lines = set_up_logs("template", "ERROR", "json", running=lambda: running)
        lines.become_worker(5)
        capture_prints(lines)
        print("one")
        print("begun", end="")
        print(" and ended\\nthree", end="", flush=True)
        sys.stdout.buffer.write(b"\\xff raw\\n")
        print("half of a pair: \\udc80", file=sys.stderr)
        print("x" * 5000)
        sys.stdout.reconfigure(encoding="utf-8")
        assert (sys.stdout.fileno(), sys.stderr.fileno(), sys.stdout.isatty()) == (1, 2, False)
        print("left", end="")
        sys.stdout.flush()
        """
    )
    assert done.stdout == b""
    told = lines(done)
    assert {(line["process"], line["worker"], line["node"]) for line in told} == {
        ("worker", 5, "shop.add")
    }
    assert [
        (line["logger"], line["level"], line["message"])
        for line in told
        if "xxx" not in line["message"]
    ] == [
        ("stdout", "INFO", "one"),
        ("stdout", "INFO", "begun and ended"),
        ("stdout", "INFO", "three"),
        ("stdout", "INFO", "\\xff raw"),
        ("stderr", "WARNING", "half of a pair: \\udc80"),
        ("stdout", "INFO", "left"),
    ]
    assert "".join(line["message"] for line in told if "xxx" in line["message"]) == "x" * 5000


def test_what_threads_print_at_once_is_not_mixed() -> None:
    done = run(
        """
        capture_prints(set_up_logs("worker", "INFO", "json"))
        barrier = threading.Barrier(2)
        def say(word):
            print(word, end="")
            barrier.wait(20)
            print(word)
        threads = [threading.Thread(target=say, args=(word,)) for word in "ab"]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        """
    )
    assert sorted(line["message"] for line in lines(done)) == ["aa", "bb"]


@pytest.mark.parametrize(
    "act",
    [
        "for fd in 0, 1, 2: os.close(fd)",
        "sys.stdout = sys.stderr = None",
        "sys.stdout.close(); sys.stderr.close()",
        "sys.stderr.detach()",
    ],
)
def test_users_code_can_not_take_it_away(act: str) -> None:
    done = run(
        f"""
        capture_prints(set_up_logs("worker", "INFO", "json"))
        {act}
        log.error("still here")
        os._exit(0)
        """
    )
    assert [line["message"] for line in lines(done)] == ["still here"]


@pytest.mark.parametrize("act", ["", "capture_prints(lines)"])
def test_without_a_standard_error_nothing_is_told(tmp_path: Path, act: str) -> None:
    path = tmp_path / "theirs"
    text = f"""
    theirs = os.open({str(path)!r}, os.O_CREAT | os.O_WRONLY)
    assert theirs == 2, "the number is free"
    lines = set_up_logs("broker", "INFO", "human")
    {act}
    log.error("to nobody")
    os.write(1, b"goes on")
    """
    program = [sys.executable, "-c", HEAD + textwrap.dedent(text)]
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" 2>&-', "sh", *program], capture_output=True, timeout=30
    )
    assert done.stdout == b"goes on"
    assert path.read_bytes() == b""


def test_a_flood_of_our_own_is_cut_and_counted_and_that_of_users_is_not() -> None:
    done = run(
        """
        set_up_logs("broker", "INFO", "json")
        for _ in range(2000): log.error("users'")
        ours = logging.getLogger("pronghorn.broker.server")
        for _ in range(2000): ours.error("ours")
        """
    )
    told = [line["message"] for line in lines(done)]
    assert told.count("users'") == 2000
    assert LOG_LINES_BURST <= told.count("ours") < 1000
    missing = sum(int(text.split()[0]) for text in told if "left out" in text)
    assert told.count("ours") + missing == 2000
    assert "left out" in told[-1], "it is told at the end at the latest"


@pytest.mark.slow
def test_a_reader_that_takes_nothing_holds_up_nobody_for_long() -> None:
    reader, writer = os.pipe()
    text = """
    import time
    set_up_logs("worker", "INFO", "json", patience_s=0.2)
    begun = time.monotonic()
    for number in range(2000): log.error("%d %s", number, "x" * 200)
    print(time.monotonic() - begun, flush=True)
    sys.stdin.read()
    log.error("read again")
    """
    with subprocess.Popen(
        [sys.executable, "-c", HEAD + textwrap.dedent(text)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=writer,
    ) as process:
        os.close(writer)
        assert process.stdout is not None
        assert float(process.stdout.readline()) < 10, "each line must not wait"
        os.set_blocking(reader, False)
        data = b""
        while select.select([reader], [], [], 0)[0]:
            data += os.read(reader, 65536)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(20) == 0
        while chunk := os.read(reader, 65536):
            data += chunk
    os.close(reader)
    told = [json.loads(line)["message"] for line in data.splitlines()]
    assert "read again" in told[-2:]
    missing = [int(text.split()[0]) for text in told if "left out" in text]
    assert len(missing) >= 1
    assert sum(missing) + len(told) - len(missing) == 2001
