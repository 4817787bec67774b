"""Mirror of broker/wire/traceparent.py: the forms that the W3C's recommendation names."""

import pytest

from pronghorn.broker.wire.traceparent import CHARACTERS_MAX, child_of, well_formed

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GOOD = f"00-{TRACE}-{SPAN}-01"


@pytest.mark.parametrize(
    "text", [GOOD, f"00-{TRACE}-{SPAN}-ff", f"cc-{TRACE}-{SPAN}-01", f"01-{TRACE}-{SPAN}-01-more"]
)
def test_it_is_taken_as_it_is(text: str) -> None:
    assert well_formed(text) == text


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "nonsense",
        GOOD[:-1],
        GOOD + "-more",
        GOOD + "0",
        f"01-{TRACE}-{SPAN}-01more",
        f"ff-{TRACE}-{SPAN}-01",
        GOOD.upper(),
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[:-1]}g-{SPAN}-01",
        f" {GOOD}",
        f"{GOOD}\n",
        f"01-{TRACE}-{SPAN}-01-{'x' * CHARACTERS_MAX}",
    ],
)
def test_what_is_malformed_counts_as_none(text: str | None) -> None:
    assert well_formed(text) is None


def test_a_child_is_of_the_same_trace() -> None:
    assert child_of(GOOD, "a" * 16) == f"00-{TRACE}-{'a' * 16}-01"
    assert child_of(f"cc-{TRACE}-{SPAN}-00-more", "b" * 16) == f"00-{TRACE}-{'b' * 16}-00"
