"""Mirror of broker/routes.py, through the whole core."""

from random import Random

import pytest
from core_driver import LIMITS, VALUE, Driver, assigned, error_of
from msgspec import Raw
from requests_of import Page

from pronghorn.broker import routes as module
from pronghorn.broker.events import (
    Assign,
    Send,
    TableComing,
    TableKnown,
    WorkerGone,
    WorkerSent,
    WorkerStarting,
)
from pronghorn.broker.wire.link import (
    Done,
    Nested,
    NestedDone,
    NestedFailed,
    Ready,
    RunCall,
    RunChunk,
    Skipped,
    Stop,
)
from pronghorn.broker.wire.messages import NIL, Call, Cancel, MapChunk, Options
from pronghorn.broker.wire.slots import SlotState
from pronghorn.broker.wire.table import NodeInfo, NodeTable

ONE, RATE, GPU, BOTH, FREE, TPU = "m.one", "m.rate", "m.gpu", "m.both", "m.free", "m.tpu"
TABLE = NodeTable(
    (
        NodeInfo(ONE, "async", max_concurrency=1),
        NodeInfo(RATE, "async", rate=10.0),
        NodeInfo(GPU, "inline", labels=("gpu",)),
        NodeInfo(BOTH, "inline", max_concurrency=1, labels=("gpu",)),
        NodeInfo(FREE, "inline"),
        NodeInfo("m.nowhere", "inline", labels=("none",)),
        NodeInfo(TPU, "inline", labels=("tpu",)),
    ),
    "digest",
)


class Routed(Driver):
    """A core that serves nodes with limits and labels."""

    def __init__(self) -> None:
        super().__init__(labels=frozenset({"gpu", "tpu"}))
        self.do(TableKnown(TABLE))
        self.hello()

    def start(self, worker_id: int, *labels: str) -> list[object]:
        self.pages[worker_id] = Page()
        starting = WorkerStarting(worker_id, self.pages[worker_id], labels=frozenset(labels))
        ready = WorkerSent(worker_id, Ready(worker_id, 100 + worker_id, "digest"))
        return list(self.do(starting, ready))


@pytest.fixture
def routed() -> Routed:
    routed = Routed()
    routed.start(1)
    return routed


def call(id_: int, node: str, **options: object) -> Call:
    return Call(id_, node, NIL, Options(**options))  # type: ignore[arg-type]


# --- limits -------------------------------------------------------------------------------------


def test_beyond_its_limit_a_node_s_requests_wait_and_others_do_not(routed: Routed) -> None:
    routed.start(2)
    first = routed.say(call(1, ONE))
    assert routed.say(call(2, ONE)) == []
    assert assigned(routed.say(call(3, FREE)))
    commands = routed.work(Done(assigned(first).token, VALUE, 1000), worker_of(list(first)))
    assert {type(command) for command in commands} == {Send, Assign}


def test_what_was_given_up_counts_until_its_worker_has_let_go(routed: Routed) -> None:
    first = assigned(routed.say(call(1, ONE)))
    routed.begin(first)
    routed.say(call(2, ONE))
    routed.say(Cancel(1))
    assert routed.core.statistics(routed.now).queued == 1
    again = assigned(routed.work(Done(first.token, VALUE, 1000)))
    assert again.token != first.token


def test_what_waits_at_the_gate_can_be_cancelled(routed: Routed) -> None:
    first = assigned(routed.say(call(1, ONE)))
    routed.say(call(2, ONE))
    assert error_of(routed.say(Cancel(2))).details.outcome == "not_started"
    assert len(routed.work(Done(first.token, VALUE, 1000))) == 1
    assert assigned(routed.say(call(3, ONE)))


def test_a_worker_that_is_lost_lets_the_next_one_pass(routed: Routed) -> None:
    first = assigned(routed.say(call(1, ONE)))
    routed.begin(first)
    routed.say(call(2, ONE))
    routed.start(2)
    lost, begun = routed.do(WorkerGone(1, "exit status 1"))
    assert isinstance(lost, Send)
    assert isinstance(begun, Assign)
    assert begun.worker_id == 2


def test_a_rate_is_kept_by_ticks(routed: Routed) -> None:
    begun = assigned(routed.say(*(call(number, RATE) for number in range(4))))
    for _ in range(3):
        due = routed.core._routes.gate_due
        assert due == pytest.approx(routed.now + 0.1, abs=0.001)
        assert routed.core.next_due() <= due
        routed.begin(begun)
        begun = assigned(routed.tick(due))


def test_a_chunk_counts_with_its_items(routed: Routed) -> None:
    items = Raw(b"\x93\xc0\xc0\xc0")
    assert assigned(routed.say(MapChunk(1, RATE, items)))
    assert routed.say(call(2, RATE)) == []
    assert routed.core._routes.gate_due == pytest.approx(routed.now + 0.3, abs=0.001)


# --- labels -------------------------------------------------------------------------------------


