"""Mirror of worker/flow/sharing.py: which values a run has to share, and for how long."""

import asyncio
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from lent import LONG, ROWS, shapes

from pronghorn.broker.wire.errors import InvalidArgumentError
from pronghorn.broker.wire.references import EXT_REFERENCE, reference_of
from pronghorn.broker.wire.values import NO_BUFFERS, encode_inline
from pronghorn.worker import node
from pronghorn.worker.dispatch import DispatchTable
from pronghorn.worker.flow.calls import call, call_async, call_items
from pronghorn.worker.flow.events import ItemToRun
from pronghorn.worker.flow.lending import Lending
from pronghorn.worker.flow.sharing import (
    LEAST_ALONE_BYTES,
    LEAST_BYTES,
    Sharing,
    referring,
)
from pronghorn.worker.shared import SharedFolder


@node
def spoil(rows: list[Any], n: int) -> int:
    rows.append(n)
    return len(rows)


@node
def read(rows: Sequence[int], n: int) -> int:
    return id(rows)


@node
def text(text: str, n: int) -> int:
    return id(text)


@node
async def later(rows: Sequence[int], n: int = 0) -> int:
    return id(rows)


@node
def deep(payload: Mapping[str, Any]) -> int:
    return len(payload["rows"])


TABLE = DispatchTable.of({f"n.{one.__name__}": one for one in (spoil, read, text, later, deep)})


@pytest.fixture
def sharing(tmp_path: Path) -> Sharing:
    return Sharing(SharedFolder(str(tmp_path)))


def test_without_a_folder_or_room_values_go_as_they_are(tmp_path: Path) -> None:
    for folder in (None, SharedFolder(str(tmp_path / "gone"))):
        sharing = Sharing(folder)
        for _ in range(2):
            with Lending(sharing, [{"a": ROWS}, {"a": ROWS}]) as lending:
                assert lending.inputs == [{"a": ROWS}] * 2
        sharing.end()


def test_the_ones_used_longest_ago_go_when_there_are_too_many(tmp_path: Path) -> None:
    sharing = Sharing(SharedFolder(str(tmp_path)), count_max=2)
    values = [list(ROWS) for _ in range(4)]

    def lend(number: int) -> Lending:
        return Lending(sharing, [{"a": values[number]}] * 2)

    with lend(0), lend(1), lend(2):
        assert len(list(tmp_path.iterdir())) == 3  # in use
    assert len(list(tmp_path.iterdir())) == 2
    with lend(1):  # known
        before = set(tmp_path.iterdir())
    with lend(3) as lending:
        assert shapes(lending) == [{"a": True}] * 2
    assert len(set(tmp_path.iterdir()) & before) == 1
    sharing.end()
    assert list(tmp_path.iterdir()) == []


def test_the_same_by_their_size(tmp_path: Path) -> None:
    size = len(encode_inline(ROWS))
    sharing = Sharing(SharedFolder(str(tmp_path)), bytes_max=2 * size)
    for _ in range(5):
        rows = list(ROWS)
        with Lending(sharing, [{"a": rows}] * 2):
            pass
        assert len(list(tmp_path.iterdir())) <= 2
    sharing.end()


def test_values_that_the_run_has_let_go_of_are_dropped(tmp_path: Path) -> None:
    sharing = Sharing(SharedFolder(str(tmp_path)))
    context: dict[str, Any] = {"kept": list(LONG), "deep": {"rows": list(LONG)}}
    for _ in range(5):
        context["v"] = list(LONG)
        given = {"v": context["v"], "kept": context["kept"], "deep": {**context["deep"]}}
        with Lending(sharing, [given]) as lending:
            assert lending.look(LEAST_ALONE_BYTES)  # beside what is known
            assert shapes(lending) == [{"v": True, "kept": True, "deep": {"rows": True}}]
        del given, lending
        assert len(list(tmp_path.iterdir())) <= 4
    sharing.end()


def test_values_that_tasks_here_pass_on_are_not_held() -> None:
    sharing, spoil = Sharing(), TABLE.lookup("spoil")
    given: dict[str, Any] = {"n": 1}
    for _ in range(50):
        given["rows"] = list(LONG)
        assert call(spoil, given, None, sharing).status == "succeeded"
    assert not sharing.is_used
    assert len(sharing._seen) <= 2
    kept = [{"rows": list(LONG), "n": 1} for _ in range(40)]
    for _ in range(2):
        for each in kept:
            assert call(spoil, each, None, sharing).status == "succeeded"
    sharing.end()


def test_nothing_is_written_when_the_run_has_ended(sharing: Sharing, tmp_path: Path) -> None:
    sharing.end()
    with Lending(sharing, [{"a": ROWS}] * 2) as lending:
        assert not lending.refers
    assert list(tmp_path.iterdir()) == []
    sharing.end()


def items(action: str, given: list[dict[str, Any]]) -> list[ItemToRun]:
    return [ItemToRun(index, action, each) for index, each in enumerate(given)]


