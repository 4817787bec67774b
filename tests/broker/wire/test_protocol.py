"""Holds PROTOCOL.md against the code; tests/integration/test_protocol.py runs its examples."""

import json
import re
from typing import get_args

import protocol_document as document
import pytest
from msgspec.msgpack import decode
from protocol_document import Example

from pronghorn.broker.events import Malformed
from pronghorn.broker.ingress import Ingress
from pronghorn.broker.wire.codec import decode_reply
from pronghorn.broker.wire.errors import ERROR_CLASSES, ErrorDetails
from pronghorn.broker.wire.jsonrpc import encode_error
from pronghorn.broker.wire.limits import (
    BATCH_REQUESTS_MAX,
    COLLECTED_PARTS_MAX,
    DEFAULT_LIMITS,
    ENVELOPE_FRAMES_MAX,
    EVENT_BYTES_MAX,
    ID_BYTES_MAX,
    KIB,
    MIB,
    NODE_NAME_BYTES_MAX,
    TIMEOUT_MS_MAX,
)
from pronghorn.broker.wire.messages import (
    BrokerMessage,
    ClientMessage,
    Error,
    Options,
    ReplyBundle,
    RequestBundle,
    WelcomeInfo,
)

EXAMPLES = document.examples()


def words(cell: str) -> list[str]:
    return re.findall(r"`([^`]*)`", cell)


def test_there_are_examples() -> None:
    assert len(EXAMPLES) > 12


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.title)
def test_the_bytes_of_an_example_hold_what_it_says(example: Example) -> None:
    for frame in (*example.sent, *example.received):
        if frame.meaning is not None:
            assert decode(frame.data) == json.loads(frame.meaning)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.title)
def test_an_example_can_be_read_by_both_sides(example: Example) -> None:
    events = Ingress(DEFAULT_LIMITS).parse(b"peer", [frame.data for frame in example.sent])
    assert events
    assert not [event for event in events if isinstance(event, Malformed)]
    for frame in example.received:
        if frame.data[:1] not in (b"", b"{", b"["):
            decode_reply(frame.data)


def test_all_kinds_are_described() -> None:
    messages = [*get_args(ClientMessage), RequestBundle, *get_args(BrokerMessage), ReplyBundle]
    tags = {cls.__struct_config__.tag: cls for cls in messages}
    rows = {int(row[0]): row for row in document.table("## 5. Kinds")}
    assert rows.keys() == tags.keys()
    for kind, cls in tags.items():
        [layout] = words(rows[kind][2])
        first, *fields = layout.strip("[]").split(", ")
        assert int(first) == kind
        if cls not in (RequestBundle, ReplyBundle):
            assert tuple(fields) == cls.__struct_fields__
        sender = "client" if cls in (*get_args(ClientMessage), RequestBundle) else "broker"
        assert rows[kind][3] == sender


def test_all_options_are_described() -> None:
    rows = document.table("## 4. Fields of a request")
    described = [name for row in rows for name in words(row[0])]
    assert sorted(described) == sorted(Options.__struct_fields__)


def test_the_welcome_is_described() -> None:
    rows = document.table("### welcome (48)")
    assert [name for row in rows for name in words(row[0])] == list(WelcomeInfo.__struct_fields__)
    assert words(rows[-1][2]) == list(DEFAULT_LIMITS.__struct_fields__)


def test_all_errors_are_described() -> None:
    rows = document.table("## 12. Errors")
    described = {name: row for row in rows for name in words(row[0])}
    assert described.keys() == ERROR_CLASSES.keys()
    for code, cls in ERROR_CLASSES.items():
        if cls.default_outcome is not None and "reserved" not in described[code][1]:
            assert cls.default_outcome in words(described[code][2])


def test_all_details_are_described() -> None:
    rows = document.table("**details** is a map; what is not known is left out:")
    assert [name for row in rows for name in words(row[0])] == list(ErrorDetails.__struct_fields__)


def test_the_codes_of_json_rpc_are_described() -> None:
    rows = document.table("### Error codes in JSON-RPC")
    described = {code: row[0] for row in rows for code in words(row[1])}
    for code in ERROR_CLASSES:
        reply = json.loads(encode_error(Error(1, code, "", ErrorDetails())))
        assert int(described[code].replace("\u2212", "-")) == reply["error"]["code"]


def test_the_limits_are_those_of_the_code() -> None:
    defaults = {row[0]: row[1] for row in document.table("## 13. Limits")}
    limits = DEFAULT_LIMITS
    for start, default in {
        "`request_bytes`": f"{limits.request_bytes // MIB} MiB",
        "`result_bytes`": f"{limits.result_bytes // MIB} MiB",
        "`buffers`": f"{limits.buffers}",
        "`frames`": f"{limits.frames:,}",
        "`grant_requests`": (
            f"{limits.grant_requests:,}; {limits.stranger_requests}; "
            f"{limits.grant_bytes // MIB} MiB"
        ),
        "`grant_parts`": f"{limits.grant_parts:,}; {limits.grant_part_bytes // MIB} MiB",
        "bytes of an event's value": f"{EVENT_BYTES_MAX // KIB} KiB",
        "parts that are collected": f"{COLLECTED_PARTS_MAX:,}",
        "frames of an envelope": f"{ENVELOPE_FRAMES_MAX}",
        "characters of an id": f"{ID_BYTES_MAX}",
        "bytes of a node's name": f"{NODE_NAME_BYTES_MAX}",
        "requests of a JSON-RPC batch": f"{BATCH_REQUESTS_MAX:,}",
        "`timeout_ms`": f"{TIMEOUT_MS_MAX / 86_400_000:.0f} days",
    }.items():
        assert [value for name, value in defaults.items() if name.startswith(start)] == [default]


def test_links_lead_somewhere() -> None:
    text = document.text()
    anchors = {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    }
    assert set(re.findall(r"\]\(#([^)]*)\)", text)) <= anchors
