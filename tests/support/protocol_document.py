"""Reads PROTOCOL.md, so that tests can hold it against the code."""

import re
from pathlib import Path
from typing import NamedTuple

PATH = Path(__file__).parents[2] / "broker" / "wire" / "PROTOCOL.md"

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Frame(NamedTuple):
    """One frame of an example: whence, its bytes, and what it is said to mean (JSON) if it is."""

    sent: bool
    data: bytes
    meaning: str | None


class Example(NamedTuple):
    """One example: what a client sends and, if that is shown, what it gets."""

    title: str
    sent: list[Frame]
    received: list[Frame]


def text() -> str:
    """Give the whole document."""
    return PATH.read_text()


def blocks(language: str) -> list[str]:
    """Give the code blocks in a language."""
    return [body for name, body in _BLOCK.findall(text()) if name == language]


def examples() -> list[Example]:
    """Give all examples of frames."""
    found = []
    for body in blocks("wire"):
        frames: list[Frame] = []
        for line in body.splitlines():
            mark, _, rest = line.partition(" ")
            if mark == "=":
                frames[-1] = frames[-1]._replace(meaning=rest)
            else:
                assert mark in ("<", ">"), line
                frames.append(Frame(mark == ">", _data(rest), None))
        sent = [frame for frame in frames if frame.sent]
        received = [frame for frame in frames if not frame.sent]
        found.append(Example(body.splitlines()[0][:60], sent, received))
    return found


def table(heading: str) -> list[list[str]]:
    """Give the rows of the first table below a heading, without its head."""
    _, _, below = text().partition(f"\n{heading}\n")
    rows: list[list[str]] = []
    for line in below.splitlines():
        if line.startswith("|"):
            rows.append([cell.strip() for cell in line.strip("|").split(" | ")])
        elif rows:
            break
    assert len(rows) > 2, heading
    return rows[2:]


def _data(line: str) -> bytes:
    if line == "(empty)":
        return b""
    if line[0] in "{[":
        return line.encode()
    return bytes.fromhex(line)
