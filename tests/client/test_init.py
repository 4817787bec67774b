"""The names of the package, and what they cost."""

import importlib.util
import subprocess
import sys

import pytest

import pronghorn.client
from pronghorn.broker.wire import errors
from pronghorn.worker.local import LocalPool


def test_all_names_are_there() -> None:
    assert pronghorn.client.__all__ == sorted(pronghorn.client.__all__)
    for name in pronghorn.client.__all__:
        assert getattr(pronghorn.client, name).__name__ == name
    assert pronghorn.client.LocalPool is LocalPool


def test_all_errors_are_there() -> None:
    ours = {cls.__name__ for cls in errors.ERROR_CLASSES.values()} | {"PronghornError"}
    assert ours <= set(pronghorn.client.__all__)


def test_other_names_are_not() -> None:
    with pytest.raises(AttributeError, match=r"'pronghorn\.client' has no attribute 'Server'"):
        pronghorn.client.Server  # noqa: B018


def test_a_second_copy_is_refused() -> None:
    spec = importlib.util.spec_from_file_location("client", pronghorn.client.__file__)
    assert spec is not None
    assert spec.loader is not None
    with pytest.raises(ImportError, match=r"import pronghorn\.client"):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "unneeded"),
    [
        ("PronghornError", {"zmq", "asyncio", "subprocess"}),
        ("Client", {"pronghorn.worker.local", "rich", "typer", "numpy"}),
        ("Pool", {"pronghorn.worker", "pronghorn.broker.core", "rich", "typer", "numpy"}),
    ],
)
def test_a_program_loads_what_it_uses(name: str, unneeded: set[str]) -> None:
    program = f"from pronghorn.client import {name}; import sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert set(done.stdout.decode().split()) & unneeded == set()
