"""``pronghorn journal``: on a folder, as processes of their own."""

import json
from pathlib import Path

import pytest
from commands import Commands
from journal_records import Story
from journal_stores import filled

from pronghorn.bench.subjects.journal import journal
from pronghorn.broker.journal.place import DATA_NAME

pytestmark = pytest.mark.slow


@pytest.fixture
def story(tmp_path: Path) -> Story:
    return filled(tmp_path / "journal", records=150)


@pytest.fixture
def data(tmp_path: Path, story: Story) -> str:
    return str(tmp_path / "journal")


def test_statistics_are_printed(commands: Commands, data: str, story: Story) -> None:
    fields = json.loads(commands("journal", "stat", "--data", data, "--json").output)
    assert fields["records"] == 150
    assert fields["open_runs"] + fields["ended_runs"] == len(story.states)
    shown = commands("journal", "stat", "--data", data).output
    assert f"folder             {data}\n" in shown


def test_a_whole_journal_is_found_whole(commands: Commands, data: str) -> None:
    done = commands("journal", "verify", "--data", data)
    assert (done.status, done.errors) == (0, "")
    assert "150 records" in done.output
    with journal(Path(data), age_s=1e10):
        meanwhile = commands("journal", "verify", "--data", data, "--json")
    assert meanwhile.status == 0
    assert "the pages themselves are not looked at" in meanwhile.errors
    assert json.loads(meanwhile.output)["problems"] == []


def test_a_damaged_journal_is_found_damaged(commands: Commands, data: str) -> None:
    content = bytearray((Path(data) / DATA_NAME).read_bytes())
    content[content.index(b"shop.sell", 8192)] ^= 1
    (Path(data) / DATA_NAME).write_bytes(content)
    done = commands("journal", "verify", "--data", data)
    assert done.status == 5
    assert "the checksum is wrong" in done.output
    assert "is damaged" in done.errors


def test_a_backup_is_made_and_can_be_looked_at(
    commands: Commands, data: str, tmp_path: Path
) -> None:
    copy = str(tmp_path / "copy")
    with journal(Path(data), age_s=1e10):
        done = commands("journal", "backup", copy, "--data", data)
    assert (done.status, done.errors) == (0, "")
    assert commands("journal", "verify", "--data", copy).status == 0
    again = commands("journal", "backup", copy, "--data", data)
    assert again.status == 5
    assert "File exists" in again.errors


def test_a_journal_is_made_small(commands: Commands, data: str) -> None:
    commands("runs", "prune", "--all", "--data", data)
    sizes = json.loads(commands("journal", "compact", "--data", data, "--json").output)
    assert sizes["after"] < sizes["before"]
    assert commands("journal", "verify", "--data", data).status == 0
    with journal(Path(data)) as running:
        refused = commands("journal", "compact", "--data", data)
    assert refused.status == 5
    assert f"in use by process {running.process.pid}" in refused.errors


def test_an_export_has_every_run_and_event(
    commands: Commands, data: str, story: Story, tmp_path: Path
) -> None:
    lines = commands("journal", "export", "--data", data).output.splitlines()
    runs = [json.loads(line) for line in lines]
    assert len(runs) == len(story.states)
    assert sum(len(run["events"]) for run in runs) == 150
    file = tmp_path / "runs.jsonl"
    assert commands("journal", "export", str(file), "--data", data).status == 0
    assert file.read_text().splitlines() == lines
    again = commands("journal", "export", str(file), "--data", data)
    assert again.status == 2
    assert "File exists" in again.errors


def test_a_journal_that_is_not_there_is_told(commands: Commands, tmp_path: Path) -> None:
    for command in (["stat"], ["verify"], ["compact"], ["backup", "x"], ["export"]):
        done = commands("journal", *command, "--data", str(tmp_path))
        assert (done.status, done.output) == (2, "")
        assert "there is no journal in" in done.errors
