"""``pronghorn load`` against a real broker."""

import json
import os
import select
import signal
from collections.abc import Sequence
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from commands import TIMEOUT_S, Commands, Done, Serving, children
from load_records import imagined

from pronghorn.bench.load.artifacts import encode_record
from pronghorn.broker.wire.errors import InvalidArgumentError
from pronghorn.client.cli.loading import LoadOptions, load
from pronghorn.client.sync import Client

pytestmark = pytest.mark.slow

SHORT = ("--duration", "0.3", "--warmup", "0.1")
ADD = ("load", "add", "--params", '{"a": 1, "b": {"$int": [1, 9]}}', *SHORT)


def assert_ended(done: Done, status: int = 0) -> None:
    """Check how a command ended; that the machine had something else to do is no fault of it."""
    assert done.status == status or (done.status == 5 and "generator saturated" in done.errors)


def assert_all_called(record: dict[str, Any], count: int, errors: int = 0) -> None:
    """Check that all planned calls were made and ended, so many of them with errors.

    On a machine with much else to do the generator may have to give some up. It says so.
    """
    counts = record["counts"]
    assert counts["planned"] == count
    assert counts["results"] + counts["errors"] + counts["unsent"] == count
    if record["valid"]:
        assert (counts["results"], counts["errors"]) == (count - errors, errors)
    assert record["latency"]["count"] == counts["results"]


def test_run_is_told_and_its_files_are_kept(served: Commands) -> None:
    done = served(*ADD, "--rate", "200", "--out", "run")
    assert "open loop: latency runs from the planned time of each call" in done.output
    assert "planned" in done.output
    assert "as the broker sees it" in done.output
    assert "Traceback" not in done.errors
    kept = {path.name for path in (served.folder / "run").iterdir()}
    assert kept == {"record.json", "latency.hlog", "intervals.csv", "report.html"}


def test_record_as_json_is_all_there_is_on_standard_output(served: Commands) -> None:
    done = served(*ADD, "--rate", "200", "--json")
    record: dict[str, Any] = json.loads(done.output)
    assert record["format"] == "pronghorn-load/1"
    assert_all_called(record, 60)
    assert record["environment"]["command"].startswith("pronghorn load add")


def test_condition_that_holds_ends_it_with_1(served: Commands) -> None:
    done = served(*ADD, "--rate", "200", "--fail-if", "p50>1ns", "--fail-if", "errors>0")
    assert done.status == 1
    assert "p50>1ns holds: p50 is " in done.errors
    assert "errors>0" not in done.errors


def test_closed_loop_is_labelled(served: Commands) -> None:
    done = served(*ADD, "--closed", "2")
    assert "closed loop: " in done.output
    assert "2 outstanding for 0.3 s" in done.output


def test_knee_is_searched(served: Commands) -> None:
    # No rate makes the median 1 ns, so it goes down to where there is nothing more to try.
    done = served(*ADD, "--find-knee", "p50<1ns", "--rate", "280", "--out", "knee")
    assert_ended(done)
    assert "knee: p50<1ns holds up to none of the rates tried" in done.output
    record = json.loads((served.folder / "knee" / "record.json").read_text())
    assert [trial["rate"] for trial in record["knee"]["trials"]] == [280, 140, 70]
    done = served(*ADD, "--find-knee", "p50<1ns", "--rate", "60")
    assert (done.status, done.output) == (2, "")
    assert "can't be judged with fewer than 20 calls" in done.errors


def test_interrupted_run_is_told_and_kept(served: Commands) -> None:
    run = (*ADD, "--duration", "600", "--rate", "100", "--out", "stopped")
    with served.start(*run) as process:
        (generator,) = await_children(process.pid)
        await_calls(served)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 130
    assert b"interrupted before the end of the plan, after" in errors
    assert b"results" in output
    record = json.loads((served.folder / "stopped" / "record.json").read_text())
    assert 0 < record["counts"]["results"] <= record["counts"]["planned"] < 60_000
    assert sum(each["answered"] for each in record["intervals"]) == record["counts"]["results"]
    assert record["ran_s"] < 600
    assert not Path(f"/proc/{generator}").exists()


def test_interrupted_search_is_told_as_far_as_it_went(served: Commands) -> None:
    search = (*ADD, "--duration", "600", "--rate", "100", "--find-knee", "p50<1s")
    with served.start(*search) as process:
        await_children(process.pid)
        await_calls(served)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 130
    assert b"knee: p50<1s holds up to none of the rates tried" in output


