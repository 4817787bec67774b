"""Mirror of broker/nested.py: calls that nodes make, and what becomes of them."""

from collections.abc import Sequence
from typing import Any

import pytest
from core_driver import GRACE_S, OTHER, PARAMS, PEER, TABLE, VALUE, Driver, assigned
from msgspec import structs

from pronghorn.broker.events import (
    Assign,
    Command,
    DrainBegun,
    PeerGone,
    Send,
    TableKnown,
    WorkerGone,
)
from pronghorn.broker.placement import KEPT_FOR_ORDERS
from pronghorn.broker.window import CONCURRENT_PER_WORKER, STALL_S
from pronghorn.broker.wire.errors import ErrorDetails
from pronghorn.broker.wire.limits import Bounds
from pronghorn.broker.wire.link import (
    CancelNested,
    CancelRun,
    Done,
    Failed,
    Nested,
    NestedDone,
    NestedFailed,
    RunCall,
    RunHere,
    Skipped,
)
from pronghorn.broker.wire.messages import Call, Cancel, Error, Hello, Options, Result
from pronghorn.broker.wire.slots import SLOTS_PER_WORKER
from pronghorn.broker.wire.table import HOST_LABEL, NodeInfo
from pronghorn.broker.wire.version import CONDUCTOR_NAME

ENDED = ErrorDetails(outcome="executed")
RETRYABLE = ErrorDetails(outcome="executed", retryable=True)


def nested(
    id_: int, parent: RunCall, node: str, *, waits: bool = False, left_ms: float | None = None
) -> Nested:
    return Nested(id_, parent.token, node, PARAMS, left_ms, waits, parent.depth + 1)


def begun(driver: Driver, name: str, id_: int = 1, timeout_ms: float | None = None) -> RunCall:
    """Have a client's call begin in worker 1, and return it."""
    run: RunCall = assigned(driver.say(Call(id_, name, PARAMS, Options(timeout_ms=timeout_ms))))
    assert driver.begin(run)
    return run


def runs(commands: Sequence[Command], worker_id: int) -> RunCall:
    """Return the request that the one command gives to that worker."""
    (command,) = commands
    assert isinstance(command, Assign)
    assert command.worker_id == worker_id
    assert isinstance(command.message, RunCall)
    return command.message


def failed(commands: Sequence[Command], worker_id: int = 1) -> NestedFailed:
    """Return the failure that one of the commands tells that worker."""
    (found,) = [
        one.message
        for one in commands
        if isinstance(one, Assign)
        and one.worker_id == worker_id
        and isinstance(one.message, NestedFailed)
    ]
    return found


def left_open(driver: Driver) -> Any:
    """Give what is known of calls of nodes; nothing once all is over."""
    sessions = driver.core._nested.sessions.values()
    life = driver.core._life
    return life.children, life._orphans, [one for each in sessions for one in each.open]


NOTHING = ({}, [], [])


@pytest.fixture
def two(driver: Driver) -> Driver:
    """Give a broker with two workers, of which the first gets the first call of any kind."""
    driver.start_worker(1)
    driver.start_worker(2)
    second, first = (assigned(driver.say(Call(id_, "m.again"))) for id_ in (1, 2))
    for run, worker_id in ((second, 2), (first, 1)):
        driver.begin(run, worker_id)
        driver.work(Done(run.token, VALUE, 10**9), worker_id)
    driver.hello()
    return driver


def test_a_call_goes_to_another_worker_and_its_result_back(two: Driver) -> None:
    parent = begun(two, "m.add")
    child = runs(two.work(nested(7, parent, "add", waits=True)), 2)
    assert (child.depth, child.params) == (1, PARAMS)
    two.begin(child, 2)
    assert two.work(Done(child.token, VALUE, 1, 2), 2, [b"a", b"b"]) == [
        Assign(1, NestedDone(7, VALUE, 2), [b"a", b"b"])
    ]
    assert left_open(two) == NOTHING
    assert two.work(Done(parent.token, VALUE, 1)) == [Send(PEER, Result(1, VALUE), batched=True)]


def test_an_error_goes_back_as_it_is(two: Driver) -> None:
    parent = begun(two, "m.sleep")
    child = runs(two.work(nested(7, parent, "m.add")), 1)
    two.begin(child)
    assert two.work(Failed(child.token, "NODE_ERROR", "no", ENDED)) == [
        Assign(1, NestedFailed(7, "NODE_ERROR", "no", ENDED))
    ]
    assert left_open(two) == NOTHING


@pytest.mark.parametrize("name", ["m.add", "m.sleep", "m.thread"])
def test_who_waits_runs_it_itself_if_nobody_else_has_room(serving: Driver, name: str) -> None:
    parent = begun(serving, "m.add")
    assert serving.work(nested(7, parent, name, waits=True)) == [Assign(1, RunHere(7))]
    assert left_open(serving) == NOTHING


