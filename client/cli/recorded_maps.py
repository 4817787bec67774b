"""``pronghorn map --durability``: a map that is one run, which survives. An IO shell.

It is accepted as a whole, so that its input is read to the end first; and it goes on when this
ends, however it does.

Mirror: tests/client/cli/test_recorded_maps.py.
"""

import sys
from collections.abc import Iterator
from typing import Literal

import msgspec

from pronghorn.broker.wire.errors import InvalidArgumentError
from pronghorn.broker.wire.values import encode_json

from ..sync import Client
from .arguments import Params
from .connecting import CONNECT_TIMEOUT_S, check_listening
from .lines import Lines
from .mapping import MapOptions, Printer, opened
from .output import write


class Recording(msgspec.Struct, frozen=True, kw_only=True):
    """How a map is recorded; see ``pronghorn map --help``."""

    durability: Literal["none", "batched", "sync"] | None
    key: str | None
    detach: bool


def map_recorded(
    node: str,
    source: str,
    endpoint: str,
    options: MapOptions,
    recording: Recording,
    *,
    as_json: bool,
) -> None:
    """Start a map of all lines of a file or of standard input, and print its results or its id.

    Args:
        node: Its name.
        source: Path of the file, ``-`` for standard input.
        endpoint: Where the broker is.
        options: How to map; its timeout is for the acceptance of the run.
        recording: What is promised of it.
        as_json: Do not tell the run's id on standard error; a detached one's is JSON.

    Raises:
        PronghornError: A line is no params, so that nothing was started; the map can't be recorded;
            or its node has failed, unless to keep going.
        SystemExit: Some failed and it kept going.
    """
    if options.chunk_size is not None:
        why = "a recorded map has the chunks that the broker chooses: leave out --chunk-size"
        raise InvalidArgumentError(why)
    with (
        opened(source) as descriptor,
        _client(endpoint, options) as client,
    ):
        run = client.start_map(
            node,
            _items(Lines(descriptor)),
            durability=recording.durability,
            key=recording.key,
            timeout_s=options.timeout_s,
        )
        if recording.detach:
            write(encode_json({"id": run.id}) + b"\n" if as_json else f"{run.id}\n".encode())
            return
        if not as_json:
            sys.stderr.write(f"run {run.id}\n")
            sys.stderr.flush()
        printer = Printer(node, ordered=options.ordered, keep_going=options.keep_going)
        for value in run.items(ordered=options.ordered, return_exceptions=True):
            printer.print([value])
    printer.finish()


def _client(endpoint: str, options: MapOptions) -> Client:
    check_listening(endpoint)
    client = Client(endpoint, connect_timeout_s=CONNECT_TIMEOUT_S)
    return client.within(priority=options.priority)


def _items(lines: Lines) -> Iterator[Params]:
    """Give the items of all lines.

    Raises:
        InvalidArgumentError: One is none.
    """
    while lines.wait():
        yield from lines.ready()
        bad = lines.take_bad()
        if bad is not None:
            raise bad
