"""A worker started as a process of its own, where the template must not be forked. `main` enters.

That is so when users' modules start threads, open ZeroMQ contexts or LMDB environments at import:
none of them survives a fork.

Mirror: tests/worker/test_spawned.py.
"""

import os
import sys

from pronghorn.broker.wire.channel import ControlChannel
from pronghorn.broker.wire.linux import die_with_parent

from .dispatch import DispatchTable
from .loader import load
from .runtime import run_worker
from .template import read_config


def main() -> int:
    """Run one worker; the arguments are its id and the descriptors of link, page and channel."""
    worker_id, link_fd, page_fd, channel_fd = map(int, sys.argv[1:5])
    os.set_inheritable(link_fd, False)
    os.set_inheritable(page_fd, False)
    channel = ControlChannel.inherited(channel_fd)
    config = read_config(channel)
    channel.close()
    if config is None:
        return 1
    die_with_parent(config.supervisor_pid)
    run_worker(
        worker_id=worker_id,
        table=DispatchTable(load(config.modules).entries),
        link_fd=link_fd,
        page_fd=page_fd,
        result_bytes=config.result_bytes,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
