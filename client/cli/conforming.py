"""``pronghorn conformance``: hold a broker, or a client, against PROTOCOL.md. An IO shell.

Mirror: tests/client/cli/test_conforming.py.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from importlib.resources import files

import msgspec

from pronghorn.broker.wire.errors import BrokerLostError, ErrorDetails, InvalidArgumentError
from pronghorn.broker.wire.keys import PrivateKey

from ..conformance import frames, json, replayed
from ..conformance.findings import Failure, Finding, run_checks
from ..conformance.peers import broker_at
from ..conformance.walking import StartError, walk
from ..keys import key_for
from .connecting import check_listening, endpoint_of
from .output import is_terminal, write, write_table
from .status import Status

_HEADINGS = ("Check", "Section", "Result", "Reason")


def check_broker(endpoints: Sequence[str], name: str | None, *, as_json: bool) -> None:
    """Check a broker from outside, and print what came of it.

    Raises:
        InvalidArgumentError: Several are named, or the key can't be read.
        BrokerLostError: There is none.
        SystemExit: It does not do what PROTOCOL.md says.
    """
    if len(endpoints) > 1:
        raise InvalidArgumentError("give one endpoint; for the command of a client say --serve")
    endpoint = endpoint_of(endpoints[0] if endpoints else None, name)
    key = key_for(endpoint)
    check_listening(endpoint)
    try:
        found = list(_of_broker(endpoint, key))
    except Failure as failure:  # it answers nothing that could be looked at
        unknown = ErrorDetails(outcome="maybe_executed")
        raise BrokerLostError(f"{endpoint}: {failure}", unknown) from failure
    _tell(found, as_json=as_json)


def check_client(command: Sequence[str], *, as_json: bool) -> None:
    """Have a client take the walk, and print what came of it.

    Raises:
        InvalidArgumentError: There is no command, or it can't be started.
        SystemExit: The client does not do what PROTOCOL.md says.
    """
    if not command:
        raise InvalidArgumentError("--serve needs the command of a client: --serve -- COMMAND...")
    try:
        found = walk(command)
    except StartError as error:
        raise InvalidArgumentError(str(error)) from error
    _tell(found, as_json=as_json)


def print_nodes() -> None:
    """Print the module of nodes that all checks can be made with."""
    write((files("pronghorn.client.conformance") / "nodes.py").read_bytes())


def _of_broker(endpoint: str, key: PrivateKey | None) -> Iterator[Finding]:
    with broker_at(endpoint, key) as broker:
        for checks in (frames.CHECKS, json.CHECKS, replayed.CHECKS):
            for finding in run_checks(checks, broker, broker.served):
                broker.hang_up()  # each check begins with connections of its own
                yield finding


def _tell(found: Sequence[Finding], *, as_json: bool) -> None:
    counts = Counter(finding.verdict for finding in found)
    if as_json:
        told = {name: counts[name] for name in ("passed", "failed", "skipped")}
        encoded = msgspec.json.encode({**told, "findings": found})
        write((msgspec.json.format(encoded) if is_terminal(1) else encoded) + b"\n")
    else:
        write_table(
            _HEADINGS,
            [(one.name, str(one.section), one.verdict, one.reason) for one in found],
        )
        write(
            f"{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped\n"
        )
    if counts["failed"]:
        raise SystemExit(Status.NODE_ERROR)
