"""A worker started as a process of its own, where the template must not be forked. `main` enters.

That is so when users' modules start threads, open ZeroMQ contexts or LMDB environments at import:
none of them survives a fork.

Mirror: tests/worker/test_spawned.py.
"""

import os
import sys
from typing import NoReturn

from pronghorn.broker.wire.channel import ControlChannel
from pronghorn.broker.wire.control import TemplateConfig
from pronghorn.broker.wire.linux import die_with_parent

from .confinement import confine
from .ending import EXIT_FAILED, leave
from .loader import load
from .process import run_worker
from .template import read_config


def main() -> int:
    """Run one worker; the arguments are its id and the descriptors of link, page and channel."""
    worker_id, link_fd, page_fd, channel_fd = map(int, sys.argv[1:5])
    os.set_inheritable(link_fd, False)
    os.set_inheritable(page_fd, False)
    channel = ControlChannel.inherited(channel_fd)
    configured = read_config(channel, worker_id)
    channel.close()
    if configured is None:
        return 1
    config, _ = configured
    confine(config.confinement)
    die_with_parent(config.supervisor_pid)
    _become_worker(worker_id, link_fd, page_fd, config)


def _become_worker(worker_id: int, link_fd: int, page_fd: int, config: TemplateConfig) -> NoReturn:
    """Be a worker in this process, which then ends."""
    try:
        loaded = load(config.modules)
        status = run_worker(
            worker_id=worker_id,
            table=loaded.table(),
            hooks=loaded.hooks,
            conducting=loaded.conducting,
            link_fd=link_fd,
            page_fd=page_fd,
            result_bytes=config.result_bytes,
            endpoint=config.endpoint,
            shared=config.shared,
        )
    except BaseException:
        leave(EXIT_FAILED, why=f"worker {worker_id} failed")
    leave(status)


if __name__ == "__main__":
    sys.exit(main())
