"""Workflows in a pool and in one process: the same values, types and errors wherever tasks run."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pools import served

from pronghorn.client import (
    CancelledError,
    FlowEvent,
    InvalidArgumentError,
    LocalPool,
    NodeError,
    NotFoundError,
    Pool,
    RunFailedError,
    RunReport,
)
from pronghorn.client.sync import Client

SERVED = Path(__file__).parents[1] / "support" / "served"
MODULES = [str(SERVED / name) for name in ("flow_tasks.py", "doubled.yaml", "napping.yaml")]


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    folder = tmp_path_factory.mktemp("runtime")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(folder))
        with Pool(*MODULES, workers=2) as made:
            yield made


@pytest.fixture(scope="module")
def client(pool: Pool) -> Client:
    made = pool.client()
    warm_up(made)
    return made


@pytest.fixture(scope="module")
def local() -> Iterator[Client]:
    with LocalPool(*MODULES) as made:
        one = made.client()
        warm_up(one)
        yield one


def warm_up(client: Client) -> None:
    """Have all connections and threads there that the tests use."""
    assert client.call("nap", seconds=0) == 0
    assert list(client.map("add", [(1, 2)])) == [3]
    with client.submit_run("doubled", n=1) as run, client.submit_run("doubled", n=1) as other:
        assert run.result() == other.result() == {"it": 2}


def placed(definition: dict[str, Any], place: str) -> dict[str, Any]:
    """Pin all tasks of a definition."""
    tasks = {name: {**(task or {}), "place": place} for name, task in definition["tasks"].items()}
    return {**definition, "tasks": tasks}


def report(client: Client, definition: dict[str, Any], **inputs: Any) -> RunReport:
    with client.submit_run(definition, inputs=inputs, level="terminal") as run:
        ended = run.report()
    # Items that run side by side end in any order.
    errors = sorted(ended.errors, key=lambda each: -1 if each.item is None else each.item)
    return RunReport(ended.status, ended.output, tuple(errors))


def task(action: str, given: str = "{}", more: str = "") -> dict[str, Any]:
    """Define a workflow of one task, whose result is its output."""
    definition: dict[str, Any] = yaml.safe_load(f"""
input: [x]
tasks:
  t: {{action: {action}, input: {given}, next: [{{publish: [{{r: "{{{{ result() }}}}"}}]}}]{more}}}
output: [{{r: "{{{{ r }}}}"}}]
""")
    return definition


def items(action: str, source: str, given: str) -> dict[str, Any]:
    return task(action, given, f', with: "{source}"')


def items_of(action: str, given: str) -> dict[str, Any]:
    source = f"{{items: {{action: {action}, input: {given}}}, concurrency: 4}}"
    return task("identity", "{value: ['{{ item() }}', '{{ index }}']}", f", with: {source}")


DEFINITIONS = {
    "a number": task("add", "{a: 1}"),
    "all kinds": task("kinds"),
    "bytes that travel beside": task("block"),
    "a value with braces": task("identity", "{value: '{{ x }}'}"),
    "async": task("nap", "{seconds: 0.001}"),
    "in a thread": task("in_thread", "{n: 3}"),
    "a generator": task("numbers", "{count: 3}"),
    "an async generator": task("numbers_later", "{count: 3}"),
    "a node that calls another": task("ask", "{a: 1}"),
    "a workflow": task("doubled", "{n: 4}"),
    "a node that calls a workflow": task("ask_flow", "{n: 4}"),
    "built in": task("core.echo", "{message: [1, {a: 2}]}"),
    "it does nothing": task("core.noop", "{any: 1}"),
    "it fails": task("wrong"),
    "it fails on purpose": task("core.fail", "{message: no}"),
    "wrong type": task("add", "{a: text}"),
    "a name that nothing has": task("nothing", "{a: text}"),
    "items": items("add", "{{ range(50) }}", "{a: '{{ item() }}', b: '{{ index }}'}"),
    "async items": items("nap", "{{ [0.001, 0.002] }}", "{seconds: '{{ item() }}'}"),
    "items of kinds": items("kinds", "{{ [1, 2] }}", "{}"),
    "items that fail": items("odd", "{{ range(5) }}", "{n: '{{ item() }}'}"),
    "items of a workflow": items("doubled", "{{ [1, 2] }}", "{n: '{{ item() }}'}"),
    "items of a generator": items_of("numbers", "{count: 1000}"),
    "items of an async generator": items_of("numbers_later", "{count: 20}"),
    "items of a node that gives a list": items_of("identity", "{value: [1, 2]}"),
    "items of a node that gives none": items_of("numbers", "{count: 0}"),
    "items of a node that is no list": items_of("kinds", "{}"),
    "items of a generator that fails": items_of("numbers_until", "{last: 7}"),
    "items of a generator that is called wrong": items_of("numbers", "{count: text}"),
    "no items": items("add", "{{ [] }}", "{a: 1}"),
    "actions by item": items(
        "'{{ item() }}'", "{{ ['core.noop', 'core.echo', 'kinds', 'nix'] }}", "{}"
    ),
    "mutation": yaml.safe_load("""
