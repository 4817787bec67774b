"""Folders of keys for tests, and clients that have keys."""

from pathlib import Path
from typing import Any

import zmq
from raw_sockets import RawSockets

from pronghorn.broker.wire.keyfiles import KeyFolder, write_new
from pronghorn.broker.wire.keys import Entry, PrivateKey, Rights, written_private


def new_key(server: str = "") -> PrivateKey:
    """Make a pair of keys."""
    public, secret = zmq.curve_keypair()
    return PrivateKey(public.decode(), secret.decode(), server)


class Keys:
    """A broker's folder of keys, with the private keys of its clients."""

    def __init__(self, path: Path) -> None:
        self.folder = KeyFolder(path)
        self.folder.make()
        self.server = new_key()
        self.folder.add_server(self.server)

    def add(self, name: str, **rights: Any) -> PrivateKey:
        """Let a client connect."""
        key = new_key(self.server.public)
        self.folder.add(Entry(name, key.public, Rights(**rights)))
        return key

    def file(self, name: str, **rights: Any) -> Path:
        """Let a client connect and write its key to a file."""
        path = self.folder.private_file(name)
        write_new(path, written_private(self.add(name, **rights), name))
        return path

    def set_rights(self, name: str, **rights: Any) -> None:
        """Let a client have other rights."""
        [entry] = [
            one for one in self.folder.entries() if isinstance(one, Entry) and one.name == name
        ]
        self.folder.remove(name)
        self.folder.add(Entry(name, entry.public, Rights(**rights)))


def dealer(sockets: RawSockets, endpoint: str, key: PrivateKey, **options: Any) -> Any:
    """Connect a DEALER that shows a key."""
    return sockets.dealer(
        endpoint,
        CURVE_PUBLICKEY=key.public.encode(),
        CURVE_SECRETKEY=key.secret.encode(),
        CURVE_SERVERKEY=key.server.encode(),
        **options,
    )
