"""``pronghorn map`` against a real broker."""

import json
import signal
from pathlib import Path

import pytest
from commands import TIMEOUT_S, Commands

pytestmark = pytest.mark.slow


def test_results_are_in_the_order_of_the_items(served: Commands, tmp_path: Path) -> None:
    items = tmp_path / "items.jsonl"
    items.write_text("".join(f'{{"a":{number},"b":1}}\n' for number in range(5000)))
    done = served("map", "add", str(items))
    assert (done.status, done.errors) == (0, "")
    assert done.output.split() == [str(number + 1) for number in range(5000)]


def test_unordered_results_are_all_there(served: Commands) -> None:
    items = "".join(f"[{number},1]\n" for number in range(100))
    done = served("map", "add", "--unordered", "--chunk-size", "3", stdin=items)
    assert sorted(map(int, done.output.split())) == list(range(1, 101))


def test_no_items_no_results(served: Commands) -> None:
    assert served("map", "add") == (0, b"", "")


def test_results_come_as_soon_as_the_input_runs_dry(served: Commands) -> None:
    with served.start("map", "greet") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for who in ("Ada", "Grace"):
            process.stdin.write(f'{{"who":"{who}"}}\n'.encode())
            process.stdin.flush()
            assert process.stdout.readline() == f'"Hello, {who}."\n'.encode()
        assert process.communicate(timeout=TIMEOUT_S) == (b"", b"")
    assert process.returncode == 0


def test_first_failure_ends_it_and_says_which_item(served: Commands) -> None:
    done = served("map", "divide", stdin="[1]\n[1]\n[0]\n[1]\n")
    assert (done.status, done.output) == (1, "1\n1\n")
    assert done.errors.startswith("error: item 3: ZeroDivisionError: ")
    done = served("map", "divide", "--json", stdin="[1]\n[0]\n")
    assert json.loads(done.errors)["error"]["item"] == 1


def test_line_that_is_no_params_ends_it_after_the_results_before_it(served: Commands) -> None:
    done = served("map", "add", stdin="[1,2]\n5\n[1,2]\n")
    assert (done.status, done.output) == (2, "3\n")
    assert "line 2: params are a JSON object" in done.errors


def test_keep_going_prints_errors_in_their_places(served: Commands) -> None:
    items = '[1]\n[0]\nnope\n{"a":"x"}\n[-1]\n'
    done = served("map", "divide", "--keep-going", stdin=items)
    results = [json.loads(line) for line in done.output.splitlines()]
    codes = [one["error"]["code"] if isinstance(one, dict) else one for one in results]
    assert codes == [1, "NODE_ERROR", "INVALID_ARGUMENT", "INVALID_ARGUMENT", -1]
    assert [one["error"]["item"] for one in results[1:4]] == [1, 2, 3]
    assert (done.status, done.errors) == (1, "warning: 3 of 5 items failed\n")


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (["ad"], 2, "no node named 'ad'"),
        (["add", "nowhere.jsonl"], 2, "can't read nowhere.jsonl: No such file"),
        (["add", "."], 2, "can't read .: Is a directory"),
        (["add", "--name", "nobody"], 3, "no broker at ipc://"),
        (["linger", "--timeout", "0.05"], 4, "deadline"),
        (["die"], 5, "exit status 1"),
        (["by_pair"], 1, "can't be written as JSON"),
    ],
)
def test_failure_has_its_exit_code_and_is_told(
    arguments: list[str], status: int, told: str, served: Commands
) -> None:
    items = {"linger": '["/dev/null"]', "by_pair": "[]"}.get(arguments[0], "[1]")
    done = served("map", *arguments, stdin=items)
    assert (done.status, done.output) == (status, "")
    assert told in done.errors
    assert "Traceback" not in done.errors


def test_lost_broker_ends_it_even_if_it_is_to_keep_going(commands: Commands) -> None:
    with (
        commands.serving("nodes.py", "--workers", "1") as serving,
        commands.start("map", "add", "--keep-going") as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"[1,2]\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"3\n"
        serving.process.send_signal(signal.SIGTERM)
        serving.process.wait(TIMEOUT_S)
        output, errors = process.communicate(b"[1,2]\n", timeout=TIMEOUT_S)
    assert (process.returncode, output) == (3, b"")
    assert errors.startswith(b"error: ")


def test_interrupt_ends_it_quietly(served: Commands) -> None:
    with served.start("map", "add") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"[1,2]\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"3\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(TIMEOUT_S) == 130
        assert process.communicate() == (b"", b"")


def test_reader_that_has_gone_is_no_error_to_tell(served: Commands, tmp_path: Path) -> None:
    items = tmp_path / "items.jsonl"
    items.write_text("[1,2]\n" * 200_000)
    with served.start("map", "add", str(items)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"3\n"
        process.stdout.close()
        process.stdout = None
        _, errors = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, errors) == (141, b"")


def test_progress_is_shown_on_a_terminal(served: Commands, tmp_path: Path) -> None:
    items = tmp_path / "items.jsonl"
    items.write_text("[1,2]\n" * 1000)
    assert "1,000 items" in served.on_terminal("map", "add", str(items), stdout=False)
    assert served.on_terminal("map", "add", str(items), "--json", stdout=False) == ""
    assert "items" not in served.on_terminal("map", "add", str(items))
