"""Mirror of broker/sessions.py: who is known, who is ignored, who may be gone."""

import pytest
from requests_of import request

from pronghorn.broker.requests import Session
from pronghorn.broker.sessions import (
    BANNED_PEERS_MAX,
    LOOKS_PER_HELLO,
    REMOTE_OWNER,
    Sessions,
)
from pronghorn.broker.wire.limits import Limits

LIMITS = Limits()
KEPT = 3


@pytest.fixture
def sessions() -> Sessions:
    return Sessions(LIMITS, KEPT)


def hello(sessions: Sessions, peer: bytes) -> list[bytes]:
    """Say hello, and return who is asked for a sign of life."""
    session = sessions.by_peer.get(peer) or sessions.open(peer)
    assert session is not None
    asked = sessions.hello(session)
    sessions.check_invariants()
    return [each.peer for each in asked]


def use(session: Session) -> None:
    """Get a reply."""
    session.unacknowledged += 1


def test_a_stranger_becomes_known_and_a_stranger_again(sessions: Sessions) -> None:
    session = sessions.open(b"peer")
    assert session is not None
    assert (session.known, session.grant) == (False, LIMITS.stranger_requests)
    hello(sessions, b"peer")
    assert (session.known, session.grant) == (True, LIMITS.grant_requests)
    use(session)
    sessions.goodbye(session)
    assert (session.known, session.grant) == (False, LIMITS.stranger_requests)
    assert session.replies == 0
    sessions.forget(session)
    sessions.check_invariants()
    assert sessions.by_peer == {}


def test_a_hello_begins_the_count_of_replies_anew(sessions: Sessions) -> None:
    hello(sessions, b"peer")
    session = sessions.by_peer[b"peer"]
    session.acknowledged, session.unacknowledged = 5, 2
    hello(sessions, b"peer")
    assert (session.acknowledged, session.unacknowledged) == (0, 0)


def test_who_is_gone_leaves_nothing(sessions: Sessions) -> None:
    hello(sessions, b"known")
    sessions.open(b"stranger")
    assert sessions.gone(b"nobody") is None
    for peer in (b"known", b"stranger"):
        session = sessions.by_peer[peer]
        assert sessions.gone(peer) is session
    sessions.check_invariants()
    assert sessions.by_peer == {}


def test_who_is_banned_gets_no_session_until_pardoned(sessions: Sessions) -> None:
    sessions.ban(b"peer")
    assert sessions.is_banned(b"peer")
    assert sessions.open(b"peer") is None
    sessions.pardon(b"peer")
    sessions.pardon(b"peer")
    assert not sessions.is_banned(b"peer")
    assert sessions.open(b"peer") is not None


def test_so_many_bans_are_remembered(sessions: Sessions) -> None:
    for number in range(BANNED_PEERS_MAX + 1):
        sessions.ban(b"%d" % number)
        sessions.check_invariants()
    assert not sessions.is_banned(b"0")
    assert sessions.is_banned(b"1")


# --- who may be gone -----------------------------------------------------------------------------


def test_nobody_is_asked_while_there_are_few(sessions: Sessions) -> None:
    for _ in range(3):
        for number in range(KEPT):
            assert hello(sessions, b"%d" % number) == []


def test_those_are_asked_that_were_silent_since_the_last_look(sessions: Sessions) -> None:
    """They were forgotten in the order of their hellos, those in use and the newcomer included."""
    for number in range(5):
        assert hello(sessions, b"%d" % number) == []  # at the end the first look at each of three
    busy, silent, waits = (sessions.by_peer[b"%d" % number] for number in range(KEPT))
    use(busy)
    waits.open = {1: request(of=waits, key=1)}
    waits.open_bytes = waits.open[1].size
    asked = [peer for number in range(5, 7) for peer in hello(sessions, b"%d" % number)]
    assert asked == [silent.peer, b"3"]


def test_a_hello_counts_as_a_use(sessions: Sessions) -> None:
    assert Sessions(LIMITS, 0).hello(Session(b"only", 1)) == []
    for number in range(2 * KEPT):
        hello(sessions, b"%d" % number)
    asked = [peer for _ in range(20) for peer in hello(sessions, b"0")]
    assert b"0" not in asked
    assert b"1" in asked


def test_of_those_that_are_gone_no_more_are_kept_than_of_the_others(sessions: Sessions) -> None:
    there = [b"there %d" % number for number in range(20)]
    for peer in there:
        hello(sessions, peer)
    for number in range(2000):
        for peer in hello(sessions, b"gone %d" % number):
            if peer not in there:
                sessions.gone(peer)
        assert len(sessions.by_peer) <= KEPT + 3 * len(there)
    assert set(there) < set(sessions.by_peer)


def test_a_hello_costs_a_few_looks_however_many_there_are(sessions: Sessions) -> None:
    for number in range(1000):
        assert len(hello(sessions, b"%d" % number)) <= LOOKS_PER_HELLO


def test_runs_belong_to_the_host_to_a_key_or_to_whoever_comes() -> None:
    sessions = Sessions(LIMITS, 10, (b"local", b"keyed"), b"keyed")
    owners = {}
    for peer in (b"local1", b"keyed" + b"a" * 16 + b"1", b"keyed" + b"a" * 16 + b"2", b"other"):
        session = sessions.open(peer)
        assert session is not None
        owners[peer[-1:]] = session.owner
    assert owners[b"2"] == f"key:{(b'a' * 16).hex()}"
    assert owners[b"r"] == REMOTE_OWNER
    session = Sessions(LIMITS, 10).open(b"other")
    assert session is not None
    assert session.owner == ""
