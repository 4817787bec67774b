"""What the processes of a tree have and what nodes may do to theirs."""

import os
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from trees import FAULTY, PATIENCE_S, Running, hosting

Start = Callable[..., Running]


def links(pid: int) -> dict[int, str]:
    """Return what the descriptors of a process stand for."""
    folder = Path(f"/proc/{pid}/fd")
    return {int(link.name): os.readlink(link) for link in folder.iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize("spawned", [False, True])
def test_no_process_of_the_tree_has_a_descriptor_of_another(
    start: Start, tmp_path: Path, spawned: bool
) -> None:
    stray = os.open("/dev/zero", os.O_RDONLY)  # not inheritable, as all that Python opens
    os.set_inheritable(stray, True)
    module = tmp_path / "threaded.py"
    module.write_text(
        "import threading, time\n"
        "threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()\n"
    )
    running = start(FAULTY, *([str(module)] if spawned else []), workers=2)
    other = start()
    os.close(stray)
    running.client.call("add", 1, 2)
    tree = running.tree
    assert len(tree.workers) == 2
    log = os.readlink("/proc/self/fd/2")  # which those that run nodes hold once more
    ends: Counter[str] = Counter()
    for pid in (*tree.pids, *other.tree.pids):
        held = links(pid)
        assert held[0] == "/dev/null"
        assert "/dev/zero" not in held.values()
        rest = {one for fd, one in held.items() if fd > 2 and one != log}
        ends.update({one for one in rest if re.match("socket|pipe", one)})
    assert [one for one, count in ends.items() if count > 1] == []
    for pid in tree.workers:
        files = [one for fd, one in links(pid).items() if fd > 2 and one.startswith("/")]
        # The page, and where the stacks of a crash are written, which is behind it.
        assert set(files) == {"/memfd:pronghorn-slots (deleted)", log}
    lock = f"{Path(running.pool.endpoint.removeprefix('ipc://')).parent}/lock"
    holders = [pid for pid in tree.pids if lock in links(pid).values()]
    assert holders == [tree.supervisor, tree.broker]


@pytest.mark.slow
def test_descriptors_are_not_used_up_by_deaths(start: Start) -> None:
    running = start()
    running.client.call("add", 1, 2)

    def counts() -> list[int]:
        tree = running.tree
        return [len(links(pid)) for pid in (tree.supervisor, tree.broker, tree.template)]

    before = counts()
    for _ in range(5):
        with pytest.raises(Exception, match="its worker ended"):
            running.client.call("die", "SIGKILL")
        running.client.call("add", 1, 2)
    assert counts() == before


@pytest.mark.slow
def test_no_process_is_in_the_session_of_the_host(start: Start) -> None:
    running = start(workers=2)
    sessions = {os.getsid(pid) for pid in running.tree.pids}
    assert sessions == {running.supervisor}
    assert running.client.call("session") == [running.supervisor, running.supervisor]


@pytest.mark.slow
def test_what_nodes_print_appears_at_once_and_once(tmp_path: Path) -> None:
    text = f"""
import os
os.environ.pop("PYTHONUNBUFFERED", None)
from pronghorn.client import Pool
pool = Pool({FAULTY!r}, EXTRA, workers=2)
client = pool.client()
client.call("say", "a node speaks")
try:
    client.call("die", "SIGKILL")
except Exception as error:
    print(type(error).__name__, flush=True)
client.call("say", "another speaks")
client.call("say", "and again")
pool.close()
print("end", flush=True)
"""
    extra = tmp_path / "talkative.py"
    extra.write_text("print('imported')\n")
    with hosting(text.replace("EXTRA", repr(str(extra)))) as host:
        out, errors = host.rest()
    assert out.splitlines() == ["WorkerLostError", "end"]
    printed = [line.split(" stdout: ") for line in errors.splitlines() if " stdout: " in line]
    assert [text for _, text in printed] == [
        "imported",
        "a node speaks",
        "another speaks",
        "and again",
    ]
    assert [head.split(".")[-1].split("#")[0] for head, _ in printed[1:]] == ["say"] * 3


@pytest.mark.slow
def test_a_node_may_close_the_standard_descriptors(start: Start) -> None:
    running = start()
    worker = running.client.call("close_standard_descriptors")
    assert running.client.call("pid") == worker
    assert running.client.call("add", 1, 2) == 3


@pytest.mark.slow
def test_a_node_may_change_the_folder(start: Start, tmp_path: Path) -> None:
    running = start()
    worker = running.client.call("pid")
    assert running.client.call("go_to", str(tmp_path)) == str(tmp_path)
    tmp_path.rmdir()
    assert running.client.call("pid") == worker
    with pytest.raises(Exception, match="its worker ended"):
        running.client.call("die", "exit")
    assert running.client.call("add", 1, 2) == 3


@pytest.mark.slow
def test_nodes_may_run_commands(start: Start) -> None:
    running = start(workers=2)
    futures = [running.client.submit("run_command", str(i)) for i in range(4)]
    assert [future.result(PATIENCE_S) for future in futures] == ["0", "1", "2", "3"]


@pytest.mark.slow
def test_a_broker_may_open_as_many_descriptors_as_the_system_allows(start: Start) -> None:
    running = start()
    (line,) = (
        line
        for line in Path(f"/proc/{running.tree.broker}/limits").read_text().splitlines()
        if line.startswith("Max open files")
    )
    soft, hard = re.findall(r"\d+", line)[:2]
    assert soft == hard
