"""Workflows by chance, and shells that run a conductor by chance: for the tests of the engine."""

from collections.abc import Callable
from random import Random
from typing import Any

from pronghorn.worker.flow.conductor import Conductor
from pronghorn.worker.flow.document import DefinitionError
from pronghorn.worker.flow.events import (
    Cancel,
    Command,
    Ended,
    Event,
    ItemEnded,
    ItemsEnded,
    Outcome,
    Pause,
    Rerun,
    Resume,
    RunItems,
    RunTask,
    Signal,
    Start,
    Stop,
    Tick,
    WaitFor,
)
from pronghorn.worker.flow.plan import Plan
from pronghorn.worker.flow.validation import validate

CONDITIONS = (
    None,
    "{{ succeeded() }}",
    "{{ failed() }}",
    "{{ completed() }}",
    "{{ succeeded() and ctx().n < 6 }}",
    "{{ result() == 1 }}",
    "{{ nothing.at.all }}",
)
OUTCOMES: tuple[Outcome, ...] = ("succeeded",) * 6 + ("failed", "failed", "timeout", "canceled")


def random_plan(random: Random) -> Plan:
    """Make a plan of a workflow that is right: joins, splits, cycles, items, retries, delays."""
    while True:
        try:
            return Plan(validate(_definition(random), context=["nothing"]))
        except DefinitionError:
            continue


def _definition(random: Random) -> dict[str, Any]:
    names = [f"t{i}" for i in range(random.randint(1, 8))]
    tasks = {name: _task(random, names, i) for i, name in enumerate(names)}
    reached = {target for task in tasks.values() for one in task["next"] for target in one["do"]}
    for name in names:
        if name in reached and random.random() < 0.4:
            tasks[name]["join"] = random.choice(["all", 1, 2])
    definition: dict[str, Any] = {
        "input": [{"n": 0}, {"xs": [1, 2, 3]}],
        "vars": [{"d": {"a": {}}}],
        "output": [{"n": "{{ n }}"}, {"d": "{{ d }}"}],
        "tasks": tasks,
    }
    if random.random() < 0.1:
        definition["timeout"] = random.randint(1, 30)
    return definition


def _task(random: Random, names: list[str], index: int) -> dict[str, Any]:
    task: dict[str, Any] = {"next": []}
    if random.random() < 0.85:
        task |= {"action": "act", "input": {"n": "{{ n }}", "k": {"d": "{{ d }}"}}}
        if random.random() < 0.2:
            task["with"] = {
                "items": "x in {{ xs }}",
                "concurrency": random.choice([1, 2, 9]),
                "on_item_error": random.choice(["continue", "stop"]),
            }
            task["input"] = {"x": "{{ item('x') }}", "i": "{{ index }}"}
        elif random.random() < 0.1:
            task |= {"action": "core.wait", "input": {"event": random.choice(["e", "f"])}}
    if random.random() < 0.2:
        task["retry"] = {"count": 2, "delay": random.choice([0, 1]), "backoff": "exponential"}
    if random.random() < 0.15:
        task["delay"] = random.randint(1, 5)
    if random.random() < 0.15:
        task["timeout"] = random.randint(1, 10)
    for _ in range(random.randint(0, 3)):
        task["next"].append(_transition(random, names, index))
    return task


def _transition(random: Random, names: list[str], index: int) -> dict[str, Any]:
    later = names[index + 1 :] if random.random() < 0.85 else names
    choices = [*later, *later, "noop", "continue", "fail", "retry"]
    if random.random() < 0.7:
        choices = later or ["noop"]
    targets = random.sample(choices, k=min(len(set(choices)), random.randint(1, 2)))
    transition: dict[str, Any] = {"do": list(dict.fromkeys(targets))}
    condition = random.choices(CONDITIONS, weights=[4, 6, 4, 2, 3, 1, 1])[0]
    if condition:
        transition["when"] = condition
    if random.random() < 0.6:
        transition["publish"] = [
            {"n": "{{ n + 1 }}"},
            {"d": {"a": {f"k{random.randint(0, 3)}": "{{ n }}"}, "who": "{{ result() }}"}},
        ]
    return transition


