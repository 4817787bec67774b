"""What the system lacks when a process, descriptor or socket can't be had, and what to do. Pure.

Mirror: tests/broker/wire/test_shortage.py.
"""

import errno

_ADVICE = {
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ETOOMANYREFS: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "raise the system's limit of open files (sysctl fs.file-max)",
    errno.EAGAIN: "raise the limit of processes (ulimit -u, or pids.max of the control group)",
    errno.ENOMEM: "free memory, or serve with fewer workers",
}


def explained(error: OSError) -> str:
    """Say what is lacking and, where that is known, what to do about it."""
    what = error.strerror or str(error)
    advice = _ADVICE.get(error.errno or 0)
    return f"{what}: {advice}" if advice else what