def test_what_can_not_be_kept_is_told_after_the_results(served: Commands) -> None:
    (served.folder / "taken" / "report.html").mkdir(parents=True)  # in the way of the last file
    done = served(*ADD, "--rate", "200", "--out", "taken")
    assert done.status == 5
    assert "as the broker sees it" in done.output
    assert "not all could be kept in taken: " in done.errors
    kept = {path.name for path in (served.folder / "taken").iterdir() if path.is_file()}
    assert kept == {"record.json", "latency.hlog", "intervals.csv"}
    (served.folder / "file").write_text("somebody's")
    done = served(*ADD, "--rate", "200", "--out", "file")
    assert (done.status, done.output) == (2, "")
    assert "--out file: File exists" in done.errors


def test_death_of_the_broker_is_told_with_the_results(commands: Commands) -> None:
    # Of 102 parameter sets each other one is tried before the run, so not the one that is deadly.
    (commands.folder / "ends.py").write_text(
        "import os\nfrom pronghorn.worker import node\n"
        "@node\ndef end(pid: int) -> None:\n    if pid: os.kill(pid, 9)\n"
    )
    with commands.start("serve", "ends.py", "--workers", "1", "--json") as server:
        pids = [0] * 102
        pids[49] = Serving(server).supervisor
        lines = "".join(f'{{"pid": {pid}}}\n' for pid in pids)
        (commands.folder / "pids.jsonl").write_text(lines)
        run = ("load", "end", "--params-file", "pids.jsonl", *SHORT, "--rate", "200")
        done = commands(*run, "--timeout", "1", "--json")
        server.wait(TIMEOUT_S)
    assert done.status == 3
    assert "the connection to the broker was lost" in done.errors
    record = json.loads(done.output)
    assert_all_called(record | {"valid": False}, 60)
    assert record["counts"]["errors"] + record["counts"]["unsent"] > 0


def test_run_goes_on_when_the_broker_comes_back(commands: Commands) -> None:
    run = (*ADD, "--duration", "600", "--rate", "100", "--timeout", "1", "--json")
    with commands.start("serve", "nodes.py", "--workers", "1", "--json") as server:
        supervisor = Serving(server).supervisor
        with commands.start(*run) as process:
            await_children(process.pid)
            await_calls(commands)
            os.kill(supervisor, signal.SIGKILL)
            server.wait(TIMEOUT_S)
            with commands.serving("nodes.py", "--workers", "1"):
                await_calls(commands)
                process.send_signal(signal.SIGINT)
                output, _ = process.communicate(timeout=TIMEOUT_S)
    record = json.loads(output)
    assert record["counts"]["results"] > 50
    happened = [what for _, what in record["events"]]
    assert "the connection to the broker was lost" in happened
    assert "connected again" in happened
    assert process.returncode == 130


def await_children(pid: int) -> list[int]:
    """Wait for the generators of a run that was started."""
    until = monotonic() + TIMEOUT_S
    while not (found := children(pid)):
        assert monotonic() < until
        select.select([], [], [], 0.01)
    return found


def await_calls(commands: Commands) -> None:
    """Wait until the broker has seen more calls than those that are made before a run."""
    until = monotonic() + TIMEOUT_S
    with Client(commands.endpoint) as client:
        first = sum(node.calls for node in client.stats().nodes)
        while sum(node.calls for node in client.stats().nodes) < first + 150:
            assert monotonic() < until
            select.select([], [], [], 0.01)


def test_mix_of_a_scenario_is_called(served: Commands) -> None:
    (served.folder / "keys.jsonl").write_text('{"who": "Ada"}\n{"who": "Bob"}\n')
    (served.folder / "mix.toml").write_text(
        "rate = 200\nduration = 0.5\nwarmup = 0\n"
        '[[call]]\nnode = "add"\nparams = [1, 2]\nweight = 3\n'
        '[[call]]\nnode = "greet"\nparams_file = "keys.jsonl"\n'
    )
    done = served("load", "--scenario", "mix.toml", "--json")
    kinds = json.loads(done.output)["kinds"]
    assert [kind["node"] for kind in kinds] == ["add", "greet"]
    assert_all_called(json.loads(done.output), 100)
    assert kinds[1]["parameter_sets"] == 2


FLOW = """
name: sums
input: [a, {b: 1}]
tasks:
  one: {action: add, input: {a: "{{ a }}", b: "{{ b }}"},
        next: [{when: "{{ succeeded() }}", publish: [{c: "{{ result() }}"}]}]}
output: [{c: "{{ c }}"}]
"""


