"""Plans: compiled once, kept by content."""

from pronghorn.worker.flow.model import content_hash
from pronghorn.worker.flow.plan import NOOP, Plan, PlanCache
from pronghorn.worker.flow.validation import validate

DEFINITION = """
tasks:
  b: {action: x, retry: {count: 1}, next: [{do: [a, noop]}, {do: retry}, {when: false}]}
  a: {join: all, with: "{{ [] }}", action: x}
  c: {next: [{do: a}]}
"""


def test_tasks_are_numbered_by_name() -> None:
    plan = Plan(validate(DEFINITION))
    assert [task.name for task in plan.tasks] == ["a", "b", "c"]
    assert [task.number for task in plan.tasks] == [0, 1, 2]
    assert plan.starts == (1, 2)
    a, b, c = plan.tasks
    assert (a.join, a.sources, a.splits) == (2, (1, 2), False)
    assert [(each.index, each.targets) for each in b.next] == [(0, (0, "noop")), (2, ("continue",))]
    assert c.action.constant
    assert c.action.evaluate(None) == NOOP  # type: ignore[arg-type]  # a constant looks at nothing


def test_command_retry_goes_before_the_field() -> None:
    retry = Plan(validate(DEFINITION)).tasks[1].retry
    assert retry is not None
    assert retry.count.evaluate(None) == 3  # type: ignore[arg-type]
    assert retry.when is not None


def test_plan_is_kept_by_content() -> None:
    cache = PlanCache()
    assert cache.plan_of(validate(DEFINITION)) is cache.plan_of(validate(DEFINITION))
    assert cache.plan_of(validate("tasks: {a: }")) is not cache.plan_of(validate(DEFINITION))


def test_only_plans_used_last_are_kept() -> None:
    cache = PlanCache(plans_max=2)
    workflows = [validate(f"tasks: {{t{i}: }}") for i in range(3)]
    first, second = cache.plan_of(workflows[0]), cache.plan_of(workflows[1])
    assert cache.plan_of(workflows[0]) is first
    cache.plan_of(workflows[2])
    assert cache.plan_of(workflows[0]) is first
    assert cache.plan_of(workflows[1]) is not second


def test_content_hash_tells_definitions_apart_and_not_their_form() -> None:
    yaml, json = "tasks: {a: {action: x}}", '{"tasks": {"a": {"action": "x"}}}'
    assert content_hash(validate(yaml)) == content_hash(validate(json))
    assert content_hash(validate(yaml)) != content_hash(validate("tasks: {a: {action: y}}"))
