"""A timer of the kernel's with the clock's resolution, as a descriptor that an event loop watches.

The loop's own timers are whole milliseconds, as long as ten round trips. Python has no name for
timerfd before 3.13. An IO shell. Mirror: tests/bench/load/test_timer.py.
"""

import ctypes
import os
from typing import Final

_CLOCK_MONOTONIC: Final = 1
_NONBLOCK_CLOEXEC: Final = 0o2004000
_ABSOLUTE: Final = 1
_S: Final = 1_000_000_000


class _Spec(ctypes.Structure):
    _fields_ = (
        ("interval_s", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("value_s", ctypes.c_long),
        ("value_ns", ctypes.c_long),
    )


class Timer:
    """One timer on the clock of `time.monotonic_ns`; `fd` is readable once its time has come."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._spec = _Spec()
        self._pointer = ctypes.byref(self._spec)
        self.fd: int = self._libc.timerfd_create(_CLOCK_MONOTONIC, _NONBLOCK_CLOEXEC)
        if self.fd < 0:
            raise _os_error("timerfd_create")

    def set(self, at_ns: int) -> None:
        """Have it come at a time, at once if that is past; what was set before is forgotten."""
        spec = self._spec
        spec.value_s, spec.value_ns = divmod(max(at_ns, 1), _S)  # 0 would disarm it
        if self._libc.timerfd_settime(self.fd, _ABSOLUTE, self._pointer, None) != 0:
            raise _os_error("timerfd_settime")

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self.fd)


def _os_error(call: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{call}: {os.strerror(number)}")
