"""The floor of anything durable: a bare LMDB commit, synced, of one record.

Mirror: tests/bench/floors/test_commits.py.
"""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from itertools import count

import lmdb

from ..timing import Measure, time_each

RECORD_BYTES = 100  # about what a record of a small run has


@contextlib.contextmanager
def bare_commit() -> Iterator[Measure]:
    """Commit one record after the other, with the flags that the journal has."""
    with tempfile.TemporaryDirectory(prefix="pronghorn-bench-") as folder:
        environment = lmdb.open(
            folder, map_size=2**32, metasync=True, sync=True, writemap=False, lib_version=0
        )
        numbers, record = count(), os.urandom(RECORD_BYTES)

        def once() -> bool:
            with environment.begin(write=True) as transaction:
                return transaction.put(next(numbers).to_bytes(8, "big"), record, append=True)

        yield lambda calls: time_each(once, True, calls)
        environment.close()
