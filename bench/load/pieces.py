"""A file in pieces, for who reads it without having it in memory. An IO shell.

Mirror: tests/bench/load/test_pieces.py.
"""

from collections.abc import Iterator
from typing import Final

from pronghorn.broker.wire.errors import InvalidArgumentError

_PIECE_BYTES: Final = 1 << 16


def pieces_of(path: str) -> Iterator[bytes]:
    """Give the bytes of a file, some at a time.

    Raises:
        InvalidArgumentError: It can't be read.
    """
    try:
        with open(path, "rb") as file:
            while piece := file.read(_PIECE_BYTES):
                yield piece
    except OSError as error:
        raise InvalidArgumentError(f"can't read {path}: {error.strerror}") from error
