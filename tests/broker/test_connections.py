"""Mirror of broker/connections.py."""

from pronghorn.broker.connections import STRANGERS_BYTES, Connections, greediest


def test_a_connection_has_an_owner_until_it_ends() -> None:
    connections = Connections(4)
    assert connections.accept(7) is None
    assert connections.nameless() == [7]
    assert connections.own(7, b"a") is None
    assert connections.own(7, b"a") is None
    assert connections.nameless() == []
    assert connections.lost(7) == b"a"
    assert connections.lost(7) is None
    assert len(connections) == 0


def test_a_descriptor_that_is_used_again_has_another_owner() -> None:
    connections = Connections(4)
    connections.accept(7)
    connections.own(7, b"a")
    assert connections.own(7, b"b") == b"a"
    assert connections.lost(7) == b"b"


def test_those_without_an_owner_make_room_for_the_next() -> None:
    connections = Connections(4)
    assert [connections.accept(fd) for fd in (1, 2, 3, 4)] == [None, None, 1, 2]
    assert connections.nameless() == [3, 4]
    connections.lost(1)  # which was closed for it
    assert len(connections) == 2


def test_owned_ones_keep_their_place() -> None:
    connections = Connections(2)
    for fd in (1, 2):
        assert connections.accept(fd) is None
        connections.own(fd, b"%d" % fd)
    assert connections.accept(3) == 3, "nobody has to go for it"
    connections.lost(3)
    assert len(connections) == 2
    connections.lost(1)
    assert connections.accept(4) is None
    assert connections.accept(5) == 4


def test_those_that_have_sent_most_go_until_the_rest_is_little_enough() -> None:
    half = STRANGERS_BYTES // 2
    assert greediest({}) == []
    assert greediest({1: half, 2: half}) == []
    assert greediest({1: half, 2: half + 1, 3: 100}) == [2]
    assert greediest({1: 100, 2: half, 3: 2 * half + 1, 4: half}) == [3, 2]
