"""What follows a task: transitions, publishes, failures, joins, splits, cycles."""

import pytest
from flow_runs import Play

FORK = """
tasks:
  start: {action: a, next: [{do: [left, right]}]}
  left:
    action: a
    next: [{when: "{{ succeeded() }}", publish: [{l: "{{ result() }}"}], do: [end]}]
  right:
    action: a
    next: [{when: "{{ succeeded() }}", publish: [{r: "{{ result() }}"}], do: end}]
  end: {join: all, action: a, input: {l: "{{ l }}", r: "{{ r }}"}}
output: [{l: "{{ l }}"}, {r: "{{ r }}"}]
"""


def test_tasks_to_which_nothing_leads_start() -> None:
    play = Play("tasks: {b: {action: a}, a: {action: a, next: [{do: [c]}]}, c: {action: a}}")
    assert play.started() == ["a", "b"]
    assert play.end("a").started() == ["c"]
    play.end("b").end("c")
    assert play.ended is not None
    assert play.ended.status == "succeeded"


def test_every_entry_that_fires_leads_on() -> None:
    play = Play("""
tasks:
  a:
    action: a
    next:
      - {when: "{{ result() > 1 }}", do: [x]}
      - {when: "{{ result() > 2 }}", do: [y]}
      - {when: "{{ failed() }}", do: [z]}
      - {do: [w, noop]}
  x: {action: a}
  y: {action: a}
  z: {action: a}
  w: {action: a}
""")
    assert play.end("a", 2).started() == ["w", "x"]


def test_publishes_of_an_entry_see_each_other_and_not_those_of_other_entries() -> None:
    play = Play("""
input: [{n: 1}]
tasks:
  a:
    action: a
    next:
      - publish: [{n: "{{ n + 1 }}"}, {m: "{{ n * 10 }}"}]
        do: [x]
      - publish: [{m: "{{ n * 100 }}"}]
        do: [y]
  x: {action: a, input: {n: "{{ n }}", m: "{{ m }}"}}
  y: {action: a, input: {n: "{{ n }}", m: "{{ m }}"}}
""")
    play.end("a")
    assert play.inputs() == [{"n": 2, "m": 20}, {"n": 1, "m": 100}]


def test_published_variables_belong_to_the_branch() -> None:
    play = Play(FORK)
    play.end("start").end("left", 1)
    assert play.started() == []
    play.end("right", 2)
    assert play.inputs() == [{"l": 1, "r": 2}]
    play.end("end")
    assert play.output == {"l": 1, "r": 2}


def test_unhandled_failure_fails_the_run_lets_the_rest_end_and_starts_nothing() -> None:
    play = Play("""
tasks:
  a: {action: a, next: [{when: "{{ succeeded() }}", do: c}]}
  b: {action: a, next: [{do: c2}]}
  c: {action: a}
  c2: {action: a}
""")
    play.fail("a", message="broken")
    assert (play.status, play.ended) == ("failed", None)
    play.end("b")
    assert play.started() == []
    assert play.ended is not None
    assert play.ended.status == "failed"
    assert [each.message for each in play.ended.errors] == ["broken"]


@pytest.mark.parametrize(
    ("do", "status"), [("c", "succeeded"), ("noop", "succeeded"), ("continue", "failed")]
)
def test_failure_is_handled_by_what_leads_to_a_task_or_noop(do: str, status: str) -> None:
    play = Play(
        f"""
vars: [{{m: 0}}]
tasks:
  a: {{action: a, next: [{{when: "{{{{ failed() }}}}", publish: [{{m: 1}}], do: {do}}}]}}
  c: {{action: a, next: [{{do: c2}}]}}
  c2: {{action: a, next: [{{when: "{{{{ false }}}}", do: c}}]}}
output: [{{m: "{{{{ m }}}}"}}]
""".replace("  c: ", "  x: {next: [{when: '{{ false }}', do: c}]}\n  c: ")
    )
    play.end("x")
    play.fail("a")
    while play.ended is None:
        play.end(play.started()[0])
    assert (play.ended.status, play.output) == (status, {"m": 1})


