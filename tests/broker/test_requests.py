"""Mirror of broker/requests.py."""

from requests_of import session


def test_a_session_counts_its_replies() -> None:
    peer = session()
    peer.acknowledged, peer.unacknowledged = 3, 4
    assert peer.replies == 7
