"""The workflows of one process: what is served of them, and the calls by which runs are made.

Nothing of the engine is imported before there is a workflow: its libraries take 60 ms, and most
processes run none. So this module stands between the dispatch table and `flow`.

Mirror: tests/worker/test_conducting.py.
"""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from itertools import count
from typing import TYPE_CHECKING, Any, Final

import msgspec

from pronghorn.broker.wire.errors import (
    CancelledError,
    ErrorDetails,
    InvalidArgumentError,
    NodeError,
    NotFoundError,
    PronghornError,
)
from pronghorn.broker.wire.flows import (
    CONTROL,
    FLOW,
    FOLLOW,
    RUN,
    RUN_ID_MAX,
    FlowEvent,
    RunLevel,
    RunOrder,
    RunReport,
)
from pronghorn.broker.wire.values import decode_value, encode_inline

from .context import Caller, Context
from .recorded import Attempt

if TYPE_CHECKING:
    from .dispatch import DispatchTable
    from .flow.live import LiveRun
    from .flow.model import Workflow
    from .flow.plan import Plan
    from .flow.runtime import FlowRuntime

Definition = str | dict[str, Any]
"""YAML or JSON, or what it stands for."""

_COLLECTIONS: Final = (50_000, 20, 100)
"""Thresholds of the garbage collector in a process that conducts. A full collection goes through
all values of all contexts, 25 ms for 5 MB of lists, and by default there is one for some hundred
items of a run; what the engine makes for them is in no cycle."""

_REPORT_BYTES_MAX: Final = 64 << 10
_REPORT_ERRORS_MAX: Final = 20

_FAILED: Final = "RunFailed"  # stands for the exception of a workflow that has failed


