"""``pronghorn call`` against a real broker."""

import io
import json
import signal
import subprocess
from pathlib import Path

import pytest
from commands import TIMEOUT_S, Commands

from pronghorn.broker.wire.errors import (
    InvalidArgumentError,
    NodeError,
    NotFoundError,
    PronghornError,
)
from pronghorn.client.cli.calling import call


class Caller:
    """Calls within this process what a command would call, and returns what it prints."""

    def __init__(self, endpoint: str, capture: pytest.CaptureFixture[bytes]) -> None:
        self._endpoint = endpoint
        self._capture = capture

    def __call__(
        self,
        node: str,
        *words: str,
        params_json: str | None = None,
        timeout_s: float | None = None,
    ) -> bytes:
        call(node, list(words), params_json, endpoint=self._endpoint, timeout_s=timeout_s)
        return self._capture.readouterr().out


@pytest.fixture
def caller(served: Commands, capsysbinary: pytest.CaptureFixture[bytes]) -> Caller:
    return Caller(served.endpoint, capsysbinary)


def type_in(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))


@pytest.mark.slow
def test_params_by_name_as_json_and_from_standard_input(served: Commands) -> None:
    assert served("call", "add", "a=1", "b=2") == (0, b"3\n", "")
    assert served("call", "add", "--json", '{"a":1,"b":2}') == (0, b"3\n", "")
    assert served("call", "add", "-", stdin='{"a":1,"b":2}') == (0, b"3\n", "")


def test_params_by_position_and_in_part_by_name(
    caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert caller("add", params_json="[1, 2]") == b"3\n"
    assert caller("nodes.add", "b=2", params_json='{"a": 1}') == b"3\n"
    type_in("[1, 2]", monkeypatch)
    assert caller("add", params_json="-") == b"3\n"
    type_in('{"a": 1}', monkeypatch)
    assert caller("add", "-", "b=2") == b"3\n"


def test_text_is_printed_as_it_is_and_with_json_as_json(caller: Caller) -> None:
    assert caller("greet", "who=Ada", "excited=true") == b"Hello, Ada!\n"
    assert caller("greet", "who=Ada", params_json="{}") == b'"Hello, Ada."\n'
    assert caller("nothing") == b"null\n"


def test_files_are_what_the_parameter_wants(
    caller: Caller, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "it").write_text("[1, 2]")
    file = f"@{tmp_path}/it"
    assert caller("reverse", f"content={file}") == b"]2 ,1["
    assert caller("nodes.words", f"text={file}") == b"2\n"
    assert caller("total", f"table={file}") == b"3\n"
    assert caller("kind", f"anything={file}") == b"list\n"
    type_in("[4, 5]", monkeypatch)
    assert caller("total", "table=@-") == b"9\n"


@pytest.mark.parametrize(
    ("words", "params_json", "told"),
    [
        (["1", "2"], None, "'1' is no NAME=VALUE"),
        (["b=2"], "[1]", "can't be mixed"),
        (["a=2"], '{"a": 1}', "a is given twice"),
        (["-"], "{}", "not both"),
    ],
)
def test_wrong_params_are_told_before_anything_is_sent(
    words: list[str], params_json: str | None, told: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=told):
        call("add", words, params_json, endpoint="ipc:///nowhere", timeout_s=None)


@pytest.mark.parametrize(
    ("words", "error", "told"),
    [
        (["divide", "a=0"], NodeError, "ZeroDivisionError: integer division"),
        (["by_pair"], NodeError, "by_pair: its result can't be written as JSON"),
        (["add", "a=1"], InvalidArgumentError, "missing required parameter `b`"),
        (["add", "a=1", "b=x"], InvalidArgumentError, "Expected `int`, got `str`"),
        (["add", "a=@nowhere"], InvalidArgumentError, "can't read nowhere: No such file"),
        (["ad"], NotFoundError, "no node named 'ad'; did you mean 'add'"),
        (["ad", "a=@/dev/null"], NotFoundError, "no node named 'ad'"),
    ],
)
def test_failure_prints_no_result(
    words: list[str],
    error: type[PronghornError],
    told: str,
    caller: Caller,
    capsysbinary: pytest.CaptureFixture[bytes],
) -> None:
    with pytest.raises(error, match=told):
        caller(*words)
    assert capsysbinary.readouterr().out == b""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (["divide", "a=0"], 1, "ZeroDivisionError: integer division or modulo by zero\n"),
        (["ad"], 2, "no node named 'ad'; did you mean 'add'"),
        ([b"\xff"], 2, "is not UTF-8"),
        (["add", "--timeout", "0"], 2, "--timeout 0: expected seconds"),
        (["add", "--endpoint", "foo"], 2, "foo: an endpoint begins"),
        (["add", "--name", "nobody"], 3, "no broker at ipc://"),
        (["linger", "told=/dev/null", "--timeout", "0.05"], 4, "deadline"),
        (["die", "code=7"], 5, "its worker ended with exit status 7 (the node may have run)"),
    ],
)
def test_failure_has_its_exit_code_and_is_told(
    arguments: list[str | bytes], status: int, told: str, served: Commands
) -> None:
    done = served("call", *arguments)
    assert (done.status, done.raw) == (status, b"")
    assert done.errors.startswith("error: ")
    assert told in done.errors
    assert "pronghorn" not in done.errors.partition("Traceback")[2], "no traceback of ours"


