"""Mirror of bench/peers/catalog.py."""

from importlib.util import find_spec

from pronghorn.bench.peers.catalog import BY_NAME, PEERS


def test_each_has_a_name_and_a_module_of_its_own() -> None:
    assert len(BY_NAME) == len(PEERS)
    assert len({peer.module for peer in PEERS}) == len(PEERS)
    for peer in PEERS:
        assert find_spec(f"pronghorn.bench.peers.{peer.module}") is not None