def test_who_waits_is_not_put_behind_others_however_quick_they_are(two: Driver) -> None:
    """The quick one took ages: its caller could have run it meanwhile."""
    two.make_quick()
    parent = begun(two, "m.add", 1)
    other = runs(two.say(Call(2, "m.add", PARAMS)), 2)
    two.begin(other, 2)
    assert two.work(nested(7, parent, "m.add", waits=True)) == [Assign(1, RunHere(7))]


def test_a_call_of_what_runs_beside_others_never_waits_for_room(serving: Driver) -> None:
    parents = []
    for peer in range(CONCURRENT_PER_WORKER):
        run = assigned(serving.say(Call(1, "m.sleep"), peer=b"%d" % peer))
        serving.begin(run)
        parents.append(run)
    assert serving.work(nested(7, parents[0], "m.sleep")) == [Assign(1, RunHere(7))]
    child = runs(serving.work(nested(8, parents[0], "m.add")), 1)
    assert child.node == 0


def test_a_call_of_a_def_waits_in_the_queue_for_who_holds_nothing_up(two: Driver) -> None:
    parent = begun(two, "m.sleep")
    busy = [assigned(two.say(Call(id_, "m.add"))) for id_ in (2, 3)]
    assert two.work(nested(7, parent, "m.add")) == []
    assert two.core.statistics(two.now).queued == 1
    two.begin(busy[0])
    child = two.work(Done(busy[0].token, VALUE, 10**7))[1]
    assert isinstance(child, Assign)
    assert isinstance(child.message, RunCall)


def test_a_blocked_worker_gets_nothing(serving: Driver) -> None:
    parent = begun(serving, "m.add")
    serving.work(nested(7, parent, "m.sleep", waits=True))
    assert serving.say(Call(2, "m.sleep")) == []
    # What it says shows that it runs, and is free again.
    done, run = serving.work(Done(parent.token, VALUE, 1))
    assert isinstance(done, Send)
    assert isinstance(run, Assign)


def test_what_a_blocked_worker_has_not_begun_goes_to_others(two: Driver) -> None:
    two.make_quick()
    parent = begun(two, "m.add", 1)
    filler = runs(two.say(Call(2, "m.add", PARAMS)), 2)
    behind = runs(two.say(Call(3, "m.add", PARAMS)), 1)
    two.begin(filler, 2)
    here, moved = two.work(nested(7, parent, "m.add", waits=True))
    assert here == Assign(1, RunHere(7))
    assert runs([moved], 2).token != behind.token
    assert not two.begin(behind)


def test_a_call_that_its_worker_can_t_begin_goes_back_to_its_caller(two: Driver) -> None:
    """Worker 2 is stopped: who waits for it does not wait until it is killed."""
    parent = begun(two, "m.add")
    runs(two.work(nested(7, parent, "m.add", waits=True)), 2)
    commands = two.tick(two.now + STALL_S)
    assert commands == [Assign(1, RunHere(7))]
    assert two.count("returned") == 1
    assert left_open(two) == NOTHING


def test_a_call_whose_worker_ends_before_it_began_goes_back_too(two: Driver) -> None:
    parent = begun(two, "m.add")
    runs(two.work(nested(7, parent, "m.sleep", waits=True)), 2)
    assert two.do(WorkerGone(2, "signal 9 (SIGKILL)")) == [Assign(1, RunHere(7))]
    assert left_open(two) == NOTHING


def test_a_skipped_call_that_may_not_wait_is_placed_again(two: Driver) -> None:
    parent = begun(two, "m.add")
    child = runs(two.work(nested(7, parent, "m.sleep", waits=True)), 2)
    again = runs(two.work(Skipped(child.token), 2), 2)
    assert again.token != child.token


def test_a_lost_call_is_an_error_to_its_caller(two: Driver) -> None:
    parent = begun(two, "m.add")
    child = runs(two.work(nested(7, parent, "m.add", waits=True)), 2)
    two.begin(child, 2)
    lost = failed(two.do(WorkerGone(2, "exit status 3")))
    assert (lost.id, lost.code, lost.details.cause) == (7, "WORKER_LOST", "exit status 3")
    assert left_open(two) == NOTHING