def test_fail_fails_the_run_but_what_stands_beside_it_starts() -> None:
    play = Play("""
tasks:
  a: {action: a, next: [{do: [log, fail]}]}
  b: {action: a, next: [{do: c}]}
  log: {action: a, next: [{do: after}]}
  after: {action: a}
  c: {action: a}
""")
    play.end("a")
    assert (play.started(), play.status) == (["log"], "failed")
    play.end("b")
    assert play.started() == []
    play.end("log")
    assert play.started() == []
    assert play.ended is not None
    assert play.ended.status == "failed"
    assert play.errors == [("command", None, None)]


def test_join_beside_fail_that_waits_for_others_does_not_start_any_more() -> None:
    play = Play("""
tasks:
  a: {action: a, next: [{do: [j, one, fail]}]}
  b: {action: a, next: [{do: j}]}
  j: {action: a, join: all}
  one: {action: a, join: 1}
""")
    play.end("a")
    assert play.started() == ["one"]
    play.end("b").end("one")
    assert play.started() == []
    assert play.ended is not None
    assert play.ended.status == "failed"


def test_missing_when_fires_after_a_failure_too() -> None:
    play = Play("tasks: {a: {action: a, next: [{do: b}]}, b: {action: a}}")
    assert play.fail("a").started() == ["b"]
    play.end("b")
    assert play.ended is not None
    assert play.ended.status == "succeeded"


@pytest.mark.parametrize("status", ["timeout", "abandoned"])
def test_other_ends_count_as_failed(status: str) -> None:
    play = Play("""
tasks:
  a:
    action: a
    next:
      - {when: "{{ failed() and completed() and not succeeded() }}", do: b}
      - {when: "{{ timed_out() }}", do: c}
  b: {action: a}
  c: {action: a}
""")
    play.end("a", None, status)  # type: ignore[arg-type]
    assert play.started() == (["b", "c"] if status == "timeout" else ["b"])
    assert play.errors == [(status, "a", None)]


def test_canceled_action_cancels_the_run() -> None:
    play = Play("tasks: {a: {action: a, next: [{do: c}]}, b: {action: a}, c: {action: a}}")
    play.end("a", None, "canceled")
    assert (play.status, play.started()) == ("canceling", [])
    play.end("b")
    assert play.ended is not None
    assert play.ended.status == "canceled"


def test_failed_expression_of_a_condition_fails_the_run_and_names_task_and_field() -> None:
    play = Play("""
tasks:
  a:
    action: a
    next:
      - {do: b}
      - {when: "{{ result().x.y }}", do: b}
  b: {action: a}
""")
    play.end("a", {})
    assert play.started() == []
    assert play.ended is not None
    assert play.errors == [("expression", "a", "next[1].when")]


def test_failed_publish_fails_the_run() -> None:
    play = Play("tasks: {a: {action: a, next: [{publish: [{x: '{{ 1 / 0 }}'}], do: b}]}, b: {}}")
    play.end("a")
    assert play.errors == [("expression", "a", "next[0].publish.x")]


def test_join_met_in_part_fails_the_run_and_is_named() -> None:
    play = Play("""
tasks:
  start: {action: a, next: [{do: [left, right]}]}
  left: {action: a, next: [{do: end}]}
  right: {action: a, next: [{when: "{{ succeeded() }}", do: end}, {do: noop}]}
  end: {join: all, action: a}
""")
    play.end("start").end("left", 1).fail("right")
    assert play.ended is not None
    assert play.ended.status == "failed"
    assert play.errors[:2] == [("task", "right", None), ("join", "end", "join")]


def test_output_has_what_the_last_task_before_an_unmet_join_has_seen() -> None:
    play = Play("""
vars: [{n: 0}]
tasks:
  a: {action: a, next: [{publish: [{n: 1}], do: b}]}
  b: {action: a, next: [{publish: [{n: 2}], do: j}, {when: "{{ failed() }}", do: c}]}
  c: {action: a, next: [{do: j}]}
  j: {action: a, join: all}
output: [{n: "{{ n }}"}]
""")
    play.end("a").end("b")
    assert play.ended is not None
    assert (play.ended.status, play.output) == ("failed", {"n": 1})
    assert play.errors == [("join", "j", "join")]


