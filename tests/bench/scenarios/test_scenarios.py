"""Every scenario end to end, with next to no calls: its parts fit, and its budgets are all held."""

from pathlib import Path

import foreign_clients
import msgspec
import pytest

from pronghorn.bench.budgets import BUDGETS
from pronghorn.bench.children import ChildError
from pronghorn.bench.cli import SCENARIOS
from pronghorn.bench.environment import collect
from pronghorn.bench.floors import pyro
from pronghorn.bench.output import as_json
from pronghorn.bench.peers.catalog import PeerInfo
from pronghorn.bench.rounds import Plan
from pronghorn.bench.scenarios import durable
from pronghorn.bench.scenarios.options import Options
from pronghorn.bench.subjects import node_client

# idle, changes and load count seconds, start counts servers, and faults both
CALLS = {
    **{"idle": 1, "start": 1, "claims": 200, "faults": 1, "changes": 1},
    **{"workflow": 1, "items": 1, "journal": 30, "durable": 70, "load": 2},
}


LONG = (
    "rtt",
    "scale",
    "links",
    "faults",
    "changes",
    "workflow",
    "items",
    "keys",
    "load",
    "clients",
)


def _no_environment(peer: PeerInfo, root: Path) -> Path:
    raise ChildError("nothing is installed by tests")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.trial] * (name in LONG)) for name in SCENARIOS],
)
def test_a_trial_run(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "clients" and not node_client.is_available():
        foreign_clients.skip("there is no Node.js, or its packages are not installed")
    monkeypatch.setattr(durable, "environment_of", _no_environment)
    tiny = Plan(rounds=1, calls=CALLS.get(name, 20), slices=1, warm_up=1)
    monkeypatch.setattr(Options, "plan", lambda options, **asked: tiny)
    report = SCENARIOS[name](Options(progress=lambda message: None))
    assert report.scenario == name
    held = {budget for budget in BUDGETS if budget.startswith(f"{name}.")}
    optional = {"durable.dbos"} if pyro.AVAILABLE else {"durable.dbos", "rtt.pyro"}
    assert {found.budget for found in report.comparisons} == held - optional
    assert report.tables
    assert msgspec.json.decode(as_json([report], collect()))["scenarios"][0]["raw"]
