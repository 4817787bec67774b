"""Mirror of client/conformance/frames.py, json.py and replayed.py: all checks, at a real broker.

And at one that answers everything wrongly: there no check may pass.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from foreign_clients import NODES
from msgspec.msgpack import encode

from pronghorn.client import Pool
from pronghorn.client.conformance import frames, json, replayed
from pronghorn.client.conformance.findings import Check, Failure, Finding, run_checks
from pronghorn.client.conformance.peers import SIGNATURES, Broker, Peer, broker_at

CHECKS = [
    pytest.param(check, id=check.name)
    for checks in (frames.CHECKS, json.CHECKS, replayed.CHECKS)
    for check in checks
]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("conformance")))
        with Pool(NODES, workers=2) as pool, broker_at(pool.endpoint) as broker:
            yield broker


@pytest.mark.parametrize("check", CHECKS)
def test_our_broker_conforms(broker: Broker, check: Check[Broker]) -> None:
    try:
        found = list(run_checks([check], broker, broker.served))
    finally:
        broker.hang_up()
    assert found == [Finding(check.name, check.section, "passed")]


class WrongWire:
    """A connection on which every reply is the same, and none is right."""

    def __init__(self) -> None:
        self._left = 50

    def send(self, frames: list[bytes]) -> None:
        pass

    def receive(self) -> list[bytes]:
        self._left -= 1
        if not self._left:
            raise Failure("nothing comes any more")
        return [encode([49, 4711, {"counters": {"malformed": self._left}}, 0])]


class WrongBroker(Broker):
    """A broker to which all connections are wrong."""

    def __init__(self) -> None:
        super().__init__(None, "ipc:///nowhere")
        self.served = frozenset(SIGNATURES)
        self.limits = dict.fromkeys(("stranger_requests", "buffers", "frames"), 64)
        self.limits |= dict.fromkeys(("request_bytes", "result_bytes"), 4096)

    def dealer(self, **options: Any) -> Peer:
        return Peer(WrongWire())

    req = stream = dealer


@pytest.mark.parametrize("check", CHECKS)
def test_no_check_passes_where_all_is_wrong(check: Check[Broker]) -> None:
    wrong = WrongBroker()
    [finding] = run_checks([check], wrong, wrong.served)
    assert finding.verdict == "failed"


def test_every_served_node_is_needed_by_a_check() -> None:
    needed = {node for param in CHECKS for node in param.values[0].needs}
    served = Path(NODES).read_text()
    assert needed == SIGNATURES.keys()
    assert served.count("@node") == len(needed)
