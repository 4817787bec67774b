"""What a journal has kept, and its answers, without a store: for tests of brokers."""

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from pronghorn.broker.journal.fold import RunState, advance
from pronghorn.broker.journal.messages import (
    Answer,
    Failed,
    FindKey,
    FindRun,
    FoundEvents,
    FoundHistory,
    FoundKeys,
    FoundOpen,
    FoundRun,
    FoundValue,
    ListKeys,
    ListOpen,
    Question,
    ReadEvents,
    ReadHistory,
    ReadValue,
    Void,
)
from pronghorn.broker.journal.record import Accepted, Advanced, Record, Reopened, WithValue
from pronghorn.broker.journal.rows import digest_of, key_hash
from pronghorn.broker.wire.link import CODEC_JSON, HistoryPart
from pronghorn.broker.wire.messages import NIL

decode_entry = msgspec.msgpack.Decoder(Record | Void).decode  # type: ignore[arg-type,var-annotated]
"""Of what a broker writes: a record, or what stands for one that was refused."""

Answered = tuple[Answer, Sequence[bytes]]


def uid_in(params: Any) -> int:
    """Return the `uid` of a run of the simulation; the items of a map say of which they are."""
    uid: int = params[0]["of"] if isinstance(params, list) else params["uid"]
    return uid


class KeptRuns:
    """Runs and their records, in memory; what does not follow is refused as the real one does."""

    def __init__(self, *, apart_bytes: int = 1024) -> None:
        self._apart_bytes = apart_bytes
        self.states: dict[int, RunState] = {}
        self.records: dict[int, list[tuple[int, Record]]] = {}  # run -> its records
        self.keys: dict[tuple[str, str], int] = {}
        self._values: dict[bytes, bytes] = {}

    def keep(self, sequence: int, record: Record | Void, buffers: Sequence[bytes] = ()) -> None:
        """Keep the next record.

        Raises:
            HistoryError: It does not follow from what is kept.
        """
        if isinstance(record, Void):
            return
        run = record.run
        self.states[run] = advance(self.states.get(run), sequence, record)
        if isinstance(record, Accepted) and record.key is not None:
            assert (record.owner, record.key) not in self.keys, "a key has one run"
            self.keys[record.owner, record.key] = run
        if isinstance(record, WithValue) and (buffers or len(record.value) >= self._apart_bytes):
            contents = [bytes(record.value), *buffers]
            digests = tuple(map(digest_of, contents))
            self._values |= dict(zip(digests, contents, strict=True))
            record = replace(record, value=NIL, apart=digests)
        self.records.setdefault(run, []).append((sequence, record))

    def remove(self, run: int) -> None:
        """Remove an ended run, as retention does."""
        state = self.states.pop(run)
        assert state.status != "open"
        del self.records[run]
        if state.key is not None:
            del self.keys[state.owner, state.key]

    def answer(self, question: Question) -> Answered:
        """Answer a question as the real one would."""
        match question:
            case FindRun(id, run, secret):
                state = self.states.get(run)
                found = state is not None and self._accepted(run).secret == secret
                return FoundRun(id, state if found else None), ()
            case FindKey(id, owner, key):
                number = self.keys.get((owner, key))
                return FoundRun(id, None if number is None else self.states[number]), ()
            case ListKeys(id, after, limit):
                hashes = sorted(key_hash(*key) for key in self.keys)
                return FoundKeys(id, tuple([one for one in hashes if one > after][:limit])), ()
            case ListOpen(id, after, limit):
                runs = sorted(run for run, state in self.states.items() if state.status == "open")
                later = [run for run in runs if run > after][:limit]
                return FoundOpen(
                    id, tuple((self.states[run], self._accepted(run)) for run in later)
                ), ()
            case ReadEvents(id, run, start, limit):
                if run not in self.records:
                    return Failed(id, f"there is no run {run}", is_missing=True), ()
                events = [one for one in self.records[run] if one[0] >= start]
                return FoundEvents(id, tuple(events[:limit])), ()
            case ReadValue(id, run, sequence):
                return self._value(id, run, sequence or self.states[run].last)
            case ReadHistory(id, run, after):
                return self._history(id, run, after)
            case _:
                raise AssertionError(f"not asked by brokers: {question!r}")

    def uid_of(self, run: int) -> int:
        """Return the `uid` among the params of a run of the simulation."""
        accepted = self._accepted(run)
        value = self._values[accepted.apart[0]] if accepted.apart else accepted.value
        params = msgspec.msgpack.decode(value)
        if accepted.codec == CODEC_JSON:
            params = msgspec.json.decode(params)
        return uid_in(params)

    def _accepted(self, run: int) -> Accepted:
        record = self.records[run][0][1]
        assert isinstance(record, Accepted)
        return record

    def _history(self, id_: int, run: int, after: int) -> Answered:
        parts: list[HistoryPart] = []
        buffers: list[bytes] = []
        for sequence, record in self.records[run]:
            if sequence > after and isinstance(record, Advanced | Reopened):
                value, own = NIL, [b""]
                if isinstance(record, Advanced):
                    value = record.value if not record.apart else NIL
                    own = [self._values[digest] for digest in record.apart] or [bytes(value)]
                parts.append(HistoryPart(sequence, Raw(own[0]) if own[0] else NIL, len(own) - 1))
                buffers += own[1:]
        return FoundHistory(id_, tuple(parts), True, len(buffers)), tuple(buffers)

    def _value(self, id_: int, run: int, sequence: int) -> Answered:
        record = dict(self.records[run])[sequence]
        assert isinstance(record, WithValue)
        codec = getattr(record, "codec", 0)
        if not record.apart:
            return FoundValue(id_, record.value, codec, 0), ()
        value, *buffers = (self._values[digest] for digest in record.apart)
        return FoundValue(id_, Raw(value), codec, len(buffers)), tuple(buffers)
