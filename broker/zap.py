"""ZAP, by which libzmq asks whether a client with that key may connect (RFC 27). Pure.

Mirror: tests/broker/test_zap.py.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from .wire.keys import z85

DOMAIN = b"pronghorn"

_VERSION, _MECHANISM = b"1.0", b"CURVE"
_OK, _REFUSED, _DEFECT = b"200", b"400", b"500"


class Asked(NamedTuple):
    """Who wants to connect.

    Attributes:
        address: Where from, without the port.
        public: Its public key, in Z85; "" if it has none.
        reply: The frames to answer with.
        refused: Why it may not, "" if it may.
    """

    address: str
    public: str
    reply: Sequence[bytes]
    refused: str


def answer(frames: Sequence[bytes], is_allowed: Callable[[str], bool]) -> Asked:
    """Answer a request of libzmq's; of one that has another form than RFC 27's it is refused.

    The public key becomes the ``User-Id`` of all that comes over the connection: a name could have
    another key by then.
    """
    if len(frames) < 6 or frames[0] != _VERSION:
        sequence = frames[1] if len(frames) > 1 else b""
        reason = "what libzmq asks is not understood"
        return Asked("", "", _reply(sequence, _DEFECT, reason, ""), reason)
    _, sequence, domain, address, _, mechanism, *credentials = frames
    from_ = address.decode(errors="replace")
    if domain != DOMAIN or mechanism != _MECHANISM or len(credentials) != 1:
        reason = "it shows no key"
        return Asked(from_, "", _reply(sequence, _REFUSED, reason, ""), reason)
    public = z85(credentials[0])
    if not is_allowed(public):
        reason = "its key is not, or no longer, among those that may connect"
        return Asked(from_, public, _reply(sequence, _REFUSED, "", ""), reason)
    return Asked(from_, public, _reply(sequence, _OK, "", public), "")


def _reply(sequence: bytes, status: bytes, text: str, user: str) -> Sequence[bytes]:
    return (_VERSION, sequence, status, text.encode(), user.encode(), b"")
