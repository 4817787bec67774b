"""The run as a whole: its begin, pause, cancel, rerun, signals, its time, its output."""
# ruff: noqa: E501 (definitions are easier to read on one line)

from flow_runs import Play, plan

from pronghorn.broker.wire.flows import ContextSize
from pronghorn.worker.flow.conductor import Conductor
from pronghorn.worker.flow.events import (
    Cancel,
    Pause,
    Refused,
    Rerun,
    Resume,
    RunEnded,
    RunTask,
    Signal,
    Start,
    StatusChanged,
    Stop,
    TakeSignal,
    Tick,
)
from pronghorn.worker.flow.limits import ERRORS_MAX, SIGNALS_MAX

CHAIN = """
tasks:
  a: {action: a, next: [{publish: [{x: "{{ result() }}"}], do: b}]}
  b: {action: a, input: {x: "{{ x }}"}}
output: [{x: "{{ x }}"}]
"""
TWO = "tasks: {a: {action: a, next: [{do: c}]}, b: {action: a}, c: {action: a}}"


def refused(play: Play) -> bool:
    return [type(command) for command in play.last] == [Refused]


def test_commands_of_a_whole_run() -> None:
    conductor = Conductor(plan("input: [n]\ntasks: {t: {action: act, input: {n: '{{ n }}'}}}"))
    assert conductor.status == "new"
    assert conductor.handle(Start({"n": 1}), now=0.0) == [
        StatusChanged("running"),
        RunTask(1, "t", "act", {"n": 1}, 0, None),
    ]
    assert conductor.handle(Start(), now=0.0) == [Refused("the run has started already")]


def test_input_defaults_and_variables_see_what_is_before_them() -> None:
    play = Play(
        "input: [a, {b: '{{ a + 1 }}'}, {c: 5}, d]\nvars: [{e: '{{ b * 2 }}'}, {f: '{{ e }}!'}]\n"
        "tasks: {t: {action: a, input: '{{ ctx() }}'}}",
        a=1,
        c=None,
        unknown=9,
    )
    assert play.inputs() == [{"a": 1, "b": 2, "c": None, "d": None, "e": 4, "f": "4!"}]


def test_given_input_is_never_rendered() -> None:
    play = Play("input: [a]\ntasks: {t: {action: a, input: {a: '{{ a }}'}}}", a="{{ nothing }}")
    assert play.inputs() == [{"a": "{{ nothing }}"}]


def test_caller_passes_variables_beside_the_input() -> None:
    definition = "input: [{a: 1}]\ntasks: {t: {action: a, input: {a: '{{ a }}', b: '{{ b }}'}}}"
    conductor = Conductor(plan(definition, context=["a", "b"]))
    commands = conductor.handle(Start({}, {"a": 5, "b": 6}), 0.0)
    assert commands[-1] == RunTask(1, "t", "a", {"a": 1, "b": 6}, 0, None)


def test_all_variables_that_fail_are_told_and_nothing_starts() -> None:
    play = Play("input: [{a: '{{ 1/0 }}'}]\nvars: [{b: '{{ [][1] }}'}]\ntasks: {t: {action: a}}")
    assert play.started() == []
    assert play.errors == [("expression", None, "input.a"), ("expression", None, "vars.b")]
    assert play.ended is not None
    assert play.ended.status == "failed"


def test_paused_run_lets_end_what_runs_and_starts_nothing() -> None:
    play = Play(TWO)
    assert play.tell(Pause()).last == [StatusChanged("pausing")]
    assert play.end("a").started() == []
    assert play.status == "pausing"
    play.end("b")
    assert play.last[-1] == StatusChanged("paused")
    play.tell(Resume())
    assert (play.started(), play.status) == (["c"], "running")


def test_run_that_is_over_while_paused_succeeds_when_resumed() -> None:
    play = Play("tasks: {a: {action: a}}")
    play.tell(Pause()).end("a")
    assert play.ended is None
    play.tell(Resume())
    assert play.ended is not None
    assert play.ended.status == "succeeded"


def test_pause_holds_items_retries_and_delays() -> None:
    play = Play("""
tasks:
  i: {with: {items: "{{ [1, 2, 3] }}", concurrency: 1}, action: a}
  r: {action: a, retry: {count: 1}}
  d: {action: a, delay: 5}
""")
    play.tell(Pause())
    play.end_items("i", (0, "succeeded", 1)).fail("r")
    play.now = 6.0
    play.tell(Tick())
    assert (play.status, play.conductor.deadline()) == ("paused", None)
    play.tell(Resume())
    assert sorted(play.started()) == ["d", "i[1]", "r"]


def test_failure_while_pausing_fails_the_run() -> None:
    play = Play("tasks: {a: {action: a}, b: {action: a}}")
    play.tell(Pause()).fail("a").end("b")
    assert play.ended is not None
    assert play.ended.status == "failed"