def test_a_node_that_needs_a_label_waits_for_a_worker_that_has_it(routed: Routed) -> None:
    assert routed.say(call(1, GPU)) == []
    assert assigned(routed.say(call(2, FREE)))
    (given,) = routed.start(2, "gpu", "large")
    assert isinstance(given, Assign)
    assert given.worker_id == 2


def test_a_label_that_no_worker_will_have_is_refused(routed: Routed) -> None:
    error = error_of(routed.say(call(1, "m.nowhere")))
    assert error.code == "NOT_FOUND"
    assert error.message == (
        "m.nowhere needs a worker with the labels none, and there is none: "
        "start some, as with serve --label NAME:COUNT"
    )


def called(routed: Routed, worker_id: int, run: RunCall, node: str) -> list[object]:
    """Be a node that calls another and holds up its worker."""
    routed.begin(run, worker_id)
    nested = Nested(1, run.token, node, NIL, None, True, 1)
    return list(routed.work(nested, worker_id))


def test_a_call_of_a_labelled_node_waits_for_its_worker_if_its_callers_have_no_labels(
    routed: Routed,
) -> None:
    routed.start(2, "gpu")
    busy = routed.say(call(1, GPU))
    caller = routed.say(call(2, FREE))
    assert called(routed, 1, assigned(caller), GPU) == []
    (_, given) = routed.work(Done(assigned(busy).token, VALUE, 1000), 2)
    assert isinstance(given, Assign)
    assert given.worker_id == 2
    (answer,) = routed.work(Done(given.message.token, VALUE, 1000), 2)  # type: ignore[union-attr]
    assert isinstance(answer, Assign)
    assert answer.message == NestedDone(1, VALUE)


def test_who_has_a_labelled_worker_does_not_wait_for_another(routed: Routed) -> None:
    """Two that each held what the other waits for would wait for ever."""
    routed.start(2, "gpu")
    routed.start(3, "tpu")
    busy = routed.say(call(1, TPU))
    assert worker_of(list(busy)) == 3
    caller = routed.say(call(2, GPU))
    (refused,) = called(routed, 2, assigned(caller), TPU)
    assert isinstance(refused, Assign)
    assert isinstance(refused.message, NestedFailed)
    assert refused.message.code == "RESOURCE_EXHAUSTED"


# --- affinity -----------------------------------------------------------------------------------


def finish(routed: Routed, run: RunCall) -> list[object]:
    routed.begin(run)
    return list(routed.work(Done(run.token, VALUE, 1000)))


def begun(commands: list[object]) -> list[RunCall]:
    return [one.message for one in commands if isinstance(one, Assign)]  # type: ignore[misc]


@pytest.mark.parametrize("special", [call(9, GPU), call(9, FREE, affinity="a")])
def test_many_ordinary_requests_do_not_keep_a_special_one_from_its_worker(special: Call) -> None:
    routed = Routed()
    routed.start(1, "gpu")
    run = assigned(routed.say(call(1, FREE, affinity="a")))
    assert routed.say(call(2, FREE), call(3, FREE), special) == []
    answered = []
    commands: list[object] = [Assign(1, run)]
    while runs := begun(commands):
        (run,) = runs
        routed.begin(run)
        commands = list(routed.work(Done(run.token, VALUE, 10**9)))  # slow: one runs at a time
        answered += [one.message.id for one in commands if isinstance(one, Send)]
    assert answered == [1, 2, 9, 3]


def test_quick_requests_do_not_fill_a_worker_that_another_room_waits_for() -> None:
    routed = Routed()
    routed.start(1, "gpu")
    finish(routed, assigned(routed.say(call(1, FREE))))  # it is quick from now on
    first = assigned(routed.say(call(2, FREE)))
    assert routed.say(call(3, GPU)) == []  # not measured yet: it has the worker for itself
    second = assigned(routed.say(call(4, FREE)))  # its room's turn
    assert routed.say(call(5, FREE), peer=b"other") == []
    assert begun(finish(routed, first)) == []
    (gpu,) = begun(finish(routed, second))
    assert gpu.node == 2
    (third,) = begun(finish(routed, gpu))
    assert third.node == 4


def worker_of(commands: list[object]) -> int:
    (command,) = commands
    assert isinstance(command, Assign)
    return command.worker_id


def test_what_comes_back_goes_where_its_node_s_labels_are_now() -> None:
    routed = Routed()
    routed.start(1)
    run = assigned(routed.say(call(1, FREE)))
    changed = tuple(
        NodeInfo(FREE, "inline", labels=("gpu",)) if info.name == FREE else info
        for info in TABLE.nodes
    )
    routed.do(TableComing(NodeTable(changed, "other"), 1))
    for worker_id, labels in ((2, frozenset({"gpu"})), (3, frozenset[str]())):
        routed.start_worker(worker_id, "other", 1, labels=labels)
    commands = routed.do(TableKnown(NodeTable(changed, "other"), 1))
    (again,) = [one for one in commands if isinstance(one, Assign) and one.message != Stop()]
    assert not routed.begin(run), "it was taken back"
    assert again.worker_id == 2