vars: [{shared: [1]}]
tasks:
  a:
    with: "i in {{ [1, 2, 3] }}"
    action: spoil
    input: {value: "{{ shared }}"}
    next: [{publish: [{lengths: "{{ result() }}"}], do: b}]
  b: {action: spoil, input: {value: "{{ shared }}"}}
output: [{lengths: "{{ lengths }}"}, {shared: "{{ shared }}"}]
"""),
    "retries": yaml.safe_load("""
tasks:
  a: {action: wrong, retry: {count: 2}, next: [{when: "{{ failed() }}", do: b}]}
  b: {action: add, input: {a: 1}}
output: [{status: "{{ task_status('a') }}"}]
"""),
    "branches and a join": yaml.safe_load("""
tasks:
  a: {action: add, input: {a: 1}, next: [{publish: [{a: "{{ result() }}"}], do: j}]}
  b: {action: nap, input: {seconds: 0.001}, next: [{publish: [{b: "{{ result() }}"}], do: j}]}
  j: {join: all, action: identity, input: {value: ["{{ a }}", "{{ b }}"]},
      next: [{publish: [{both: "{{ result() }}"}]}]}
output: [{both: "{{ both }}"}]
"""),
    "its time is up": yaml.safe_load("""
tasks:
  a: {action: nap, input: {seconds: 60}, timeout: 0.02,
      next: [{when: "{{ timed_out() }}", do: noop}]}
"""),
    "the run's time is up": yaml.safe_load("""
timeout: 0.02
tasks:
  a: {action: nap, input: {seconds: 60}}
"""),
}


@pytest.mark.parametrize("name", DEFINITIONS)
def test_both_placements_and_one_process_give_the_same(
    name: str, client: Client, local: Client
) -> None:
    definition = DEFINITIONS[name]
    inputs = {"x": "{{ 1 + 1 }} stays"}
    inline = report(client, placed(definition, "inline"), **inputs)
    assert report(client, placed(definition, "pool"), **inputs) == inline
    assert report(local, definition, **inputs) == inline
    assert report(client, definition, **inputs) == inline


def test_items_of_a_generator_are_ahead_by_no_more_than_may_run_at_once(
    client: Client, local: Client, tmp_path: Path
) -> None:
    definition = yaml.safe_load("""
input: [file]
tasks:
  t:
    with: {items: {action: numbers_counted, input: {file: "{{ file }}"}}, as: n, concurrency: 3,
           on_item_error: stop}
    action: read_and_fail_at
    input: {file: "{{ file }}", n: "{{ item('n') }}", last: 20}
    next: [{when: "{{ failed() }}", publish: [{r: "{{ result() }}"}]}]
