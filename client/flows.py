"""Runs of workflows as programs have them: what is sent, handles, and the error of one that fails.

Mirror: tests/client/test_flows.py.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from secrets import token_hex
from types import TracebackType
from typing import Any, Protocol, Self, runtime_checkable

import msgspec

from pronghorn.broker.wire.codec import DECODE_ERRORS
from pronghorn.broker.wire.errors import (
    CancelledError,
    ErrorDetails,
    InvalidArgumentError,
    NodeError,
    ProtocolError,
)
from pronghorn.broker.wire.flows import FLOW, FlowEvent, RunLevel, RunOrder, RunReport
from pronghorn.broker.wire.values import encode_inline, encode_params, encode_with_buffer

from .invocation import NodeLike, Params, Target, result_of, target_of
from .stopwatch import Extras, is_recorded
from .streaming import AsyncStream, Stream

_ID_BYTES = 8
_SOURCE_BYTES_MIN = 1024  # what the journal keeps by its content anyway


@runtime_checkable
class Definable(Protocol):
    """What can be written as a definition of a workflow, such as `pronghorn.worker.flow.build`."""

    def definition(self) -> dict[str, Any]:
        """Write it."""


Unserved = Mapping[str, Any] | PathLike[str] | Definable
"""A definition, the file of one, or what can be written as one."""

WorkflowLike = str | Unserved
"""The name of one that is served, or a workflow that is not."""


class RunFailedError(NodeError):
    """A run that has failed.

    Attributes:
        report: How it has ended: its output as far as there is any, and its errors.
    """

    def __init__(self, message: str, details: ErrorDetails, report: RunReport) -> None:
        super().__init__(message, details)
        self.report = report


def new_run_id() -> str:
    """Choose an id that no other run has."""
    return token_hex(_ID_BYTES)


def run_params(
    workflow: WorkflowLike,
    inputs: Mapping[str, Any] | None,
    named: Mapping[str, Any],
    level: RunLevel,
    run_id: str = "",
) -> dict[str, Any]:
    """Make the params of the calls that make runs.

    Raises:
        InvalidArgumentError: There is no such file, or the input is given twice.
    """
    if inputs is not None and named:
        raise InvalidArgumentError("give inputs=… or the input by name, not both")
    params: dict[str, Any] = {"inputs": dict(named if inputs is None else inputs), "level": level}
    if run_id:
        params["id"] = run_id
    if isinstance(workflow, str):
        params["workflow"] = workflow
    elif isinstance(workflow, PathLike):
        try:
            params["definition"] = Path(workflow).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidArgumentError(f"{workflow} can't be read: {error}") from error
    elif isinstance(workflow, Mapping):
        params["definition"] = dict(workflow)
    else:
        params["definition"] = workflow.definition()
    return params


def flow_params(
    workflow: WorkflowLike, inputs: Mapping[str, Any] | None, named: Mapping[str, Any]
) -> Params:
    """Make the encoded params of the call `FLOW`, by which a run is recorded.

    A definition of some size is a buffer: the journal keeps it once, however many runs it has.

    Raises:
        InvalidArgumentError: As for `run_params`; or something can't be encoded.
    """
    params = run_params(workflow, inputs, named, "terminal")
    del params["level"]
    definition = params.get("definition")
    try:
        if definition is not None and len(source := encode_inline(definition)) >= _SOURCE_BYTES_MIN:
            del params["definition"]
            return encode_with_buffer(params, "source", source)
        return encode_params(params)
    except (TypeError, *DECODE_ERRORS) as error:
        raise InvalidArgumentError(f"can't encode the workflow or its input: {error}") from error


FLOW_TARGET = Target(FLOW, Any, None)


def to_start(node: NodeLike | WorkflowLike) -> tuple[Target, Unserved | None]:
    """Find out what is to be called to start something, and the workflow, if it is given as one.

    Raises:
        InvalidArgumentError: It is neither a node nor a workflow.
    """
    if isinstance(node, Mapping | PathLike | Definable):
        return FLOW_TARGET, node
    return target_of(node), None


def started_flow(
    workflow: Unserved,
    args: Sequence[Any],
    params: Mapping[str, Any] | None,
    named: Mapping[str, Any],
) -> Params:
    """Make the params of a workflow that is started, of what would be the arguments of a node.

    Raises:
        InvalidArgumentError: As for `flow_params`; or there are some by position.
    """
    if args:
        raise InvalidArgumentError("the input of a workflow is given by name")
    return flow_params(workflow, params, named)


def recorded_output(reply: object, buffers: Sequence[bytes], name: str) -> dict[str, Any] | None:
    """Give the output of a recorded run, of the reply to its call.

    Raises:
        RunFailedError: It has failed.
        PronghornError: What else there is.
    """
    try:
        output: dict[str, Any] | None = result_of(FLOW_TARGET, reply, buffers)
    except NodeError as error:
        raise failure_of(error, name) from None
    return output


def run_extras(extras: Extras | None, on_event: object) -> Extras | None:
    """Give the options of a run that is recorded, by default as `sync`; None if it is not to be.

    Raises:
        InvalidArgumentError: Events are asked for, too.
    """
    if extras is None or not is_recorded(extras):
        return None
    if on_event is not None:
        raise InvalidArgumentError(
            "a recorded run goes on without its caller: `start` it, and ask for its `events`"
        )
    return extras._replace(durability=extras.durability or "sync")


def failure_of(error: NodeError, name: str) -> NodeError:
    """Make the error of a recorded run that has failed, of that of its call."""
    if error.details.report is None:
        return error
    report = read_report(error.details.report)
    details = msgspec.structs.replace(error.details, node=name, report=None)
    return RunFailedError(f"{name}: {report.reason()}", details, report)


def name_of(workflow: WorkflowLike) -> str:
    """Say which workflow it is, for people."""
    if isinstance(workflow, str | PathLike):
        return str(workflow)
    definition = workflow if isinstance(workflow, Mapping) else workflow.definition()
    return str(definition.get("name") or "workflow")


def read_report(result: Any) -> RunReport:
    """Read the result of a run.

    Raises:
        ProtocolError: It is none.
    """
    try:
        return msgspec.convert(result, RunReport)
    except msgspec.ValidationError as error:
        raise ProtocolError(f"not the report of a run: {error}") from error


def output_of(report: RunReport, name: str) -> dict[str, Any] | None:
    """Give the output of a run.

    Raises:
        RunFailedError: It has failed.
        CancelledError: It was cancelled.
    """
    if report.status == "succeeded":
        return report.output
    details = ErrorDetails(outcome="executed", node=name)
    message = f"{name}: {report.reason()}"
    if report.status == "canceled":
        raise CancelledError(message, details)
    raise RunFailedError(message, details, report)


class Run:
    """A run that goes on. To close it, or to let go of it, before its end cancels it.

    Its events are to be read, by `events` or by `result`, or it waits for that after 10,000 of
    them. May be used by any thread, one at a time; `pause` and the others by any at any time.

    Attributes:
        id: Names it.
    """

    def __init__(
        self, name: str, run_id: str, stream: Stream[Any], control: Callable[..., Any]
    ) -> None:
        self.id = run_id
        self._name = name
        self._stream = stream
        self._control = control
        self._report: RunReport | None = None
        # With it the run is there; None once it was given out.
        self._first: FlowEvent | None = _event(next(stream, None), name)

    def events(self) -> Iterator[FlowEvent]:
        """Give what happens, as it does, from where the last reader has stopped."""
        first, self._first = self._first, None
        if first is not None:
            yield first
        while self._report is None:
            event = _event(next(self._stream, None), self._name)
            self._report = _report_of(event, self.id)
            yield event

    def report(self) -> RunReport:
        """Wait until it has ended, and tell how."""
        for _ in self.events():
            pass
        assert self._report is not None
        return self._report

    def result(self) -> dict[str, Any] | None:
        """Wait until it has ended, and give its output.

        Raises:
            RunFailedError: It has failed.
            CancelledError: It was cancelled.
            PronghornError: Whatever else has kept it from its end.
        """
        return output_of(self.report(), self._name)

    def pause(self) -> None:
        """Have it start nothing more until it is resumed; what runs ends."""
        self._order("pause")

    def resume(self) -> None:
        """Have it go on."""
        self._order("resume")

    def cancel(self, *, stop_running: bool = False) -> None:
        """End it; what runs is let finish, or stopped."""
        self._order("cancel", stop_running=stop_running)

    def signal(self, name: str, value: Any = None) -> None:
        """Tell a task that waits for an event of that name, or will wait."""
        self._order("signal", name=name, value=value)

    def close(self) -> None:
        """Let go of it, which cancels it unless it has ended."""
        self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _order(self, order: RunOrder, **more: Any) -> None:
        self._control(run=self.id, order=order, **more)


class AsyncRun:
    """The same on an event loop; as `Run`."""

    def __init__(
        self,
        name: str,
        run_id: str,
        stream: AsyncStream[Any],
        control: Callable[..., Awaitable[Any]],
    ) -> None:
        self.id = run_id
        self._name = name
        self._stream = stream
        self._control = control
        self._report: RunReport | None = None
        self._first: FlowEvent | None = None  # until it was given out

    async def begin(self) -> Self:
        """Wait until the run is there."""
        self._first = _event(await anext(self._stream, None), self._name)
        return self

    async def events(self) -> AsyncIterator[FlowEvent]:
        """Give what happens, as `Run.events`."""
        first, self._first = self._first, None
        if first is not None:
            yield first
        while self._report is None:
            event = _event(await anext(self._stream, None), self._name)
            self._report = _report_of(event, self.id)
            yield event

    async def report(self) -> RunReport:
        """Wait until it has ended, and tell how."""
        async for _ in self.events():
            pass
        assert self._report is not None
        return self._report

    async def result(self) -> dict[str, Any] | None:
        """Wait until it has ended, and give its output; errors as those of `Run.result`."""
        return output_of(await self.report(), self._name)

    async def pause(self) -> None:
        """Have it start nothing more until it is resumed; what runs ends."""
        await self._order("pause")

    async def resume(self) -> None:
        """Have it go on."""
        await self._order("resume")

    async def cancel(self, *, stop_running: bool = False) -> None:
        """End it; what runs is let finish, or stopped."""
        await self._order("cancel", stop_running=stop_running)

    async def signal(self, name: str, value: Any = None) -> None:
        """Tell a task that waits for an event of that name, or will wait."""
        await self._order("signal", name=name, value=value)

    async def aclose(self) -> None:
        """Let go of it, which cancels it unless it has ended."""
        await self._stream.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def _order(self, order: RunOrder, **more: Any) -> None:
        await self._control(run=self.id, order=order, **more)


def _event(part: Any, name: str) -> FlowEvent:
    try:
        return msgspec.convert(part, FlowEvent)
    except msgspec.ValidationError as error:
        raise ProtocolError(f"{name}: not an event of a run: {error}") from error


def _report_of(event: FlowEvent, run_id: str) -> RunReport | None:
    if event.kind != "ended":
        return None
    return RunReport(event.status or "failed", event.output, event.errors, run_id, event.context)
