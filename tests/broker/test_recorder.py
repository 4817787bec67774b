"""Mirror of broker/recorder.py; with the core around it in test_durable.py."""

from msgspec import Raw
from requests_of import request

from pronghorn.broker.events import HurryJournal, JournalWelcomed, Send, WriteRecords
from pronghorn.broker.journal.record import Accepted, decode_record, sequence_of
from pronghorn.broker.recorder import Recorder
from pronghorn.broker.requests import Keep
from pronghorn.broker.wire.messages import Result

NIL = Raw(b"\xc0")
REPLY = Send(b"peer", Result(1, NIL))


def welcomed(seed: bytes = b"seed") -> Recorder:
    recorder = Recorder()
    recorder.on_welcomed(JournalWelcomed(sequence_of(1, 0), "", seed, 0))
    return recorder


def accepted_by(recorder: Recorder) -> Accepted:
    ended = request(keep=Keep("batched", NIL, (b"abc",)))
    recorder.end(ended, Result(1, NIL), (), REPLY)
    assert recorder.has_news
    assert recorder.settle(1.0) == [REPLY]
    assert ended.keep is None
    assert recorder.is_busy
    recorder.write_gathered()
    written, hurry = recorder.settle(1.0)
    assert hurry == HurryJournal(waited_for=False)
    assert isinstance(written, WriteRecords)
    (frame, buffer), _ = written.records
    assert buffer == b"abc"
    record = decode_record.decode(frame)
    assert isinstance(record, Accepted)
    return record


def test_the_ids_of_runs_differ_and_depend_on_the_seed() -> None:
    recorder = welcomed()
    secrets = {accepted_by(one).secret for one in (recorder, recorder, welcomed(b"other"))}
    assert len(secrets) == 3
    assert accepted_by(welcomed()).secret in secrets


def test_what_ends_before_there_is_a_journal_is_answered_without_a_record() -> None:
    recorder = Recorder()
    recorder.end(request(keep=Keep("sync", NIL, ())), Result(1, NIL), (), REPLY)
    assert recorder.is_busy
    assert recorder.settle(1.0) == [REPLY]
    assert not recorder.is_busy
    assert not recorder.has_news


def test_a_notification_is_recorded_and_not_answered() -> None:
    recorder = welcomed()
    recorder.end(request(keep=Keep("sync", NIL, ())), Result(None, NIL), (), None)
    commands = recorder.settle(1.0)
    assert [type(command) for command in commands] == [WriteRecords, HurryJournal]
    assert commands[1] == HurryJournal(waited_for=True)
