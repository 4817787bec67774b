"""Lines of JSON as they come: none is waited for while results could be handed out."""

import os
from collections.abc import Iterator

import pytest

from pronghorn.broker.wire.errors import InvalidArgumentError
from pronghorn.client.cli import lines as lines_module
from pronghorn.client.cli.lines import Lines


class Pipe:
    """What somebody writes, and the lines on the other side."""

    def __init__(self) -> None:
        self.reader, self._writer = os.pipe()
        self.lines = Lines(self.reader)

    def write(self, text: str) -> None:
        os.write(self._writer, text.encode())

    def end(self) -> None:
        if self._writer >= 0:
            os.close(self._writer)
            self._writer = -1


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    made.end()
    os.close(made.reader)


def test_items_end_where_the_input_runs_dry_and_go_on_when_there_is_more(pipe: Pipe) -> None:
    pipe.write("[1]\n[2]\n")
    assert pipe.lines.wait()
    assert list(pipe.lines.ready()) == [[1], [2]]
    pipe.write('{"a": 3}\n')
    assert pipe.lines.wait()
    assert list(pipe.lines.ready()) == [{"a": 3}]
    pipe.end()
    assert not pipe.lines.wait()


def test_part_of_a_line_is_no_item_yet(pipe: Pipe) -> None:
    pipe.write("[1]\n[")
    assert pipe.lines.wait()
    assert list(pipe.lines.ready()) == [[1]]
    pipe.write("2]\n")
    assert pipe.lines.wait()
    assert list(pipe.lines.ready()) == [[2]]


def test_last_line_needs_no_end(pipe: Pipe) -> None:
    pipe.write("[1]\n[2]")
    pipe.end()
    assert pipe.lines.wait()
    assert list(pipe.lines.ready()) == [[1], [2]]
    assert not pipe.lines.wait()


def test_empty_input_has_no_items(pipe: Pipe) -> None:
    pipe.end()
    assert not pipe.lines.wait()


def test_empty_lines_are_counted_and_skipped(pipe: Pipe) -> None:
    pipe.write("\n[1]\r\n  \n[2]\n")
    assert pipe.lines.wait()
    assert list(pipe.lines.ready()) == [[1], [2]]
    assert pipe.lines.number == 4
    assert pipe.lines.bytes_taken == len("\n[1]\r\n  \n[2]\n")


def test_line_that_is_no_item_ends_the_items_before_it_and_is_named(pipe: Pipe) -> None:
    pipe.write("[1]\nnope\n3\n[2]\n")
    assert pipe.lines.wait()
    assert list(pipe.lines.ready()) == [[1]]
    assert "line 2: JSON is malformed" in str(pipe.lines.take_bad())
    assert list(pipe.lines.ready()) == []
    assert "line 3: params are" in str(pipe.lines.take_bad())
    assert list(pipe.lines.ready()) == [[2]]
    assert pipe.lines.take_bad() is None


def test_line_over_the_limit_is_refused(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines_module, "LINE_BYTES_MAX", 10)
    pipe.write("[1]\n" + "x" * 11)
    assert list(pipe.lines.ready()) == [[1]]
    pipe.write("x")
    with pytest.raises(InvalidArgumentError, match="line 2 has more than 10 bytes"):
        pipe.lines.wait()


def test_line_is_put_together_from_many_reads(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines_module, "_READ_BYTES", 3)
    pipe.write('["a long one"]\n[]\n[2]')
    pipe.end()
    assert pipe.lines.wait()
    assert list(pipe.lines.ready()) == [["a long one"], [], [2]]
