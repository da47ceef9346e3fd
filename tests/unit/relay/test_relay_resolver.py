"""The name server of a relayed sandbox, between real sockets of this machine's loopback."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest

from sandboxfile.engines.linux.relay import resolver as limits
from sandboxfile.engines.linux.relay.loop import IN, Loop
from sandboxfile.engines.linux.relay.resolver import Resolver

QUESTION = b"\3www\7example\0" + struct.pack(">HH", 1, 1)
QUERY = b"\x12\x34" + struct.pack(">5H", 0x0100, 1, 0, 0, 0) + QUESTION
Server = tuple[str, int]


def answer_to(query: bytes, rest: bytes = b"") -> bytes:
    return query[:2] + b"\x81\x80" + query[4:] + rest


@contextmanager
def resolving(*servers: Server) -> Iterator[Server]:
    """A resolver that asks these; where to ask it, by UDP and TCP."""
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagrams.bind(("127.0.0.1", 0))
    streams = socket.create_server(datagrams.getsockname())
    for each in (datagrams, streams):
        each.setblocking(False)
    ours, theirs = socket.socketpair()
    loop = Loop()
    loop.watch(theirs.fileno(), IN, lambda _: loop.end())
    resolver = Resolver(loop, datagrams, streams, lambda: servers)
    thread = threading.Thread(target=loop.run)
    thread.start()
    try:
        yield datagrams.getsockname()
    finally:
        ours.close()
        thread.join()
        resolver.close()
        loop.close()
        for each in (datagrams, streams, theirs):
            each.close()


def packets(*, bound: Server = ("127.0.0.1", 0)) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind(bound)
    made.settimeout(30)
    return made


def closed_port() -> Server:
    with packets() as one, socket.create_server(one.getsockname()):
        address: Server = one.getsockname()
    return address


def code_of(message: bytes) -> int:
    return message[3] & 0x0F


def test_an_answer_comes_back_under_the_askers_number() -> None:
    with packets() as server, resolving(server.getsockname()) as address, packets() as asker:
        asker.sendto(QUERY, address)
        query, relay = server.recvfrom(512)
        assert query[2:] == QUERY[2:]
        server.sendto(answer_to(query, b"\xc0\x0c"), relay)
        assert asker.recv(512) == answer_to(QUERY, b"\xc0\x0c")


def test_what_does_not_answer_the_question_is_not_passed_on() -> None:
    with (
        packets() as server,
        packets() as stranger,
        resolving(server.getsockname()) as address,
        packets() as asker,
    ):
        asker.sendto(QUERY, address)
        query, relay = server.recvfrom(512)
        stranger.sendto(answer_to(query, b"from a stranger"), relay)
        server.sendto(bytes([query[0] ^ 1]) + answer_to(query, b"wrong number")[1:], relay)
        server.sendto(answer_to(query).replace(b"www", b"ftp"), relay)
        server.sendto(answer_to(query, b"right"), relay)
        assert asker.recv(512) == answer_to(QUERY, b"right")


def test_the_next_server_is_asked_when_one_refuses() -> None:
    with (
        packets() as server,
        resolving(closed_port(), server.getsockname()) as address,
        packets() as asker,
    ):
        asker.sendto(QUERY, address)
        query, relay = server.recvfrom(512)
        server.sendto(answer_to(query), relay)
        assert asker.recv(512) == answer_to(QUERY)


def test_the_next_server_is_asked_when_one_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ANSWER_SECONDS", 0.05)
    with (
        packets() as silent,
        packets() as server,
        resolving(silent.getsockname(), server.getsockname()) as address,
        packets() as asker,
    ):
        asker.sendto(QUERY, address)
        query, relay = server.recvfrom(512)
        server.sendto(answer_to(query), relay)
        assert asker.recv(512) == answer_to(QUERY)


@pytest.mark.parametrize("servers", [(), (closed_port(),)])
def test_without_a_server_the_asker_is_told(servers: Sequence[Server]) -> None:
    with resolving(*servers) as address, packets() as asker:
        asker.sendto(QUERY, address)
        assert code_of(asker.recv(512)) == 2
        with socket.create_connection(address, timeout=30) as stream:
            stream.sendall(framed(QUERY))
            assert code_of(next_of(stream)) == 2


def test_what_is_no_question_reaches_no_server() -> None:
    update = QUERY[:2] + b"\x28\0" + QUERY[4:]
    with packets() as server, resolving(server.getsockname()) as address, packets() as asker:
        for sent, code in ((update, 4), (QUERY + b"more", 1)):
            asker.sendto(sent, address)
            assert code_of(asker.recv(512)) == code
        asker.sendto(b"short", address)
        asker.sendto(QUERY, address)
        query, _ = server.recvfrom(512)
        assert query[2:] == QUERY[2:]


def test_no_more_questions_are_open_than_there_may_be() -> None:
    with packets() as server, resolving(server.getsockname()) as address, packets() as asker:
        for _ in range(limits.QUESTIONS):
            asker.sendto(QUERY, address)
            query, relay = server.recvfrom(512)
        asker.sendto(QUERY, address)
        assert code_of(asker.recv(512)) == 2
        # One is answered, and there is room for one.
        server.sendto(answer_to(query), relay)
        assert asker.recv(512) == answer_to(QUERY)
        asker.sendto(QUERY, address)
        query, relay = server.recvfrom(512)
        server.sendto(answer_to(query), relay)
        assert asker.recv(512) == answer_to(QUERY)


def framed(message: bytes) -> bytes:
    return len(message).to_bytes(2, "big") + message


def next_of(stream: socket.socket) -> bytes:
    size = int.from_bytes(stream.recv(2, socket.MSG_WAITALL), "big")
    return stream.recv(size, socket.MSG_WAITALL)


@contextmanager
def answering(*answers: Callable[[bytes], bytes]) -> Iterator[Server]:
    """A server that is asked by TCP, by a connection for each question."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(30)

        def serve() -> None:
            for answer in answers:
                connection, _ = server.accept()
                with connection:
                    connection.sendall(framed(answer(next_of(connection))))

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()
        thread.join()


def test_a_stream_of_questions_is_answered_one_by_one() -> None:
    long = bytes(40000)
    with (
        answering(lambda query: answer_to(query, long), answer_to) as server,
        resolving(server) as address,
        socket.create_connection(address, timeout=30) as stream,
    ):
        stream.sendall(framed(QUERY) + framed(QUERY))
        assert next_of(stream) == answer_to(QUERY, long)
        assert next_of(stream) == answer_to(QUERY)


def test_a_stream_with_a_bad_message_is_told_so_and_goes_on() -> None:
    with (
        answering(answer_to) as server,
        resolving(server) as address,
        socket.create_connection(address, timeout=30) as stream,
    ):
        stream.sendall(framed(QUERY + b"more") + framed(QUERY))
        assert code_of(next_of(stream)) == 1
        assert next_of(stream) == answer_to(QUERY)
        stream.sendall(framed(b""))
        assert stream.recv(1) == b""


def test_a_stream_whose_server_hangs_up_or_lies_is_told_so() -> None:
    with (
        answering(lambda _: b"") as server,
        resolving(server) as address,
        socket.create_connection(address, timeout=30) as stream,
    ):
        stream.sendall(framed(QUERY))
        assert code_of(next_of(stream)) == 2


def test_a_stream_that_says_nothing_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "IDLE_SECONDS", 0.05)
    with resolving() as address, socket.create_connection(address, timeout=30) as stream:
        stream.sendall(b"\0")
        assert stream.recv(1) == b""