def test_the_same_key_goes_to_the_same_worker(routed: Routed) -> None:
    routed.start(2)
    first = routed.say(call(1, FREE, affinity="a"))
    assert routed.say(call(2, FREE, affinity="a")) == [], "it waits, though the other is idle"
    other = routed.say(call(3, FREE, affinity="b"))
    assert {worker_of(list(first)), worker_of(list(other))} == {1, 2}
    run = assigned(first)
    commands = routed.work(Done(run.token, VALUE, 1000), worker_of(list(first)))
    again = [one for one in commands if isinstance(one, Assign)]
    assert worker_of(list(again)) == worker_of(list(first))


def test_a_key_gets_another_worker_when_its_own_is_gone(routed: Routed) -> None:
    first = routed.say(call(1, FREE, affinity="a"))
    routed.begin(assigned(first))
    routed.say(call(2, FREE, affinity="a"), call(3, FREE, affinity="a"))
    routed.start(2)
    commands = routed.do(WorkerGone(1, "exit status 1"))
    assert [one.worker_id for one in commands if isinstance(one, Assign)] == [2]


def test_a_key_waits_for_the_first_worker_there_is() -> None:
    routed = Routed()
    assert routed.say(call(1, FREE, affinity="a")) == []
    assert worker_of(routed.start(5)) == 5


def test_keys_are_forgotten_those_first_that_were_used_longest_ago(
    routed: Routed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AFFINITIES_MAX", 2)
    routed.start(2)
    for number, key in enumerate(("a", "b", "c")):
        run = routed.say(call(number, FREE, affinity=key))
        routed.work(Done(assigned(run).token, VALUE, 1000), worker_of(list(run)))
    assert list(routed.core._life.routes._workers) == ["b", "c"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"priority": 4}, "priority is 4; it must be 0, which goes first, to 3"),
        ({"priority": -1}, "priority is -1; it must be 0, which goes first, to 3"),
        ({"affinity": "x" * 129}, "an affinity has at most 128 characters"),
    ],
)
def test_what_makes_no_sense_is_refused(
    routed: Routed, options: dict[str, object], message: str
) -> None:
    error = error_of(routed.say(call(1, FREE, **options)))
    assert (error.code, error.message) == ("INVALID_ARGUMENT", message)


# --- all of it ----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_whatever_comes_each_request_ends_once(seed: int) -> None:
    """Workers come and go, requests of all kinds are made and cancelled; then all is served."""
    random = Random(seed)
    routed = Routed()
    held: dict[int, dict[int, RunCall | RunChunk]] = {}
    ended: list[object] = []
    sent = 0

    def take_in(commands: list[object]) -> None:
        for command in commands:
            if isinstance(command, Send):
                ended.append(command.message.id)  # type: ignore[union-attr]
            elif isinstance(command, Assign) and isinstance(command.message, RunCall | RunChunk):
                held[command.worker_id][command.message.token] = command.message

    def finish(worker_id: int) -> None:
        token, run = next(iter(held[worker_id].items()))
        page = routed.pages[worker_id]
        del held[worker_id][token]
        if page.state(run.slot, token) is SlotState.HELD and not page.claim(run.slot, token, 1):
            take_in(list(routed.work(Skipped(token), worker_id)))
        else:
            take_in(list(routed.work(Done(token, VALUE, 1000), worker_id)))

    def start() -> None:
        number = len(routed.pages) + 1
        held[number] = {}
        take_in(routed.start(number, *random.choice([(), ("gpu",)])))

    start()
    for _ in range(400):
        routed.now += random.random() / 50
        busy = [worker for worker, runs in held.items() if runs]
        dice = random.random()
        if dice < 0.4 and sent - len(ended) < LIMITS.grant_requests:
            sent += 1
            options = Options(
                priority=random.randrange(4), affinity=random.choice([None, "a", "b", "c"])
            )
            node = random.choice([ONE, RATE, GPU, BOTH, FREE])
            take_in(list(routed.say(Call(sent, node, NIL, options))))
            routed.acknowledge(len(ended))
        elif dice < 0.45 and sent:
            take_in(list(routed.say(Cancel(random.randint(1, sent)))))
        elif dice < 0.5 and len(held) < 4:
            start()
        elif dice < 0.55 and len(held) > 1:
            gone = random.choice(list(held))
            del held[gone]
            take_in(list(routed.do(WorkerGone(gone, "exit status 1"))))
        elif busy:
            finish(random.choice(busy))
        take_in(list(routed.tick(routed.now)))
    held[99] = {}
    take_in(routed.start(99, "gpu"))
    for _ in range(1000):
        routed.now += 0.1
        for worker in [worker for worker, runs in held.items() if runs]:
            finish(worker)
        take_in(list(routed.tick(routed.now)))
    assert not routed.core._life.queue.waiting()
    assert sorted(ended, key=str) == sorted(range(1, sent + 1), key=str)
    gates = [node.gate for node in routed.core._life.catalog.nodes if node.gate]
    assert [gate.inside for gate in gates] == [0] * len(gates)