output: [{r: "{{ r }}"}]
""")
    for place, where in (("inline", client), ("pool", client), ("pool", local)):
        file = tmp_path / f"{place}-{where is local}"
        ended = report(where, placed(definition, place), file=str(file))
        assert ended.status == "failed"
        assert ended.output is not None
        ahead = [count - n for n, count in enumerate(ended.output["r"][:20])]
        # Those that may run, as many ahead of them, and what the stream's credit lets be there.
        assert max(ahead) <= 3 + 3 + (2 if place == "inline" or where is local else 64), place


def test_a_served_workflow_is_called_like_a_node(client: Client, local: Client) -> None:
    for one in (client, local):
        assert one.call("doubled", n=4) == {"it": 8}
        assert one.call("doubled", 4, 3) == {"it": 12}
        assert list(one.map("doubled", [{"n": 1}, (2, 2)])) == [{"it": 2}, {"it": 4}]
        with pytest.raises(InvalidArgumentError, match="unknown parameter `m`"):
            one.call("doubled", m=4)
        described = {each.name: each for each in one.nodes()}["doubled"]
        assert (described.signature, described.doc) == (
            "doubled(n=None, times=2)",
            "Doubles a number.",
        )


def test_a_workflow_that_fails_is_a_node_that_fails(client: Client, local: Client) -> None:
    for one in (client, local):
        with pytest.raises(
            NodeError, match=r"double, input.value: .*unsupported operand"
        ) as caught:
            one.call("doubled", n={})
        assert caught.value.details.exception == "RunFailed"


def test_run_gives_the_output_or_raises(client: Client) -> None:
    assert client.run("doubled", n=2) == {"it": 4}
    assert client.run("doubled", inputs={"n": 2}) == {"it": 4}
    assert client.run(SERVED / "doubled.yaml", n=2) == {"it": 4}
    with pytest.raises(RunFailedError, match="workflow: t: broken") as caught:
        client.run({**task("wrong"), "output": [{"kept": 1}]})
    assert caught.value.report.output == {"kept": 1}
    assert [each.task for each in caught.value.report.errors] == ["t"]
    with pytest.raises(NotFoundError, match="is a node, not a workflow"):
        client.run("add", a=1)
    with pytest.raises(InvalidArgumentError, match=r"tasks\.t\.acton"):
        client.run({"tasks": {"t": {"acton": "add"}}})
    with pytest.raises(InvalidArgumentError, match="no-file"):
        client.run(SERVED / "no-file.yaml")


def test_tasks_are_part_of_their_caller_s_trace(client: Client) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    traced = client.within(traceparent=f"00-{trace}-b7ad6b7169203331-01")
    for place in ("inline", "pool"):
        output = traced.run(placed(task("trace"), place))
        assert output is not None
        assert trace in output["r"]
    assert client.run(task("trace")) == {"r": None}


def test_events_are_pushed_in_order_without_a_gap(client: Client) -> None:
    told: list[FlowEvent] = []
    client.run(DEFINITIONS["branches and a join"], on_event=told.append)
    assert [event.number for event in told] == list(range(1, len(told) + 1))
    assert (told[0].kind, told[-1].kind) == ("begun", "ended")
    assert told[0].run == told[-1].run
    ended = [event.task for event in told if event.kind == "task_ended"]
    assert sorted(filter(None, ended)) == ["a", "b", "j"]
    assert ended[-1] == "j"


@pytest.mark.parametrize(
    ("level", "kinds"),
    [("outputs", ["begun", "task_ended", "ended"]), ("terminal", ["begun", "ended"])],
)
def test_levels(client: Client, level: Any, kinds: list[str]) -> None:
    with client.submit_run("doubled", n=1, level=level) as run:
        assert [event.kind for event in run.events()] == kinds
        assert run.result() == {"it": 2}


WAITS = yaml.safe_load("""
tasks:
  a: {action: nap, input: {seconds: 0.02}, next: [{do: b}]}
  b: {action: core.wait, input: {event: go}, next: [{publish: [{v: "{{ result() }}"}]}]}
output: [{v: "{{ v }}"}]
""")


BEGINS = yaml.safe_load("""
tasks:
  a: {action: core.wait, input: {event: begin}, next: [{do: b}]}
  b: {action: core.wait, input: {event: go}, next: [{publish: [{v: "{{ result() }}"}]}]}
