"""Everything that reads the bytes of others, as a fuzzer calls it.

A target takes bytes, has one or more decoders read them, and checks what comes of it: only the
errors that they declare may come out, and what was read is read again when it is written. What a
target returns tells kinds of outcomes apart.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

import msgspec
from core_driver import LIMITS, PEER, Driver
from msgspec import Raw
from msgspec.msgpack import encode

from pronghorn.bench.load.record import read_record as read_load_record
from pronghorn.bench.load.replay import survey
from pronghorn.bench.load.scenario import parse_scenario
from pronghorn.broker.egress import Egress
from pronghorn.broker.events import Malformed, Send
from pronghorn.broker.ingress import Ingress, StreamParser
from pronghorn.broker.journal import messages as journal_link
from pronghorn.broker.journal import rows
from pronghorn.broker.journal.errors import DamageError
from pronghorn.broker.journal.record import Record, parse_record, read_record, seal
from pronghorn.broker.wire import control, items, jsonrpc, link, trace
from pronghorn.broker.wire.administration import ORDERS, Order, decode_order
from pronghorn.broker.wire.codec import (
    DECODE_ERRORS,
    bundle_length,
    decode_bundle,
    decode_request,
    peek_buffers,
    peek_id,
    split_bundle,
)
from pronghorn.broker.wire.errors import (
    InvalidArgumentError,
    ProtocolError,
    UnimplementedError,
)
from pronghorn.broker.wire.keys import (
    Entry,
    check_key_name,
    parse_entry,
    parse_private,
    written_entry,
    written_private,
)
from pronghorn.broker.wire.link import MessageReader, StreamError
from pronghorn.broker.wire.messages import BrokerMessage, ClientMessage
from pronghorn.broker.wire.runs import RUN_CALLS, START, OfRun, decode_of_run, decode_start
from pronghorn.broker.wire.traceparent import child_of, well_formed
from pronghorn.broker.wire.values import decode_value, encode_value
from pronghorn.broker.zap import DOMAIN, answer
from pronghorn.client.conformance.vectors import load, unhex
from pronghorn.client.core import ClientCore
from pronghorn.client.inbox import Inbox
from pronghorn.worker import node
from pronghorn.worker.dispatch import DispatchTable
from pronghorn.worker.flow.conductor import Conductor
from pronghorn.worker.flow.context import Context
from pronghorn.worker.flow.document import DefinitionError, check_value
from pronghorn.worker.flow.expressions import EvaluationError, ExpressionError, compile_template
from pronghorn.worker.flow.measure import plain
from pronghorn.worker.flow.nodegraph import from_node_graph
from pronghorn.worker.flow.placeholders import find_keys, to_expressions
from pronghorn.worker.flow.plan import Plan
from pronghorn.worker.flow.rehearsal import CaseError, read_case
from pronghorn.worker.flow.scope import Scope
from pronghorn.worker.flow.snapshot import SnapshotError, freeze, thaw
from pronghorn.worker.flow.validation import validate

from .attacks import JSON_REQUESTS, REQUESTS
from .specimens import specimens

BETWEEN = b"\xc1\xc1"
"""Between the frames of a message in a target's input: msgpack has no use for that byte."""

_GOLDEN = Path(__file__).parents[2] / "golden"


class Target(NamedTuple):
    """One or more decoders of one kind of bytes.

    Attributes:
        name: For people.
        seeds: Gives what mutations begin with.
        read: Has the decoders read; returns what came of it, as a text.
        errors: Those that may come out of it.
    """

    name: str
    seeds: Callable[[], Iterable[bytes]]
    read: Callable[[bytes], object]
    errors: tuple[type[Exception], ...] = ()


# --- what clients say ---------------------------------------------------------------------------


def _requests() -> Iterator[bytes]:
    yield from (unhex([one["frame"]])[0] for one in load("requests"))
    yield from specimens(ClientMessage)
    yield from (frame for one in load("malformed") for frame in unhex(one["frames"]))


def _read_request(frame: bytes) -> object:
    bundle_length(frame)
    peek_id(frame)
    peek_buffers(frame)
    told = [_told(read, frame) for read in (decode_bundle, split_bundle)]
    message = decode_request(frame)
    _check_again(message, decode_request)
    return [type(message).__name__, *told]


def _told(read: Callable[[bytes], object], data: bytes) -> str:
    """Name what has come of it, one of the errors that all of a protocol's decoders may raise."""
    try:
        return type(read(data)).__name__
    except (ProtocolError, UnimplementedError) as error:
        return str(error)


