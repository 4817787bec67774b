"""The tree of a run: what each line says as events come."""

from pronghorn.broker.wire.flows import FlowEvent
from pronghorn.client.cli.tree import LINES_MAX, RunTree


def tree(*events: FlowEvent) -> RunTree:
    made = RunTree("deploy")
    for event in events:
        made.take(event, 100.0)
    return made


def texts(made: RunTree, now: float) -> list[str]:
    return [line.text for line in made.lines(now)]


BEGUN = (
    FlowEvent(1, "begun", run="r"),
    FlowEvent(2, "status", status="running"),
    FlowEvent(3, "task_started", task="check", execution=1),
)


def test_a_task_that_runs_and_one_that_has_ended() -> None:
    made = tree(*BEGUN)
    assert texts(made, 100.5) == ["deploy running 500 ms", "└─ ▸ check 500 ms"]
    end = FlowEvent(4, "task_ended", task="check", execution=1, status="failed", at_s=0.25)
    made.take(end, 103.0)
    line = made.line_of(end, 103.0)
    assert line is not None
    assert (line.text, line.status) == ("✗ check failed 250 ms", "failed")
    made.take(FlowEvent(5, "ended", status="failed", at_s=61.0), 170.0)
    assert texts(made, 999.0) == ["deploy failed 1 min 1 s", "└─ ✗ check failed 250 ms"]
    assert made.line_of(FlowEvent(6, "status", status="x"), 0.0) is None


def test_items_are_a_bar() -> None:
    made = tree(
        *BEGUN,
        FlowEvent(4, "task_started", task="roll", execution=2, count=4),
        FlowEvent(5, "items", task="roll", execution=2, done=2, failed=1, count=4),
    )
    assert texts(made, 101.0)[-1] == f"└─ ▸ roll {'█' * 10}{'░' * 10} 2/4 1 failed 1.00 s"


def test_items_that_a_node_gives_are_a_number() -> None:
    made = tree(
        *BEGUN,
        FlowEvent(4, "task_started", task="roll", execution=2),
        FlowEvent(5, "items", task="roll", execution=2, done=2000, failed=1),
    )
    assert texts(made, 101.0)[-1] == "└─ ▸ roll 2,000 items 1 failed 1.00 s"


def test_further_starts_of_a_task_are_counted() -> None:
    made = tree(
        *BEGUN,
        FlowEvent(4, "task_ended", task="check", execution=1, status="failed", again=True, at_s=1),
        FlowEvent(5, "task_started", task="check", execution=2, at_s=2),
        FlowEvent(6, "task_ended", task="check", execution=2, status="succeeded", at_s=3),
    )
    assert texts(made, 200.0)[-1] == "└─ ✓ check (2 times) 1.00 s"


def test_not_more_lines_than_anybody_reads() -> None:
    started = [
        FlowEvent(number, "task_started", task=f"t{number}", execution=number)
        for number in range(1, LINES_MAX + 3)
    ]
    assert texts(tree(*started), 100.0)[-1] == "   and 2 more tasks"
