"""``pronghorn call`` against a real broker."""

import json
import signal
import subprocess
from pathlib import Path

import pytest
from commands import TIMEOUT_S, Commands

pytestmark = pytest.mark.slow


def test_params_by_name_as_json_and_from_standard_input(served: Commands) -> None:
    assert served("call", "add", "a=1", "b=2") == (0, b"3\n", "")
    assert served("call", "add", "--json", '{"a":1,"b":2}') == (0, b"3\n", "")
    assert served("call", "add", "--json", "[1, 2]") == (0, b"3\n", "")
    assert served("call", "add", "-", stdin='{"a":1,"b":2}') == (0, b"3\n", "")
    assert served("call", "add", "--json", "-", stdin="[1, 2]") == (0, b"3\n", "")
    assert served("call", "nodes.add", "--json", '{"a":1}', "b=2") == (0, b"3\n", "")


def test_text_is_printed_as_it_is_and_with_json_as_json(served: Commands) -> None:
    assert served("call", "greet", "who=Ada", "excited=true").output == "Hello, Ada!\n"
    assert served("call", "greet", "who=Ada", "--json", "{}").output == '"Hello, Ada."\n'
    assert served("call", "nothing").output == "null\n"


def test_files_are_what_the_parameter_wants(served: Commands, tmp_path: Path) -> None:
    (tmp_path / "it").write_text("[1, 2]")
    file = f"@{tmp_path}/it"
    assert served("call", "reverse", f"content={file}").raw == b"]2 ,1["
    assert served("call", "words", f"text={file}").output == "2\n"
    assert served("call", "total", f"table={file}").output == "3\n"
    assert served("call", "total", "table=@-", stdin="[4, 5]").output == "9\n"
    assert served("call", "kind", f"anything={file}").output == "list\n"


def test_bytes_do_not_go_to_a_terminal(served: Commands) -> None:
    shown = served.on_terminal("call", "reverse", "content=@nodes.py")
    assert "the result has" in shown
    assert "bytes" in shown


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (["divide", "a=0"], 1, "ZeroDivisionError: integer division or modulo by zero\n"),
        (["by_pair"], 1, "by_pair: its result can't be written as JSON"),
        (["add", "a=1"], 2, "nodes.add: missing required parameter `b`"),
        (["add", "a=1", "b=x"], 2, "Expected `int`, got `str` - at `$.b`"),
        (["add", "1", "2"], 2, "'1' is no NAME=VALUE"),
        (["add", "a=@nowhere"], 2, "can't read nowhere: No such file or directory"),
        (["add", "--json", "[1]", "b=2"], 2, "can't be mixed"),
        (["add", "--json", '{"a":1}', "a=2"], 2, "a is given twice"),
        (["add", "-", "--json", "{}"], 2, "not both"),
        (["ad"], 2, "no node named 'ad'; did you mean 'add'"),
        ([b"\xff"], 2, "is not UTF-8"),
        (["add", "--timeout", "0"], 2, "--timeout 0: expected seconds"),
        (["add", "--name", "nobody"], 3, "no broker at ipc://"),
        (["add", "--endpoint", "foo"], 2, "'foo' is no endpoint"),
        (["linger", "told=/dev/null", "--timeout", "0.05"], 4, "deadline"),
        (["die", "code=7"], 5, "its worker ended with exit status 7 (the node may have run)"),
    ],
)
def test_failure_has_its_exit_code_and_is_told(
    arguments: list[str | bytes], status: int, told: str, served: Commands
) -> None:
    done = served("call", *arguments)
    assert (done.status, done.raw) == (status, b"")
    assert done.errors.startswith('{"error":' if "--json" in arguments else "error: ")
    assert told in done.errors
    assert "pronghorn" not in done.errors.partition("Traceback")[2], "no traceback of ours"


def test_failure_is_json_where_params_are(served: Commands) -> None:
    done = served("call", "divide", "--json", '{"a": 0}')
    assert (done.status, done.raw) == (1, b"")
    error = json.loads(done.errors)["error"]
    assert error["code"] == "NODE_ERROR"
    assert error["exception"] == "ZeroDivisionError"
    assert error["outcome"] == "executed"


def test_environment_says_where_the_broker_is(served: Commands) -> None:
    elsewhere = {"PRONGHORN_ENDPOINT": "ipc:///nowhere/at/all"}
    assert served("call", "add", "a=1", "b=2", environment=elsewhere).status == 3
    named = served("call", "add", "a=1", "b=2", "--name", "default", environment=elsewhere)
    assert named.output == "3\n"


def test_interrupt_cancels_the_call(served: Commands, tmp_path: Path) -> None:
    told = tmp_path / "told"
    subprocess.run(["mkfifo", told], check=True)
    with served.start("call", "linger", f"told={told}") as process, open(told) as telling:
        assert telling.readline() == "begun\n"
        process.send_signal(signal.SIGINT)
        assert telling.readline() == "cancelled\n"
        output, errors = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, output, errors) == (130, b"", b"")


def test_reader_that_has_gone_is_no_error_to_tell(served: Commands) -> None:
    with served.start("call", "reverse", "content=@-") as process:
        assert process.stdout is not None
        process.stdout.close()
        process.stdout = None
        _, errors = process.communicate(b"x" * 1_000_000, timeout=TIMEOUT_S)
    assert (process.returncode, errors) == (141, b"")