def _check_again(message: object, read: Callable[[bytes], object]) -> None:
    """Check that what was read can be written, and is then read as the same."""
    written = encode(message)
    assert encode(read(written)) == written


def _messages() -> Iterator[bytes]:
    yield from map(_joined, (unhex(one["frames"]) for one in load("messages")))
    yield from map(_joined, (unhex(one["frames"]) for one in load("malformed")))
    yield from (one["text"].encode() for one in load("jsonrpc", "requests"))
    yield _joined(REQUESTS)
    yield _joined(JSON_REQUESTS)


def _joined(frames: Sequence[bytes]) -> bytes:
    return BETWEEN.join(frames)


def _read_message(data: bytes) -> object:
    """One message on the ROUTER, and the same frames on a stream, however they come."""
    frames = data.split(BETWEEN)
    events = Ingress(LIMITS).parse(PEER, frames)
    assert events
    assert _of_stream([frames]) == _of_stream([[one] for one in frames])
    for event in events:
        if isinstance(event, Malformed):
            encode(event.error)
            jsonrpc.encode_error(event.error)
    return [event.error.message if isinstance(event, Malformed) else "" for event in events]


def _of_stream(bursts: Sequence[Sequence[bytes]]) -> object:
    parser = StreamParser(Ingress(LIMITS), PEER, LIMITS)
    try:
        return [event for frames in bursts for event in parser.parse(frames)]
    except StreamError as error:
        return str(error)


def _read_by_core(data: bytes) -> object:
    """A whole broker without its sockets: what it answers to a message, and to the next one."""
    driver, ingress, egress = Driver(), Ingress(LIMITS), Egress(LIMITS)
    driver.start_worker()
    told = []
    for message in data.split(BETWEEN * 2):
        commands = driver.do(*ingress.parse(PEER, message.split(BETWEEN)))
        egress.messages(PEER, [one for one in commands if isinstance(one, Send)])
        told += [type(getattr(one, "message", one)).__name__ for one in commands]
    return told


def _json() -> Iterator[bytes]:
    return (one["text"].encode() for one in load("jsonrpc", "requests"))


def _read_json(frame: bytes) -> object:
    jsonrpc.peek_id(frame)
    is_batch, requests = jsonrpc.decode(frame)
    assert is_batch or len(requests) == 1
    errors = [
        jsonrpc.to_error(one).message for one in requests if isinstance(one, jsonrpc.BadRequest)
    ]
    return [is_batch, *errors]


def _read_builtin(data: bytes) -> object:
    """The params of what the broker answers itself; the first byte tells what is called and how."""
    names = (*ORDERS, *RUN_CALLS, START)
    number, as_json = divmod(data[0] if data else 0, 2)
    name, params = names[number % len(names)], Raw(data[1:])
    if name in ORDERS:
        order = decode_order(name, params, as_json=bool(as_json))
        assert isinstance(order, get_args(Order))
    elif name == START:
        encode(decode_start(params, as_json=bool(as_json)))
    else:
        asked = decode_of_run(name, params, as_json=bool(as_json))
        assert isinstance(asked, get_args(OfRun))
    return name


def _builtin() -> Iterator[bytes]:
    for number, kind in enumerate((*ORDERS.values(), *RUN_CALLS.values())):
        [fields] = specimens(kind)
        params = msgspec.msgpack.decode(fields)
        params.pop("type", None)
        yield bytes([2 * number]) + encode(params)
        yield bytes([2 * number]) + encode(list(params.values()))
        yield bytes([2 * number + 1]) + msgspec.json.encode(params)
    start = {"node": "a.b", "params": [1, 2], "key": "k", "timeout_ms": 5.0, "priority": 1}
    yield bytes([2 * (number + 1)]) + encode(start)
    yield bytes([2 * (number + 1) + 1]) + msgspec.json.encode(start)


_TRACE = b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01"


def _read_texts(data: bytes) -> object:
    """Short texts: traceparents, ids of runs, names of keys."""
    text = data.decode(errors="surrogateescape")
    if trace := well_formed(text):
        child = child_of(trace, "0123456789abcdef")
        assert well_formed(child) == child
    told = []
    for read in (rows.parse_run_id, check_key_name):
        try:
            read(text)
        except (ValueError, InvalidArgumentError) as error:
            told.append(type(error).__name__)
    return told


def _read_zap(data: bytes) -> object:
    asked = answer(data.split(BETWEEN), lambda public: public.startswith("a"))
    assert asked.refused or asked.public.startswith("a")
    return asked.refused


