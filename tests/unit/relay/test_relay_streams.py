"""How the relay passes connections on: real sockets of this machine's loopback, the target given."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address

import pytest

from sandboxfile.engines.linux.relay.destination import Address
from sandboxfile.engines.linux.relay.loop import IN, Loop
from sandboxfile.engines.linux.relay.streams import Streams

Decide = Callable[[socket.socket], tuple[Address, int] | None]
HERE = IPv4Address("127.0.0.1")


@contextmanager
def relaying(decide: Decide, **options: float) -> Iterator[tuple[str, int]]:
    """A relay whose connections all go where `decide` says; where to connect to."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    ours, theirs = socket.socketpair()
    loop = Loop()
    loop.watch(theirs.fileno(), IN, lambda _: loop.end())
    streams = Streams(loop, (listener,), decide, **options)  # type: ignore[arg-type]
    thread = threading.Thread(target=loop.run)
    thread.start()
    try:
        yield listener.getsockname()
    finally:
        ours.close()
        thread.join()
        streams.close()
        loop.close()
        listener.close()
        theirs.close()


@pytest.fixture
def target() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(30)
        yield server


def to(target: socket.socket) -> Decide:
    port = target.getsockname()[1]
    return lambda _: (HERE, port)


def call(address: tuple[str, int]) -> socket.socket:
    return socket.create_connection(address, timeout=30)


def hear(address: tuple[str, int]) -> bytes:
    """Call and listen. A reset that is quick is seen by the call already."""
    with call(address) as near:
        return near.recv(1)


def test_each_direction_is_ended_on_its_own(target: socket.socket) -> None:
    with relaying(to(target)) as address, call(address) as near:
        near.sendall(b"question")
        near.shutdown(socket.SHUT_WR)
        far, _ = target.accept()
        with far:
            assert far.makefile("rb").read() == b"question"
            far.sendall(b"answer")
            far.shutdown(socket.SHUT_WR)
            assert near.makefile("rb").read() == b"answer"


def test_a_side_that_ends_first_and_is_read_later_loses_nothing(target: socket.socket) -> None:
    data = bytes(range(256)) * (64 << 10)
    with relaying(to(target)) as address, call(address) as near:
        far, _ = target.accept()

        def send() -> None:
            with far:
                far.sendall(data)

        thread = threading.Thread(target=send)
        near.shutdown(socket.SHUT_WR)
        thread.start()
        assert near.makefile("rb").read() == data
        thread.join()


def test_who_is_not_read_from_has_to_wait(target: socket.socket) -> None:
    with relaying(to(target)) as address, call(address) as near:
        far, _ = target.accept()
        with far:
            near.setblocking(False)
            sent = 0
            piece = bytes(1 << 16)
            # Until the kernel's buffers on the whole way are full; what they hold at most is not ours to say.
            near.settimeout(1)
            try:
                while sent < 1 << 30:
                    sent += near.send(piece)
            except TimeoutError:
                pass
            assert sent < 1 << 30
            taken = 0
            while taken < sent:
                taken += len(far.recv(1 << 20))
            assert taken == sent


def test_a_reset_on_one_side_is_a_reset_on_the_other(target: socket.socket) -> None:
    with relaying(to(target)) as address:
        for near_first in (True, False):
            near = call(address)
            far, _ = target.accept()
            one, other = (near, far) if near_first else (far, near)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            one.close()
            other.settimeout(30)
            with other, pytest.raises(ConnectionResetError):
                other.recv(1)


def test_a_refused_connection_is_a_reset() -> None:
    gone = socket.create_server(("127.0.0.1", 0))
    decide = to(gone)
    gone.close()
    with relaying(decide) as address, pytest.raises(ConnectionResetError):
        hear(address)


def test_what_may_not_be_reached_is_a_reset() -> None:
    def fail(_: socket.socket) -> None:
        raise OSError

    for decide in (lambda _: None, fail):
        with relaying(decide) as address, pytest.raises(ConnectionResetError):
            hear(address)


def test_a_connection_without_a_word_is_given_up(target: socket.socket) -> None:
    with relaying(to(target), idle_seconds=0.05) as address, pytest.raises(ConnectionResetError):
        hear(address)


def test_a_half_closed_connection_without_a_word_is_given_up_sooner(target: socket.socket) -> None:
    with relaying(to(target), half_closed_seconds=0.05) as address, call(address) as near:
        near.shutdown(socket.SHUT_WR)
        with pytest.raises(ConnectionResetError):
            near.recv(1)


def test_one_that_is_not_answered_is_given_up() -> None:
    # Its queue is full, so the kernel answers no more.
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        waiting = [socket.socket() for _ in range(4)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(full.getsockname())
        with relaying(to(full), connect_seconds=0.05) as address, pytest.raises(ConnectionResetError):
            hear(address)
        for each in waiting:
            each.close()


def test_no_more_connections_are_open_than_there_may_be(target: socket.socket) -> None:
    with relaying(to(target), most=2) as address:
        near = [call(address) for _ in range(3)]
        far = [target.accept()[0] for _ in range(2)]
        target.settimeout(0.2)
        with pytest.raises(TimeoutError):
            target.accept()
        # One ends, and the third has its turn.
        target.settimeout(30)
        near[0].close()
        far[0].close()
        far.append(target.accept()[0])
        near[2].sendall(b"x")
        assert far[2].recv(1) == b"x"
        for each in (*near, *far):
            each.close()
