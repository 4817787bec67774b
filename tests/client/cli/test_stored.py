"""Mirror of client/cli/stored.py; what needs a process of its own is in test_runs.py."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from journal_records import FIRST, Story, accepted, ended, value
from journal_stores import EPOCH, NOW_NS, commit, ledger
from msgspec import Raw

from pronghorn.broker.journal.reading import Value
from pronghorn.broker.journal.record import AttemptLost, Ended, Started, TaskDone
from pronghorn.broker.journal.store import Store, View
from pronghorn.broker.wire.errors import (
    NO_DETAILS,
    InvalidArgumentError,
    JournalError,
    NotFoundError,
    WorkerLostError,
)
from pronghorn.broker.wire.link import CODEC_JSON, wrap_json
from pronghorn.broker.wire.messages import ItemFailure
from pronghorn.broker.wire.values import encode_value
from pronghorn.client.cli.stored import (
    all_events,
    decoded,
    event_fields,
    folder_of,
    id_of,
    result_of,
    run_fields,
    shown,
    state_of,
)


@pytest.fixture
def story() -> Story:
    story = Story()
    run = story.accept(key="order-17", value=value({"a": 1}))
    story.end(run, value=value({"sum": 3}), run_ns=1_500_000)
    failed = story.accept()
    story.add(AttemptLost(failed, failed, failed, "signal 11 (SIGSEGV)", NOW_NS))
    story.add(Started(failed, story.sequence, 2, NOW_NS))
    story.end(failed, "failed")
    mapped = story.accept(items=4, value=value([[1], [2], [3], [4]]))
    failure = ItemFailure(1, "NODE_ERROR", "odd", NO_DETAILS)
    story.add(TaskDone(mapped, mapped, mapped, 5, "", 2, 2, value([6, None]), failures=(failure,)))
    story.add(TaskDone(mapped, story.sequence, mapped, 5, "", 0, 2, value(["a", "b"])))
    story.end(mapped, value=Raw(b"\xc0"))
    story.accept()
    return story


@pytest.fixture
def view(tmp_path: Path, story: Story) -> Iterator[View]:
    with ledger(tmp_path) as books:
        books.begin_epoch(EPOCH, NOW_NS)
        commit(books, story.records)
    store = Store.open_to_read(tmp_path)
    with store.view() as seen:
        yield seen
    store.close()


def test_the_folder_is_the_named_one_or_the_brokers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert folder_of("/data", None) == Path("/data")
    assert folder_of(None, "shop") == tmp_path / "pronghorn" / "shop"
    assert folder_of(None, None) == tmp_path / "pronghorn" / "default"
    with pytest.raises(InvalidArgumentError, match="not both"):
        folder_of("/data", "shop")


def test_runs_are_found_by_their_id_and_by_the_number_in_it(view: View, story: Story) -> None:
    for run, state in story.states.items():
        run_id = id_of(view, state)
        assert state_of(view, run_id) == state_of(view, run_id[:16]) == state
        assert run_id.startswith(f"{run:016x}")
        with pytest.raises(NotFoundError, match="there is no run"):
            state_of(view, run_id[:16] + "0" * 32)
    with pytest.raises(NotFoundError, match="kept no longer"):
        state_of(view, "0" * 16)
    for wrong in ("", "17", "x" * 16, "x" * 48):
        with pytest.raises(InvalidArgumentError, match="is no id of a run: it has 48 hex digits"):
            state_of(view, wrong)


def test_results_failures_and_what_is_open(view: View, story: Story) -> None:
    call, failed, mapped, still_open = story.states.values()
    assert result_of(view, call) == {"sum": 3}
    with pytest.raises(WorkerLostError, match="the worker died"):
        result_of(view, failed)
    assert result_of(view, mapped) == [
        "a",
        "b",
        6,
        {"error": {"code": "NODE_ERROR", "message": "odd"}},
    ]
    with pytest.raises(JournalError, match="is open: it has no result yet"):
        result_of(view, still_open)


def test_what_json_tells_of_a_run(view: View, story: Story) -> None:
    call, failed, mapped, _ = (run_fields(view, state) for state in story.states.values())
    assert (call["status"], call["key"], call["run_ms"]) == ("done", "order-17", 1.5)
    assert "items" not in call
    assert (failed["code"], failed["attempt"], failed["deaths"]) == ("WORKER_LOST", 2, 1)
    assert (mapped["items"], mapped["items_done"]) == (4, 4)


def test_what_json_tells_of_events(view: View, story: Story) -> None:
    _, failed, *_ = story.states.values()
    told = [event_fields(view, *event) for event in all_events(view, failed)]
    assert [each["event"] for each in told] == ["Accepted", "AttemptLost", "Started", "Ended"]
    assert told[1]["cause"] == "signal 11 (SIGSEGV)"
    assert told[3]["failure"] == ["WORKER_LOST", "the worker died", {}]
    assert told[0]["value"] is None
    assert "secret" not in told[0]
    assert [each["event"] for each in told] == [
        event_fields(view, *event)["event"] for event in all_events(view, failed, start=FIRST)
    ]


def test_values_are_decoded_by_their_codec() -> None:
    assert decoded(Value(wrap_json(b'{"a": 1}'), (), CODEC_JSON)) == {"a": 1}
    raw, buffers = encode_value(b"x" * 100_000)
    assert decoded(Value(Raw(raw), tuple(bytes(each) for each in buffers), 0)) == b"x" * 100_000


@pytest.mark.parametrize("content", [b"\xc1", b"\x81\x92\x01\x02\x03"])
def test_values_that_json_can_not_hold_are_shown_in_base64(content: bytes) -> None:
    assert list(shown(Value(Raw(content), (), 0))) == ["msgpack"]


def test_records_of_tests_are_what_they_seem() -> None:
    story = Story()
    assert isinstance(ended(story.states[story.accept()]), Ended)
    assert accepted().run == FIRST