@pytest.mark.parametrize("way", ["cancelled", "done", "failed", "session gone"])
def test_what_is_open_ends_with_its_caller(two: Driver, way: str) -> None:
    parent = begun(two, "m.sleep")
    child = runs(two.work(nested(7, parent, "m.sleep")), 2)
    grandchild_of = two.begin(child, 2)
    assert grandchild_of
    grandchild = runs(two.work(nested(1, child, "m.sleep"), 2), 1)
    two.begin(grandchild)
    if way == "cancelled":
        commands = two.say(Cancel(1))
    elif way == "done":
        commands = two.work(Done(parent.token, VALUE, 1))
    elif way == "failed":
        commands = two.work(Failed(parent.token, "NODE_ERROR", "no", ENDED))
    else:
        commands = two.do(PeerGone(PEER))
    assert Assign(2, CancelRun(child.token)) in commands
    assert Assign(1, CancelRun(grandchild.token)) in commands
    assert failed(commands).code == "CANCELLED"
    assert left_open(two) == NOTHING


def test_a_queued_call_ends_with_its_caller(two: Driver) -> None:
    parent = begun(two, "m.sleep")
    for id_ in (2, 3):
        two.say(Call(id_, "m.add"))
    two.work(nested(7, parent, "m.add"))
    assert failed(two.work(Done(parent.token, VALUE, 1))).details.outcome == "not_started"
    assert two.core.statistics(two.now).queued == 0
    assert left_open(two) == NOTHING


def test_all_that_a_gone_worker_waited_for_is_given_up(two: Driver) -> None:
    """The broker died: a call had been placed where its caller was, and was gone with it."""
    parent = begun(two, "m.sleep")
    second = runs(two.work(nested(7, parent, "m.sleep")), 2)
    two.begin(second, 2)
    first = runs(two.work(nested(8, parent, "m.sleep")), 1)
    two.begin(first)
    runs(two.work(nested(9, parent, "m.add")), 1)
    commands = two.do(WorkerGone(1, "signal 9 (SIGKILL)"))
    assert Assign(2, CancelRun(second.token)) in commands
    (lost,) = [one for one in commands if isinstance(one, Send)]
    assert lost.message.code == "WORKER_LOST"  # type: ignore[union-attr]
    assert not [one for one in commands if isinstance(one, Assign) and one.worker_id == 1]
    assert two.core._nested.sessions == {}
    assert left_open(two) == NOTHING


def test_a_call_inherits_the_deadline(two: Driver) -> None:
    parent = begun(two, "m.sleep", timeout_ms=2000.0)
    two.now += 0.5
    child = runs(two.work(nested(7, parent, "m.sleep")), 2)
    two.begin(child, 2)
    assert child.left_ms == pytest.approx(1500.0)
    sooner = runs(two.work(nested(8, parent, "m.sleep", left_ms=100.0)), 1)
    assert sooner.left_ms == pytest.approx(100.0)
    two.begin(sooner)
    late = failed(two.tick(two.now + 0.1))
    assert (late.id, late.code) == (8, "DEADLINE_EXCEEDED")


def test_a_stuck_call_has_its_worker_killed(two: Driver) -> None:
    parent = begun(two, "m.add", timeout_ms=1000.0)
    child = runs(two.work(nested(7, parent, "m.add", waits=True)), 2)
    two.begin(child, 2)
    two.tick(two.now + 1.0)
    two.work(Done(parent.token, VALUE, 1))
    (kill,) = two.tick(two.now + GRACE_S)
    assert kill.worker_id == 2  # type: ignore[union-attr]


def test_a_cancelled_call_is_given_up(two: Driver) -> None:
    parent = begun(two, "m.sleep")
    child = runs(two.work(nested(7, parent, "m.sleep")), 2)
    two.begin(child, 2)
    commands = two.work(CancelNested(7))
    assert Assign(2, CancelRun(child.token)) in commands
    assert two.work(CancelNested(7)) == []
    assert two.work(CancelNested(7), worker_id=2) == []
    assert left_open(two) == NOTHING


@pytest.mark.parametrize("waits", [True, False])
def test_a_call_of_a_node_that_has_ended_is_refused(serving: Driver, waits: bool) -> None:
    """A thread was left behind, or the worker does not know yet that nobody waits."""
    parent = begun(serving, "m.sleep")
    serving.say(Cancel(1))
    refusal = failed(serving.work(nested(7, parent, "m.add", waits=waits)))
    assert (refusal.id, refusal.code, refusal.details.outcome) == (7, "CANCELLED", "not_started")
    serving.work(Done(parent.token, VALUE, 1))
    assert failed(serving.work(nested(8, parent, "m.add"))).code == "CANCELLED"
    assert serving.count("refused") == 2
    assert assigned(serving.say(Call(2, "m.add"))).node == 0


def test_unknown_nodes_and_too_large_params_are_refused(serving: Driver) -> None:
    parent = begun(serving, "m.sleep")
    assert failed(serving.work(nested(7, parent, "m.addd"))).code == "NOT_FOUND"
    large = failed(serving.work(nested(8, parent, "m.add"), buffers=[b"x" * 4096]))
    assert (large.code, large.details.limit) == ("INVALID_ARGUMENT", 4096)
    assert left_open(serving) == NOTHING


