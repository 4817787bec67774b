"""What goes to standard output, what to standard error, and how."""

import json
import signal
from typing import Any

import pytest
from commands import Commands

from pronghorn.broker.wire.control import ModuleFailure
from pronghorn.broker.wire.errors import (
    BrokerLostError,
    DeadlineExceededError,
    ErrorDetails,
    InvalidArgumentError,
    NodeError,
    PronghornError,
    WorkerLostError,
)
from pronghorn.client.cli.output import (
    aligned,
    complain,
    error_fields,
    json_line,
    reporting,
    warn,
    write,
)
from pronghorn.client.launch import PoolStartError

RAISED = NodeError(
    "nothing left", ErrorDetails(node="shop.sell", exception="shop.Empty", traceback="Traceback…\n")
)


def test_error_for_people_has_type_message_and_remote_traceback(
    capsys: pytest.CaptureFixture[str],
) -> None:
    complain(RAISED, as_json=False)
    shown = capsys.readouterr()
    assert shown.err == "error: shop.Empty: nothing left\n\nRemote traceback:\nTraceback…\n"
    assert shown.out == ""


def test_error_for_programs_is_one_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    complain(RAISED, as_json=True)
    assert json.loads(capsys.readouterr().err) == {
        "error": {
            "code": "NODE_ERROR",
            "message": "nothing left",
            "outcome": "executed",
            "node": "shop.sell",
            "exception": "shop.Empty",
            "traceback": "Traceback…\n",
        }
    }


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (DeadlineExceededError("late", ErrorDetails(outcome="not_started")), "did not run"),
        (DeadlineExceededError("late", ErrorDetails(outcome="maybe_executed")), "may have run"),
        (WorkerLostError("dead", ErrorDetails(outcome="executed")), "the node ran"),
        (WorkerLostError("dead"), "may have run"),
        (BrokerLostError("gone", ErrorDetails(outcome="maybe_executed")), "may have run"),
    ],
)
def test_people_are_told_whether_the_node_ran(
    error: PronghornError, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    complain(error, as_json=False)
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    "error",
    [
        InvalidArgumentError("wrong"),
        BrokerLostError("gone", ErrorDetails(outcome="not_started")),
        BrokerLostError("gone"),
    ],
)
def test_what_goes_without_saying_is_not_said(
    error: PronghornError, capsys: pytest.CaptureFixture[str]
) -> None:
    complain(error, as_json=False)
    assert capsys.readouterr().err == f"error: {error.message}\n"


def test_notes_say_what_an_error_is_about(capsys: pytest.CaptureFixture[str]) -> None:
    error = InvalidArgumentError("wrong")
    error.add_note("item 3")
    complain(error, as_json=False)
    assert capsys.readouterr().err == "error: item 3: wrong\n"


def test_modules_that_failed_are_told_to_programs_too() -> None:
    fields = error_fields(PoolStartError("none", [ModuleFailure("shop", "Traceback…")]))
    assert fields["failures"] == [{"module": "shop", "reason": "Traceback…"}]


def test_bytes_of_the_command_line_that_are_no_text_can_be_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    warn("\udcff")
    assert capsys.readouterr().err == "warning: \\udcff\n"
    complain(InvalidArgumentError("\udcff"), as_json=True)
    assert json.loads(capsys.readouterr().err)["error"]["message"] == "\\udcff"


def test_result_is_one_line_of_json() -> None:
    assert json_line({"a": [1, "ü", b"\x00"]}, "it") == '{"a":[1,"ü","AA=="]}\n'.encode()


@pytest.mark.parametrize("result", [{(1, 2): 3}, "\ud800"])
def test_result_that_json_can_not_hold_is_the_nodes_error(result: Any) -> None:
    with pytest.raises(NodeError, match=r"^shop\.sell: its result can't be written as JSON"):
        json_line(result, "shop.sell")


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    rows = [("Name", "Signature", "Doc"), ("add", "add(a: int)", ""), ("x" * 200, "", "it")]
    lines = aligned(rows).splitlines()
    assert [line.index(word) for line, word in zip(lines[:2], ("Sig", "add("), strict=True)] == [
        202,
        202,
    ]
    assert lines[2] == "x" * 200 + " " * 15 + "it"
    assert lines[1] == lines[1].rstrip()


def test_text_is_written_as_utf_8(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    write("ü")
    write(b"\xff")
    assert capsysbinary.readouterr().out == b"\xc3\xbc\xff"


@pytest.mark.parametrize(
    ("raised", "status"),
    [
        (NodeError("why"), 1),
        (InvalidArgumentError("why"), 2),
        (BrokerLostError("why"), 3),
        (DeadlineExceededError("why"), 4),
        (WorkerLostError("why"), 5),
        (KeyboardInterrupt(), 130),
    ],
)
def test_error_becomes_an_exit_code(raised: BaseException, status: int) -> None:
    with pytest.raises(SystemExit) as ended, reporting(as_json=False):
        raise raised
    assert ended.value.code == status


def test_defect_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError), reporting(as_json=False):
        raise ZeroDivisionError


def test_interrupt_raises_while_a_command_works_and_only_then() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        with reporting(as_json=False):
            assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGINT, before)


def test_interrupt_that_was_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with reporting(as_json=False):
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.slow
def test_full_disk_is_told(commands: Commands) -> None:
    with open("/dev/full", "wb") as full:
        done = commands("version", stdout=full.fileno())
    assert done.status == 5
    assert done.errors == "error: input or output failed: [Errno 28] No space left on device\n"


@pytest.mark.slow
def test_errors_are_coloured_on_a_terminal_only(commands: Commands) -> None:
    assert commands.on_terminal("ping").startswith("\x1b[31merror:\x1b[0m no broker at")
    assert commands("ping").errors.startswith("error: no broker at")
