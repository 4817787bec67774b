"""The command line: what it runs, prints, keeps and returns."""

from pathlib import Path

import msgspec
import pytest

from pronghorn.bench import cli, guard
from pronghorn.bench.children import ChildError
from pronghorn.bench.environment import ROOT_VARIABLE
from pronghorn.bench.peers.catalog import PeerInfo
from pronghorn.bench.report import Report, compare
from pronghorn.bench.rounds import Progress
from pronghorn.bench.scenarios.options import Options
from pronghorn.bench.scenarios.peers import Found

asked: list[Options] = []


def scenario(name: str, value: float = 1.0) -> Report:
    return Report(
        scenario=name,
        question="How long?",
        comparisons=[compare("guard.sync", [value], [1.0])],
        tables=[],
        notes=[],
        raw={},
    )


@pytest.fixture(autouse=True)
def _two_scenarios(monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(options: Options) -> Report:
        asked.append(options)
        return scenario("rtt")

    asked.clear()
    monkeypatch.setattr(cli, "SCENARIOS", {"rtt": measure, "map": lambda _: scenario("map")})
    monkeypatch.delenv(ROOT_VARIABLE, raising=False)


def test_people_get_tables(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["rtt"]) == 0
    assert "How long?" in capsys.readouterr().out
    assert (asked[0].rounds, asked[0].quick) == (5, False)


def test_programs_get_json_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["rtt", "--json", "--quick"]) == 0
    decoded = msgspec.json.decode(capsys.readouterr().out)
    assert [one["scenario"] for one in decoded["scenarios"]] == ["rtt"]
    assert (asked[0].rounds, asked[0].quick) == (3, True)


def test_all_keeps_raw_results(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(ROOT_VARIABLE, str(tmp_path))
    assert cli.run(["all", "--rounds", "7"]) == 0
    kept = sorted(path.name for path in (tmp_path / "bench" / "results").iterdir())
    assert kept == ["map.json", "rtt.json"]
    assert asked[0].rounds == 7


def test_a_trial_run_keeps_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(ROOT_VARIABLE, str(tmp_path))
    assert cli.run(["all", "--quick"]) == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["rtt", "--rounds", "0"]])
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.run(arguments)
    assert stopped.value.code == 2


def test_a_subject_that_fails_is_told_in_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(options: Options) -> Report:
        raise ChildError("Client.call ended with status 1, see above")

    monkeypatch.setattr(cli, "SCENARIOS", {"rtt": fail})
    monkeypatch.setattr("sys.argv", ["bench", "rtt"])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 3
    assert "not measured: Client.call ended with status 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "value", "status", "said"),
    [
        (["guard"], 1.0, 0, ""),
        (["guard", "--json"], 9.0, 1, "OVER BUDGET: guard.sync"),
        (["guard", "--prove"], 9.0, 0, "proven"),
        (["guard", "--prove"], 1.0, 1, "NOT NOTICED: guard.sync"),
    ],
)
def test_the_guards_verdict_is_the_exit_status(
    arguments: list[str],
    value: float,
    status: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def report(progress: Progress) -> Report:
        return scenario("guard", value)

    monkeypatch.setattr(guard, "guard", report)
    monkeypatch.setattr(guard, "prove", report)
    assert cli.run(arguments) == status
    assert said in capsys.readouterr().err


def test_peers_are_chosen_by_name_and_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen: list[str] = []

    def measure(
        peers: list[PeerInfo], options: Options, environments: Path, on_result: object
    ) -> Found:
        chosen.extend(peer.name for peer in peers)
        assert environments == tmp_path / ".venv-peers"
        return Found([], {"loky": "no network"})

    monkeypatch.setenv(ROOT_VARIABLE, str(tmp_path))
    monkeypatch.setattr(cli.peers, "measure", measure)
    assert cli.run(["peers", "loky", "pool", "--keep"]) == 0
    assert chosen == ["pool", "loky"]
    assert "not measured: no network" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        cli.run(["peers", "nobody"])
    with pytest.raises(SystemExit):
        cli.run(["rtt", "loky"])