def test_a_full_queue_refuses_calls_of_nodes() -> None:
    driver = Driver(bounds=Bounds(queue_requests=1))
    driver.start_worker()
    driver.hello()
    parent = begun(driver, "m.sleep")
    driver.say(Call(2, "m.add"))
    driver.say(Call(3, "m.add"))
    assert driver.core.statistics(driver.now).queued == 1
    full = failed(driver.work(nested(7, parent, "m.add")))
    assert (full.code, full.details.retryable) == ("RESOURCE_EXHAUSTED", True)
    assert left_open(driver) == NOTHING


def test_many_calls_one_after_the_other_leave_nothing(two: Driver) -> None:
    """A node that ran for long kept every call that it had made."""
    parent = begun(two, "m.sleep")
    for id_ in range(50):
        child = runs(two.work(nested(id_, parent, "m.sleep")), 2)
        two.begin(child, 2)
        two.work(Done(child.token, VALUE, 1), 2)
    assert left_open(two) == NOTHING


def test_the_calls_of_an_attempt_end_with_it(two: Driver) -> None:
    parent = begun(two, "m.retry")
    child = runs(two.work(nested(7, parent, "m.sleep")), 2)
    two.begin(child, 2)
    commands = two.work(Failed(parent.token, "NODE_ERROR", "no", RETRYABLE))
    assert Assign(2, CancelRun(child.token)) in commands
    assert left_open(two) == NOTHING


def test_a_call_that_is_tried_again_goes_back_if_there_is_no_room_then(two: Driver) -> None:
    """It waited for those who waited for it: they had taken its place meanwhile."""
    parent = begun(two, "m.add")
    child = runs(two.work(nested(7, parent, "m.again", waits=True)), 2)
    two.begin(child, 2)
    assert two.work(Failed(child.token, "NODE_ERROR", "no", RETRYABLE), 2) == []
    runs(two.say(Call(2, "m.add")), 2)
    assert two.tick(two.core.next_due() + 1.0) == [Assign(1, RunHere(7))]
    assert left_open(two) == NOTHING


def test_a_call_that_waits_for_its_next_attempt_ends_with_its_caller(two: Driver) -> None:
    parent = begun(two, "m.sleep")
    child = runs(two.work(nested(7, parent, "m.retry")), 2)
    two.begin(child, 2)
    assert two.work(Failed(child.token, "NODE_ERROR", "no", RETRYABLE), 2) == []
    given_up = failed(two.work(Done(parent.token, VALUE, 1)))
    assert (given_up.code, given_up.details.outcome) == ("CANCELLED", "maybe_executed")
    assert two.tick(two.now + 10.0) == []
    assert left_open(two) == NOTHING


FLOW = NodeInfo("flow", "async", labels=(HOST_LABEL,))


@pytest.fixture
def hosting() -> Driver:
    """Give a broker with a worker and a run host, number 2, and a workflow."""
    driver = Driver(labels=frozenset({HOST_LABEL}))
    table = structs.replace(TABLE, nodes=(*TABLE.nodes, FLOW))
    driver.do(TableKnown(table))
    driver.start_worker(1)
    driver.start_worker(2, labels=frozenset({HOST_LABEL}))
    driver.hello()
    return driver


def test_a_workflow_goes_to_a_host_or_back_to_its_caller(hosting: Driver) -> None:
    parent = begun(hosting, "m.sleep")
    runs(hosting.work(nested(1, parent, "flow")), 2)
    for id_ in range(2, SLOTS_PER_WORKER - KEPT_FOR_ORDERS + 1):
        runs(hosting.work(nested(id_, parent, "flow")), 2)
    assert hosting.work(nested(99, parent, "flow")) == [Assign(1, RunHere(99))]


def test_who_holds_up_its_worker_runs_a_workflow_itself(hosting: Driver) -> None:
    parent = begun(hosting, "m.add")
    assert hosting.work(nested(1, parent, "flow", waits=True)) == [Assign(1, RunHere(1))]
    assert left_open(hosting) == NOTHING


def test_a_run_may_go_on_while_all_drains(hosting: Driver) -> None:
    hosting.say(Hello(0, CONDUCTOR_NAME), peer=OTHER)
    hosting.do(DrainBegun())
    (refused,) = hosting.say(Call(1, "m.add", PARAMS))
    assert isinstance(refused, Send)
    assert isinstance(refused.message, Error)
    assert assigned(hosting.say(Call(1, "m.add", PARAMS), peer=OTHER)).node == 0
