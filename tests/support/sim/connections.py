"""A client's connection to the broker, known by a routing id: two channels that end together."""

from collections.abc import Callable, Sequence

from .agenda import Agenda
from .dice import Dice
from .network import Channel

Frames = Sequence[bytes]


class Connection:
    """One connection; its ends are told of each message that arrives."""

    def __init__(
        self,
        agenda: Agenda,
        dice: Dice,
        peer: bytes,
        *,
        at_broker: Callable[[bytes, Frames], None],
        at_client: Callable[[Frames], None],
        lost: Callable[[str], None],
    ) -> None:
        self.peer = peer
        self.to_broker = Channel(agenda, dice, lambda frames: at_broker(peer, frames))
        self.to_client = Channel(agenda, dice, at_client)
        self.lost = lost  # tells the client that it has ended, and why

    def close(self, *, lose: bool) -> None:
        """Break it off; what the client has sent arrives all the same, or is lost too."""
        self.to_broker.close(lose=lose)
        self.to_client.close(lose=True)
