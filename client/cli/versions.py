"""``pronghorn version``: what is installed here; asks no broker.

Mirror: tests/client/cli/test_versions.py.
"""

import platform
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

import msgspec

from pronghorn.broker.wire.limits import PROTOCOL_VERSION
from pronghorn.broker.wire.version import VERSION

from .output import aligned, write


def print_versions(*, as_json: bool) -> None:
    """Print the versions of Pronghorn, its protocol and what it stands on."""
    versions = {
        "pronghorn": VERSION,
        "protocol": PROTOCOL_VERSION,
        "python": platform.python_version(),
        # By its name, for no socket is used here: those who use one are listed by a test.
        "libzmq": import_module("zmq").zmq_version(),
        "pyzmq": _installed("pyzmq"),
        "msgspec": msgspec.__version__,
        "uvloop": _installed("uvloop"),
    }
    if as_json:
        write(msgspec.json.encode(versions) + b"\n")
    else:
        rows = [(name, str(value or "not installed")) for name, value in versions.items()]
        write(aligned(rows))


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
