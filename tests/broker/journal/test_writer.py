"""Mirror of broker/journal/writer.py: real processes. What disks and kills do is in tests/fault."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from journal_records import SECRET, accepted, value
from journal_writers import refused, whole, write_run
from sleeping import sleeps_for_ever

from pronghorn.bench.subjects.journal import Broker, Journal, journal
from pronghorn.broker.journal.batch import LINGER_S
from pronghorn.broker.journal.checking import check_folder
from pronghorn.broker.journal.messages import (
    AskStatistics,
    FindKey,
    FindRun,
    FoundOpen,
    FoundRun,
    FoundValue,
    Hello,
    ListOpen,
    ReadValue,
    Refused,
    Statistics,
    frames_of,
)
from pronghorn.broker.journal.place import LOCK_NAME, NEW_WAL_NAME, WAL_NAME
from pronghorn.broker.journal.record import Ended, Reopened, Started, sequence_of
from pronghorn.broker.journal.wal import WAL_BYTES
from pronghorn.broker.wire.control import JournalConfig, JournalOpened

pytestmark = pytest.mark.slow


def until(happened: Callable[[], object], patience_s: float = 20.0) -> None:
    deadline = time.monotonic() + patience_s
    while not happened():
        assert time.monotonic() < deadline, "it does not happen"
        time.sleep(0.01)


def test_records_are_acknowledged_and_there_when_it_starts_again(folder: Path) -> None:
    with journal(folder) as running:
        assert running.opened == JournalOpened(0, ())
        broker = running.attach("e1").welcomed()
        first = broker.next_sequence
        runs = [write_run(broker) for _ in range(1000)]
        open_run = broker.write_record(accepted(broker.next_sequence, key="order-17"))
        broker.settle()
        assert broker.acknowledged == first + 2000
        assert broker.commits < 100
        found = broker.ask(FindRun(1, runs[7], SECRET))
        assert isinstance(found, FoundRun)
        assert found.state is not None
        assert found.state.status == "done"
        broker.close()
    assert running.process.returncode == 0
    whole(folder)
    with journal(folder) as running:
        assert running.opened == JournalOpened(1, ())
        broker = running.attach("e2").welcomed()
        assert broker.next_sequence == sequence_of(2, 1)
        ((state, record),) = broker.ask(ListOpen(1, 0, 10)).runs
        assert state.run == record.run == open_run
        assert broker.ask(FindKey(2, "uid:1000", "order-17")).state == state
        broker.write_record(Ended(open_run, open_run, 0, 5, "cancelled"))
        broker.settle()
        assert broker.ask(AskStatistics(3)).counts.open == 0
        broker.close()
    whole(folder)


def test_one_record_is_committed_at_once_and_alone(folder: Path) -> None:
    with journal(folder) as running:
        broker = running.attach("e1").welcomed()
        for number in range(1, 11):
            broker.write_record(accepted(broker.next_sequence))
            broker.settle()
            assert broker.commits == number
        broker.close()


def test_records_that_come_together_share_a_commit(folder: Path) -> None:
    with journal(folder) as running:
        broker = running.attach("e1").welcomed()
        for _ in range(100):
            broker.write_record(accepted(broker.next_sequence))
        broker.settle()
        assert broker.commits == 1
        broker.close()


def test_what_nobody_waits_for_gathers_until_somebody_does(folder: Path) -> None:
    with journal(folder) as running:
        broker = running.attach("e1").welcomed()
        begun = time.monotonic()
        broker.write_record(accepted(broker.next_sequence))
        broker.settle()
        assert time.monotonic() - begun >= LINGER_S
        for _ in range(3):
            broker.write_record(accepted(broker.next_sequence))
            broker.hurry()
            broker.flush()
        broker.settle()
        assert 2 <= broker.commits <= 4
        broker.close()


def logged(folder: Path) -> int:
    """Return how many records only the log has."""
    report = check_folder(folder, at_rest=True)
    assert report.problems == []
    return report.logged


def keep_waited_for(broker: Broker, **fields: Any) -> int:
    """Have a run kept that somebody waits for."""
    run = write_run(broker, **fields)
    broker.hurry()
    broker.settle()
    return run


def test_what_somebody_waits_for_is_logged_and_survives_the_writer(folder: Path) -> None:
    running = Journal(JournalConfig(folder=str(folder)))
    broker = running.attach("e1").welcomed()
    runs = [keep_waited_for(broker, key=f"key-{number}") for number in range(3)]
    running.kill()
    broker.close()
    assert 0 < logged(folder) <= 6
    with journal(folder) as running:
        broker = running.attach("e2").welcomed()
        assert broker.ask(AskStatistics(1)).counts.done == 3
        for run in runs:
            assert broker.ask(FindRun(2, run, SECRET)).state.status == "done"
        broker.close()
    assert logged(folder) == 0
    whole(folder)


def test_the_store_has_what_is_asked_for(folder: Path) -> None:
    with journal(folder) as running:
        broker = running.attach("e1").welcomed()
        for number in range(20):
            key = f"key-{number}"
            run = keep_waited_for(broker, key=key)
            question = (
                FindRun(1, run, SECRET),
                FindKey(1, "uid:1000", key),
                ReadValue(1, run, 0),
                ListOpen(1, 0, 1),
                AskStatistics(1),
            )[number % 5]
            found = broker.ask(question)
            if isinstance(found, FoundRun):
                assert found.state is not None
                assert found.state.status == "done"
            elif isinstance(found, Statistics):
                assert found.counts.done == number + 1
            else:
                assert isinstance(found, FoundValue | FoundOpen)
        broker.close()


def test_the_store_takes_in_what_is_logged_soon_and_then_it_sleeps(folder: Path) -> None:
    with journal(folder) as running:
        broker = running.attach("e1").welcomed()
        keep_waited_for(broker)
        until(lambda: not logged(folder))
        until(lambda: sleeps_for_ever(running.process.pid))
        broker.close()


def test_more_than_the_log_takes_is_kept_all_the_same(folder: Path) -> None:
    with journal(folder) as running:
        broker = running.attach("e1").welcomed()
        sizes = [*(WAL_BYTES // 5 for _ in range(12)), WAL_BYTES, 2 * WAL_BYTES, 10]
        runs = [keep_waited_for(broker, value=value("x" * size)) for size in sizes]
        for run, size in zip(runs, sizes, strict=True):
            assert len(broker.ask(ReadValue(1, run, run)).value) >= size
        broker.close()
    whole(folder)


def test_without_a_log_each_is_committed_at_once(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    (folder / NEW_WAL_NAME).mkdir()  # so that it can't be made
    with journal(folder) as running:
        broker = running.attach("e1").welcomed()
        for _ in range(3):
            keep_waited_for(broker)
        broker.close()
    report = check_folder(folder)
    assert (report.problems, report.records) == ([], 6)
    assert not (folder / WAL_NAME).exists()


def go_on(broker: Broker, refused: int) -> None:
    """Be told that a record is refused, give it up, and go on."""
    found = broker.next_answer(Refused)
    assert found.sequence == refused
    assert broker.backlog is not None
    assert broker.backlog.give_up(refused, found.run)[0] == found.run != 0
    broker.put(frames_of(Hello(broker.epoch)))
    broker.take_over(broker.backlog)


def test_a_defective_record_behind_what_is_logged_costs_nothing(folder: Path) -> None:
    with journal(folder) as running:
        broker = running.attach("e1").welcomed()
        keep_waited_for(broker)
        broker.write_record(Started(77, 76, 1, 5))  # of a run that there is not
        assert isinstance(broker.next_answer(Refused), Refused)
        broker.close()
    report = check_folder(folder, at_rest=True)
    assert (report.problems, report.records) == ([], 2)


@pytest.mark.parametrize("hurries", [False, True])
def test_a_refused_record_costs_its_run_and_no_other(folder: Path, *, hurries: bool) -> None:
    with journal(folder) as running:
        broker = running.attach("e1").welcomed()
        before = write_run(broker)
        open_run = broker.write_record(accepted(broker.next_sequence))
        wrong = broker.write_record(Started(open_run, open_run - 1, 1, 5))
        broker.write_record(Ended(open_run, wrong, 0, 5, "cancelled"))
        after = write_run(broker, key="order-17")
        broker.put(frames_of(FindRun(1, after, SECRET)))  # is not answered: nobody listens
        if hurries:
            broker.hurry()
        go_on(broker, wrong)
        broker.hurry()
        broker.settle()
        assert not broker.answers
        for run, status in ((before, "done"), (open_run, "open"), (after, "done")):
            assert broker.ask(FindRun(2, run, SECRET)).state.status == status
        last = broker.write_record(Ended(open_run, open_run, 0, 5, "cancelled"))
        keep_waited_for(broker)
        assert broker.ask(FindRun(3, open_run, SECRET)).state.last == last
        broker.close()
    whole(folder)


def test_many_refused_records_are_refused_one_after_the_other(folder: Path) -> None:
    with journal(folder) as running:
        broker = running.attach("e1").welcomed()
        wrong = []
        for number in range(20):
            write_run(broker)
            wrong.append(broker.write_record(Started(7 + number, 1, 1, 5)))
        for refused in wrong:
            go_on(broker, refused)
        broker.settle()
        assert broker.ask(AskStatistics(1)).counts.records == 40
        broker.close()
    whole(folder)


def test_a_refused_record_survives_the_writer_as_a_number(folder: Path) -> None:
    running = Journal(JournalConfig(folder=str(folder)))
    broker = running.attach("e1").welcomed()
    keep_waited_for(broker)
    wrong = broker.write_record(Started(77, 76, 1, 5))
    go_on(broker, wrong)
    kept = keep_waited_for(broker)
    assert broker.backlog is not None
    assert broker.acknowledged == broker.next_sequence - 1 == kept + 1
    running.kill()
    broker.close()
    with journal(folder) as running:
        again = running.attach("e1").take_over(broker.backlog)
        assert again.acknowledged == again.next_sequence - 1 == kept + 1
        assert again.ask(FindRun(1, kept, SECRET)).state.status == "done"
        keep_waited_for(again)
        again.close()
    whole(folder)


def test_a_defective_record_that_somebody_waits_for_is_not_kept(folder: Path) -> None:
    with journal(folder) as running:
        broker = running.attach("e1").welcomed()
        run = keep_waited_for(broker, key="order-17")
        kept = broker.acknowledged
        broker.write_record(accepted(broker.next_sequence, key="order-17"))  # of that run
        broker.hurry()
        assert isinstance(broker.next_answer(Refused), Refused)
        assert broker.acknowledged == kept
        broker.close()
        broker = running.attach("e2").welcomed()
        assert broker.ask(FindKey(1, "uid:1000", "order-17")).state.run == run
        keep_waited_for(broker)
        broker.close()
    report = check_folder(folder, at_rest=True)
    assert (report.problems, report.records, report.logged) == ([], 4, 0)


def test_a_run_that_retention_has_removed_is_not_opened_again(folder: Path) -> None:
    """Whoever asked for that was told of the run just before; nothing else suffers."""
    with journal(folder, runs=1) as running:
        broker = running.attach("e1").welcomed()
        run = broker.write_record(accepted(broker.next_sequence))
        ended = broker.write_record(Ended(run, run, 0, 5, "cancelled"))
        keep_waited_for(broker)
        until(lambda: broker.ask(FindRun(1, run, SECRET)).state is None)
        again = broker.write_record(Reopened(run, ended, 7))
        broker.hurry()
        go_on(broker, again)
        keep_waited_for(broker)
        broker.close()
    with journal(folder):
        pass
    whole(folder)


def test_what_was_written_before_the_supervisor_went_is_kept(folder: Path) -> None:
    with journal(folder) as running:
        broker = running.attach("e1").welcomed()
        os.kill(running.process.pid, signal.SIGSTOP)
        for _ in range(100):
            write_run(broker)
        broker.flush()
        assert not broker.pending_bytes
        running.channel.close()
        broker.close()
        os.kill(running.process.pid, signal.SIGCONT)
        assert running.process.wait(20.0) == 0
    with journal(folder) as running:
        broker = running.attach("e2").welcomed()
        assert broker.ask(AskStatistics(1)).counts.done == 100
        broker.close()


def test_it_sleeps_while_nothing_comes(folder: Path) -> None:
    with journal(folder) as running:
        broker = running.attach("e1").welcomed()
        write_run(broker)
        broker.settle()
        until(lambda: sleeps_for_ever(running.process.pid))
        broker.close()


# --- who may write -----------------------------------------------------------------------------


def test_a_second_writer_is_told_who_the_first_is(folder: Path) -> None:
    with journal(folder) as running:
        assert f"in use by process {running.process.pid}" in refused(folder)
        broker = running.attach("e1").welcomed()
        write_run(broker)
        broker.settle()
        broker.close()


def test_foreign_and_unusable_folders_are_told(tmp_path: Path) -> None:
    foreign = tmp_path / "thesis"
    foreign.mkdir(mode=0o700)
    (foreign / "chapter-1.txt").write_text("years of work")
    assert "holds no journal but chapter-1.txt" in refused(foreign)
    (tmp_path / "file").write_text("")
    assert "can't use" in refused(tmp_path / "file")
    assert "can't use" in refused(Path("/proc/nowhere"))


def test_the_lock_goes_with_the_process(folder: Path) -> None:
    with journal(folder) as running:
        assert running.kill() == -signal.SIGKILL
        assert (folder / LOCK_NAME).read_text() == f"{running.process.pid}\n"
    with journal(folder):
        pass


# --- retention ---------------------------------------------------------------------------------


def test_runs_beyond_their_number_are_removed_meanwhile(folder: Path) -> None:
    with journal(folder, runs=100) as running:
        broker = running.attach("e1").welcomed()
        for _ in range(2000):
            write_run(broker, at_ns=time.time_ns())
        broker.settle()
        until(lambda: broker.ask(AskStatistics(1)).counts.done <= 100)
        statistics = broker.ask(AskStatistics(2))
        assert statistics.pruned.runs == 1900
        broker.close()
    whole(folder)


def test_old_runs_are_removed_at_the_start(folder: Path) -> None:
    with journal(folder) as running:
        broker = running.attach("e1").welcomed()
        for _ in range(10):
            write_run(broker, at_ns=time.time_ns())
        broker.settle()
        broker.close()
    with journal(folder, age_s=0.0) as running:
        broker = running.attach("e2").welcomed()
        until(lambda: broker.ask(AskStatistics(1)).counts.done == 0)
        broker.close()
    whole(folder)


def test_above_the_quota_nothing_new_is_accepted_but_open_runs_end(folder: Path) -> None:
    with journal(folder, quota_bytes=200_000) as running:
        broker = running.attach("e1").welcomed()
        assert broker.refusing == ""
        run = broker.write_record(accepted(broker.next_sequence, value=value("x" * 300_000)))
        broker.settle()
        while not broker.refusing:  # it looks once a second, when something was committed
            write_run(broker)
            broker.settle()
            broker.exchange(0.1)
        assert "its quota is 200000" in broker.refusing
        broker.write_record(Ended(run, run, run, 5, "done"))
        broker.settle()
        broker.close()
