"""Where a broker and its clients meet, and where it keeps what is to last.

Mirror: tests/broker/wire/test_places.py.
"""

import ipaddress
import os
import re
from pathlib import Path
from urllib.parse import urlsplit

from .errors import InvalidArgumentError

ENDPOINT_VARIABLE = "PRONGHORN_ENDPOINT"
KEY_VARIABLE = "PRONGHORN_KEY"
SECRET_VARIABLE = "PRONGHORN_SECRET_KEY"
SERVER_KEY_VARIABLE = "PRONGHORN_SERVER_KEY"
DEFAULT_NAME = "default"
SOCKET_NAME = "broker.sock"
POOL_PREFIX = "pool-"
"""Begins the names of embedded pools' brokers; the process id of their host and a hyphen follow."""

SHARED_MEMORY = "/dev/shm"

IPC_PATH_BYTES_MAX = 107
"""sizeof(sun_path) - 1 on Linux; libzmq would fail with no more than "File name too long"."""

STREAM_SUFFIX = ".stream"
"""Beside each ipc endpoint's socket the broker listens at a path that has this added."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def runtime_root() -> Path:
    """Return the folder that holds the runtime folders of this user's brokers."""
    base = os.environ.get("XDG_RUNTIME_DIR")
    if base and os.path.isabs(base) and os.access(base, os.W_OK):
        return Path(base, "pronghorn")
    return Path("/tmp", f"pronghorn-{os.getuid()}")


def runtime_folder(name: str) -> Path:
    """Return the runtime folder of a broker by its name.

    Raises:
        InvalidArgumentError: The name can't be a folder's name, or its path would be too long.
    """
    _check_name(name)
    folder = runtime_root() / name
    check_ipc_path(str(folder / SOCKET_NAME))
    return folder


def data_folder(name: str) -> Path:
    """Return the folder in which a broker keeps its journal, by its name.

    Raises:
        InvalidArgumentError: The name can't be a folder's name.
    """
    return _user_folder("XDG_STATE_HOME", "~/.local/state", name)


def keys_folder(name: str) -> Path:
    """Return the folder in which a broker has its keys, by its name.

    Raises:
        InvalidArgumentError: The name can't be a folder's name.
    """
    return _user_folder("XDG_CONFIG_HOME", "~/.config", name) / "keys"


def shared_root() -> Path | None:
    """Return the folder in memory for values of this user's brokers, `None` where there is none."""
    if not os.path.isdir(SHARED_MEMORY):
        return None
    return Path(SHARED_MEMORY, f"pronghorn-{os.getuid()}")


def endpoint_in(folder: Path | str) -> str:
    """Return the endpoint of the broker whose runtime folder that is."""
    return f"ipc://{Path(folder) / SOCKET_NAME}"


def default_endpoint() -> str:
    """Return the endpoint a client uses when it is given none."""
    return os.environ.get(ENDPOINT_VARIABLE) or endpoint_in(runtime_folder(DEFAULT_NAME))


def stream_path(endpoint: str) -> str | None:
    """Return the path of the stream beside an endpoint; `None` where there is none.

    There is none beside tcp endpoints, nor where the system would refuse a path so long.
    """
    if not endpoint.startswith("ipc:///"):
        return None
    path = endpoint.removeprefix("ipc://") + STREAM_SUFFIX
    return path if len(os.fsencode(path)) <= IPC_PATH_BYTES_MAX else None


def is_tcp(endpoint: str) -> bool:
    """Whether an endpoint is reached over the network, be it this host's own."""
    return endpoint.startswith("tcp://")


def check_ipc_path(path: str) -> None:
    """Refuse a socket path that the kernel would refuse.

    Raises:
        InvalidArgumentError: It is too long; the message says what to do.
    """
    length = len(os.fsencode(path))
    if length > IPC_PATH_BYTES_MAX:
        raise InvalidArgumentError(
            f"the socket path {path} has {length} bytes, the system's limit is "
            f"{IPC_PATH_BYTES_MAX}: use a shorter name or set XDG_RUNTIME_DIR to a shorter path"
        )


def check_endpoint(endpoint: str, *, insecure: bool) -> None:
    """Refuse an endpoint that can't be bound or would be open to the network.

    Raises:
        InvalidArgumentError: The message says what is wrong and what to do.
    """
    try:
        is_text = b"\0" not in endpoint.encode()
    except UnicodeEncodeError:
        is_text = False
    if not is_text:
        raise InvalidArgumentError(f"{endpoint!r} is no endpoint: it must be text in UTF-8")
    if endpoint.startswith("ipc://"):
        path = endpoint.removeprefix("ipc://")
        if not path.startswith("/"):
            raise InvalidArgumentError(f"{endpoint}: an ipc endpoint needs an absolute path")
        if path.endswith(STREAM_SUFFIX):
            raise InvalidArgumentError(
                f"{endpoint}: a name that ends in {STREAM_SUFFIX} is for the stream beside the "
                "endpoint without it"
            )
        check_ipc_path(path)
        return
    if not endpoint.startswith("tcp://"):
        raise InvalidArgumentError(f"{endpoint}: an endpoint begins with ipc:// or tcp://")
    try:
        parts = urlsplit(endpoint)
        host, _ = parts.hostname or "", parts.port
    except ValueError as error:
        raise InvalidArgumentError(f"{endpoint}: {error}") from error
    if not insecure and not _is_loopback(host):
        raise InvalidArgumentError(
            f"{endpoint} can be reached from the network, and whoever reaches it can run the "
            "nodes: make keys for it by `pronghorn keys new`, bind 127.0.0.1, or give --insecure "
            "if you mean it"
        )


def _user_folder(variable: str, default: str, name: str) -> Path:
    """Return a broker's folder below one that the XDG base directories name; as `data_folder`."""
    _check_name(name)
    base = os.environ.get(variable)
    if not base or not os.path.isabs(base):
        base = os.path.expanduser(default)
    return Path(base, "pronghorn", name)


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise InvalidArgumentError(
            f"{name!r} is no broker name: letters, digits, '.', '_' and '-', at most 64"
        )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False  # a name, an interface or *: what it stands for may change
