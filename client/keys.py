"""Which key a client shows: what it was given, else what the environment says. An IO shell.

Secrets come from files and from the environment, never from a command line, which others can read.

Mirror: tests/client/test_keys.py.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from pronghorn.broker.wire.errors import InvalidArgumentError
from pronghorn.broker.wire.places import (
    KEY_VARIABLE,
    SECRET_VARIABLE,
    SERVER_KEY_VARIABLE,
    is_tcp,
)

if TYPE_CHECKING:
    from pronghorn.broker.wire.keys import PrivateKey


def key_for(
    endpoint: str,
    key: "str | os.PathLike[str] | PrivateKey | None" = None,
    server_key: str | None = None,
) -> "PrivateKey | None":
    """Find the key to show at an endpoint; `None` if there is none, or none is wanted there.

    Args:
        endpoint: Where the broker is; the environment's key is for tcp endpoints only.
        key: A file that ``pronghorn keys new`` has written, or the key itself; by default the file
            that ``PRONGHORN_KEY`` names, or the secret in ``PRONGHORN_SECRET_KEY``.
        server_key: The broker's public key; by default that in ``PRONGHORN_SERVER_KEY``, or the one
            in the file.

    Raises:
        InvalidArgumentError: The key can't be read, the broker's is not known, or the endpoint is
            none that keys are shown to.
    """
    if not is_tcp(endpoint):
        if key is not None or server_key is not None:
            raise InvalidArgumentError(f"{endpoint}: keys are for tcp endpoints only")
        return None
    secret = os.environ.get(SECRET_VARIABLE)
    if key is None:
        key = os.environ.get(KEY_VARIABLE) or None
    if key is None and not secret:
        if server_key is not None:
            raise InvalidArgumentError("server_key is given, and no key to show to that broker")
        return None
    # Few clients have a key, and the others should not wait for these.
    from pronghorn.broker.wire.keyfiles import read_private
    from pronghorn.broker.wire.keys import PrivateKey, check_key

    if key is None:
        assert secret
        found = PrivateKey(_public_of(check_key(secret, SECRET_VARIABLE)), secret)
    elif isinstance(key, PrivateKey):
        found = key
    else:
        found = read_private(Path(key))
    server = server_key or os.environ.get(SERVER_KEY_VARIABLE) or found.server
    if not server:
        raise InvalidArgumentError(
            "the key does not say which broker it is for: give server_key, or "
            f"{SERVER_KEY_VARIABLE}"
        )
    return PrivateKey(found.public, found.secret, check_key(server, "the broker's public key"))


def _public_of(secret: str) -> str:
    import zmq  # whoever has a key needs it anyway, others do not

    try:
        return zmq.curve_public(secret.encode()).decode()
    except (ValueError, zmq.ZMQError):
        raise InvalidArgumentError(f"{SECRET_VARIABLE} is no key") from None