@node
def _anything(
    a: dict[str, Any] | None = None,
    b: list[int] | None = None,
    c: memoryview | None = None,
    d: set[str] = frozenset(),  # type: ignore[assignment]
    e: Any = None,
) -> Any: ...


_ENTRY = DispatchTable.of({"nodes.anything": _anything}).lookup("anything")


def _params() -> Iterator[bytes]:
    yield from (unhex([one["body"]])[0] for one in load("values"))
    yield encode({"a": {"b": 1}, "b": [1], "c": b"1", "d": ["x"], "e": None})
    yield encode([{"b": 1}, [1], b"1"])
    yield b'{"a":{"b":1},"b":[1],"e":null}'
    yield encode([{"a": {}}, [None, [1]], {"e": 1}])


def _read_params(data: bytes) -> object:
    """What a worker reads of a call, and a client of a result."""
    body, *buffers = data.split(BETWEEN)
    told = []
    for read in (
        _ENTRY.decode,
        _ENTRY.decode_json,
        _ENTRY.decode_items,
        _ENTRY.decode_items_singly,
        lambda raw: _ENTRY.decode_with_buffers(raw, buffers),
    ):
        try:
            told.append(type(read(body)).__name__)
        except InvalidArgumentError as error:
            told.append(str(error))
    value = decode_value(body, buffers)
    written, lifted = encode_value(value)
    decode_value(written, list(map(bytes, lifted)))
    return [*told, type(value).__name__]


# --- what our own processes say -----------------------------------------------------------------


def _replies() -> Iterator[bytes]:
    frames = [unhex([one["frame"]])[0] for one in load("replies")]
    yield from frames
    yield from specimens(BrokerMessage)
    yield _joined(frames)


def _read_replies(data: bytes) -> object:
    """What a client with a stream, a call and a chunk under way makes of what comes."""
    core: ClientCore[str] = ClientCore("fuzz")
    inbox = Inbox(parts=True, events=True)
    core.hello()
    core.receive([_WELCOME])
    core.call("call", "add", (b"\x90", ()), 1000.0)
    core.call("stream", "rows", (b"\x90", ()), None, None, inbox)
    core.chunk("chunk", "add", b"\x92\x90\x90", None)
    core.outgoing()
    welcomed = core.info
    completed = core.receive(data.split(BETWEEN))
    if core.info is welcomed:  # else there may be more open than the new limits allow
        core.check_invariants()
    core.outgoing()
    while inbox.take():
        pass
    return [one.handle for one in completed]


_WELCOME = next(
    frame for one in load("replies") for frame in unhex([one["frame"]]) if "welcome" in one["name"]
)


def _of_link(
    kinds: Any, make: Callable[[], MessageReader[Any]]
) -> tuple[Callable[[], Iterable[bytes]], Callable[[bytes], object]]:
    """Make seeds of one end of a link, and what reads there: at once, and as it comes."""

    def seeds() -> Iterator[bytes]:
        frames = [link.LENGTH.pack(len(one)) + one for one in specimens(kinds)]
        buffer = link.LENGTH.pack(3) + b"abc"
        yield from (frame + buffer for frame in frames)
        yield b"".join(frame + buffer for frame in frames)

    def read(data: bytes) -> object:
        found = make().feed(data)
        at, reader = len(data) // 2, make()
        in_two = reader.feed(data[:at]) + reader.feed(data[at:])
        assert encode([(one, list(buffers)) for one, buffers in in_two]) == encode(
            [(one, list(buffers)) for one, buffers in found]
        )
        return [type(message).__name__ for message, _ in found]

    return seeds, read


def _read_control(data: bytes) -> object:
    message = control.decode_control.decode(data)
    _check_again(message, control.decode_control.decode)
    return type(message).__name__


# --- files --------------------------------------------------------------------------------------


def _records() -> Iterator[bytes]:
    kept = msgspec.json.decode((_GOLDEN / "journal" / "records.json").read_bytes())
    yield from (bytes.fromhex(one["bytes"])[5:] for one in kept["records"])
    yield from specimens(Record)


def _read_record(body: bytes) -> object:
    """A record whose checksum is right, and one that is all wrong."""
    place = bytes(8)
    found = parse_record(place, body)
    assert encode(read_record(place, seal(place, body))) == encode(found)
    _check_again(found, lambda body: parse_record(place, body))
    try:
        read_record(place, body)
    except DamageError:
        return type(found).__name__
    raise AssertionError("what has no checksum was read")


_ROWS = (
    (rows.Format, rows.decode_format),
    (rows.Counts, rows.decode_counts),
    (rows.Pruned, rows.decode_pruned),
    (rows.Generation, rows.decode_generation),
    (rows.Uses, rows.decode_uses),
    (rows.RunState, rows.decode_state),
)


