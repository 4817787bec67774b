"""Mirror of broker/wire/logline.py."""

import json

import pytest

from pronghorn.broker.wire.limits import LOG_LINE_BYTES_MAX, LOG_LINES_BURST, LOG_LINES_PER_S
from pronghorn.broker.wire.logline import LogFormat, LogLine, Throttle, iso_time, written

TIME = "2026-11-29T05:50:44.123Z"
BARE = LogLine(
    time=TIME, level="INFO", process="broker", pid=7, logger="pronghorn.broker", message="serves"
)
FULL = LogLine(
    time=TIME,
    level="ERROR",
    process="worker",
    pid=8,
    worker=2,
    node="shop.add",
    request="17",
    traceparent="00-ab-cd-01",
    logger="shop",
    message="two\nlines",
    exception="Traceback\n  ValueError\n",
)


def test_times_are_in_utc_and_have_milliseconds() -> None:
    assert iso_time(0.0) == "1970-01-01T00:00:00.000Z"
    assert iso_time(1795931444.1239) == "2026-11-29T05:50:44.123Z"


def test_for_people() -> None:
    assert written(BARE, "human").decode() == f"{TIME} INFO broker[7] pronghorn.broker: serves\n"
    assert written(FULL, "human").decode() == (
        f"{TIME} ERROR worker-2[8] shop.add#17 (00-ab-cd-01) shop: two\n"
        "  lines\n  Traceback\n    ValueError\n"
    )


def test_for_programs() -> None:
    assert json.loads(written(BARE, "json")) == {
        "time": TIME,
        "level": "INFO",
        "process": "broker",
        "pid": 7,
        "logger": "pronghorn.broker",
        "message": "serves",
    }
    assert json.loads(written(FULL, "json")) == {
        "time": TIME,
        "level": "ERROR",
        "process": "worker",
        "pid": 8,
        "worker": 2,
        "node": "shop.add",
        "request": "17",
        "traceparent": "00-ab-cd-01",
        "logger": "shop",
        "message": "two\nlines",
        "exception": "Traceback\n  ValueError\n",
    }


@pytest.mark.parametrize("text", ["\x1b[31mred", "a\rb", "\x00", "\x9b1m", "a\u2028b", "\x85"])
def test_a_terminal_gets_nothing_to_obey_and_a_line_ends_once(text: str) -> None:
    line = LogLine(time=TIME, level="INFO", process="w", pid=1, logger="l", message=text)
    data = written(line, "human")
    assert len(data.decode().splitlines()) == 1
    assert data.decode().rstrip("\n").isprintable()
    assert json.loads(written(line, "json"))["message"] == text
    assert len(written(line, "json").split(b"\n")) == 2


@pytest.mark.parametrize("format_", ["human", "json"])
@pytest.mark.parametrize("filling", ["x", "\n", "\x1b", "\N{SNOWMAN}", '"'])
@pytest.mark.parametrize("name", ["message", "exception", "logger"])
def test_a_line_has_a_limit_and_what_is_too_long_loses_its_middle(
    format_: LogFormat, filling: str, name: str
) -> None:
    texts = {"logger": "l", "message": "m", name: f"begin{filling * 100_000}end"}
    line = LogLine(time=TIME, level="INFO", process="w", pid=1, **texts)
    data = written(line, format_)
    assert LOG_LINE_BYTES_MAX // 4 < len(data) <= LOG_LINE_BYTES_MAX
    text = json.loads(data)[name] if format_ == "json" else data.decode()
    for piece in ("begin", " [...] ", "end"):
        assert piece in text


def test_a_burst_passes_and_then_so_many_a_second() -> None:
    throttle = Throttle()
    assert [throttle.admit(100.0) for _ in range(LOG_LINES_BURST + 3)].count(False) == 3
    assert [throttle.admit(101.0) for _ in range(LOG_LINES_PER_S + 2)].count(False) == 2
    assert throttle.missed(101.0) == 5
    assert throttle.missed(101.0) == 0
    assert [throttle.admit(1000.0) for _ in range(LOG_LINES_BURST + 1)].count(False) == 1


def test_what_is_missing_is_told_once_a_second() -> None:
    throttle = Throttle()
    throttle.miss()
    assert throttle.missed(100.0) == 1
    throttle.miss(2)
    assert throttle.missed(100.9) == 0
    throttle.miss()
    assert throttle.missed(101.0) == 3
