"""Mirror of worker/ending.py: the ends of real processes."""

import os
import subprocess
import sys

import pytest

from pronghorn.broker.wire.control import EXIT_START_HOOK
from pronghorn.worker.ending import EXIT_FAILED

HEAD = "import logging, sys\nfrom pronghorn.worker.ending import leave\n"


def run(text: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", HEAD + text], capture_output=True, text=True, timeout=30
    )


def test_the_statuses_differ_from_each_other_and_from_success() -> None:
    assert len({0, EXIT_FAILED, EXIT_START_HOOK}) == 3


def test_what_was_printed_and_logged_comes_out_and_nothing_else_is_run() -> None:
    done = run(
        "import atexit, threading, time\n"
        "threading.Thread(target=time.sleep, args=(1000,)).start()\n"
        "atexit.register(print, 'exit handler')\n"
        "print('printed', end='')\n"
        "try: 1 / 0\n"
        "except ZeroDivisionError: leave(7, why='it is over')\n"
    )
    assert done.returncode == 7
    assert done.stdout == "printed"
    assert done.stderr.startswith("it is over\nTraceback")
    assert done.stderr.endswith("ZeroDivisionError: division by zero\n")


@pytest.mark.parametrize(
    "text",
    [
        "sys.stdout.close(); sys.stderr = None\n",
        "class Broken(logging.Handler):\n"
        "    def flush(self): raise SystemExit(9)\n"
        "logging.getLogger().addHandler(Broken())\n",
    ],
)
def test_users_code_can_not_keep_it(text: str) -> None:
    assert run(text + "leave(3)").returncode == 3


@pytest.mark.slow
def test_a_reader_that_takes_nothing_does_not_keep_it_alive() -> None:
    reader, writer = os.pipe()
    text = (
        "import os, signal\n"
        "signal.signal(signal.SIGALRM, signal.SIG_IGN)\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])\n"
        "os.set_blocking(1, False)\n"
        "try:\n"
        "    while True: os.write(1, bytes(65536))\n"
        "except BlockingIOError: os.set_blocking(1, True)\n"
        "leave(1, why='nobody reads this')\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", HEAD + text], stdout=writer, stderr=writer
    ) as process:
        os.close(writer)
        assert process.wait(30) == -14
    os.close(reader)
