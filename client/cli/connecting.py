"""Which broker a command talks to, and whether it is there. An IO shell.

A client waits for a broker that may be about to start; a person who has mistyped a name wants to be
told at once. So the socket is knocked at first, which costs some 50 us.

Mirror: tests/client/cli/test_connecting.py.
"""

import socket
from urllib.parse import urlsplit

from pronghorn.broker.wire.errors import BrokerLostError, ErrorDetails, InvalidArgumentError
from pronghorn.broker.wire.places import default_endpoint, endpoint_in, runtime_folder

CONNECT_TIMEOUT_S = 2.0


def endpoint_of(endpoint: str | None, name: str | None) -> str:
    """Choose the endpoint: what is given, else the environment's, else the default broker's.

    Raises:
        InvalidArgumentError: Both are given, or the name can't be one.
    """
    if endpoint and name:
        raise InvalidArgumentError("give --endpoint or --name, not both")
    if name:
        return endpoint_in(runtime_folder(name))
    return endpoint or default_endpoint()


def check_listening(endpoint: str) -> None:
    """Check that something listens there; a malformed endpoint is left for the client to refuse.

    Raises:
        BrokerLostError: Nothing does.
    """
    try:
        if endpoint.startswith("ipc://"):
            _knock_ipc(endpoint.removeprefix("ipc://"))
        elif endpoint.startswith("tcp://"):
            _knock_tcp(endpoint)
    except OSError as error:
        reason = error.strerror or str(error)  # a timeout of Python's own has no number
        raise BrokerLostError(
            f"no broker at {endpoint} ({reason}): start one with `pronghorn serve`, or say where "
            "it is by --endpoint or --name",
            ErrorDetails(outcome="not_started", retryable=True),
        ) from error


def _knock_ipc(path: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as knocking:
        knocking.settimeout(CONNECT_TIMEOUT_S)
        # libzmq's "@name" is a name without a file.
        knocking.connect(path.replace("@", "\0", 1) if path.startswith("@") else path)


def _knock_tcp(endpoint: str) -> None:
    try:
        parts = urlsplit(endpoint)
        host, port = parts.hostname, parts.port
    except ValueError:
        return
    if host and port:
        socket.create_connection((host, port), timeout=CONNECT_TIMEOUT_S).close()
