"""Finds out which call is running, at the moment when somebody asks: who logs pays, not who calls.

The frames of the code that runs nodes hold all there is to know. Only tasks carry it along
(`IN_TASK`), for those that a node starts in turn have frames of their own.

Mirror: tests/worker/test_running.py.
"""

import sys
from collections.abc import Callable
from types import CodeType
from typing import Any, Final

from pronghorn.broker.wire.logline import RunningCall

from .context import IN_TASK, Context
from .execution import Execution
from .streaming import AsyncSteps, Steps


def running_call() -> RunningCall | None:
    """Tell which call this is asked in: by a node, or by what encodes and decodes for it.

    Not in threads that a node has started.
    """
    frame = sys._getframe(1)
    while frame is not None:  # the innermost first: a node may run within another
        tell = _TELLERS.get(frame.f_code)
        if tell is not None:
            return tell(frame.f_locals)
        frame = frame.f_back  # type: ignore[assignment]
    in_task = IN_TASK.get()
    return None if in_task is None else _call(*in_task)


def _of_request(local: dict[str, Any]) -> RunningCall:
    return _call(local["entry"].name, local["message"].token, local["context"])


def _of_steps(local: dict[str, Any]) -> RunningCall:
    steps: Steps | AsyncSteps = local["self"]
    return _call(steps.node, steps.token, steps.context)


def _call(node: str, token: int, context: Context | None) -> RunningCall:
    return RunningCall(node, str(token), None if context is None else context.traceparent)


# Code that runs nodes -> what tells the call, by its local variables.
_TELLERS: Final[dict[CodeType, Callable[[dict[str, Any]], RunningCall]]] = {
    Execution.call.__code__: _of_request,
    Execution.call_async.__code__: _of_request,
    Execution.chunk.__code__: _of_request,
    Execution.chunk_async.__code__: _of_request,
    Steps.step.__code__: _of_steps,
    Steps.close.__code__: _of_steps,
    AsyncSteps.step.__code__: _of_steps,
    AsyncSteps.close.__code__: _of_steps,
}
