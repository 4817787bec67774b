"""A worker's life in a process of its own, from its start hooks to its stop hooks. An IO shell.

Mirror: tests/worker/test_process.py, for forked and spawned workers alike.
"""

import faulthandler
import logging
import os
import socket
import sys
from functools import partial
from typing import Final

import uvloop

from pronghorn.broker.wire.control import EXIT_START_HOOK
from pronghorn.broker.wire.slots import stack_at

from .conducting import Conducting
from .dispatch import DispatchTable
from .failures import format_traceback
from .lifecycle import STOP_S, Hooks, StartHookError, run_start_hooks, run_stop_hooks
from .loops import GRACE_S, end_tasks, other_tasks
from .nested import DEPTH_MAX, FRAMES_PER_CALL_MAX
from .runtime import WorkerRuntime

_log = logging.getLogger(__name__)

# By then all that is waited for at the end is over, unless something blocks the process.
_END_S: Final = STOP_S + 3 * GRACE_S
_STDERR: Final = 2


def run_worker(
    *,
    worker_id: int,
    table: DispatchTable,
    hooks: Hooks,
    conducting: Conducting,
    link_fd: int,
    page_fd: int,
    result_bytes: int,
    endpoint: str = "",
    shared: str = "",
) -> int:
    """Be a worker until the broker says stop or is gone.

    Args:
        worker_id: Its number.
        table: The nodes that it serves.
        hooks: Of their modules.
        conducting: What its workflows were made with.
        link_fd: Descriptor of its end of the link to the broker.
        page_fd: Descriptor of the page of slots that it shares with the broker.
        result_bytes: Largest result.
        endpoint: Of the broker, for workflows that have tasks run by other workers.
        shared: Folder of the large values that these hand over by reference.

    Returns:
        The status to exit with.
    """
    _tell_crashes(page_fd, result_bytes)
    # Users' code has all of the limit for itself, however deep calls lie within each other here.
    sys.setrecursionlimit(sys.getrecursionlimit() + DEPTH_MAX * FRAMES_PER_CALL_MAX)
    loop = uvloop.new_event_loop()
    pid = os.getpid()
    try:
        loop_in_use = run_start_hooks(hooks, loop.run_until_complete)
    except StartHookError as error:
        trace = format_traceback(error.error).rstrip()
        _log.critical("worker %d does not serve: %s\n%s", worker_id, error, trace)
        os.pwrite(page_fd, trace.encode(errors="replace"), stack_at(result_bytes))
        return EXIT_START_HOOK
    if os.getpid() != pid:  # a child that a hook has forked, and that came back from it
        os._exit(0)
    runtime = WorkerRuntime(
        worker_id=worker_id,
        table=table,
        link=socket.socket(fileno=link_fd),
        page_fd=page_fd,
        result_bytes=result_bytes,
        loop=loop,
        loop_in_use=loop_in_use,
        shared=shared,
    )
    conducting.use(table, caller=runtime.caller, endpoint=endpoint, shared=shared, loop=loop)
    os.register_at_fork(after_in_child=runtime.leave_to_parent)
    runtime.run()
    # Ends this process with the stacks of all threads; needs nothing of Python to run for that.
    faulthandler.dump_traceback_later(_END_S, exit=True, file=_STDERR)
    runtime.cancel_all()
    run_stop_hooks(hooks, loop.run_until_complete)
    loop.run_until_complete(_end_others())
    runtime.close()
    return 0


def _tell_crashes(page_fd: int, result_bytes: int) -> None:
    """Have the stacks of a crash written behind the page, where the supervisor reads them."""
    behind = os.dup(page_fd)
    os.lseek(behind, stack_at(result_bytes), os.SEEK_SET)
    faulthandler.enable(behind)  # it needs the descriptor to the very end
    # What a node forks is not this worker, whatever becomes of it.
    os.register_at_fork(after_in_child=partial(faulthandler.enable, _STDERR))


async def _end_others() -> None:
    """Have done with what users' code has left on the loop."""
    await end_tasks(other_tasks())
