"""The report: one file that needs nothing else."""

import re
from html.parser import HTMLParser

import msgspec
import pytest
from load_records import imagined

from pronghorn.bench.load.page import page
from pronghorn.bench.load.plan import Plan
from pronghorn.bench.load.record import Knee, Trial

VOID = {"meta", "wbr"}


class Balance(HTMLParser):
    """Checks that what is opened is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in VOID and tag != "br":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("failing", [0.0, 0.2])
def test_report_is_balanced_and_asks_nobody_for_anything(failing: float) -> None:
    text = page(imagined(failing=failing), ["p99>5ms holds: p99 is 6 ms"])
    balance = Balance()
    balance.feed(text)
    assert balance.open == []
    assert not re.search(r"https?://|<script|<link|<img|url\(|@import", text)
    assert "prefers-color-scheme:dark" in text


def test_what_others_wrote_is_escaped() -> None:
    text = page(imagined())
    assert "a &lt;fast&gt; one" in text
    assert "<fast>" not in text


def test_invalid_runs_failures_and_events_are_said_first() -> None:
    record = msgspec.structs.replace(imagined(cpu=1.0), events=((1.0, "the broker was lost"),))
    text = page(record, ["errors>0 holds: errors is 3", *record.problems])
    head = text.partition('class="tiles"')[0]
    assert "Figures invalid." in head
    assert "errors&gt;0 holds" in head
    assert "at 1.0 s: the broker was lost" in head
    assert head.count("generator saturated") == 1


def test_closed_loop_and_knee_are_told() -> None:
    knee = Knee("p99<5ms", 100.0, (Trial(100.0, True, 1000, None, ""),))
    text = page(msgspec.structs.replace(imagined(), knee=knee))
    assert "Search for the knee, p99&lt;5ms" in text
    closed = msgspec.structs.replace(imagined(), loop="closed", plan=Plan(closed=8, duration_s=4))
    assert "Closed loop: " in page(closed)
