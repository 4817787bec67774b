"""``pronghorn map`` against a real broker."""

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import TIMEOUT_S, Commands

from pronghorn.broker.wire.errors import (
    DeadlineExceededError,
    InvalidArgumentError,
    NodeError,
    NotFoundError,
    PronghornError,
    WorkerLostError,
)
from pronghorn.client.cli.mapping import MapOptions, map_lines

Mapper = Callable[..., list[Any]]


@pytest.fixture
def mapper(served: Commands, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> Mapper:
    """Maps within this process what a command would map, and returns what it prints."""

    def run(
        node: str,
        items: str,
        *,
        ordered: bool = True,
        keep_going: bool = False,
        timeout_s: float | None = None,
        chunk_size: int | None = None,
    ) -> list[Any]:
        (tmp_path / "items.jsonl").write_text(items)
        options = MapOptions(
            ordered=ordered, keep_going=keep_going, timeout_s=timeout_s, chunk_size=chunk_size
        )
        map_lines(node, str(tmp_path / "items.jsonl"), served.endpoint, options, quiet=True)
        return printed(capsysbinary)

    return run


def printed(capture: pytest.CaptureFixture[bytes]) -> list[Any]:
    return [json.loads(line) for line in capture.readouterr().out.splitlines()]


def test_results_are_in_the_order_of_the_items(mapper: Mapper) -> None:
    items = "".join(f'{{"a":{number},"b":1}}\n' for number in range(5000))
    assert mapper("add", items) == list(range(1, 5001))


def test_unordered_results_are_all_there(mapper: Mapper) -> None:
    items = "".join(f"[{number},1]\n" for number in range(100))
    assert sorted(mapper("add", items, ordered=False, chunk_size=3)) == list(range(1, 101))


def test_first_failure_ends_it_and_says_which_item(
    mapper: Mapper, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    with pytest.raises(NodeError) as caught:
        mapper("divide", "[1]\n[1]\n[0]\n[1]\n")
    assert printed(capsysbinary) == [1, 1]
    assert caught.value.__notes__ == ["item 3"]
    assert caught.value.details.item == 2
    assert caught.value.exception == "ZeroDivisionError"


def test_line_that_is_no_params_ends_it_after_the_results_before_it(
    mapper: Mapper, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    with pytest.raises(InvalidArgumentError, match="line 2: params are a JSON object"):
        mapper("add", "[1,2]\n5\n[1,2]\n")
    assert printed(capsysbinary) == [3]


def test_keep_going_prints_errors_in_their_places(
    mapper: Mapper, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    with pytest.raises(SystemExit) as ended:
        mapper("divide", '[1]\n[0]\nnope\n{"a":"x"}\n[-1]\n', keep_going=True)
    assert ended.value.code == 1
    results = printed(capsysbinary)
    codes = [one["error"]["code"] if isinstance(one, dict) else one for one in results]
    assert codes == [1, "NODE_ERROR", "INVALID_ARGUMENT", "INVALID_ARGUMENT", -1]
    assert [one["error"]["item"] for one in results[1:4]] == [1, 2, 3]


def test_unordered_errors_do_not_claim_a_place(
    mapper: Mapper, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    with pytest.raises(SystemExit):
        mapper("divide", "[1]\n[0]\n", keep_going=True, ordered=False)
    (error,) = (one["error"] for one in printed(capsysbinary) if isinstance(one, dict))
    assert "item" not in error


@pytest.mark.parametrize(
    ("node", "items", "options", "error", "told"),
    [
        ("ad", "[1]", {}, NotFoundError, "no node named 'ad'"),
        ("by_pair", "[]", {}, NodeError, "can't be written as JSON"),
        ("linger", '["/dev/null"]', {"timeout_s": 0.05}, DeadlineExceededError, "deadline"),
        ("die", "[1]", {}, WorkerLostError, "exit status 1"),
    ],
)
def test_failure_prints_no_result(
    node: str,
    items: str,
    options: dict[str, Any],
    error: type[PronghornError],
    told: str,
    mapper: Mapper,
    capsysbinary: pytest.CaptureFixture[bytes],
) -> None:
    with pytest.raises(error, match=told):
        mapper(node, items, **options)
    assert printed(capsysbinary) == []


@pytest.mark.slow
def test_what_comes_in_goes_out(served: Commands) -> None:
    assert served("map", "add", stdin="[1,2]\n[3,4]") == (0, b"3\n7\n", "")
    assert served("map", "add") == (0, b"", "")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (["divide"], 1, "error: item 2: ZeroDivisionError: "),
        (["divide", "--json"], 1, '"code":"NODE_ERROR"'),
        (["divide", "--keep-going"], 1, "warning: 1 of 3 items failed\n"),
        (["add", "nowhere.jsonl"], 2, "can't read nowhere.jsonl: No such file"),
        (["add", "."], 2, "can't read .: Is a directory"),
        (["add", "--name", "nobody"], 3, "no broker at ipc://"),
    ],
)
def test_failure_has_its_exit_code_and_is_told(
    arguments: list[str], status: int, told: str, served: Commands
) -> None:
    done = served("map", *arguments, stdin="[1]\n[0]\n[1]")
    assert done.status == status
    assert told in done.errors


@pytest.mark.slow
def test_results_come_as_soon_as_the_input_runs_dry(served: Commands) -> None:
    with served.start("map", "greet") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for who in ("Ada", "Grace"):
            process.stdin.write(f'{{"who":"{who}"}}\n'.encode())
            assert process.stdout.readline() == f'"Hello, {who}."\n'.encode()
        assert process.communicate(timeout=TIMEOUT_S) == (b"", b"")
    assert process.returncode == 0


@pytest.mark.slow
def test_lost_broker_ends_it_even_if_it_is_to_keep_going(commands: Commands) -> None:
    with (
        commands.serving("nodes.py", "--workers", "1") as serving,
        commands.start("map", "add", "--keep-going") as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"[1,2]\n")
        assert process.stdout.readline() == b"3\n"
        serving.process.send_signal(signal.SIGTERM)
        serving.process.wait(TIMEOUT_S)
        output, errors = process.communicate(b"[1,2]\n", timeout=TIMEOUT_S)
    assert (process.returncode, output) == (3, b"")
    assert errors.startswith(b"error: ")


@pytest.mark.slow
def test_interrupt_ends_it_quietly(served: Commands) -> None:
    with served.start("map", "add") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"[1,2]\n")
        assert process.stdout.readline() == b"3\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(TIMEOUT_S) == 130
        assert process.communicate() == (b"", b"")


@pytest.mark.slow
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


@pytest.mark.slow
def test_progress_is_shown_on_a_terminal(served: Commands, tmp_path: Path) -> None:
    items = tmp_path / "items.jsonl"
    items.write_text("[1,2]\n" * 1000)
    assert "1,000 items" in served.on_terminal("map", "add", str(items), stdout=False)
    assert served.on_terminal("map", "add", str(items), "--json", stdout=False) == ""
    assert "items" not in served.on_terminal("map", "add", str(items))