def results(ended: Sequence[Any]) -> list[Any]:
    assert {each.status for each in ended} == {"succeeded"}, ended
    return [each.result for each in ended]


@pytest.mark.parametrize("is_away", [True, False])
def test_items_that_run_here_share_what_they_can_t_change(sharing: Sharing, is_away: bool) -> None:
    given = [{"rows": ROWS, "n": n} for n in range(5)]
    if is_away:  # then the value is in a file already
        with Lending(sharing, given):
            pass
    ended = call_items(TABLE.lookup("read"), items("read", given), 0, float("inf"), sharing)
    assert len(set(results(ended))) == 1
    ended = call_items(TABLE.lookup("spoil"), items("spoil", given), 0, float("inf"), sharing)
    assert results(ended) == [len(ROWS) + 1] * 5
    assert len(ROWS) == LEAST_BYTES
    mixed = [*given, {"rows": [1], "n": 1}, {"rows": "x", "n": 1}, {"rows": ROWS, "n": 2}]
    ended = call_items(TABLE.lookup("spoil"), items("spoil", mixed), 3, float("inf"), sharing)
    assert [each.status for each in ended] == [
        *("succeeded", "succeeded", "succeeded", "failed", "succeeded")
    ]
    assert "Expected `array`, got `str` - at `$.rows`" in ended[3].message
    sharing.end()


def test_tasks_that_run_here_share_it_too(sharing: Sharing) -> None:
    read, words = TABLE.lookup("read"), "x" * LEAST_ALONE_BYTES
    assert call(read, {"rows": LONG, "n": 1}, None, sharing).status == "succeeded"
    assert not sharing.is_used  # it may have been the last one that is given it
    first = call(read, {"rows": LONG, "n": 1}, None, sharing)
    assert sharing.is_used
    assert call(read, {"rows": LONG, "n": 2}, None, sharing) == first
    assert call(TABLE.lookup("spoil"), {"rows": LONG, "n": 1}, None, sharing).result == 65537
    entry = TABLE.lookup("text")
    first = call(entry, {"text": words, "n": 1}, None, sharing)
    assert call(entry, {"text": words, "n": 2}, None, sharing) == first
    assert call(read, {"rows": [1], "n": 2}, None, sharing).status == "succeeded"
    assert call(read, None, None, sharing).status == "failed"
    nested = {"payload": {"rows": LONG, "n": 1}}
    assert call(TABLE.lookup("deep"), nested, None, sharing).result == len(LONG)
    whole = {"payload": {str(number): 1 for number in range(20_000)} | {"rows": [1]}}
    assert call(TABLE.lookup("deep"), whole, None, sharing).result == 1
    sharing.end()
    assert call(read, {"rows": LONG, "n": 1}, None, sharing).status == "succeeded"


async def test_so_do_those_in_threads_and_on_the_loop(sharing: Sharing) -> None:
    entry = TABLE.lookup("later")
    made = [await call_async(entry, {"rows": LONG, "n": n}, None, sharing) for n in range(4)]
    assert len({each.result for each in made[1:]}) == 1
    spoil = TABLE.lookup("spoil")
    ended = await asyncio.gather(
        *(asyncio.to_thread(call, spoil, {"rows": LONG, "n": n}, None, sharing) for n in range(20))
    )
    assert {each.result for each in ended} == {len(LONG) + 1}
    sharing.end()


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    """Make calls in threads that begin together."""
    with ThreadPoolExecutor(len(calls)) as threads:
        begin = threading.Barrier(len(calls))
        return list(threads.map(lambda each: (begin.wait(), each())[1], calls))


@pytest.fixture
def _switching() -> Iterator[None]:
    """Have threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("_switching")
def test_threads_that_meet_a_value_at_once_have_it_by_one_reference(
    sharing: Sharing, tmp_path: Path
) -> None:
    rows = list(range(10 * LEAST_ALONE_BYTES))
    given = {"rows": rows, "n": 1}
    found = at_once(*[partial(sharing.common, given, given, away=False)] * 4)
    assert len({large.reference for ((_, _, large),) in found}) == 1
    for places in found:
        sharing.release(places)
    sharing.release(sharing.common(given, given, away=True))
    assert len(list(tmp_path.iterdir())) == 1
    sharing.end()
    assert list(tmp_path.iterdir()) == []


def test_references_of_others_lead_nowhere_here(sharing: Sharing) -> None:
    reference = reference_of(EXT_REFERENCE, bytes(28))
    assert reference is not None
    with pytest.raises(InvalidArgumentError, match="leads nowhere"):
        TABLE.lookup("read").decode_referred(
            b"\x81\xa4rows" + reference.encode(), NO_BUFFERS, sharing.values
        )


def test_inputs_are_not_changed() -> None:
    given = {"p": {"rows": ROWS}}
    sharing = Sharing()
    places = sharing.common(given, {"p": {"rows": ROWS}}, away=False)
    assert referring(given, places) is not given
    assert given == {"p": {"rows": ROWS}}
    assert referring({"p": 1}, places) == {"p": 1}
    sharing.release(places)
    sharing.end()