def test_workflows_that_are_handed_over_are_run(served: Commands) -> None:
    (served.folder / "sums.yaml").write_text(FLOW)
    runs = ("load", "--workflow", "sums.yaml", *SHORT, "--rate", "50")
    done = served(*runs, "--params", '{"a": {"$int": [1, 9]}}', "--out", "runs")
    assert_ended(done)
    assert "a call of a workflow is a run of it" in done.output
    record = json.loads((served.folder / "runs" / "record.json").read_text())
    (kind,) = record["kinds"]
    assert (kind["node"], kind["workflow"], kind["parameter_sets"]) == ("sums", True, 1000)
    assert_all_called(record, 15)
    assert [node["node"] for node in record["broker"]] == ["pronghorn.run"]
    assert "workflow sums" in (served.folder / "runs" / "report.html").read_text()


def test_runs_that_fail_are_errors(served: Commands) -> None:
    (served.folder / "sums.yaml").write_text(FLOW)
    runs = ("load", "--workflow", "sums.yaml", *SHORT, "--rate", "50")
    done = served(*runs, "--params", '{"a": "x"}', "--json", "--fail-if", "errors>0")
    assert done.status == 1
    assert "sums, parameter set 1, fails: " in done.errors
    record = json.loads(done.output)
    assert_all_called(record, 15, errors=15)
    assert set(record["errors"]) == {"NODE_ERROR"}
    (served.folder / "wrong.yaml").write_text("tasks: {one: {actoin: add}}")
    wrong = served("load", "--workflow", "wrong.yaml", *SHORT, "--rate", "50")
    assert (wrong.status, wrong.output) == (2, "")
    assert "actoin" in wrong.errors
    by_position = served(*runs, "--params", "[1]")
    assert "by name" in by_position.errors
    assert served("load", "--workflow", "nix.yaml", "--rate", "1").status == 2
    assert served("load", "add", "--workflow", "sums.yaml", "--rate", "1").status == 2


def test_served_workflows_and_nodes_make_a_mix(commands: Commands) -> None:
    (commands.folder / "sums.yaml").write_text(FLOW)
    (commands.folder / "mix.toml").write_text(
        "rate = 60\nduration = 0.5\nwarmup = 0\n"
        '[[call]]\nnode = "add"\nparams = [1, 2]\nweight = 2\n'
        '[[call]]\nworkflow = "sums"\nparams = { a = 1 }\n'
        '[[call]]\nworkflow = "sums.yaml"\nparams = { a = 1 }\n'
    )
    with commands.serving("nodes.py", "sums.yaml", "--workers", "1"):
        done = commands("load", "--scenario", "mix.toml", "--json")
    record = json.loads(done.output)
    assert [kind["workflow"] for kind in record["kinds"]] == [False, True, True]
    assert_all_called(record, 30)
    assert all(kind["latency"]["count"] for kind in record["kinds"])


def test_progress_is_shown_on_a_terminal(served: Commands) -> None:
    shown = served.on_terminal(*ADD, "--rate", "100", "--duration", "1", stdout=False)
    assert "sent" in shown
    assert "p99" in shown


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["load", "nope", "--rate", "1"], "no node named 'nope'"),
        (["load", "add", "--rate", "1", "--params", '{"a": "x", "b": 1}'], "$.a"),
        (["load", "add", "--rate", "0", "--params", "[1, 2]"], "rate 0"),
        (["load", "add", "--rate", "1", "--params", "5"], "--params: params are"),
    ],
)
def test_mistakes_are_found_before_the_run(
    arguments: list[str], what: str, served: Commands
) -> None:
    done = served(*arguments)
    assert (done.status, done.output) == (2, "")
    assert what in done.errors


def test_plain_service_that_is_not_there_is_told_as_such(commands: Commands) -> None:
    endpoint = f"ipc://{commands.folder}/nobody.sock"
    done = commands("load", "--frame", "hello", "--endpoint", endpoint, "--rate", "1")
    assert (done.status, done.output) == (3, "")
    assert "answers a frame of 5 bytes within 2 s" in done.errors
    assert "pronghorn serve" not in done.errors


def test_without_a_broker_it_ends_with_3(commands: Commands) -> None:
    done = commands("load", "add", "--rate", "1")
    assert done.status == 3
    assert "pronghorn serve" in done.errors


def test_records_are_compared(commands: Commands) -> None:
    (commands.folder / "a.json").write_bytes(encode_record(imagined(seed=1)))
    (commands.folder / "b.json").write_bytes(encode_record(imagined(median_ms=2.0, seed=2)))
    done = commands("load", "compare", "a.json", "b.json")
    assert done.status == 0
    assert [line.split()[0] for line in done.output.splitlines()[1:]][:2] == ["p50", "p90"]
    assert "worse" in done.output
    told = json.loads(commands("load", "compare", "a.json", "a.json", "--json").output)
    assert {each["verdict"] for each in told} == {"no difference"}
    (commands.folder / "c.json").write_bytes(encode_record(imagined(rate=500)))
    refused = commands("load", "compare", "a.json", "c.json")
    assert refused.status == 2
    assert "rate: 1000" in refused.errors


