"""A machine and a world around it, of network namespaces: for tests of what a sandbox with network reaches.

The machine has addresses of its own, a default route to the world, a name server there, and a tun device that
nobody can open. The world has servers at addresses that are only the world's.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from sandboxfile.engines.linux import syscalls as sys_
from sandboxfile.engines.linux.relay.dns import read_query

T = TypeVar("T")
OWN, OWN_V6 = "198.51.100.1", "2001:db8:1::1"
GATEWAY, GATEWAY_V6 = "198.51.100.2", "2001:db8:1::2"
FAR, FAR_V6 = "203.0.113.5", "2001:db8:5::5"
NAME = "far.example"
LONG = "long.example"
"""A name whose answer is too long for UDP."""
SCRIPT = Path(__file__).with_name("relay_client.py")
_COVER = """
mount --bind "$1" /etc/resolv.conf
mount --bind /dev/net/tun /dev/net/tun
mount -o remount,bind,nodev /dev/net/tun
shift
exec "$@"
"""


@dataclass(frozen=True)
class Told:
    """What a program on the machine told of its sandbox. `said` are exit codes, stdout and stderr: lists of
    three, since it came as JSON."""

    warnings: Sequence[str]
    notices: Sequence[str]
    said: Sequence[Sequence[Any]]
    failed: str


class World:
    """The two network namespaces, and what runs in them."""

    def __init__(self, machine: str, world: str, directory: Path) -> None:
        self._machine = machine
        self._world = world
        self._resolv = directory / "resolv.conf"
        self._resolv.write_text(f"nameserver {FAR}\n")

    def out_there(self, make: Callable[[], T]) -> T:
        """Call something that makes sockets, in the world."""
        return _inside(self._world, make)

    def on_machine(self, make: Callable[[], T]) -> T:
        """Call something that makes sockets, on the machine."""
        return _inside(self._machine, make)

    def give(self, address: str) -> None:
        """Give the machine one more address."""
        _ip(f"-n {self._machine} address add {address}/32 dev lo")

    def run(
        self,
        request: dict[str, Any],
        *prefix: str,
        python: str = sys.executable,
        script: Path = SCRIPT,
    ) -> Told:
        """Have `relay_client.py` run on the machine, after the words of `prefix`."""
        private = ("unshare", "--mount", "--propagation", "private")
        covered = ("sh", "-ec", _COVER, "sh", str(self._resolv), *prefix, python, str(script))
        done = subprocess.run(
            ["ip", "netns", "exec", self._machine, *private, *covered],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return Told(**json.loads(done.stdout))


@contextmanager
def world(directory: Path, *, v6: bool = True) -> Iterator[World]:
    """Make both, and take them away. Needs root."""
    number = f"{os.getpid()}-{threading.get_native_id()}"
    machine, far = f"sbm{number}", f"sbw{number}"
    try:
        for name in (machine, far):
            _ip(f"netns add {name}")
            _ip(f"-n {name} link set lo up")
        _ip(f"-n {machine} link add out type veth peer name in netns {far}")
        for name, link, own, own_v6 in ((machine, "out", OWN, OWN_V6), (far, "in", GATEWAY, GATEWAY_V6)):
            _ip(f"-n {name} address add {own}/24 dev {link}")
            if v6:
                _ip(f"-n {name} address add {own_v6}/64 dev {link} nodad")
            _ip(f"-n {name} link set {link} up")
        _ip(f"-n {machine} route add default via {GATEWAY}")
        _ip(f"-n {far} address add {FAR}/32 dev lo")
        if v6:
            _ip(f"-n {machine} route add default via {GATEWAY_V6}")
            _ip(f"-n {far} address add {FAR_V6}/128 dev lo nodad")
        yield World(machine, far, directory)
    finally:
        for name in (machine, far):
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


def _ip(words: str) -> None:
    subprocess.run(["ip", *words.split()], check=True, capture_output=True)


def _inside(name: str, make: Callable[[], T]) -> T:
    """A socket belongs to the namespace of the thread that made it."""
    made: list[T] = []

    def enter() -> None:
        descriptor = os.open(f"/run/netns/{name}", os.O_RDONLY)
        sys_.setns(descriptor, sys_.CLONE_NEWNET)
        os.close(descriptor)
        made.append(make())

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    return made[0]


def listener(port: int = 0) -> socket.socket:
    """A TCP socket on every address of where it is made."""
    return socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)


@contextmanager
def serving(server: socket.socket, serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """Have each connection served by a thread of its own; the port."""
    threads: list[threading.Thread] = []

    def each(connection: socket.socket) -> None:
        with connection:
            try:
                serve(connection)
            except OSError:
                # The other side is gone.
                return

    def accept() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            threads.append(threading.Thread(target=each, args=(connection,)))
            threads[-1].start()

    threads.append(threading.Thread(target=accept))
    threads[0].start()
    try:
        yield server.getsockname()[1]
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        for thread in threads:
            thread.join()


def greet(connection: socket.socket) -> None:
    """Say who called."""
    connection.sendall(f"hello {connection.getpeername()[0]}\n".encode())


def echo(connection: socket.socket) -> None:
    """Send back what comes, but only after the caller has said that nothing more will."""
    data = b""
    while piece := connection.recv(1 << 16):
        data += piece
    connection.sendall(data)


@contextmanager
def names(machine: World) -> Iterator[list[bytes]]:
    """A name server in the world, which knows `NAME` and `LONG`; what it was asked, in lower case."""
    asked: list[bytes] = []

    def answer(message: bytes, room: int) -> bytes:
        query = read_query(message)
        asked.append(query.question.lower())
        known = query.question.lower().startswith((b"\3far", b"\4long")) and query.question[-3] == 1
        count = (60 if query.question[:1] == b"\4" else 1) if known else 0
        record = b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 60, 4) + socket.inet_aton(FAR)
        flags = 0x8180
        if 12 + len(query.question) + count * len(record) > room:
            flags, count = flags | 0x0200, 0
        head = query.number + struct.pack(">5H", flags, 1, count, 0, 0)
        return head + query.question + record * count

    def stream(connection: socket.socket) -> None:
        with connection.makefile("rb") as file:
            while size := file.read(2):
                said = answer(file.read(int.from_bytes(size, "big")), 65535)
                connection.sendall(len(said).to_bytes(2, "big") + said)

    def packets() -> None:
        while True:
            message, sender = datagrams.recvfrom(4096)
            if not message:
                return
            datagrams.sendto(answer(message, 512), sender)

    def made() -> tuple[socket.socket, socket.socket, socket.socket]:
        bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        bound.bind((FAR, 53))
        waker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        return bound, socket.create_server((FAR, 53)), waker

    datagrams, streams, waker = machine.out_there(made)
    thread = threading.Thread(target=packets)
    thread.start()
    try:
        with serving(streams, stream):
            yield asked
    finally:
        waker.sendto(b"", (FAR, 53))
        thread.join()
        datagrams.close()
        waker.close()
