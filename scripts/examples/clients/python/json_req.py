"""A client of Pronghorn in Python: JSON-RPC 2.0 over a REQ socket, written from PROTOCOL.md alone.

    client = JsonClient(endpoint)
    client.call("add", a=1, b=2)
    JsonClient("tcp://host:5555", read_key("shop-front.key"))

One call at a time, no handshake, and no way to notice a lost broker but time.
"""

import json
import tomllib
from typing import Any

import zmq

GRACE_MS = 500
"""How much longer than a call's deadline its reply may be on its way."""


class PronghornError(Exception):
    """A call failed; `code` and `outcome` say how, `details` all else that is known."""

    def __init__(self, code: str, message: str, details: dict[str, Any]) -> None:
        super().__init__(message)
        self.code = code
        self.outcome = details.get("outcome")
        self.details = details


def read_key(path: str) -> dict[str, str]:
    """Read a file of `pronghorn keys new`: the keys `public`, `secret` and `server`."""
    with open(path, "rb") as file:
        return tomllib.load(file)


class JsonClient:
    """One connection, to be used by one thread; with a key where the broker wants one."""

    def __init__(self, endpoint: str, key: dict[str, str] | None = None) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.REQ)
        # With these a request can be sent though the one before has no reply; that is dropped then.
        self._socket.setsockopt(zmq.REQ_RELAXED, 1)
        self._socket.setsockopt(zmq.REQ_CORRELATE, 1)
        self._socket.setsockopt(zmq.LINGER, 0)
        if key is not None:
            self._socket.curve_publickey = key["public"].encode()
            self._socket.curve_secretkey = key["secret"].encode()
            self._socket.curve_serverkey = key["server"].encode()
        self._socket.connect(endpoint)
        self._last_id = 0

    def __enter__(self) -> "JsonClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()
        self._context.term()

    def call(
        self, node: str, *args: Any, timeout_s: float = 5.0, patience_s: float = 0.0, **named: Any
    ) -> Any:
        """Call a node, params by position or by name; parts of a streaming node come as a list.

        With `patience_s` the call is cancelled if there is no reply by then. When there is none
        long after the deadline, the broker is taken for lost.
        """
        self._last_id += 1
        params = named or list(args)
        deadline_ms = int(timeout_s * 1000)
        request = {"id": self._last_id, "method": node, "params": params, "timeout_ms": deadline_ms}
        self._send(request)
        if patience_s and not self._socket.poll(int(patience_s * 1000)):
            self._cancel(request["id"])
        return self._receive(request["id"], deadline_ms + GRACE_MS)

    def _cancel(self, request_id: int) -> None:
        """Cancel the request that we wait for; its own reply is dropped, being an old one now."""
        self._last_id += 1
        cancel = {"id": self._last_id, "method": "pronghorn.cancel", "params": {"id": request_id}}
        self._send(cancel)
        self._receive(cancel["id"], GRACE_MS)
        raise PronghornError("CANCELLED", "given up", {"outcome": "maybe_executed"})

    def _send(self, request: dict[str, Any]) -> None:
        self._socket.send(json.dumps({"jsonrpc": "2.0", **request}).encode())

    def _receive(self, request_id: int, patience_ms: int) -> Any:
        if not self._socket.poll(patience_ms):
            raise PronghornError("BROKER_LOST", "no reply came", {"outcome": "maybe_executed"})
        reply = json.loads(self._socket.recv())
        if reply["id"] not in (request_id, None):
            raise PronghornError("PROTOCOL_ERROR", f"a reply to {reply['id']}", {})
        error = reply.get("error")
        if error is None:
            return reply["result"]
        details = error.get("data", {})
        raise PronghornError(details.get("code", "INTERNAL"), error["message"], details)
