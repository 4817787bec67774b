"""``pronghorn serve``: one process tree from ready to its end, whatever ends it."""

import json
import os
import signal
from pathlib import Path

import pytest
from commands import TIMEOUT_S, Commands, children

pytestmark = pytest.mark.slow


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
        assert "is ready: 11 nodes, 1 worker, pid" in first
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=TIMEOUT_S)
    endpoint, nodes, end = output.decode().splitlines()
    assert endpoint == f"  ipc://{commands.folder}/pronghorn/default/broker.sock"
    assert nodes.startswith("  nodes.add, nodes.greet, ")
    assert end == "Pronghorn ends: SIGINT"
    assert errors.startswith(b"warning: bad.py is not served: ModuleNotFoundError")
    assert b"Traceback" in errors


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
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


def test_what_nodes_print_is_no_event(commands: Commands) -> None:
    with commands.serving("nodes.py", "--workers", "1") as serving:
        assert commands("call", "nothing") == (0, b"null\n", "")
        serving.process.send_signal(signal.SIGTERM)
        assert serving.next_event()["event"] == "end"
        assert serving.process.communicate(timeout=TIMEOUT_S) == (b"", b"a node prints\n")


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