class Shell:
    """Does what a conductor says, by chance, and tells it, by chance.

    Attributes:
        commands: All that it has said.
        started: Numbers of executions that were to be run.
        stopped: Numbers of those that were to be stopped.
    """

    def __init__(self, plan: Plan, random: Random) -> None:
        self.plan = plan
        self.random = random
        self.conductor = Conductor(plan)
        self.commands: list[Command] = []
        self.events: list[Event] = []
        self.started: list[int] = []
        self.stopped: list[int] = []
        self.now = 0.0
        self._running: list[tuple[int, list[int] | None]] = []  # execution, indexes of items
        self._waits = 0
        self._cancelled = False

    def run(self, reborn: Callable[[Conductor, float], Conductor], steps: int = 120) -> None:
        """Run until the end, or for some steps and then cancel it; `reborn` after each event."""
        self._tell(Start({"n": self.random.randint(0, 3)}, {"nothing": None}), reborn)
        self._run_on(reborn, steps)

    def run_again(self, reborn: Callable[[Conductor, float], Conductor], steps: int = 120) -> None:
        """Have what has failed run again, after the end."""
        self._cancelled = False
        self._running.clear()
        self._tell(Rerun(), reborn)
        self._run_on(reborn, steps)

    def _run_on(self, reborn: Callable[[Conductor, float], Conductor], steps: int) -> None:
        for step in range(10 * steps):
            if self.conductor.ended:
                return
            self._tell(self._event(cancel=step > steps), reborn)
        raise AssertionError("the run does not end")

    def _tell(self, event: Event, reborn: Callable[[Conductor, float], Conductor]) -> None:
        self.events.append(event)
        commands = self.conductor.handle(event, self.now)
        self.conductor.check_invariants()
        self.conductor = reborn(self.conductor, self.now)
        self.conductor.check_invariants()
        self.commands += commands
        for command in commands:
            self._do(command)

    def _do(self, command: Command) -> None:
        if isinstance(command, RunTask):
            self.started.append(command.execution)
            self._running.append((command.execution, None))
        elif isinstance(command, RunItems):
            self._running.append((command.execution, [item.index for item in command.items]))
        elif isinstance(command, WaitFor):
            self._waits += 1
        elif isinstance(command, Stop):
            self.stopped.append(command.execution)

    def _event(self, *, cancel: bool) -> Event:
        random = self.random
        if cancel and not self._cancelled:
            self._cancelled = True
            return Cancel(stop_running=random.random() < 0.5)
        chance = random.random()
        if chance < 0.05:
            return Pause()
        if chance < 0.1 or self.conductor.status == "paused":
            return Resume()
        if chance < 0.15 or (not self._running and self._waits and chance < 0.5):
            return Signal(random.choice(["e", "f"]), random.randint(0, 9))
        deadline = self.conductor.deadline()
        if deadline is not None and (chance < 0.25 or not self._running):
            self.now = max(self.now, deadline if random.random() < 0.9 else self.now + 0.5)
            return Tick()
        if not self._running:
            return Resume() if self.conductor.status == "pausing" else Signal("e")
        self.now += 0.25
        execution, indexes = self._running.pop(random.randrange(len(self._running)))
        outcome = "canceled" if execution in self.stopped else random.choice(OUTCOMES)
        if indexes is None:
            return Ended(execution, outcome, random.randint(0, 2))
        ended = random.sample(indexes, random.randint(1, len(indexes)))
        rest = [index for index in indexes if index not in ended]
        if rest:
            self._running.append((execution, rest))
        return ItemsEnded(
            execution, [ItemEnded(index, random.choice(OUTCOMES), index) for index in ended]
        )