def test_cancel_lets_finish_what_runs() -> None:
    play = Play(TWO)
    assert play.tell(Cancel()).last == [StatusChanged("canceling")]
    assert play.end("a", 1).started() == []
    play.end("b")
    assert play.last[-2:] == [StatusChanged("canceled"), RunEnded("canceled", None, ())]


def test_cancel_may_stop_what_runs_and_ends_at_once_if_nothing_does() -> None:
    play = Play(TWO)
    play.tell(Cancel(stop_running=True))
    assert len(play.commands(Stop)) == 2
    play.end("a", None, "canceled").end("b", None, "canceled")
    assert play.ended is not None
    idle = Play("tasks: {a: {action: a, delay: 5}}")
    idle.tell(Cancel())
    assert idle.ended is not None
    assert idle.ended.status == "canceled"


def test_output_of_a_cancelled_run_has_what_its_branches_had_seen() -> None:
    play = Play("""
tasks:
  a: {action: a, next: [{publish: [{x: 1}], do: b}]}
  b: {action: a, next: [{publish: [{y: 2}], do: c}]}
  c: {action: a}
output: [{x: "{{ x }}"}, {y: "{{ y }}"}]
""")
    play.end("a").tell(Cancel()).end("b")
    assert play.ended is not None
    assert (play.ended.status, play.output) == ("canceled", {"x": 1})


def test_what_can_not_be_is_refused_and_changes_nothing() -> None:
    play = Play("tasks: {a: {action: a}}")
    assert refused(play.tell(Rerun()))
    assert play.tell(Resume()).last == []
    play.end("a")
    for event in (Pause(), Resume(), Cancel(), Signal("x"), Rerun(), Rerun(("a",))):
        assert refused(play.tell(event)), event
    assert play.tell(Tick()).last == []


def test_cancel_of_a_failed_run_ends_what_stands_beside_a_fail() -> None:
    play = Play("""
tasks:
  a: {action: a, next: [{do: [a2, fail]}]}
  a2: {action: a, next: [{do: [a2, fail]}]}
""")
    play.end("a").end("a2").tell(Cancel()).end("a2")
    assert play.ended is not None
    assert play.ended.status == "failed"


def test_size_of_the_variables_is_told_at_the_end() -> None:
    play = Play("""
input: [n]
vars: [{text: "{{ 'x' * 1000 }}"}]
tasks:
  a: {action: a, next: [{publish: [{n: "{{ result() }}"}], do: [b, c]}]}
  b: {action: a, next: [{publish: [{big: "{{ result() }}"}]}]}
  c: {action: a}
""", n=1)  # fmt: skip
    play.end("a", 2)
    assert play.conductor.context_size.growth == 10
    play.end("b", "x" * 5000).end("c", "y" * 9000)
    assert play.ended is not None
    growth = 10 + 5004
    assert play.ended.context == ContextSize(10 + 1005 + growth, growth, "big", 5004)


def test_rerun_starts_the_failed_tasks_again_and_goes_on_from_there() -> None:
    play = Play("""
tasks:
  a: {action: a, next: [{publish: [{x: 1}], do: [b, c]}]}
  b: {action: a, input: {x: "{{ x }}"}, next: [{when: "{{ succeeded() }}", publish: [{b: "{{ result() }}"}]}]}
  c: {action: a, next: [{when: "{{ succeeded() }}", do: d}]}
  d: {action: a}
output: [{b: "{{ b }}"}]
""")
    play.end("a").fail("b").end("c")
    assert play.ended is not None
    assert (play.ended.status, play.started()) == ("failed", [])
    play.tell(Rerun())
    assert play.started() == ["b", "d"]
    assert play.inputs()[0] == {"x": 1}
    play.end("b", 2).end("d")
    assert play.ended is not None
    assert (play.ended.status, play.output, play.ended.errors) == ("succeeded", {"b": 2}, ())


def test_rerun_of_items_runs_those_that_have_not_succeeded() -> None:
    play = Play("""
tasks:
  t: {with: "{{ [1, 2, 3] }}", action: a, next: [{when: "{{ succeeded() }}", publish: [{r: "{{ result() }}"}]}]}
output: [{r: "{{ r }}"}]
""")
    play.end_items("t", (0, "succeeded", 1), (1, "failed", 2), (2, "succeeded", 3))
    play.tell(Rerun(("t",)))
    assert play.started() == ["t[1]"]
    play.end_items("t", (1, "succeeded", 9))
    assert play.output == {"r": [1, 9, 3]}


def test_rerun_after_a_failed_expression_evaluates_it_again() -> None:
    play = Play("tasks: {a: {action: a, next: [{do: b}]}, b: {action: a, input: '{{ 1 }}'}}")
    play.end("a")
    assert play.errors == [("expression", "b", "input")]
    play.ended = None
    play.tell(Rerun())
    assert play.errors == [("expression", "b", "input"), ("expression", "b", "input")]


