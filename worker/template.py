"""The template process: imports users' modules once and forks workers from itself. An IO shell.

A fork is ready in 4 ms and has 5 MB of its own, a spawned process takes 60 ms and 22 MB. Each
worker is forked twice, so that it becomes a child of the supervisor (which is a subreaper) and the
template's own end harms no worker.

Mirror: tests/worker/test_template.py.
"""

import errno
import gc
import os
import sys
from contextlib import suppress
from typing import Final, NoReturn

from pronghorn.broker.wire.channel import ControlChannel
from pronghorn.broker.wire.control import (
    Loaded,
    ModuleFailure,
    StartWorker,
    TemplateConfig,
    WorkerForked,
)
from pronghorn.broker.wire.linux import die_with_parent, wait_until_adopted
from pronghorn.broker.wire.logs import Lines, capture_prints, set_up_logs

from .confinement import confine
from .ending import EXIT_FAILED, flush_output, leave
from .loader import load
from .process import run_worker
from .running import running_call

_LOG_PATIENCE_S: Final = 0.2


class Template:
    """The running template. Owns its channel to the supervisor."""

    def __init__(self, config: TemplateConfig, channel: ControlChannel, lines: Lines) -> None:
        self._config = config
        self._lines = lines
        self._channel = channel
        loaded = load(config.modules)
        self._table = loaded.table()
        self._hooks = loaded.hooks
        self._conducting = loaded.conducting
        failures = tuple(
            ModuleFailure(one.subject, f"{one.message}\n{one.traceback}".rstrip())
            for one in loaded.failures
        )
        channel.send(
            Loaded(
                self._table.node_table,
                failures,
                loaded.unsafe_to_fork,
                stop_hooks=bool(loaded.hooks.stop),
                sources=loaded.sources,
            )
        )
        # What lives now lives as long as every worker: a collection in a worker must not touch it,
        # or the pages that are shared by the fork are copied.
        gc.collect()
        gc.freeze()

    def run(self) -> None:
        """Fork workers until the supervisor is gone."""
        while (received := self._channel.receive()) is not None:
            for message, descriptors in received:
                assert isinstance(message, StartWorker)
                if not descriptors:
                    raise OSError(errno.EMFILE, "no descriptors left for the link of a worker")
                self._fork(message.worker_id, *descriptors)

    def _fork(self, worker_id: int, link_fd: int, page_fd: int) -> None:
        """Fork a worker and tell its process.

        Raises:
            OSError: The system allows no more processes, or the process in between was killed; the
                template then ends, and its supervisor starts another after a while.
        """
        flush_output()  # or what modules printed at import would be written by each worker again
        reader, writer = os.pipe()
        between = os.fork()
        if between == 0:
            between_pid = os.getpid()
            try:
                pid = os.fork()
                if pid:
                    os.write(writer, str(pid).encode())
            except BaseException:
                os._exit(1)
            if pid:
                os._exit(0)
            os.close(reader)
            os.close(writer)
            self._become_worker(worker_id, link_fd, page_fd, between_pid)
        os.close(writer)
        os.close(link_fd)
        os.close(page_fd)
        pid_text = os.read(reader, 32)
        os.close(reader)
        with suppress(ChildProcessError):  # users' modules may have SIGCHLD ignored
            os.waitpid(between, 0)
        if not pid_text:
            raise OSError(f"can't fork worker {worker_id}: the process in between has failed")
        self._channel.send(WorkerForked(worker_id, int(pid_text)))

    def _become_worker(
        self, worker_id: int, link_fd: int, page_fd: int, between_pid: int
    ) -> NoReturn:
        """Be a worker in this process, which then ends."""
        try:
            self._lines.become_worker(worker_id)
            self._channel.close()
            wait_until_adopted(between_pid)
            confine(self._config.confinement)
            die_with_parent(self._config.supervisor_pid)
            status = run_worker(
                worker_id=worker_id,
                table=self._table,
                hooks=self._hooks,
                conducting=self._conducting,
                link_fd=link_fd,
                page_fd=page_fd,
                result_bytes=self._config.result_bytes,
                endpoint=self._config.endpoint,
                shared=self._config.shared,
            )
        except BaseException:
            leave(EXIT_FAILED, why=f"worker {worker_id} failed")
        leave(status)


def read_config(
    channel: ControlChannel, worker_id: int | None = None
) -> tuple[TemplateConfig, Lines] | None:
    """Read the config that the supervisor sends first and set the process up accordingly.

    Args:
        channel: Where it comes from.
        worker_id: If this is a worker.

    Returns:
        It, and where to log; `None` if the supervisor is gone.
    """
    received = channel.receive()
    if received is None:
        return None
    config = received[0][0]
    assert isinstance(config, TemplateConfig)
    # A reader that takes nothing in holds up nobody for longer than that, and only once.
    lines = set_up_logs(
        "template" if worker_id is None else "worker",
        config.log_level,
        config.log_format,
        worker_id=worker_id,
        running=running_call,
        patience_s=_LOG_PATIENCE_S,
    )
    capture_prints(lines)
    sys.path[:] = config.sys_path
    return config, lines


def main() -> int:
    """Run the template over the channel whose descriptor is the first argument."""
    channel = ControlChannel.inherited(int(sys.argv[1]))
    configured = read_config(channel)
    if configured is None:
        return 1
    config, lines = configured
    die_with_parent(config.supervisor_pid)
    with suppress(BrokenPipeError):  # the supervisor has ended the tree meanwhile
        Template(config, channel, lines).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