def _rows() -> Iterator[bytes]:
    for number, (kind, _) in enumerate(_ROWS):
        yield from (bytes([number]) + one for one in specimens(kind))


def _read_row(data: bytes) -> object:
    decode: Any = _ROWS[(data[0] if data else 0) % len(_ROWS)][1]
    row = rows.decoded(decode, data[1:], rows.Table.META)
    encode(row)
    return type(row).__name__


def _items() -> Iterator[bytes]:
    failure = encode(msgspec.msgpack.Ext(-77, encode(("NODE_ERROR", "no", {}))))
    yield b"\x02\x01\x02"
    yield b"\x83\x01" + failure + b"\xc0"


def _read_items(data: bytes) -> object:
    """Results of a chunk, from memory that the worker writes until it dies."""
    first, body = (data[0] if data else 0), data[1:]
    mark = items.Mark(first & 0x7F, len(body), first >= 0x80)
    raw, failures = items.collect(body, mark)
    encode(list(failures))
    return [len(failures), len(raw) > 1]


def _traces() -> Iterator[bytes]:
    start = trace.TraceStart(trace.TRACE_FORMAT, "e1", 1, 2)
    arrival = msgspec.msgpack.decode(next(iter(specimens(trace.Arrival))), type=trace.Arrival)
    records = (start, arrival, trace.Lost(3), msgspec.structs.replace(arrival, codec=0))
    yield b"".join(map(trace.pack_record, records))


def _read_trace(data: bytes) -> object:
    whole = trace.whole_records(data)
    assert whole <= len(data)
    found = list(trace.read_trace([data], "it"))
    assert found == list(trace.read_trace([data[:3], data[3:whole]], "it"))
    trace.count_calls(data[:whole])
    survey([data], "it")
    return len(found)


def _load_records() -> Iterator[bytes]:
    yield from map(_to_json, specimens(_load_record_type()))


def _to_json(data: bytes) -> bytes:
    return msgspec.json.encode(msgspec.msgpack.decode(data))


def _load_record_type() -> Any:
    return read_load_record.__annotations__["return"]


_SCENARIO = b"""rate = 100.0
seconds = 2.5
[[call]]
node = "add"
weight = 2
params = {a = 1, b = {"$int" = [1, 9]}}
"""


_DEEP_TOML = b"a = " + b"[" * 4000


def _key_files() -> Iterator[bytes]:
    key = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"
    yield f'public = "{key}"\nsecret = "{key}"\nserver = "{key}"\n'.encode()
    yield f'public = "{key}"\nnodes = ["shop.*", "*"]\nreads = true\nadministers = false\n'.encode()
    yield _DEEP_TOML


def _read_key_files(data: bytes) -> object:
    text = data.decode(errors="surrogateescape")
    told = []
    try:
        key = parse_private(text, "it")
        assert parse_private(written_private(key, "t"), "it").secret == key.secret
    except InvalidArgumentError as error:
        told.append(str(error))
    entry: Entry = parse_entry(text, "name", "it")
    assert parse_entry(written_entry(entry), "name", "it") == entry
    return told


# --- workflows ----------------------------------------------------------------------------------


def _definitions() -> Iterator[bytes]:
    yield from (path.read_bytes() for path in sorted(_EXAMPLES.glob("*.yaml")))
    for path in sorted((_GOLDEN / "flow" / "orquesta").glob("*.json"))[::4]:
        yield msgspec.json.encode(msgspec.json.decode(path.read_bytes())["workflow"])


_EXAMPLES = Path(__file__).parents[3] / "scripts" / "examples"


def _read_definition(data: bytes) -> object:
    """A definition, checked and planned: as text, and as the value that JSON stands for."""
    try:
        value = msgspec.json.decode(data)
    except DECODE_ERRORS:
        value = None
    if isinstance(value, dict):
        Plan(validate(value))
    return len(Plan(validate(data)).tasks)


def _graphs() -> Iterator[bytes]:
    yield msgspec.json.encode(
        {
            "name": "g",
            "nodes": [
                {"id": "1", "name": "a", "action": "core.echo", "input": {"message": "$x$"}},
                {"id": "2", "name": "b", "action": "core.noop", "data": {"action": "core.echo"}},
            ],
            "edges": [{"source": "1", "target": "2", "when": "succeeded"}],
            "vars": {"x": "a $y$ b"},
        }
    )