def test_time_of_the_run_is_bounded() -> None:
    play = Play("timeout: 10\ntasks: {a: {action: a, next: [{do: b}]}, b: {action: a}}")
    assert play.conductor.deadline() == 10.0
    play.now = 10.0
    play.tell(Tick())
    assert (len(play.commands(Stop)), play.status) == (1, "failed")
    play.end("a")
    assert (play.started(), play.errors) == ([], [("run", None, None)])


def test_signals_are_bounded() -> None:
    play = Play("tasks: {a: {action: a}}")
    for _ in range(SIGNALS_MAX):
        assert play.tell(Signal("x")).last == []
    assert refused(play.tell(Signal("x")))


def test_signal_goes_to_who_has_waited_longest() -> None:
    play = Play("""
tasks:
  v: {action: core.wait, input: {event: go}, next: [{publish: [{v: "{{ result() }}"}]}]}
  w: {action: core.wait, input: {event: go}, next: [{publish: [{w: "{{ result() }}"}]}]}
output: [{v: "{{ v }}"}, {w: "{{ w }}"}]
""")
    assert play.tell(Signal("go", 1)).tell(Signal("go", 2)).output == {"v": 1, "w": 2}


def test_a_signal_that_is_kept_can_be_taken_out() -> None:
    play = Play("tasks: {a: {action: a}, w: {action: core.wait, input: {event: go}}}")
    conductor = play.conductor
    assert conductor.waits_for() == ["go"]
    play.tell(Signal("x", 1)).tell(Signal("y", 2)).tell(Signal("x", 3))
    assert conductor.kept_signal("x") == Signal("x", 1)
    play.tell(TakeSignal("x"))
    assert conductor.kept_signal("x") == Signal("x", 3)
    play.tell(TakeSignal("x"))
    assert conductor.kept_signal("x") is None
    assert refused(play.tell(TakeSignal("x")))
    assert conductor.state.signals == [("y", 2)]


def test_errors_are_bounded() -> None:
    play = Play("tasks: {t: {with: '{{ range(1500) }}', action: a}}")
    play.end_items("t", *((index, "failed", None) for index in range(1000)))
    play.end_items("t", *((index, "failed", None) for index in range(1000, 1500)))
    assert play.ended is not None
    assert (len(play.ended.errors), play.ended.errors_left_out) == (ERRORS_MAX, 500)


def test_output_is_made_after_a_failure_of_what_can_be_evaluated() -> None:
    play = Play("""
tasks:
  a: {action: a, next: [{publish: [{x: 1}], do: b}]}
  b: {action: a, next: [{when: "{{ succeeded() }}", publish: [{y: 2}]}]}
output: [{x: "{{ x }}"}, {y: "{{ y }}"}, {z: "{{ ctx().x + 1 }}"}]
""")
    play.end("a").fail("b")
    assert play.output == {"x": 1, "z": 2}
    assert play.errors[-1] == ("expression", None, "output.y")


def test_failed_output_fails_the_run() -> None:
    play = Play("tasks: {a: {action: a}}\noutput: [{x: '{{ 1/0 }}'}, {y: '{{ 2 }}'}]")
    play.end("a")
    assert play.ended is not None
    assert (play.ended.status, play.ended.output) == ("failed", {"y": 2})
    assert play.last[-2] == StatusChanged("failed")


def test_output_merges_what_all_branches_have_changed() -> None:
    play = Play("""
vars: [{d: {}}]
tasks:
  a: {action: a, next: [{publish: [{d: {a: 1}}, {x: a}]}]}
  b: {action: a, next: [{publish: [{d: {b: 2}}, {x: b}]}]}
  c: {action: a, next: [{when: "{{ failed() }}", do: a2}]}
  a2: {action: a}
output: [{d: "{{ d }}"}, {x: "{{ x }}"}]
""")
    play.end("c").end("b").end("a")
    assert play.output == {"d": {"a": 1, "b": 2}, "x": "a"}


def test_entries_of_the_output_see_those_before() -> None:
    play = Play("tasks: {a: {action: a}}\noutput: [{x: 1}, {y: '{{ x + 1 }}'}, {s: '{{ task_status(\"a\") }}'}]")  # fmt: skip
    assert play.end("a").output == {"x": 1, "y": 2, "s": "succeeded"}


def test_nothing_is_copied_from_task_to_task() -> None:
    names = [f"t{i:02}" for i in range(30)]
    tasks = [
        f"  {name}: {{action: a, input: {{big: '{{{{ big }}}}'}}, next: [{{publish: {{n: 1}}, do: {then}}}]}}"
        for name, then in zip(names, [*names[1:], "noop"], strict=True)
    ]
    big = [object()]  # could not even be copied by way of bytes
    play = Play("\n".join(["input: [big]", "tasks:", *tasks]), big=big)
    for name in names:
        assert play.inputs()[0]["big"] is big
        play.end(name)
    assert play.ended is not None
