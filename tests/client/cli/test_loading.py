"""``pronghorn load`` against a real broker."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from commands import Commands, Done
from load_records import imagined

from pronghorn.bench.load.artifacts import encode_record
from pronghorn.broker.wire.errors import InvalidArgumentError
from pronghorn.client.cli.loading import LoadOptions, load

pytestmark = pytest.mark.slow

SHORT = ("--duration", "0.3", "--warmup", "0.1")
ADD = ("load", "add", "--params", '{"a": 1, "b": {"$int": [1, 9]}}', *SHORT)


def assert_measured(done: Done) -> None:
    """Check that a run came to its end; that the machine had something else to do is no fault."""
    assert done.status == 0 or (done.status == 5 and "generator saturated" in done.errors)


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
    assert record["counts"]["planned"] == record["counts"]["results"] == 60
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
    done = served(*ADD, "--find-knee", "p50<1ns", "--rate", "128", "--json")
    assert done.status == 2
    assert "can't be judged" in json.loads(done.errors.splitlines()[-1])["error"]["message"]
    done = served(*ADD, "--find-knee", "p50<1us", "--rate", "70", "--duration", "1")
    assert "knee: p50<1us holds up to none" in done.output or "can't be judged" in done.errors


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
    assert sum(kind["latency"]["count"] for kind in kinds) == 100
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
    assert_measured(done)
    assert "a call of a workflow is a run of it" in done.output
    record = json.loads((served.folder / "runs" / "record.json").read_text())
    (kind,) = record["kinds"]
    assert (kind["node"], kind["workflow"], kind["parameter_sets"]) == ("sums", True, 1000)
    assert record["counts"]["results"] == record["latency"]["count"] == 15
    assert [node["node"] for node in record["broker"]] == ["pronghorn.run"]
    assert "workflow sums" in (served.folder / "runs" / "report.html").read_text()


def test_runs_that_fail_are_errors(served: Commands) -> None:
    (served.folder / "sums.yaml").write_text(FLOW)
    runs = ("load", "--workflow", "sums.yaml", *SHORT, "--rate", "50")
    done = served(*runs, "--params", '{"a": "x"}', "--json", "--fail-if", "errors>0")
    assert done.status == 1
    assert "sums, parameter set 1, fails: " in done.errors
    assert json.loads(done.output)["errors"] == {"NODE_ERROR": 15}
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
    assert record["counts"]["results"] == 30
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
        assert_measured(done)
        record = json.loads(done.output)
        assert record["plan"]["profile"] == "replay"
        assert record["plan"]["speed"] == 4
        assert {kind["node"] for kind in record["kinds"]} == {"nodes.greet", "nodes.add"}
        counts = record["counts"]
        assert counts["planned"] == counts["results"] > 40
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
        assert record["counts"]["results"] == 15
        assert "durability sync" in commands(*durable).output
    (tmp_path / "file").write_text("")
    with commands.serving("nodes.py", "--workers", "1", "--data", str(tmp_path / "file")):
        done = commands(*durable)
        assert done.status != 0
        assert "nothing can be recorded" in done.errors or "journal" in done.errors
        assert "planned" not in done.output