def test_join_that_nothing_has_reached_is_no_failure() -> None:
    never = FORK.replace("{{ succeeded() }}", "{{ failed() }}").partition("output")[0]
    play = Play(never)
    play.end("start").end("left").end("right")
    assert play.ended is not None
    assert play.ended.status == "succeeded"


COUNTED = """
tasks:
  s: {action: a, next: [{do: [x, y, z]}]}
  x: {action: a, next: [{publish: [{v: x}], do: j}]}
  y: {action: a, next: [{publish: [{v: y}], do: j}]}
  z: {action: a, next: [{publish: [{v: z}], do: j}]}
  j: {join: 2, action: a, input: {v: "{{ v }}"}}
"""


def test_counted_join_fires_at_its_count_and_again_with_each_further_arrival() -> None:
    play = Play(COUNTED)
    play.end("s").end("x")
    assert play.started() == []
    play.end("z")
    assert (play.started(), play.inputs()) == (["j"], [{"v": "z"}])
    play.end("y")
    assert (play.started(), play.inputs()) == (["j"], [{"v": "y"}])


def test_join_counts_tasks_not_arrows() -> None:
    play = Play("""
tasks:
  s: {action: a, next: [{do: [x, y]}]}
  x: {action: a, next: [{do: j}, {when: "{{ succeeded() }}", do: j}]}
  y: {action: a, next: [{do: j}]}
  j: {join: all, action: a}
""")
    assert play.end("s").end("x").started() == []
    assert play.end("y").started() == ["j"]


SPLIT = """
tasks:
  x: {action: a, next: [{publish: [{v: x}], do: s}]}
  y: {action: a, next: [{publish: [{v: y}], do: s}]}
  s: {action: a, input: {v: "{{ v }}"}, next: [{do: [l, r]}]}
  l: {action: a, next: [{do: j}]}
  r: {action: a, next: [{do: j}]}
  j: {join: all, action: a, input: {v: "{{ v }}", s: "{{ task_status('s') }}"}}
"""


def test_split_runs_once_for_each_way_and_its_joins_keep_the_ways_apart() -> None:
    play = Play(SPLIT)
    play.end("x").end("y")
    assert play.inputs() == [{"v": "y"}]
    play.end("s")
    assert play.started() == ["l", "r"]
    play.end("l").end("s")
    assert play.started() == ["l", "r"]
    play.end("r")
    assert play.inputs() == [{"v": "x", "s": "succeeded"}]
    play.end("l").end("r")
    assert play.inputs() == [{"v": "y", "s": "succeeded"}]


def test_cycle_runs_again_on_the_same_route() -> None:
    play = Play("""
vars: [{n: 0}]
tasks:
  a: {action: a, next: [{do: b}]}
  b:
    action: a
    next:
      - {when: "{{ n < 3 }}", publish: [{n: "{{ n + 1 }}"}], do: b}
      - {when: "{{ n >= 3 }}", publish: [{done: "{{ n }}"}]}
output: [{done: "{{ done }}"}]
""")
    play.end("a")
    for _ in range(4):
        play.end("b")
    assert play.output == {"done": 3}
    assert len(play.conductor.state.routes) == 1
    assert len(play.conductor.state.latest) == 2


def test_join_within_a_cycle_waits_for_each_round() -> None:
    play = Play("""
vars: [{n: 0}]
tasks:
  s: {action: a, next: [{do: f}]}
  f: {action: a, next: [{do: [x, y]}]}
  x: {action: a, next: [{do: j}]}
  y: {action: a, next: [{do: j}]}
  j: {join: all, action: a, next: [{when: "{{ n < 2 }}", publish: [{n: "{{ n + 1 }}"}], do: f}]}
output: [{n: "{{ n }}"}]
""")
    play.end("s")
    for _ in range(3):
        play.end("f").end("x")
        assert play.started() == []
        play.end("y")
        assert play.started() == ["j"]
        play.end("j")
    assert play.output == {"n": 2}
