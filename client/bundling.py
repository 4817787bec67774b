"""How the frames of one message share frames of ZeroMQ. Pure.

Mirror: tests/client/test_bundling.py.
"""

from collections.abc import Sequence

from pronghorn.broker.wire.limits import KIB
from pronghorn.broker.wire.link import Buffer
from pronghorn.broker.wire.messages import bundle_requests

BUNDLED_BYTES_MAX = 4 * KIB
"""Of a frame that is bundled: the copy of a larger one costs more than its own frame."""


def bundled(outgoing: Sequence[bytes | list[Buffer]]) -> list[Buffer]:
    """Return the frames to send, in order; small ones that follow each other are made one.

    Args:
        outgoing: Frames, or lists of a frame and its buffers, which stay together.
    """
    frames: list[Buffer] = []
    plain: list[bytes] = []  # those that follow each other
    for one in outgoing:
        if isinstance(one, bytes) and len(one) <= BUNDLED_BYTES_MAX:
            plain.append(one)
            continue
        frames += _one_frame(plain)
        plain = []
        frames += [one] if isinstance(one, bytes) else one
    return frames + _one_frame(plain)


def _one_frame(frames: list[bytes]) -> list[Buffer]:
    """Make one frame of several; of one or none there is nothing to bundle."""
    return [bundle_requests(frames)] if len(frames) > 1 else [*frames]
