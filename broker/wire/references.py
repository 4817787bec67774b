"""References: what stands in params for a large value that the receiver finds on its host itself.

Specified in PROTOCOL.md, "Values". **Ext 3, reference.** A run host that hands one large value to
many requests writes it, encoded, to a file of its tree once, and each request has a reference where
the value would stand. Its data has 28 bytes, big-endian: the process id of the host, 16 random
bytes, and the length of the encoded value. The file's name follows from the first two, so that no
path comes over the wire, and nobody finds a file whose random bytes it was not told.

Only the workers of the same tree can follow one; to all others it is an unknown extension type.

Mirror: tests/broker/wire/test_references.py.
"""

from struct import Struct
from typing import Any, Final, NamedTuple

import msgspec

EXT_REFERENCE: Final = 3

TOKEN_BYTES: Final = 16

_DATA: Final = Struct(f">I{TOKEN_BYTES}sQ")
_MARK: Final = bytes([0xC7, _DATA.size, EXT_REFERENCE])


class Reference(NamedTuple):
    """One large value.

    Attributes:
        owner: Process id of the host that has written it.
        token: Random.
        length: Of the encoded value, bytes.
    """

    owner: int
    token: bytes
    length: int

    @property
    def file_name(self) -> str:
        """The name of its file in the folder of its tree."""
        return f"{owner_prefix(self.owner)}{self.token.hex()}"

    def encode(self) -> bytes:
        """Give what stands for it in msgpack."""
        return _MARK + _DATA.pack(*self)


def owner_prefix(owner: int) -> str:
    """Give what the names of all files of one host begin with."""
    return f"{owner}-"


def is_reference(raw: Any) -> bool:
    """Whether msgpack of one value is a reference."""
    return bytes(memoryview(raw)[: len(_MARK)]) == _MARK


def may_refer(raw: Any) -> bool:
    """Whether msgpack may hold references, at any depth; quick, and seldom wrong."""
    return _MARK in bytes(raw)


def read_reference(raw: Any) -> Reference:
    """Read what `Reference.encode` has made."""
    return Reference(*_DATA.unpack(memoryview(raw)[len(_MARK) :]))


def reference_of(code: int, data: Any) -> Reference | None:
    """Read an extension; None if it is another one.

    Raises:
        msgspec.ValidationError: It is malformed.
    """
    if code != EXT_REFERENCE:
        return None
    if len(data) != _DATA.size:
        raise msgspec.ValidationError("malformed reference")
    return Reference(*_DATA.unpack(data))
