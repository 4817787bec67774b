"""Mirror of broker/wire/linux.py. What lasts as long as a process is tried in one of its own."""

import os
import subprocess
import sys

import pytest

from pronghorn.broker.wire import linux
from pronghorn.broker.wire.linux import require_linux, wait_until_adopted

IMPORTS = """\
import os, signal
from pronghorn.broker.wire.linux import become_subreaper, die_with_parent, wait_until_adopted
main = os.getpid()
reader, writer = os.pipe()
"""

ADOPTED = """\
become_subreaper()
child = os.fork()
if child == 0:
    between = os.getpid()
    if os.fork() == 0:
        wait_until_adopted(between)
        os.write(writer, b"%d" % os.getppid())
    os._exit(0)
os.waitpid(child, 0)
assert int(os.read(reader, 20)) == main
os.waitpid(-1, 0)
"""

ADOPTED_FROM_BIRTH = """\
child = os.fork()
if child == 0:
    wait_until_adopted(main + 1)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""

ADOPTED_BY_ANOTHER = """\
become_subreaper()
between = os.fork()
if between == 0:
    middle = os.getpid()
    if os.fork() == 0:
        while os.getppid() == middle:  # whoever should have adopted it is gone, and so is this one
            pass
        wait_until_adopted(middle)
        os._exit(0)
    os._exit(0)
os.waitpid(between, 0)
assert os.waitpid(-1, 0)[1] == 0
"""

KILLED_WITH_ITS_PARENT = """\
become_subreaper()
child = os.fork()
if child == 0:
    parent = os.getpid()
    if os.fork() == 0:
        die_with_parent(parent)
        os.write(writer, b"%d" % os.getpid())
    signal.pause()
grandchild = int(os.read(reader, 20))
os.kill(child, signal.SIGKILL)
os.waitpid(child, 0)
status = os.waitpid(grandchild, 0)[1]
assert os.WTERMSIG(status) == signal.SIGKILL, status
"""

PARENT_GONE_BEFORE = """\
child = os.fork()
if child == 0:
    die_with_parent(main + 1)
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
"""


def test_linux_is_linux() -> None:
    require_linux()


def test_elsewhere_the_server_side_can_not_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(ImportError, match="needs Linux, this is darwin; clients work everywhere"):
        require_linux()


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(ADOPTED, id="a subreaper adopts its orphaned grandchildren"),
        pytest.param(ADOPTED_FROM_BIRTH, id="who has another parent already need not wait"),
        pytest.param(ADOPTED_BY_ANOTHER, id="nor who was adopted before he looks, by whomever"),
        pytest.param(KILLED_WITH_ITS_PARENT, id="a process dies with its parent"),
        pytest.param(PARENT_GONE_BEFORE, id="and at once if the parent is gone already"),
    ],
)
@pytest.mark.slow
def test_families(script: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS + script], capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_first_parent_that_was_reaped_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    reaped = os.fork()
    if reaped == 0:
        os._exit(0)
    os.waitpid(reaped, 0)
    monkeypatch.setattr(os, "getppid", lambda: reaped)
    wait_until_adopted(reaped)


def test_what_the_kernel_refuses_is_an_error_that_names_it() -> None:
    with pytest.raises(OSError, match=r"prctl\(-1\): Invalid argument"):
        linux._prctl(-1, 0)
