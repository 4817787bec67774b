"""Mirror of client/cli/privileges.py: what a process gives up is given up in forked ones."""

import os
import pwd
import sys
from collections.abc import Callable

import pytest

from pronghorn.broker.wire.control import UNCONFINED, Confinement
from pronghorn.broker.wire.errors import InvalidArgumentError, PermissionDeniedError
from pronghorn.client.cli import privileges
from pronghorn.client.cli.privileges import become, make_confinement

ME = pwd.getpwuid(os.getuid()).pw_name
needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only the superuser can be another user")


def in_child(act: Callable[[], bool]) -> bool:
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if act() else 2)
        except BaseException:
            os._exit(3)
    return os.waitpid(child, 0)[1] == 0


def as_nobody(monkeypatch: pytest.MonkeyPatch) -> pwd.struct_passwd:
    monkeypatch.setattr(sys, "executable", "/bin/sh")  # that of the tests may be the superuser's
    return pwd.getpwnam("nobody")


@needs_root
def test_another_user_is_become_for_good(monkeypatch: pytest.MonkeyPatch) -> None:
    user = as_nobody(monkeypatch)

    def tried() -> bool:
        become("nobody")
        ids = (user.pw_uid,) * 3
        try:
            os.setuid(0)
        except PermissionError:
            return os.getresuid() == ids and 0 not in os.getgroups() and os.getgid() == user.pw_gid
        return False

    assert in_child(tried)


@needs_root
def test_the_environment_is_that_users(monkeypatch: pytest.MonkeyPatch) -> None:
    user = as_nobody(monkeypatch)
    monkeypatch.setenv("XDG_CONFIG_HOME", "/root")
    monkeypatch.setenv("XDG_STATE_HOME", "/tmp")

    def tried() -> bool:
        become("nobody")
        return (
            os.environ["HOME"] == user.pw_dir
            and os.environ["USER"] == "nobody"
            and "XDG_CONFIG_HOME" not in os.environ
            and os.environ["XDG_STATE_HOME"] == "/tmp"
        )

    assert in_child(tried)


@needs_root
def test_who_is_no_superuser_can_not_change(monkeypatch: pytest.MonkeyPatch) -> None:
    as_nobody(monkeypatch)

    def tried() -> bool:
        become("nobody")
        become("nobody")  # which it is
        try:
            become("root")
        except PermissionDeniedError as error:
            return "only the superuser" in str(error)
        return False

    assert in_child(tried)


@needs_root
def test_a_user_who_may_not_run_python_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    as_nobody(monkeypatch)
    monkeypatch.setattr(sys, "executable", "/root/nowhere/python")

    def tried() -> bool:
        try:
            become("nobody")
        except InvalidArgumentError as error:
            return "nobody may not run /root/nowhere/python" in str(error)
        return False

    assert in_child(tried)


def test_an_unknown_user_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="no user 'no-such-user'"):
        become("no-such-user")


def test_what_is_not_said_is_not_confined() -> None:
    assert make_confinement(memory=None, cpu_s=None, files=None, network=True) == UNCONFINED


def test_what_is_said_is_confined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(privileges, "can_leave_network", lambda: True)
    made = make_confinement(memory="1G", cpu_s=5, files=64, network=False)
    assert made == Confinement(memory_bytes=2**30, cpu_s=5, files=64, network=False)


def test_what_can_not_be_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidArgumentError, match="--worker-memory is 1M"):
        make_confinement(memory="1M", cpu_s=None, files=None, network=True)
    with pytest.raises(InvalidArgumentError, match="--worker-files is 3"):
        make_confinement(memory=None, cpu_s=None, files=3, network=True)
    monkeypatch.setattr(privileges, "can_leave_network", lambda: False)
    with pytest.raises(InvalidArgumentError, match="takes the superuser or user namespaces"):
        make_confinement(memory=None, cpu_s=None, files=None, network=False)