@pytest.mark.parametrize(
    ("words", "options", "what"),
    [
        (["add"], LoadOptions(), "--rate"),
        ([], LoadOptions(rate=1), "give a NODE"),
        (["a", "b"], LoadOptions(rate=1), "one NODE"),
        (["a"], LoadOptions(rate=1, frame="x"), "give a NODE"),
        (["a"], LoadOptions(rate=1, params="{}", params_file="x"), "not both"),
        ([], LoadOptions(rate=1, frame="x", params="{}"), "for a NODE"),
        ([], LoadOptions(rate=1, frame="x"), "by --endpoint"),
        (["a"], LoadOptions(rate=1, closed=2), "closed loop has no rate"),
        (["a"], LoadOptions(closed=2, find_knee="p99<5ms"), "--closed has none"),
        (["a"], LoadOptions(rate=1, profile="ramp", find_knee="p99<5ms"), "const or poisson"),
        (["a"], LoadOptions(rate=1, fail_if=("p99>5",)), "unit"),
        (["a"], LoadOptions(rate=1, params_file="/nonexistent"), "can't read"),
        (["a"], LoadOptions(rate=1, scenario="/nonexistent"), "can't read"),
        (["compare", "a.json"], LoadOptions(), "compare two records"),
        (["a"], LoadOptions(rate=1, params='{"x": {"$dice": 1}}'), "no generator"),
    ],
)
def test_wrong_usage_is_told(words: Sequence[str], options: LoadOptions, what: str) -> None:
    with pytest.raises(InvalidArgumentError, match=what.replace("$", r"\$")):
        load(words, options)


def test_mistake_in_a_line_is_told_with_its_number(tmp_path: Path) -> None:
    path = tmp_path / "sets.jsonl"
    path.write_text('{"a": 1}\n\nnope\n')
    with pytest.raises(InvalidArgumentError, match="line 3"):
        load(["add"], LoadOptions(rate=1, params_file=str(path)))


@pytest.fixture
def recorded(commands: Commands) -> Path:
    """A trace of calls, chunks and JSON that a broker has recorded."""
    path = commands.folder / "calls.trace"
    with commands.serving("nodes.py", "--workers", "1", "--record", str(path)):
        assert commands("call", "greet", "who=Ada").output == "Hello, Ada.\n"
        commands("map", "add", "--chunk-size", "2", stdin='{"a": 1, "b": 2}\n' * 6)
        commands(*ADD, "--rate", "100", "--clients", "2")
    return path


def test_a_trace_is_replayed(commands: Commands, recorded: Path) -> None:
    with commands.serving("nodes.py", "--workers", "1"):
        replay = ("load", "--replay", str(recorded), "--speed", "4")
        done = commands(*replay, "--json", "--processes", "2")
        assert_ended(done)
        record = json.loads(done.output)
        assert record["plan"]["profile"] == "replay"
        assert record["plan"]["speed"] == 4
        assert {kind["node"] for kind in record["kinds"]} == {"nodes.greet", "nodes.add"}
        assert record["counts"]["planned"] > 40
        assert_all_called(record, record["counts"]["planned"])
        done = commands(*replay, "--rate", "5")
        assert done.status == 2
        assert "--replay and a rate exclude each other" in done.errors
        done = commands("load", "add", "--replay", str(recorded))
        assert done.status == 2
        done = commands("load", "--replay", str(commands.folder / "nodes.py"))
        assert done.status == 2
        assert "is no trace of pronghorn serve --record" in done.errors


def test_durable_calls_are_loaded_or_refused_before_the_run(
    commands: Commands, tmp_path: Path
) -> None:
    durable = (*ADD, "--rate", "50", "--durability", "sync")
    with commands.serving("nodes.py", "--workers", "1", "--data", str(tmp_path / "data")):
        record = json.loads(commands(*durable, "--json").output)
        assert record["plan"]["durability"] == "sync"
        assert_all_called(record, 15)
        assert "durability sync" in commands(*durable).output
    (tmp_path / "file").write_text("")
    with commands.serving("nodes.py", "--workers", "1", "--data", str(tmp_path / "file")):
        done = commands(*durable)
        assert done.status != 0
        assert "nothing can be recorded" in done.errors or "journal" in done.errors
        assert "planned" not in done.output
