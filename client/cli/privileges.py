"""What ``serve`` gives up: the superuser's rights, and what its workers may take. An IO shell.

Mirror: tests/client/cli/test_privileges.py.
"""

import os
import pwd
import sys

from pronghorn.broker.wire.control import Confinement
from pronghorn.broker.wire.errors import InvalidArgumentError, PermissionDeniedError
from pronghorn.broker.wire.limits import MIB
from pronghorn.broker.wire.linux import can_leave_network, forbid_new_privileges

from .arguments import parse_size

WORKER_MEMORY_MIN = 64 * MIB
WORKER_FILES_MIN = 32

_FOLDERS = ("XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_STATE_HOME")


def become(name: str) -> None:
    """Be another user from now on, for good: this process and all that it starts.

    The environment's home is that user's; folders that it names and the user can't use are left
    out, so that the user's own are used.

    Raises:
        InvalidArgumentError: There is no such user.
        PermissionDeniedError: This one may not become it.
    """
    try:
        user = pwd.getpwnam(name)
    except KeyError:
        raise InvalidArgumentError(f"there is no user {name!r}") from None
    if user.pw_uid != os.geteuid():
        try:
            os.initgroups(user.pw_name, user.pw_gid)
            os.setresgid(user.pw_gid, user.pw_gid, user.pw_gid)
            os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)
        except PermissionError:
            raise PermissionDeniedError(
                f"only the superuser can serve as another user: start it as {name}"
            ) from None
    if not os.access(sys.executable, os.X_OK):
        raise InvalidArgumentError(f"{name} may not run {sys.executable}, which serving takes")
    forbid_new_privileges()
    os.environ |= {"HOME": user.pw_dir, "USER": user.pw_name, "LOGNAME": user.pw_name}
    for variable in _FOLDERS:
        if variable in os.environ and not os.access(os.environ[variable], os.W_OK):
            del os.environ[variable]


def make_confinement(
    *, memory: str | None, cpu_s: int | None, files: int | None, network: bool
) -> Confinement:
    """Make what each worker may take from what was said of it.

    Raises:
        InvalidArgumentError: One makes no sense, or the system can't do it.
    """
    memory_bytes = 0 if memory is None else parse_size(memory)
    if memory is not None and memory_bytes < WORKER_MEMORY_MIN:
        raise InvalidArgumentError(
            f"--worker-memory is {memory}, and each has more from its start: give 64M at least"
        )
    if files is not None and files < WORKER_FILES_MIN:
        raise InvalidArgumentError(
            f"--worker-files is {files}, and each has about as many open from its start: give "
            f"{WORKER_FILES_MIN} at least"
        )
    if not network and not can_leave_network():
        raise InvalidArgumentError(
            "--worker-no-network: this system lets no process give up its network; it takes "
            "the superuser or user namespaces"
        )
    return Confinement(
        memory_bytes=memory_bytes, cpu_s=cpu_s or 0, files=files or 0, network=network
    )