@pytest.mark.slow
def test_failure_is_json_where_params_are(served: Commands) -> None:
    done = served("call", "divide", "--json", '{"a": 0}')
    assert (done.status, done.raw) == (1, b"")
    error = json.loads(done.errors)["error"]
    assert error["code"] == "NODE_ERROR"
    assert error["exception"] == "ZeroDivisionError"
    assert error["outcome"] == "executed"


@pytest.mark.slow
def test_bytes_do_not_go_to_a_terminal(served: Commands) -> None:
    shown = served.on_terminal("call", "reverse", "content=@nodes.py")
    assert "the result has" in shown
    assert "bytes" in shown


@pytest.mark.slow
def test_environment_says_where_the_broker_is(served: Commands) -> None:
    elsewhere = {"PRONGHORN_ENDPOINT": "ipc:///nowhere/at/all"}
    assert served("call", "add", "a=1", "b=2", environment=elsewhere).status == 3
    named = served("call", "add", "a=1", "b=2", "--name", "default", environment=elsewhere)
    assert named.output == "3\n"


@pytest.mark.slow
def test_interrupt_cancels_the_call(served: Commands, tmp_path: Path) -> None:
    told = tmp_path / "told"
    subprocess.run(["mkfifo", told], check=True)
    with served.start("call", "linger", f"told={told}") as process, open(told) as telling:
        assert telling.readline() == "begun\n"
        process.send_signal(signal.SIGINT)
        assert telling.readline() == "cancelled\n"
        output, errors = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, output, errors) == (130, b"", b"")


@pytest.mark.slow
def test_reader_that_has_gone_is_no_error_to_tell(served: Commands) -> None:
    with served.start("call", "reverse", "content=@-") as process:
        assert process.stdout is not None
        process.stdout.close()
        process.stdout = None
        _, errors = process.communicate(b"x" * 1_000_000, timeout=TIMEOUT_S)
    assert (process.returncode, errors) == (141, b"")


def test_parts_are_printed_one_a_line(caller: Caller) -> None:
    assert caller("count", "n=3") == b"0\n1\n2\n"
    assert caller("lines", "n=2") == b"line 0\nline 1\n"
    assert caller("lines", params_json="[2]") == b'"line 0"\n"line 1"\n'
    assert caller("count", "n=0") == b""


def test_parts_before_a_failure_are_printed(
    caller: Caller, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    with pytest.raises(NodeError, match="in the middle"):
        caller("fails_later")
    assert capsysbinary.readouterr().out == b"1\n"


@pytest.mark.slow
def test_progress_is_shown_on_a_terminal_only(served: Commands) -> None:
    assert served("call", "works", "n=3") == (0, b"3\n", "")
    assert "step 2" in served.on_terminal("call", "works", "n=3", stdout=False)


@pytest.mark.slow
def test_interrupt_cancels_a_stream(served: Commands, tmp_path: Path) -> None:
    told = tmp_path / "told"
    subprocess.run(["mkfifo", told], check=True)
    with served.start("call", "endless", f"told={told}") as process, open(told) as telling:
        assert telling.readline() == "begun\n"
        assert process.stdout is not None
        assert process.stdout.read(2) == b"0\n"
        process.send_signal(signal.SIGINT)
        assert telling.readline() == "closed\n"
        process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 130
