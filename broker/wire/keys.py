"""Keys of CURVE and what their owners may do, as files have them. Pure.

A private key's file is for one reader: its secret is in no ``repr`` and in no error. A client's
entry, on the broker's side, holds only the public key and its rights::

    public = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"
    nodes = ["shop.*"]
    reads = false
    administers = false

Mirror: tests/broker/wire/test_keys.py.
"""

import re
import tomllib
from dataclasses import dataclass, field
from typing import Final, TypeVar

import msgspec

from .errors import InvalidArgumentError

KEY_CHARACTERS: Final = 40
"""Of a key of 32 bytes in Z85."""

_KEY_BYTES = 32
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
_WEIGHTS = (85**4, 85**3, 85**2, 85, 1)
_Z85 = re.compile(r"[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_Fields = TypeVar("_Fields", bound=msgspec.Struct)


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """A pair of keys, in Z85.

    Attributes:
        public: May be known by anybody.
        secret: Is never shown, logged or sent.
        server: The public key of the broker that it is for; "": not said.
    """

    public: str
    secret: str = field(repr=False)
    server: str = ""


class Rights(msgspec.Struct, frozen=True, kw_only=True):
    """What the owner of a key may do.

    Attributes:
        nodes: Patterns of the full names of nodes it may call; ``*`` stands for any characters.
        reads: Whether it may ask for statistics and what else tells of others' calls.
        administers: Whether it may reload, scale, recycle and drain.
    """

    nodes: tuple[str, ...] = ("*",)
    reads: bool = False
    administers: bool = False


class Entry(msgspec.Struct, frozen=True):
    """A client that may connect: what people call it, its public key and its rights."""

    name: str
    public: str
    rights: Rights


class _PrivateFields(msgspec.Struct, forbid_unknown_fields=True):
    public: str
    secret: str
    server: str = ""


class _EntryFields(msgspec.Struct, forbid_unknown_fields=True):
    public: str
    nodes: tuple[str, ...]
    reads: bool = False
    administers: bool = False


def check_key(text: str, what: str) -> str:
    """Give a key as it is, if it can be one.

    Raises:
        InvalidArgumentError: It can't; what it is instead is not told, for it may be a secret.
    """
    if not _Z85.fullmatch(text):
        raise InvalidArgumentError(f"{what} is no key: one has {KEY_CHARACTERS} characters of Z85")
    return text


def check_key_name(name: str) -> str:
    """Give the name of a key's owner as it is, if it can be one.

    Raises:
        InvalidArgumentError: It can't.
    """
    if not _NAME.fullmatch(name):
        raise InvalidArgumentError(
            f"{name!r} is no name for a key: letters, digits, '.', '_', '@' and '-', at most 64"
        )
    return name


def check_pattern(pattern: str) -> str:
    """Give a pattern of nodes' names as it is, if it can be one.

    Raises:
        InvalidArgumentError: It can't.
    """
    if not pattern or not pattern.isprintable() or set(pattern) & set("\"\\' "):
        raise InvalidArgumentError(f"{pattern!r} is no pattern of nodes, as in shop.*")
    return pattern


def parse_private(text: str, source: str) -> PrivateKey:
    """Read the file of a private key.

    Args:
        text: What it holds.
        source: Names it, for the error.

    Raises:
        InvalidArgumentError: It holds no private key.
    """
    found = _parsed(text, _PrivateFields, source)
    server = found.server and check_key(found.server, f"{source}: server")
    return PrivateKey(
        check_key(found.public, f"{source}: public"),
        check_key(found.secret, f"{source}: secret"),
        server,
    )


def written_private(key: PrivateKey, title: str) -> str:
    """Write the file of a private key; `title` says whose it is."""
    server = f'server = "{key.server}"\n' if key.server else ""
    return (
        f"# {title}. Whoever can read this file can act as its owner.\n"
        f'public = "{key.public}"\nsecret = "{key.secret}"\n{server}'
    )


def parse_entry(text: str, name: str, source: str) -> Entry:
    """Read the file of a client that may connect; arguments and errors as in `parse_private`."""
    found = _parsed(text, _EntryFields, source)
    for pattern in found.nodes:
        check_pattern(pattern)
    rights = Rights(nodes=found.nodes, reads=found.reads, administers=found.administers)
    return Entry(name, check_key(found.public, f"{source}: public"), rights)


def written_entry(entry: Entry) -> str:
    """Write the file of a client that may connect."""
    rights = entry.rights
    nodes = ", ".join(f'"{pattern}"' for pattern in rights.nodes)
    return (
        "# A client that may connect. Changes count at once; without the file it may not.\n"
        f'public = "{entry.public}"\n'
        f"nodes = [{nodes}]\n"
        f"reads = {str(rights.reads).lower()}\n"
        f"administers = {str(rights.administers).lower()}\n"
    )


def _parsed(text: str, kind: type[_Fields], source: str) -> _Fields:
    try:
        return msgspec.convert(tomllib.loads(text), kind)
    except (tomllib.TOMLDecodeError, RecursionError, msgspec.ValidationError) as error:
        # Not chained: a traceback may show the lines of the file, and with them a secret.
        reason = str(error) if isinstance(error, msgspec.ValidationError) else "it is no TOML"
        raise InvalidArgumentError(f"{source}: {reason}") from None


def z85(key: bytes) -> str:
    """Write a key as ZeroMQ's RFC 32 does; of other than 32 bytes what it would be in hex."""
    if len(key) != _KEY_BYTES:
        return key.hex()
    text = ""
    for start in range(0, _KEY_BYTES, 4):
        value = int.from_bytes(key[start : start + 4], "big")
        for weight in _WEIGHTS:
            text += _DIGITS[value // weight % 85]
    return text


def fingerprint(public: str) -> str:
    """Name a public key in so few characters that a person can compare them."""
    return public[:8]
