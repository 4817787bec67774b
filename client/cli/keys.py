"""``pronghorn keys``: makes, lists and revokes keys. An IO shell.

Mirror: tests/client/cli/test_keys.py.
"""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import msgspec
import zmq

from pronghorn.broker.wire.errors import InvalidArgumentError, UnimplementedError
from pronghorn.broker.wire.keyfiles import KeyFolder, write_new
from pronghorn.broker.wire.keys import (
    Entry,
    PrivateKey,
    Rights,
    check_key,
    check_key_name,
    check_pattern,
    written_private,
)
from pronghorn.broker.wire.places import DEFAULT_NAME, keys_folder

from .output import warn, write


def folder_of(keys: str | None, name: str | None) -> KeyFolder:
    """Choose the folder of keys: what is given, else that of the broker of that name.

    Raises:
        InvalidArgumentError: Both are given, or the name can't be one.
    """
    if keys and name:
        raise InvalidArgumentError("give --keys or --name, not both")
    return KeyFolder(Path(keys) if keys else keys_folder(name or DEFAULT_NAME))


def make(
    folder: KeyFolder,
    client: str,
    *,
    nodes: Sequence[str],
    reads: bool,
    administers: bool,
    out: str | None,
    public: str | None,
    as_json: bool,
) -> None:
    """Make a key for a client and let it connect.

    Args:
        folder: Of the broker's keys.
        client: What it is called.
        nodes: Patterns of the nodes it may call.
        reads: Whether it may read statistics.
        administers: Whether it may administer.
        out: Where to write its private key, if not into the folder.
        public: Its public key, if it has made its own pair: then none is written.
        as_json: Print JSON.

    Raises:
        InvalidArgumentError: One of them makes no sense, or there is a client of that name.
    """
    check_key_name(client)
    rights = Rights(nodes=tuple(map(check_pattern, nodes)), reads=reads, administers=administers)
    if public is not None:
        check_key(public, "--public")
        if out is not None:
            raise InvalidArgumentError(
                "--out is for the private key, which stays where --public is"
            )
    folder.make()
    if not folder.has_server:
        with suppress(InvalidArgumentError):  # somebody else was faster
            folder.add_server(_pair())
    server = folder.server().public
    for entry in folder.entries():
        if isinstance(entry, Entry) and entry.public == public:
            raise InvalidArgumentError(f"that is the key of {entry.name}")
    file: Path | None = None
    if public is None:
        key = _pair(server)
        public = key.public
        file = folder.private_file(client) if out is None else Path(out)
        write_new(file, written_private(key, f"Private key of {client}"))
    try:
        folder.add(Entry(client, public, rights))
    except InvalidArgumentError:
        if file is not None:
            file.unlink(missing_ok=True)
        raise
    if as_json:
        write(
            _json(
                {
                    "client": client,
                    "file": None if file is None else str(file),
                    "public": public,
                    "server": server,
                }
            )
        )
        return
    write(f"{client} may connect.\n  public key of the broker: {server}\n")
    if file is not None:
        write(f"  its key, to be handed over to it alone: {file}\n")


def show(folder: KeyFolder, *, as_json: bool) -> None:
    """List the clients that may connect.

    Raises:
        InvalidArgumentError: There are no keys, or others can change them.
    """
    server = folder.server().public
    entries: list[Entry] = []
    for entry in folder.entries():
        if isinstance(entry, Entry):
            entries.append(entry)
        else:
            warn(f"not accepted: {entry}")
    if as_json:
        clients = [
            {"client": one.name, "public": one.public, **msgspec.structs.asdict(one.rights)}
            for one in entries
        ]
        write(_json({"server": server, "clients": clients}))
        return
    write(f"broker  {server}\n")
    width = max((len(one.name) for one in entries), default=0)
    for one in entries:
        write(f"{one.name:<{width}}  {one.public}  {_described(one.rights)}\n")


def revoke(folder: KeyFolder, client: str, *, as_json: bool) -> None:
    """Let a client connect no more.

    Raises:
        NotFoundError: There is none of that name.
    """
    folder.remove(check_key_name(client))
    write(_json({"client": client}) if as_json else f"{client} may not connect any more.\n")


def _pair(server: str = "") -> PrivateKey:
    try:
        public, secret = zmq.curve_keypair()
    except zmq.ZMQError as error:
        raise UnimplementedError(f"this libzmq can't make keys: {error}") from error
    return PrivateKey(public.decode(), secret.decode(), server)


def _json(value: object) -> bytes:
    return msgspec.json.encode(value) + b"\n"


def _described(rights: Rights) -> str:
    words = [" ".join(rights.nodes)]
    if rights.reads:
        words.append("reads")
    if rights.administers:
        words.append("administers")
    return ", ".join(words)
