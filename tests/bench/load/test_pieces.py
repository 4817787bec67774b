"""Mirror of bench/load/pieces.py."""

from pathlib import Path

import pytest

from pronghorn.bench.load.pieces import pieces_of
from pronghorn.broker.wire.errors import InvalidArgumentError


def test_pieces_are_the_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    content = bytes(range(256)) * 1000
    path.write_bytes(content)
    pieces = list(pieces_of(str(path)))
    assert b"".join(pieces) == content
    assert max(map(len, pieces)) < len(content)


def test_what_can_not_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match=r"can't read .*: Is a directory"):
        list(pieces_of(str(tmp_path)))
    with pytest.raises(InvalidArgumentError, match="No such file or directory"):
        list(pieces_of(str(tmp_path / "nowhere")))
