"""Mirror of worker/spawned.py: a worker as a process of its own, its supervisor played here."""

import os
import signal
import sys
from pathlib import Path

from broker_ends import BrokerEnd, run_call
from trees import command_line

from pronghorn.broker.processes import reap, spawn_module
from pronghorn.broker.wire.channel import ControlChannel, make_pair
from pronghorn.broker.wire.control import TemplateConfig

NODES = """
import os, threading, time
from pronghorn.worker import node
threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
@node
def add(a: int, b: int) -> int: return a + b
@node
def files() -> list[str]:
    links = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd") if int(name) > 2]
    targets = [os.readlink(link) for link in links if os.path.lexists(link)]
    return [target for target in targets if target.startswith("/")]
@node
def inheritable(fd: int) -> bool: return os.get_inheritable(fd)
"""


def spawned(end: BrokerEnd, module: Path, *, supervisor_pid: int | None = None) -> int:
    ours, theirs = make_pair()
    with theirs:
        given = [end.link_fd, end.page_fd, theirs.fileno()]
        pid = spawn_module("pronghorn.worker.spawned", ["4", *map(str, given)], given)
    end.give_away()
    channel = ControlChannel(ours)
    channel.send(
        TemplateConfig(
            modules=(str(module),),
            sys_path=tuple(sys.path),
            supervisor_pid=supervisor_pid or os.getpid(),
            result_bytes=1_000_000,
        )
    )
    channel.close()
    return pid


def written(folder: Path, text: str = NODES) -> Path:
    path = folder / "shop.py"
    path.write_text(text)
    return path


def test_it_serves_and_ends_with_its_link(tmp_path: Path) -> None:
    with BrokerEnd() as end:
        pid = spawned(end, written(tmp_path))
        ready = end.ready()
        assert (ready.worker_id, ready.pid) == (4, pid)
        end.send(run_call(1, 0, 1, 2))
        assert end.value() == (1, 3)
        assert "pronghorn.worker.spawned" in command_line(pid)
    assert reap(pid) == "exit status 0"


def test_it_keeps_no_descriptor_but_its_link_and_page(tmp_path: Path) -> None:
    with BrokerEnd() as end:
        pid = spawned(end, written(tmp_path))
        end.ready()
        end.send(run_call(1, 1))
        _, files = end.value()
        # The page, the area behind it, and once more for the stacks of a crash.
        assert files.count("/memfd:pronghorn-slots (deleted)") == 3
        rest = set(files) - {"/memfd:pronghorn-slots (deleted)"}
        log = os.readlink("/proc/self/fd/2")
        assert rest <= {log, "/dev/null"}  # the latter pytest may have given us to inherit
        end.send(run_call(2, 2, end.link_fd))  # where it has the same number
        assert end.value() == (2, False)
    assert reap(pid) == "exit status 0"


def test_a_module_that_ends_the_process_ends_it(tmp_path: Path) -> None:
    with BrokerEnd() as end:
        pid = spawned(end, written(tmp_path, "import os; os._exit(5)\n"))
        end.wait_for_end()
    assert reap(pid) == "exit status 5"


def test_a_supervisor_that_has_gone_meanwhile_is_noticed(tmp_path: Path) -> None:
    with BrokerEnd() as end:
        pid = spawned(end, written(tmp_path), supervisor_pid=1)
        end.wait_for_end()
    assert reap(pid) == "exit status 1"


def test_a_killed_one_leaves_what_it_wrote(tmp_path: Path) -> None:
    with BrokerEnd() as end:
        pid = spawned(end, written(tmp_path))
        end.ready()
        end.send(run_call(1, 0, 1, 2))
        end.wait_for_word()
        os.kill(pid, signal.SIGKILL)
        assert reap(pid) == "signal 9 (SIGKILL)"
        assert end.value() == (1, 3)
        end.wait_for_end()
