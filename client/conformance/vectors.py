"""The vectors beside PROTOCOL.md, as they were installed.

Mirror: tests/client/conformance/test_vectors.py.
"""

from importlib.resources import files
from typing import Any

import msgspec

FILES = ("requests", "replies", "messages", "malformed", "jsonrpc", "values")

Vector = dict[str, Any]


def load(name: str, part: str = "vectors") -> list[Vector]:
    """Read the vectors of one of `FILES`."""
    folder = files("pronghorn.broker.wire") / "vectors"
    document = msgspec.json.decode((folder / f"{name}.json").read_bytes())
    found: list[Vector] = document[part]
    return found


def unhex(frames: list[str]) -> list[bytes]:
    """Turn frames in hex into bytes."""
    return [bytes.fromhex(frame) for frame in frames]
