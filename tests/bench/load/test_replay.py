"""Mirror of bench/load/replay.py."""

import json

import pytest
from msgspec import Raw
from msgspec.msgpack import encode

from pronghorn.bench.load.mix import PlannedCall
from pronghorn.bench.load.plan import Plan
from pronghorn.bench.load.replay import SAMPLES, Bodies, Trace, replayed, survey
from pronghorn.broker.wire.errors import InvalidArgumentError
from pronghorn.broker.wire.link import wrap_json
from pronghorn.broker.wire.trace import (
    PARAMS_JSON,
    PARAMS_MSGPACK,
    TRACE_FORMAT,
    Arrival,
    Lost,
    TraceRecord,
    TraceStart,
    pack_record,
)

MS = 1_000_000


def start(epoch: str = "e1") -> TraceStart:
    return TraceStart(TRACE_FORMAT, epoch, 0, 0)


def call(at_ms: float, client: int = 1, node: str = "shop.add", params: object = (1, 2)) -> Arrival:
    return Arrival(round(at_ms * MS), client, node, 20, -1, PARAMS_MSGPACK, Raw(encode(params)))


def content(*records: TraceRecord) -> list[bytes]:
    return [b"".join(map(pack_record, records))]


def planned(
    trace: list[bytes], plan: Plan, process: int = 0, instead: Bodies | None = None
) -> list[PlannedCall]:
    nodes = [kind.node for kind in survey(trace, "t", instead).kinds]
    return list(replayed(trace, "t", plan, nodes, process, instead))


def found(*records: TraceRecord) -> Trace:
    return survey(content(start(), *records), "t")


def test_calls_come_at_their_distances_by_speed() -> None:
    trace = content(start(), call(1000), call(1010), call(1300, params=[3]))
    plan = survey(trace, "t").plan(2.0)
    assert [(each.at_ns / MS, each.body) for each in planned(trace, plan)] == [
        (0, encode([1, 2])),
        (5, encode([1, 2])),
        (150, encode([3])),
    ]
    assert plan.duration_s == 0.151
    assert plan.profile == "replay"


def test_each_connection_keeps_its_calls_also_over_several_processes() -> None:
    records = [call(number, client) for number, client in enumerate((1, 2, 3, 1, 2, 3))]
    trace = content(start(), *records, start("e2"), call(9, 1))
    plan = survey(trace, "t").plan(1.0, processes=2)
    assert plan.clients == 4  # that of the second broker is another
    first, second = planned(trace, plan, 0), planned(trace, plan, 1)
    assert [(each.at_ns / MS, each.lane) for each in first] == [(0, 0), (2, 1), (3, 0), (5, 1)]
    assert [(each.at_ns / MS, each.lane) for each in second] == [(1, 0), (4, 0), (9, 1)]


def test_nodes_are_kinds_with_a_sample_of_what_they_send() -> None:
    many = [call(number, params=[number]) for number in range(3 * SAMPLES)]
    trace = found(*many, call(400, node="shop.other"))
    add, other = trace.kinds
    assert (add.node, add.weight, len(add.bodies)) == ("shop.add", 3 * SAMPLES, SAMPLES)
    assert len(set(add.bodies)) == SAMPLES
    assert max(add.bodies) > encode([SAMPLES])  # not the first ones alone
    assert (other.weight, other.bodies) == (1, (encode([1, 2]),))
    assert (trace.calls, trace.clients, trace.seconds) == (3 * SAMPLES + 1, 1, 0.4)


def test_other_traces_have_other_digests() -> None:
    one, same, other = (found(call(0), call(at)).kinds[0].digest() for at in (1, 1, 2))
    assert one == same != other


def test_chunks_are_sent_as_such_and_tried_by_their_first_item() -> None:
    items = encode([[1, 2], [3, 4]])
    trace = content(start(), Arrival(0, 1, "shop.add", 30, 2, PARAMS_MSGPACK, Raw(items)))
    (sent,) = planned(trace, survey(trace, "t").plan(1.0))
    assert (sent.body, sent.is_chunk) == (items, True)
    assert survey(trace, "t").kinds[0].bodies == (encode([1, 2]),)


def test_json_is_sent_as_msgpack() -> None:
    text = wrap_json(json.dumps({"a": 1}).encode())
    trace = content(start(), Arrival(0, 1, "shop.add", 30, -1, PARAMS_JSON, text))
    (sent,) = planned(trace, survey(trace, "t").plan(1.0))
    assert sent.body == encode({"a": 1})


def test_what_was_not_recorded_is_counted() -> None:
    trace = found(call(0), Lost(7), Arrival(1, 1, "shop.add", 30))
    assert (trace.calls, trace.left_out, trace.lost) == (1, 1, 7)


def test_parameters_may_be_given_instead() -> None:
    trace = content(start(), *(Arrival(at * MS, 1, "shop.add", 30) for at in range(3)))
    instead = {"add": (encode([5]), encode([6]))}
    assert survey(trace, "t", instead).left_out == 0
    plan = survey(trace, "t", instead).plan(1.0)
    assert [each.body for each in planned(trace, plan, 0, instead)] == [
        encode([5]),
        encode([6]),
        encode([5]),
    ]


def test_a_duration_ends_it_early() -> None:
    trace = content(start(), *(call(at) for at in range(0, 1000, 10)))
    plan = survey(trace, "t").plan(1.0, duration_s=0.3, warmup_s=0.1)
    assert len(planned(trace, plan)) == 40


def test_times_that_go_back_are_not_followed() -> None:
    trace = content(start(), call(10), call(5), call(20))
    plan = survey(trace, "t").plan(1.0)
    assert [each.at_ns / MS for each in planned(trace, plan)] == [0, 0, 10]


@pytest.mark.parametrize("speed", [0, -1, float("nan"), 1e9])
def test_a_speed_that_is_none_is_refused(speed: float) -> None:
    with pytest.raises(InvalidArgumentError, match=r"speed .*: expected"):
        found(call(0)).plan(speed)


def test_a_trace_without_calls_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match=r"no call that can be replayed$"):
        found()
    with pytest.raises(InvalidArgumentError, match="parameters of its 1 were not recorded"):
        found(Arrival(1, 1, "shop.add", 30))