output: [{v: "{{ v }}"}]
""")


def test_pause_resume_and_signal(client: Client) -> None:
    with client.submit_run(BEGINS) as run:
        run.pause()  # what runs ends first
        run.signal("begin")
        run.signal("go", 42)
        seen = []
        for event in run.events():
            seen.append((event.kind, event.task or event.status))
            if event.status == "paused":
                assert ("task_started", "b") not in seen
                run.resume()
        assert run.result() == {"v": 42}
    with pytest.raises(NotFoundError, match="has ended"):
        run.pause()


def test_cancel(client: Client) -> None:
    with client.submit_run(task("nap", "{seconds: 60}")) as run:
        run.cancel(stop_running=True)
        with pytest.raises(CancelledError):
            run.result()
    with client.submit_run(WAITS) as run:
        run.cancel()
        events = list(run.events())
        assert ("task_ended", "succeeded") in [(each.kind, each.status) for each in events]
        assert events[-1].status == "canceled"
    with client.submit_run(task("nap", "{seconds: 60}")) as run:
        run.cancel()
        with pytest.raises(InvalidArgumentError, match="can't be resumed"):
            run.resume()
        run.cancel(stop_running=True)


def test_to_leave_a_run_cancels_it(client: Client) -> None:
    with client.submit_run(WAITS) as run:
        pass
    while True:  # the broker tells the host, which ends it
        try:
            run.signal("other")
        except NotFoundError:
            break


def test_a_run_that_is_given_up_stops_what_runs(client: Client) -> None:
    definition = task("nap", "{seconds: 60}")
    with pytest.raises(Exception, match="deadline"):
        client.run(definition, timeout_s=0.05)


def test_a_worker_that_dies_fails_its_task_alone(client: Client) -> None:
    definition = yaml.safe_load("""
tasks:
  a:
    action: die
    next: [{when: "{{ failed() }}", publish: [{code: "{{ result().code }}"}], do: b}]
  b: {action: add, input: {a: 1}, next: [{publish: [{n: "{{ result() }}"}]}]}
output: [{code: "{{ code }}"}, {n: "{{ n }}"}]
""")
    ended = report(client, definition)
    assert (ended.status, ended.output) == ("succeeded", {"code": "WORKER_LOST", "n": 2})
    assert [each.kind for each in ended.errors] == ["abandoned"]


def test_tiny_nodes_move_into_the_run_host(pool: Pool, client: Client) -> None:
    hosts = {each.pid for each in client.admin.workers() if each.host}
    assert len(hosts) == 1
    spins = items("spin", "{{ range(4) }}", "{seconds: 0.01}")
    assert not hosts & set(report(client, spins).output["r"])  # type: ignore[index]
    tiny = items("spin", "{{ range(64) }}", "{seconds: 0}")
    seen: set[int] = set()
    while not seen & hosts:  # it has proven slow, and now proves quick
        seen |= set(report(client, tiny).output["r"])  # type: ignore[index]
    assert not hosts & set(report(client, placed(tiny, "pool")).output["r"])  # type: ignore[index]
    assert set(report(client, placed(spins, "inline")).output["r"]) == hosts  # type: ignore[index]


async def test_many_runs_at_once(pool: Pool) -> None:
    async with pool.async_client() as client:
        definition = DEFINITIONS["branches and a join"]
        runs = [client.run(definition) for _ in range(100)]
        assert await asyncio.gather(*runs) == [{"both": [2, 0.001]}] * 100
        async with await client.submit_run(WAITS) as run:
            await run.signal("go", 1)
            assert await run.result() == {"v": 1}
            assert [event async for event in run.events()] == []


@pytest.mark.parametrize("node", ["ask_flow_sync", "ask_flow_beside"])
async def test_nodes_that_wait_for_workflows_don_t_wait_for_each_other(
    pool: Pool, node: str
) -> None:
    async with pool.async_client() as client:  # more than all workers have room for
        calls = [client.call(node, seconds=0.002, timeout_s=30.0) for _ in range(150)]
        assert await asyncio.gather(*calls) == [{"napped": 0.002}] * 150


def test_without_a_host_workers_conduct(tmp_path: Path) -> None:
    with served(tmp_path, workers=1) as pool:
        client = pool.client()
        definition = task("core.echo", "{message: 1}")
        assert client.run(definition) == {"r": 1}
        with client.submit_run(WAITS, level="terminal") as run:
            run.cancel(stop_running=True)
            assert run.report().status == "canceled"
