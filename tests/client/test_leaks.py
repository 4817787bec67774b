"""Mirror of client/leaks.py."""

import os
import threading

from pronghorn.client.leaks import held, left_behind


def test_nothing_is_left_behind_by_nothing() -> None:
    assert left_behind(held()) == []


def test_files_children_and_threads_are_named() -> None:
    before = held()
    file = os.open("/dev/null", os.O_RDONLY)
    child = os.posix_spawn("/bin/sleep", ["sleep", "100"], os.environ)
    go_on = threading.Event()
    thread = threading.Thread(target=go_on.wait, name="a thread", args=(20.0,))
    thread.start()
    try:
        left = left_behind(before)
    finally:
        go_on.set()
        thread.join()
        os.close(file)
        os.kill(child, 9)
        os.waitpid(child, 0)
    assert left[0].startswith(f"child process {child}: ")
    assert left[1] == f"file descriptor {file}: /dev/null"
    assert left[2] == "thread a thread"
    assert left_behind(before) == []


def test_daemon_threads_hold_up_no_exit() -> None:
    before = held()
    go_on = threading.Event()
    thread = threading.Thread(target=go_on.wait, args=(20.0,), daemon=True)
    thread.start()
    assert left_behind(before) == []
    go_on.set()
    thread.join()