def _read_graph(data: bytes) -> object:
    """A node graph, and placeholders anywhere in JSON."""
    try:
        value = msgspec.json.decode(data)
    except DECODE_ERRORS:
        return "no JSON"
    check_value(value)
    find_keys(value)
    to_expressions(value)
    if isinstance(value, dict):
        return len(validate(from_node_graph(value)).tasks)
    return "no graph"


_SCOPE = Scope(
    Context.first({"n": 7, "text": "abc", "xs": [3, 1, 2], "d": {"keys": "mine", "k": {"v": 1}}}),
    status="succeeded",
    result={"a": [1, 2]},
    status_of={"a": "failed"}.get,
)


def _expressions() -> Iterator[bytes]:
    for text in (
        "xs | map('string') | join(',')",
        "d.k.v + n * 2 if succeeded() else result().a[0]",
        "ctx('text')[::-1] ~ text.upper() | replace('A', 'b')",
        "(n > 3 and not failed()) or xs | select('gt', 1) | list | length == 2",
        "range(n) | sum",
        "item('x') is defined",
        "{'a': [1, 2.5, none, true]}['a'][-1]",
        "task_status('a') in ['failed']",
        "text | tojson(indent=2)",
        "2 ** 8 % 3 // 1",
    ):
        yield text.encode()


def _read_expression(data: bytes) -> object:
    text = data.decode(errors="replace")
    value = compile_template("{{ " + text + " }}").evaluate(_SCOPE)
    assert plain(value) is value
    return type(value).__name__


def _cases() -> Iterator[bytes]:
    yield msgspec.json.encode({"workflow": {"version": 1, "tasks": {"a": {"action": "core.noop"}}}})


def _read_case(data: bytes) -> object:
    case = read_case(data)
    encode(case)
    return type(case.workflow).__name__


_PLAN = Plan(validate({"input": ["x"], "tasks": {"a": {"action": "core.noop"}}}))


def _snapshots() -> Iterator[bytes]:
    conductor = Conductor(_PLAN)
    yield freeze(conductor, 0.0)


def _read_snapshot(data: bytes) -> object:
    return freeze(thaw(data, _PLAN, 0.0), 0.0)[:0]


_DECLARED = (StreamError, *DECODE_ERRORS)

TARGETS = (
    Target("requests", _requests, _read_request, (ProtocolError, UnimplementedError)),
    Target("messages", _messages, _read_message),
    Target("core", _messages, _read_by_core),
    Target(
        "json", lambda: (one["text"].encode() for one in load("jsonrpc", "requests")), _read_json
    ),
    Target("builtin", _builtin, _read_builtin, (InvalidArgumentError,)),
    Target(
        "texts", lambda: (b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01", b"a" * 48), _read_texts
    ),
    Target(
        "zap",
        lambda: [_joined((b"1.0", b"1", DOMAIN, b"::1", b"", b"CURVE", bytes(32)))],
        _read_zap,
    ),
    Target("params", _params, _read_params, (ProtocolError,)),
    Target("replies", _replies, _read_replies, (ProtocolError, UnimplementedError)),
    Target("link-broker", *_of_link(link.ToBroker, link.broker_end), _DECLARED),
    Target("link-worker", *_of_link(link.ToWorker, link.worker_end), _DECLARED),
    Target("link-journal", *_of_link(journal_link.ToJournal, journal_link.journal_end), _DECLARED),
    Target("journal-link", *_of_link(journal_link.FromJournal, journal_link.broker_end), _DECLARED),
    Target("control", lambda: specimens(control.ControlMessage), _read_control, DECODE_ERRORS),
    Target("records", _records, _read_record, (DamageError,)),
    Target("rows", _rows, _read_row, (DamageError,)),
    Target("items", _items, _read_items, DECODE_ERRORS),
    Target("traces", _traces, _read_trace, (InvalidArgumentError,)),
    Target(
        "load-records",
        _load_records,
        lambda data: type(read_load_record(data, "it")).__name__,
        (InvalidArgumentError,),
    ),
    Target(
        "scenarios",
        lambda: [_SCENARIO, _DEEP_TOML],
        lambda data: type(parse_scenario(data.decode(errors="replace"), "it")).__name__,
        (InvalidArgumentError,),
    ),
    Target("key-files", _key_files, _read_key_files, (InvalidArgumentError,)),
    Target("definitions", _definitions, _read_definition, (DefinitionError,)),
    Target("node-graphs", _graphs, _read_graph, (DefinitionError,)),
    Target("expressions", _expressions, _read_expression, (ExpressionError, EvaluationError)),
    Target("cases", _cases, _read_case, (CaseError,)),
    Target("snapshots", _snapshots, _read_snapshot, (SnapshotError,)),
)
