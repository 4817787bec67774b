"""Questions to the journal, and who goes on with the answers. Pure.

Who asks is a generator: it yields a question (its id is given here) and is sent the answer with its
buffers. Questions only read, so those that a writer has not answered when it died are asked of the
next one; where there will be none, `UnaskedError` is raised in the generator, and `MissingError`
where a run is not there that is asked about.

Mirror: tests/broker/test_inquiries.py.
"""

from collections.abc import Generator, Sequence

from msgspec.structs import replace

from .events import AskJournal, Command, JournalAnswered
from .journal.fold import RunState
from .journal.messages import Answer, Failed, FoundEvents, Question, ReadEvents
from .journal.record import Accepted
from .wire.errors import JournalError


class UnaskedError(JournalError):
    """There is nobody to ask; the next journal may be."""


class MissingError(JournalError):
    """There is no such run, or it is kept no longer."""


Steps = Generator[Question, tuple[Answer, Sequence[bytes]], None]


class Inquiries:
    """What was asked of the journal and is not answered."""

    def __init__(self) -> None:
        # id of a question -> it, and who goes on with its answer
        self._open: dict[int, tuple[Question, Steps]] = {}
        self._ids = 0  # given out last
        self._is_connected = False  # whether what is asked arrives somewhere
        self.now = 0.0  # when the last answer came, or whoever asks has begun
        self.commands: list[Command] = []  # to be taken by whoever has called

    def begin(self, steps: Steps, now: float) -> None:
        """Have a generator ask its first question."""
        self.now = now
        try:
            question = next(steps)
        except StopIteration:
            return
        self._ask(question, steps)

    def on_answered(self, event: JournalAnswered, now: float) -> None:
        """Hand an answer to who has asked."""
        self.now = now
        answer = event.answer
        _, steps = self._open.pop(answer.id, (None, None))
        if steps is None:  # who has asked was told that there is no journal
            return
        try:
            if isinstance(answer, Failed):
                kind = MissingError if answer.is_missing else JournalError
                question = steps.throw(kind(f"the journal can't tell: {answer.message}"))
            else:
                question = steps.send((answer, event.buffers))
        except StopIteration:
            return
        self._ask(question, steps)

    def on_welcomed(self) -> None:
        """Ask this journal all that another one has not answered."""
        self._is_connected = True
        self.commands += [AskJournal(question) for question, _ in self._open.values()]

    def on_gone(self, reason: str, now: float) -> None:
        """Keep what is open for the next journal; if there is none, tell that to who has asked."""
        self.now = now
        self._is_connected = False
        if reason:
            self.give_up(reason, now)

    def give_up(self, reason: str, now: float) -> None:
        """Tell who has asked that nobody answers."""
        self.now = now
        given_up, self._open = self._open, {}
        for _, steps in given_up.values():
            try:
                question = steps.throw(UnaskedError(f"the journal can't be asked: {reason}"))
            except StopIteration:
                continue
            self._ask(question, steps)

    def _ask(self, question: Question, steps: Steps) -> None:
        self._ids += 1
        question = replace(question, id=self._ids)
        self._open[self._ids] = question, steps
        if self._is_connected:
            self.commands.append(AskJournal(question))


def read_acceptance(
    state: RunState,
) -> Generator[Question, tuple[Answer, Sequence[bytes]], Accepted]:
    """Ask for the first record of a run."""
    found, _ = yield ReadEvents(0, state.run, 0, 1)
    assert isinstance(found, FoundEvents)
    accepted = found.events[0][1]
    assert isinstance(accepted, Accepted)
    return accepted
