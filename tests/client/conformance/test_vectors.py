"""Mirror of client/conformance/vectors.py."""

import pytest

from pronghorn.client.conformance.vectors import FILES, load, unhex


@pytest.mark.parametrize("name", FILES)
def test_all_files_are_there_and_have_named_vectors(name: str) -> None:
    vectors = load(name, "requests") if name == "jsonrpc" else load(name)
    assert vectors
    assert len({vector["name"] for vector in vectors}) == len(vectors)


def test_frames_are_bytes() -> None:
    assert unhex(["", "92 28 07"]) == [b"", b"\x92\x28\x07"]
