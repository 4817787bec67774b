"""``serve --metrics``: answers Prometheus over HTTP. An IO shell.

It lives in the process of ``pronghorn serve``, beside the tree: one thread that waits for a scrape
and then asks the broker for its statistics, by an ordinary call. Between scrapes nothing runs. One
scrape is answered at a time; who sends nothing for `_PATIENCE_S` is hung up on.

Mirror: tests/client/cli/test_metrics.py.
"""

import ipaddress
import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer
from socketserver import TCPServer
from typing import Any

from pronghorn.broker.wire.errors import InvalidArgumentError, PronghornError

from ..sync import Client
from .exposition import CONTENT_TYPE, exposition

_log = logging.getLogger(__name__)

_PATIENCE_S = 2.0  # with the broker, and with who scrapes
_END_S = 0.5  # that a scrape gets to end
_PORT_MAX = 65_535


def parse_address(text: str, *, insecure: bool) -> tuple[str, int]:
    """Read ``HOST:PORT``, the host an IP address; port 0 stands for one that is free.

    Raises:
        InvalidArgumentError: It is malformed, or others can reach it and `insecure` is not given.
    """
    host, _, port_text = text.rpartition(":")
    try:
        address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
        port = int(port_text)
    except ValueError:
        port = -1
    if not 0 <= port <= _PORT_MAX:
        raise InvalidArgumentError(
            f"--metrics {text}: give an IP address and a port: 127.0.0.1:9464"
        )
    if not (address.is_loopback or insecure):
        raise InvalidArgumentError(
            f"--metrics {text}: others can reach that address, and there is no authentication; "
            "use a loopback address, or --insecure if you mean it"
        )
    return str(address), port


@contextmanager
def serving_metrics(address: tuple[str, int], endpoint: str) -> Iterator[str]:
    """Answer scrapes for the time of a block.

    Yields:
        The URL to scrape.

    Raises:
        InvalidArgumentError: The address can't be bound.
    """
    host, port = address
    kind = _Server6 if ":" in host else _Server
    try:
        server = kind(address, Client(endpoint, connect_timeout_s=_PATIENCE_S))
    except OSError as error:
        why = error.strerror or error
        raise InvalidArgumentError(f"can't serve metrics at {host}:{port}: {why}") from error
    thread = threading.Thread(target=server.run, name="pronghorn-metrics", daemon=True)
    thread.start()
    try:
        yield server.url
    finally:
        server.end()
        thread.join(_END_S)
        server.server_close()


class _Server(HTTPServer):
    """Answers one scrape after the other, for as long as `end` is not called."""

    def __init__(self, address: tuple[str, int], client: Client) -> None:
        self._client = client
        self._ending = False
        super().__init__(address, _Scrape)

    @property
    def url(self) -> str:
        host, port = self.server_address[:2]
        name = f"[{host!s}]" if self.address_family == socket.AF_INET6 else str(host)
        return f"http://{name}:{port}/metrics"

    def run(self) -> None:
        """Serve; unlike with `serve_forever` nothing wakes up to see whether it is to end."""
        while not self._ending:
            self.handle_request()
        self._client.close()

    def end(self) -> None:
        """Have `run` end, from another thread."""
        self._ending = True
        self.socket.shutdown(socket.SHUT_RDWR)  # which ends a wait on it, on Linux

    def server_bind(self) -> None:
        """Bind, without the look-up of this host's name that HTTPServer makes."""
        TCPServer.server_bind(self)

    def page(self) -> bytes:
        """Ask the broker and write what it tells.

        Raises:
            PronghornError: It did not answer.
        """
        statistics = self._client.within(_PATIENCE_S).stats()
        return exposition(statistics, wall_clock_s=time.time()).encode()

    def handle_error(self, request: object, client_address: object) -> None:
        """Log what went wrong with one scrape, most likely that its sender has hung up."""
        _log.debug("a scrape by %s failed", client_address, exc_info=True)


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Scrape(BaseHTTPRequestHandler):
    """One connection."""

    server: _Server
    timeout = _PATIENCE_S
    server_version = "pronghorn"
    sys_version = ""

    def do_GET(self) -> None:
        """Answer a scrape."""
        if self.path.partition("?")[0] != "/metrics":
            self._answer(HTTPStatus.NOT_FOUND, b"metrics are at /metrics\n")
            return
        try:
            page = self.server.page()
        except PronghornError as error:
            self._answer(HTTPStatus.SERVICE_UNAVAILABLE, f"{error}\n".encode())
        else:
            self._answer(HTTPStatus.OK, page, CONTENT_TYPE)

    def log_message(self, *text: Any) -> None:
        """Log a request, at DEBUG like all that is one."""
        _log.debug(*text)

    def _answer(
        self, status: HTTPStatus, body: bytes, kind: str = "text/plain; charset=utf-8"
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
