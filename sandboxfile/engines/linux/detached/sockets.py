"""Unix sockets of any path: the kernel takes 107 bytes of it, and a store may be deeper than that."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_BUFFER = 1 << 20


def listen(path: Path) -> socket.socket:
    """A socket that only the owner of this process can connect to. The path must be free."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        before = os.umask(0o177)
        try:
            with _short(path) as name:
                made.bind(name)
        finally:
            os.umask(before)
        made.listen(64)
        made.setblocking(False)
    except BaseException:
        made.close()
        raise
    return made


def connect(path: Path) -> socket.socket:
    """A connection to a socket of this user, not blocking. ConnectionRefusedError when nobody listens any
    more, FileNotFoundError when there is no such socket."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        with _short(path) as name:
            made.connect(name)
        prepare(made)
    except BaseException:
        made.close()
        raise
    return made


def prepare(channel: socket.socket) -> None:
    """Make a connection fit for messages."""
    channel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
    channel.setblocking(False)


def peer(channel: socket.socket) -> tuple[int, int]:
    """The process and the user at the other end, as the kernel knows them."""
    pid, uid, _ = struct.unpack("3i", channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return pid, uid


@contextmanager
def _short(path: Path) -> Iterator[str]:
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)
