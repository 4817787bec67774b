"""``pronghorn runs``: on a folder, as processes of their own."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from commands import Commands
from journal_stores import filled

from pronghorn.bench.subjects.journal import journal
from pronghorn.broker.journal.place import DATA_NAME
from pronghorn.broker.wire.errors import InvalidArgumentError
from pronghorn.client.cli.runs import parse_filter

DAY_NS = 24 * 3600 * 10**9


@pytest.fixture
def data(tmp_path: Path) -> str:
    filled(tmp_path / "journal", records=150)
    return str(tmp_path / "journal")


def listed(commands: Commands, data: str, *arguments: str) -> Any:
    done = commands("runs", "list", "--data", data, "--json", *arguments)
    assert (done.status, done.errors) == (0, "")
    return json.loads(done.output)


def filtered(**options: Any) -> Any:
    given = {"statuses": (), "node": None, "owner": None, "since": None, "until": None}
    return parse_filter(**(given | options))


def test_filters_are_read_from_ages_and_times() -> None:
    chosen = filtered(statuses=["open", "done"], node="shop.sell", since="2d", until="1.5h")
    assert chosen.statuses == ("open", "done")
    now_ns = time.time_ns()
    assert abs(chosen.since_ns - (now_ns - 2 * DAY_NS)) < 10**10
    assert abs(chosen.until_ns - (now_ns - DAY_NS // 16)) < 10**10
    assert filtered(since="2026-01-31T12:00+00:00").since_ns == 1_769_860_800 * 10**9
    assert filtered(since="2026-01-31").since_ns is not None


@pytest.mark.parametrize("text", ["", "2", "2w", "yesterday", "-1d", "9999-99-99"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match=r"--since .*: expected an age such as"):
        filtered(since=text)


def test_what_is_no_status_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="--status ended: expected one of open, done"):
        filtered(statuses=["ended"])


@pytest.mark.slow
def test_runs_are_listed_shown_and_filtered(commands: Commands, data: str) -> None:
    every = listed(commands, data)
    assert len(every) > 20
    assert [run["id"] for run in every] == sorted((run["id"] for run in every), reverse=True)
    failed = listed(commands, data, "--status", "failed", "--status", "poisoned", "--limit", "5")
    assert 0 < len(failed) <= 5
    assert {run["status"] for run in failed} <= {"failed", "poisoned"}
    assert listed(commands, data, "--node", "shop.buy") == []
    heading, first, *_ = commands("runs", "list", "--data", data).output.splitlines()
    assert heading.split() == ["Run", "Node", "Status", "Accepted", "Took", "Key"]
    assert first.startswith(every[0]["id"])
    assert "───" in commands.on_terminal("runs", "list", "--data", data)


@pytest.mark.slow
def test_one_run_is_shown_with_its_result_and_events(commands: Commands, data: str) -> None:
    done = listed(commands, data, "--status", "done")[0]["id"]
    shown = commands("runs", "show", done, "--data", data)
    assert f"id            {done}\n" in shown.output
    fields = json.loads(commands("runs", "show", done[:16], "--data", data, "--json").output)
    assert fields["id"] == done
    assert fields["params"]["a"] >= 0
    result = commands("runs", "result", done, "--data", data)
    assert result.output.rstrip("\n") == (fields["result"] or result.output.rstrip("\n"))
    events = commands("runs", "events", done, "--data", data, "--json").output.splitlines()
    told = [json.loads(line) for line in events]
    assert (told[0]["event"], told[-1]["event"]) == ("Accepted", "Ended")
    assert len(told) == fields["records"]
    last = str(told[-1]["sequence"])
    rest = commands("runs", "events", done, "--data", data, "--from", last)
    assert rest.output.splitlines()[0].split() == ["Sequence", "At", "Event", "What"]
    assert rest.output.splitlines()[1].startswith(last)


@pytest.mark.slow
def test_a_run_fails_as_it_did_and_an_open_one_has_no_result(commands: Commands, data: str) -> None:
    failed = listed(commands, data, "--status", "failed")[0]["id"]
    result = commands("runs", "result", failed, "--data", data, "--json")
    assert (result.status, result.output) == (5, "")
    assert json.loads(result.errors)["error"]["code"] == "WORKER_LOST"
    still_open = listed(commands, data, "--status", "open")[0]["id"]
    result = commands("runs", "result", still_open, "--data", data)
    assert result.status == 5
    assert "is open" in result.errors


@pytest.mark.slow
def test_runs_are_read_while_somebody_writes_and_not_removed(commands: Commands, data: str) -> None:
    with journal(Path(data), age_s=1e10) as running:
        assert len(listed(commands, data)) > 20
        refused = commands("runs", "prune", "--all", "--data", data)
        assert refused.status == 5
        assert f"in use by process {running.process.pid}" in refused.errors


@pytest.mark.slow
def test_runs_are_removed(commands: Commands, data: str) -> None:
    failed = len(listed(commands, data, "--status", "failed", "--limit", "1000"))
    done = commands("runs", "prune", "--status", "failed", "--data", data)
    assert done.output == f"{failed} runs removed\n"
    done = commands("runs", "prune", "--all", "--data", data, "--json")
    assert json.loads(done.output)["removed"] > 0
    assert {run["status"] for run in listed(commands, data)} == {"open"}
    assert commands("runs", "prune", "--data", data).status == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "status", "code"),
    [
        (["show", "0" * 48], 2, "NOT_FOUND"),
        (["show", "17"], 2, "INVALID_ARGUMENT"),
        (["list", "--status", "ended"], 2, "INVALID_ARGUMENT"),
        (["list", "--name", "shop"], 2, "INVALID_ARGUMENT"),
    ],
)
def test_wrong_input_is_told(
    commands: Commands, data: str, arguments: list[str], status: int, code: str
) -> None:
    done = commands("runs", *arguments, "--data", data, "--json")
    assert (done.status, done.output) == (status, "")
    assert json.loads(done.errors)["error"]["code"] == code


@pytest.mark.slow
def test_a_journal_that_is_not_there_or_damaged_is_told(commands: Commands, data: str) -> None:
    absent = commands("runs", "list", "--data", data + "-gone")
    assert absent.status == 2
    assert "there is no journal in" in absent.errors
    by_name = commands("runs", "list", environment={"XDG_STATE_HOME": data})
    assert f"there is no journal in {data}/pronghorn/default" in by_name.errors
    os.truncate(Path(data) / DATA_NAME, 12288)
    damaged = commands("runs", "list", "--data", data)
    assert damaged.status == 5
    assert f"the journal in {data} is damaged" in damaged.errors
    assert "pronghorn journal verify" in damaged.errors
