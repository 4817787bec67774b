"""Writes to a stream between two other processes as if one of them did: what comes is malformed.

The end of a stream is taken out of its process by ``pidfd_getfd(2)``, for which one needs the right
to trace it: a process has that over what it has started, unless a container's rules forbid it.
"""

import ctypes
import os
import re
import socket
from collections.abc import Sequence
from contextlib import suppress
from struct import Struct as Layout
from typing import Final

from pronghorn.broker.wire.link import Buffer
from pronghorn.broker.wire.stream import FrameWriter

_PIDFD_GETFD: Final = 438  # on all architectures
_NETLINK_SOCK_DIAG: Final = 4
_SOCK_DIAG_BY_FAMILY: Final = 20
_DUMP_REQUEST: Final = 0x301  # NLM_F_REQUEST | NLM_F_DUMP
_DONE: Final = 3
_SHOW_PEER: Final = 4
_UNIX_DIAG_PEER: Final = 2
_ALL_STATES: Final = 0xFFFFFFFF

_HEADER: Final = Layout("=IHHII")  # of a message: bytes, type, flags, sequence, port
_REQUEST: Final = Layout("=BBHIIIII")  # family, protocol, -, states, inode, what to show, cookie
_SOCKET: Final = Layout("=BBBBIII")  # family, type, state, -, inode, cookie
_ATTRIBUTE: Final = Layout("=HH")  # bytes, type
_NUMBER: Final = Layout("=I")


def write_between(pid: int, peer: int, frames: Sequence[Buffer]) -> bool:
    """Write a message to a process as if another one had, which it has a stream to.

    Args:
        pid: That other one.
        peer: Who reads it.
        frames: Of the message, whatever it is.

    Returns:
        Whether there is such a stream.

    Raises:
        PermissionError: That is not allowed here.
    """
    end = _end_of_stream(pid, peer)
    if end is None:
        return False
    with end:
        writer = FrameWriter(end)
        writer.put(frames)
        return writer.flush()


def _end_of_stream(pid: int, peer: int) -> socket.socket | None:
    """Take the end that a process has of its stream to another one; `None` if there is none."""
    peers, of_peer = _peers(), set(_sockets(peer))
    for inode, descriptor in _sockets(pid).items():
        if peers.get(inode) in of_peer:
            with suppress(ProcessLookupError, FileNotFoundError):
                return _taken(pid, descriptor)
    return None


def _sockets(pid: int) -> dict[int, int]:
    """Return the sockets of a process: inode -> descriptor."""
    found: dict[int, int] = {}
    with suppress(FileNotFoundError, ProcessLookupError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with suppress(FileNotFoundError):
                inode = re.fullmatch(r"socket:\[(\d+)\]", os.readlink(f"/proc/{pid}/fd/{name}"))
                if inode:
                    found[int(inode[1])] = int(name)
    return found


def _peers() -> dict[int, int]:
    """Return which sockets of this host are the ends of one stream: inode -> the other's inode."""
    request = _REQUEST.pack(socket.AF_UNIX, 0, 0, _ALL_STATES, 0, _SHOW_PEER, 0, 0)
    size = _HEADER.size + len(request)
    found: dict[int, int] = {}
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as asked:
        asked.send(_HEADER.pack(size, _SOCK_DIAG_BY_FAMILY, _DUMP_REQUEST, 1, 0) + request)
        while True:
            data = asked.recv(1 << 16)
            position = 0
            while position < len(data):
                length, kind, *_ = _HEADER.unpack_from(data, position)
                if kind != _SOCK_DIAG_BY_FAMILY:
                    assert kind == _DONE, f"netlink has answered with {kind}"
                    return found
                body = data[position + _HEADER.size : position + length]
                found |= _peer_in(body)
                position += length + 3 & ~3


def _peer_in(body: bytes) -> dict[int, int]:
    """Return the peer of the socket that a message tells of, if it has one."""
    inode, position = _SOCKET.unpack_from(body)[4], _SOCKET.size
    while position + _ATTRIBUTE.size <= len(body):
        length, kind = _ATTRIBUTE.unpack_from(body, position)
        if kind == _UNIX_DIAG_PEER:
            return {inode: _NUMBER.unpack_from(body, position + _ATTRIBUTE.size)[0]}
        position += length + 3 & ~3
    return {}


def _taken(pid: int, descriptor: int) -> socket.socket:
    libc = ctypes.CDLL(None, use_errno=True)
    pidfd = os.pidfd_open(pid)
    try:
        taken = libc.syscall(_PIDFD_GETFD, pidfd, descriptor, 0)
    finally:
        os.close(pidfd)
    if taken < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return socket.socket(fileno=taken)
