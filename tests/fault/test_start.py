"""Starts that fail, or go another way: the host is told why, soon, and nothing is left."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from time import monotonic

import pytest
from trees import FAULTY, PATIENCE_S, Ends, Fifo, Running, Tree, hosting, is_within

from pronghorn.client import InvalidArgumentError
from pronghorn.client.launch import PoolStartError

Start = Callable[..., Running]

NODE = "from pronghorn.worker import node\n@node\ndef add(a: int, b: int) -> int: return a + b\n"
THREAD = (
    "import threading, time\n"
    "threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()\n"
)
PID = "import os\n@node\ndef pid() -> int: return os.getpid()\n"
SOON_S = 2.0


def written(folder: Path, name: str, text: str) -> str:
    path = folder / f"{name}.py"
    path.write_text(text)
    return str(path)


# --- what modules do when they are imported ----------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "how"),
    [
        ("import os; os._exit(7)", "exit status 7"),
        ("import ctypes; ctypes.string_at(0)", "signal 11 (SIGSEGV)"),
        ("import os; os.kill(os.getpid(), 9)", "signal 9 (SIGKILL)"),
    ],
)
def test_a_module_that_kills_its_importer_fails_the_start(
    start: Start, tmp_path: Path, text: str, how: str
) -> None:
    path = written(tmp_path, "deadly", text)
    begun = monotonic()
    with pytest.raises(PoolStartError) as caught:
        start(path)
    assert str(caught.value) == f"importing {path} ended with {how}"
    assert is_within(monotonic() - begun, SOON_S)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("raise ValueError('no luck')", "ValueError: no luck"),
        ("import sys; sys.exit('good-bye')", "SystemExit: good-bye"),
        (
            "import nowhere_to_be_found",
            "ModuleNotFoundError: No module named 'nowhere_to_be_found'",
        ),
        ("def broken(:", "SyntaxError: "),
    ],
)
def test_a_module_that_fails_is_reported_and_the_others_serve(
    start: Start, tmp_path: Path, text: str, why: str
) -> None:
    bad = written(tmp_path, "bad", text)
    running = start(bad, written(tmp_path, "good", NODE))
    assert running.client.call("add", 1, 2) == 3
    (failure,) = running.pool.failures
    assert failure.module == bad
    assert failure.reason.startswith(why)
    assert f'File "{bad}", line 1' in failure.reason


@pytest.mark.slow
def test_no_module_that_can_be_imported_is_no_pool(start: Start, tmp_path: Path) -> None:
    first, second = (written(tmp_path, f"bad{i}", f"1 / {0}") for i in range(2))
    with pytest.raises(PoolStartError) as caught:
        start(first, second, workers=2)
    assert caught.value.message == f"no node can be served from {first}, {second}"
    assert [failure.module for failure in caught.value.failures] == [first, second]
    assert "ZeroDivisionError" in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGKILL])
def test_an_import_that_never_ends_ends_with_the_host(
    fifo: Fifo, tmp_path: Path, signal_number: int
) -> None:
    text = f"import time\nwith open({fifo.path!r}, 'a') as out: print('begun', file=out)\n"
    path = written(tmp_path, "endless", text + "while True: time.sleep(1000)\n")
    with hosting(f"from pronghorn.client import Pool\nPool({path!r})") as host:
        assert fifo.line() == "begun"
        tree = Tree.of_host(host.pid)
        with Ends([tree.supervisor, tree.broker, tree.template, host.pid]) as ends:
            os.killpg(host.pid, signal_number)
            ends.wait()


@pytest.mark.slow
def test_a_module_that_starts_a_thread_has_its_workers_spawned(
    start: Start, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    running = start(written(tmp_path, "threaded", THREAD + NODE + PID), workers=2)
    assert running.client.call("add", 1, 2) == 3
    (warning,) = running.pool.warnings
    assert warning.startswith("module threaded has started 1 thread")
    assert warning in capfd.readouterr().err
    worker = running.client.call("pid")
    assert worker in running.tree.workers
    with Ends([worker]) as ends:
        os.kill(worker, signal.SIGKILL)
        ends.wait()
    pids = {running.client.submit("pid").result(PATIENCE_S) for _ in range(3)}
    assert worker not in pids


@pytest.mark.slow
def test_nodes_that_differ_from_process_to_process_fail_the_start(
    start: Start, tmp_path: Path
) -> None:
    text = (
        THREAD + "import os\n"
        "from pronghorn.worker import node\n"
        "def make(n):\n"
        "    def f() -> int: return n\n"
        "    f.__name__ = f.__qualname__ = f'node_{n}'\n"
        "    return node(f)\n"
        "f = make(os.getpid())\n"
    )
    with pytest.raises(PoolStartError) as caught:
        start(written(tmp_path, "moody", text), workers=3)
    assert caught.value.message == (
        "workers end before they are ready, the last with signal 9 (SIGKILL): "
        "its nodes differ from those of the template"
    )


@pytest.mark.slow
def test_workers_that_die_at_their_start_fail_the_start_without_spinning(
    start: Start, tmp_path: Path
) -> None:
    text = (
        "import os\n"
        "template = os.getpid()\n"
        "def die_young():\n"
        "    if os.getppid() != template: os._exit(9)\n"
        "os.register_at_fork(after_in_child=die_young)\n"
    )
    with pytest.raises(PoolStartError) as caught:
        start(written(tmp_path, "stillborn", text + NODE), workers=3)
    assert caught.value.message == (
        "workers end before they are ready, the last with exit status 9"
    )


@pytest.mark.slow
@pytest.mark.parametrize("guard", ["", "if __name__ == '__main__':\n    "])
def test_a_script_serves_its_own_nodes(tmp_path: Path, guard: str) -> None:
    path = tmp_path / "script.py"
    path.write_text(
        NODE
        + f"from pronghorn.client import Pool\n{guard}main = lambda: Pool(__file__, workers=2)\n"
        f"{guard}with main() as pool:\n"
        f"{guard and '    '}    print(pool.client().call('add', 1, 2), flush=True)\n"
        f"{guard and '    '}    input()\n"
    )
    with hosting(path) as host:
        assert host.says() == "3"
        with Ends([*Tree.of_host(host.pid).pids, host.pid]) as ends:
            host.told("")
            ends.wait()
        assert host.rest()[1] == ""


# --- arguments and places ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 0}, "workers is 0; a pool needs at least 1"),
        ({"workers": -1}, "workers is -1; a pool needs at least 1"),
        ({"workers": 1.5}, "can't start a pool: Expected `int`, got `float` - at `$.workers`"),
        ({"cpus": ["0"]}, "can't start a pool: Expected `int`, got `str` - at `$.cpus[0]`"),
        ({"cpus": [2**70]}, "can't start a pool: can't serialize ints"),
        ({"name": "../up"}, "'../up' is no broker name: "),
        ({"name": ""}, "'' is no broker name: "),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_started(
    start: Start, options: dict[str, object], message: str
) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        start(**options)
    assert str(caught.value).startswith(message)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cpus": [5000]}, "can't use CPUs (5000,): "),
        ({"cpus": [-1]}, "can't use CPUs (-1,): "),
        ({"bind": ["tcp://0.0.0.0:0"]}, "tcp://0.0.0.0:0 can be reached from the network"),
        ({"bind": ["ipc://x.sock"]}, "ipc://x.sock: an ipc endpoint needs an absolute path"),
        ({"bind": ["ipc:///nowhere/x.sock"]}, "can't make the lock file of /nowhere/x.sock"),
        ({"bind": [f"ipc:///tmp/{'x' * 120}"]}, f"the socket path /tmp/{'x' * 120} has 125 bytes"),
        (
            {"bind": ["udp://1.2.3.4:5"]},
            "udp://1.2.3.4:5: an endpoint begins with ipc:// or tcp://",
        ),
    ],
)
def test_what_can_not_be_had_is_named(
    start: Start, options: dict[str, object], message: str
) -> None:
    with pytest.raises((PoolStartError, InvalidArgumentError)) as caught:
        start(**options)
    assert str(caught.value).startswith(message)


@pytest.mark.slow
def test_a_taken_port_is_named_and_no_socket_file_stays(start: Start, tmp_path: Path) -> None:
    first = start(bind=["tcp://127.0.0.1:0"])
    (taken,) = [one for one in first.pool.endpoints if one.startswith("tcp")]
    with pytest.raises(PoolStartError, match=f"can't bind {taken}: Address already in use"):
        start(bind=[f"ipc://{tmp_path}/extra.sock", taken])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_sockets_outside_of_the_folder_are_locked_and_removed(start: Start, tmp_path: Path) -> None:
    endpoint = f"ipc://{tmp_path}/extra.sock"
    running = start(bind=[endpoint])
    assert (tmp_path / "extra.sock").stat().st_mode & 0o777 == 0o600
    with pytest.raises(PoolStartError, match=rf"another broker \(pid {running.supervisor}\)"):
        start(bind=[endpoint])
    os.kill(running.tree.broker, signal.SIGKILL)  # which leaves its file
    running.pool.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_name_is_given_once(start: Start, runtime: Path) -> None:
    running = start(name="shop")
    with pytest.raises(PoolStartError) as caught:
        start(name="shop")
    assert str(caught.value) == (
        f"another broker (pid {running.supervisor}) serves in {runtime / 'shop'}: "
        "stop it, or choose another --name"
    )
    assert running.client.call("add", 1, 2) == 3
    running.pool.close()
    assert start(name="shop").client.call("add", 1, 2) == 3


@pytest.mark.slow
def test_the_folder_of_a_killed_tree_is_taken_over(start: Start, runtime: Path) -> None:
    running = start(name="shop")
    tree = running.tree
    with Ends(tree.pids) as ends:
        os.kill(tree.supervisor, signal.SIGSTOP)  # so that it sees nothing
        os.kill(tree.broker, signal.SIGKILL)
        os.kill(tree.supervisor, signal.SIGKILL)
        ends.wait()
    assert (runtime / "shop" / "broker.sock").is_socket()
    assert start(name="shop").client.call("add", 1, 2) == 3


@pytest.mark.slow
def test_two_pools_at_once_do_not_know_of_each_other(start: Start) -> None:
    first, second = start(), start()
    assert first.pool.endpoint != second.pool.endpoint
    assert first.client.call("pid") in first.tree.workers
    assert second.client.call("pid") in second.tree.workers
    first.pool.close()
    assert second.client.call("add", 1, 2) == 3


@pytest.mark.slow
def test_folder_and_socket_are_for_their_user_alone(start: Start, runtime: Path) -> None:
    before = os.umask(0)
    try:
        running = start(name="shop")
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (runtime / "shop").iterdir()}
    assert modes == {
        "broker.sock": 0o600,
        "broker.sock.stream": 0o600,
        "lock": 0o600,
    }
    assert runtime.stat().st_mode & 0o777 == 0o700
    assert (runtime / "shop").stat().st_mode & 0o777 == 0o700
    assert running.client.call("add", 1, 2) == 3


@pytest.mark.slow
def test_a_folder_open_to_others_is_refused(start: Start, runtime: Path) -> None:
    runtime.mkdir(mode=0o755)
    with pytest.raises(PoolStartError, match=f"{runtime} is open to other users: chmod 700"):
        start()


@pytest.mark.slow
@pytest.mark.parametrize("value", [None, "/nowhere/at/all"])
def test_without_a_usable_runtime_dir_tmp_serves(
    start: Start, monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    if value is None:
        monkeypatch.delenv("XDG_RUNTIME_DIR")
    else:
        monkeypatch.setenv("XDG_RUNTIME_DIR", value)
    running = start()
    root = Path(f"/tmp/pronghorn-{os.getuid()}")
    folder = Path(running.pool.endpoint.removeprefix("ipc://")).parent
    assert folder.parent == root
    assert root.stat().st_mode & 0o777 == 0o700
    running.pool.close()
    assert not folder.exists()


def test_a_path_too_long_for_a_socket_is_refused_with_advice(
    start: Start, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    deep = tmp_path / ("x" * 100)
    deep.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(deep))
    with pytest.raises(InvalidArgumentError, match="set XDG_RUNTIME_DIR to a shorter path"):
        start()


@pytest.mark.slow
def test_a_host_without_standard_descriptors_can_have_a_pool(tmp_path: Path) -> None:
    result = tmp_path / "result"
    text = f"""
import os
os.closerange(0, 3)
from pronghorn.client import Pool
with Pool({FAULTY!r}, workers=1) as pool:
    word = pool.client().call("add", 1, 2)
    pool.client().call("say", "into the void")
with open({str(result)!r}, "w") as out:
    out.write(str(word))
"""
    with hosting(text) as host, Ends([host.pid]) as ends:
        ends.wait(PATIENCE_S)
    assert result.read_text() == "3"


@pytest.mark.slow
def test_a_host_that_blocks_and_ignores_signals_can_have_a_pool(tmp_path: Path) -> None:
    text = f"""
import signal
numbers = {{signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGHUP}}
signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
for number in numbers:
    signal.signal(number, signal.SIG_IGN)
from pronghorn.client import Pool
pool = Pool({FAULTY!r}, workers=1)
print(pool.client().call("add", 1, 2), flush=True)
input()
"""
    with hosting(text) as host:
        assert host.says() == "3"
        tree = Tree.of_host(host.pid)
        with Ends(tree.pids) as ends:
            os.kill(tree.supervisor, signal.SIGTERM)
            ends.wait()
