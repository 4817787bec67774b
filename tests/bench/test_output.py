"""What people and programs get to see of a report."""

import io
from pathlib import Path

import msgspec
from rich.console import Console

from pronghorn.bench.environment import collect
from pronghorn.bench.output import as_json, keep, print_environment, print_report
from pronghorn.bench.report import Report, Table, compare

REPORT = Report(
    scenario="rtt",
    question="How long?",
    comparisons=[compare("rtt.sync", [2.0], [1.0]), compare("idle.switches", [0.0])],
    tables=[Table("free", ("free", "p50 us"), [("ours", "1.00")])],
    notes=["Pyro5 is not installed."],
    raw={"free": {"ours": []}},
)


def printed(report: Report) -> str:
    console = Console(file=io.StringIO(), width=120, highlight=False)
    print_report(report, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_people_see_tables_verdicts_and_notes() -> None:
    text = printed(REPORT)
    assert "How long?" in text
    assert "sync client p50 / C proxy" in text
    assert "2.00 x" in text
    assert "≤ 1.50" in text
    assert "missed" in text
    assert "aim" in text
    assert "Note: Pyro5 is not installed." in text


def test_programs_get_one_object_with_the_environment() -> None:
    decoded = msgspec.json.decode(as_json([REPORT], collect()))
    assert decoded["environment"]["cores"] >= 1
    (scenario,) = decoded["scenarios"]
    assert scenario["comparisons"][0]["value"] == {"median": 2.0, "low": 2.0, "high": 2.0}
    assert scenario["raw"] == {"free": {"ours": []}}


def test_raw_results_are_kept_by_scenario(tmp_path: Path) -> None:
    path = keep(REPORT, collect(), tmp_path / "results")
    assert path == tmp_path / "results" / "rtt.json"
    assert msgspec.json.decode(path.read_bytes())["scenarios"][0]["scenario"] == "rtt"


def test_the_environment_is_printed() -> None:
    console = Console(file=io.StringIO(), width=200)
    print_environment(collect(), console)
    assert isinstance(console.file, io.StringIO)
    assert "libzmq" in console.file.getvalue()