class Conducting:
    """The workflows of one process. `use` comes before the first run."""

    def __init__(self) -> None:
        self._table: DispatchTable | None = None
        self._caller: Caller | None = None
        self._endpoint = ""
        self._shared = ""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._runtime: FlowRuntime | None = None  # made for the first run
        self._numbers = count(1)  # of runs that were given no id
        self._runs: dict[str, LiveRun] = {}  # id -> run; a key is here iff it goes on
        self._coming: dict[str, asyncio.Event] = {}  # id of one that is taken up -> set when it is

    def use(
        self,
        table: DispatchTable,
        *,
        caller: Caller | None,
        endpoint: str = "",
        shared: str = "",
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """Set what runs are made of.

        Args:
            table: The nodes and workflows that there are.
            caller: Makes the calls of nodes.
            endpoint: Of the broker to whose workers tasks go; by default all run in this process.
            shared: Folder for large values that go there by reference.
            loop: The worker's own, if it is one. What runs on another is part of a node that holds
                up this worker: it must not wait for others, which may be held up as well.
        """
        self._table, self._caller, self._loop = table, caller, loop
        self._endpoint, self._shared = endpoint, shared

    async def call(self, workflow: Workflow, inputs: Mapping[str, Any], context: Context) -> Any:
        """Run a served workflow as a node: its output is the result.

        Raises:
            NodeError: It has failed.
            CancelledError: It was cancelled.
        """
        if isinstance(context.recording, Attempt):
            return await self._record(context.recording, workflow, inputs, context)
        run = self.engine().start(workflow, inputs, level="terminal", within=context)
        return _output_of(await run.run(), context.node)

    async def call_definition(
        self,
        context: Context,
        workflow: str,
        definition: Definition | None,
        inputs: Mapping[str, Any] | None,
    ) -> Any:
        """Run a workflow that is served, or a definition, as a node.

        Raises:
            PronghornError: As `call`; or there is no such workflow, or the definition is wrong.
        """
        if definition is None:
            return await self.call(self._served(workflow), inputs or {}, context)
        plan = await self.engine().plan_of_definition(definition)
        if isinstance(context.recording, Attempt):
            return await self._record(context.recording, plan, inputs or {}, context)
        run = self.engine().start(plan, inputs, level="terminal", within=context)
        return _output_of(await run.run(), context.node)

    async def _record(
        self,
        attempt: Attempt,
        workflow: Workflow | Plan,
        inputs: Mapping[str, Any],
        context: Context,
    ) -> Any:
        """Run a workflow as a recorded run, from where that was.

        One that is served is recorded with its beginning, so that it goes on as it was then.
        """
        from .flow.live import RestError  # as in `engine`
        from .flow.plan import Plan
        from .flow.recording import take_up

        engine, coming = self.engine(), asyncio.Event()
        self._coming[attempt.run] = coming
        try:
            recording = await take_up(attempt)
            if recording.workflow is not None:
                workflow = recording.workflow
            if not isinstance(workflow, Plan):
                recording.define(workflow)
            run = engine.start(
                workflow,
                inputs,
                level="terminal",
                within=context,
                run_id=attempt.run,
                recording=recording,
            )
        finally:
            del self._coming[attempt.run]
            coming.set()
        try:
            report = await self.run(run)
        except RestError as rest:
            attempt.rest(rest.left_s)
            raise CancelledError(f"{context.node}: {rest}") from None
        return _output_of(report, context.node, recorded=True)

    async def start(
        self,
        context: Context,
        workflow: str,
        definition: Definition | None,
        inputs: Mapping[str, Any] | None,
        level: RunLevel,
        run_id: str,
    ) -> LiveRun:
        """Make a run of a workflow that is served, or of a definition.

        Raises:
            NotFoundError: No workflow has that name.
            InvalidArgumentError: The definition is wrong, or the id is taken.
        """
        if run_id in self._runs or len(run_id) > RUN_ID_MAX:
            why = "is taken" if run_id in self._runs else f"is longer than {RUN_ID_MAX} characters"
            raise InvalidArgumentError(f"the run's id {run_id[:RUN_ID_MAX]!r} {why}")
        engine = self.engine()
        run_id = run_id or f"{os.getpid()}-{next(self._numbers)}"
        if definition is None:
            plan = engine.plan_of(self._served(workflow))
        else:
            plan = await engine.plan_of_definition(definition)
        return engine.start(plan, inputs, level=level, within=context, run_id=run_id)

    async def run(self, run: LiveRun) -> RunReport:
        """Run to the end."""
        with self._going_on(run):
            return await run.run()

    async def follow(self, run: LiveRun) -> AsyncGenerator[FlowEvent, None]:
        """Run and give the events."""
        with self._going_on(run):
            async with aclosing(run.follow()) as events:
                async for event in events:
                    yield event

    async def run_of(self, run_id: str) -> LiveRun:
        """Give a run that goes on; one that is being taken up is waited for.

        Raises:
            NotFoundError: There is none.
        """
        coming = self._coming.get(run_id)
        if coming is not None:
            await coming.wait()
        run = self._runs.get(run_id)
        if run is None:
            raise NotFoundError(f"run {run_id} has ended, or was never there")
        return run

    def engine(self) -> FlowRuntime:
        """Give what runs workflows, made now if this is the first time."""
        if self._runtime is None:
            from .flow.runtime import FlowRuntime  # see above

            assert self._table is not None, "`use` comes first"
            if self._endpoint:  # else the program's own settings stand
                gc.set_threshold(*_COLLECTIONS)
            self._runtime = FlowRuntime(
                self._table,
                caller=self._caller,
                endpoint=self._endpoint,
                shared=self._shared,
                loop=self._loop,
            )
        return self._runtime

    @contextmanager
    def _going_on(self, run: LiveRun) -> Iterator[None]:
        self._runs[run.id] = run
        try:
            yield
        finally:
            del self._runs[run.id]

    def _served(self, name: str) -> Workflow:
        assert self._table is not None
        entry = self._table.lookup(name)
        if entry.workflow is None:
            raise NotFoundError(f"{entry.name} is a node, not a workflow: it is called")
        workflow: Workflow = entry.workflow
        return workflow


def builtin_calls(conducting: Conducting) -> dict[str, Callable[..., Any]]:
    """Make the nodes by which runs are made and controlled, by full name."""

    async def run(
        ctx: Context,
        workflow: str = "",
        definition: Definition | None = None,
        inputs: dict[str, Any] | None = None,
        id: str = "",  # noqa: A002
        level: RunLevel = "terminal",
    ) -> RunReport:
        """Run a workflow to its end, and tell how it has ended."""
        made = await conducting.start(ctx, workflow, definition, inputs, level, id)
        return await conducting.run(made)

    async def follow(
        ctx: Context,
        workflow: str = "",
        definition: Definition | None = None,
        inputs: dict[str, Any] | None = None,
        id: str = "",  # noqa: A002
        level: RunLevel = "full",
    ) -> AsyncGenerator[FlowEvent, None]:
        """Run a workflow, and tell what happens; the last event tells how it has ended."""
        run = await conducting.start(ctx, workflow, definition, inputs, level, id)
        async with aclosing(conducting.follow(run)) as events:
            async for event in events:
                yield event

    async def workflow(
        ctx: Context,
        workflow: str = "",
        definition: Definition | None = None,
        source: bytes = b"",
        inputs: dict[str, Any] | None = None,
    ) -> Any:
        """Run a workflow to its end, and give its output."""
        if source:
            definition = decode_value(source)
        return await conducting.call_definition(ctx, workflow, definition, inputs)

    async def control(
        run: str,
        order: RunOrder,
        name: str = "",
        value: Any = None,
        stop_running: bool = False,
    ) -> None:
        """Pause, resume, cancel or signal a run."""
        from .flow.events import Cancel, Event, Pause, Resume, Signal  # as in `Conducting.engine`

        events: dict[RunOrder, Event] = {
            "pause": Pause(),
            "resume": Resume(),
            "cancel": Cancel(stop_running=stop_running),
            "signal": Signal(name, value),
        }
        found = await conducting.run_of(run)
        refusal = await found.order(events[order])
        if refusal is not None:
            raise InvalidArgumentError(f"run {run}: {refusal}")

    return {RUN: run, FOLLOW: follow, FLOW: workflow, CONTROL: control}


def _output_of(report: RunReport, name: str, *, recorded: bool = False) -> Any:
    if report.status == "succeeded":
        return report.output
    raise failure_of(report, name, recorded=recorded)


def failure_of(report: RunReport, name: str, *, recorded: bool = False) -> PronghornError:
    """Make the error of a run that has not succeeded; that of a recorded one has its report."""
    message = f"{name}: {report.reason()}"
    if report.status == "canceled":
        return CancelledError(message, ErrorDetails(outcome="executed", node=name))
    told = _told(report) if recorded else None
    details = ErrorDetails(outcome="executed", node=name, exception=_FAILED, report=told)
    return NodeError(message, details)


def _told(report: RunReport) -> dict[str, Any]:
    """Give a report as it goes with an error: without its values where these are large."""
    encoded = encode_inline(report)
    if len(encoded) > _REPORT_BYTES_MAX:
        errors = [msgspec.structs.replace(each, result=None) for each in report.errors]
        encoded = encode_inline(
            RunReport(report.status, None, tuple(errors[-_REPORT_ERRORS_MAX:]), report.id)
        )
    told: dict[str, Any] = decode_value(encoded)
    return told
