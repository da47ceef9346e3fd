"""Promises on sandboxes: isolation, processes on descriptors, ports."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from urllib.parse import urlsplit

from sandboxfile.engine.base import Capability, Command, Sandbox, Stdio
from sandboxfile.errors import EngineError
from sandboxfile.testing.promise import ENVIRONMENT, Lab, expect, holds, promise, read_descriptor, until

PORT = 8765
SERVER = (
    "perl",
    "-MIO::Socket::INET",
    "-e",
    '$s = IO::Socket::INET->new(LocalAddr => "127.0.0.1", LocalPort => $ARGV[0], Listen => 8, ReuseAddr => 1)'
    " or die; while ($c = $s->accept) { while (sysread($c, $b, 65536)) { syswrite($c, $b) } close $c }",
    str(PORT),
)
"""A server that gives back what it is sent, in the perl of every Debian base. An engine without perl needs
a program of that name that listens on the port that is its last argument."""


@promise()
async def a_sandbox_does_not_change_what_it_was_started_from(lab: Lab) -> None:
    """Writes and deletions stay in the sandbox: neither the layers nor other sandboxes see them."""
    stack = await lab.layer("echo original > /opt/file")
    first, second = await lab.sandbox(stack), await lab.sandbox(stack)
    await lab.succeed(first, "echo changed > /opt/file; echo x > /opt/new; rm /etc/hostname; chmod 700 /opt")
    shown = await lab.succeed(second, "cat /opt/file; ls -A /opt; ls -d /etc/hostname; stat -c %a /opt")
    expect(shown, "original\nfile\n/etc/hostname\n755")
    await first.close()
    expect(await lab.seen(stack, "cat /opt/file; ls -A /opt"), "original\nfile")


@promise()
async def commands_in_one_sandbox_share_it(lab: Lab) -> None:
    """Files stay from one command to the next, and background processes go on."""
    sandbox = await lab.sandbox()
    await lab.succeed(sandbox, "echo kept > /tmp/kept; sleep 1000 >/dev/null 2>&1 & echo $! > /tmp/pid")
    expect(await lab.succeed(sandbox, "cat /tmp/kept; kill -0 $(cat /tmp/pid) && echo alive"), "kept\nalive")


@promise()
async def commands_run_at_the_same_time(lab: Lab) -> None:
    """One command may wait for what another one does."""
    sandbox = await lab.sandbox()
    waiting = asyncio.create_task(
        lab.succeed(sandbox, "until [ -e /tmp/go ]; do sleep 0.02; done; cat /tmp/go")
    )
    await lab.succeed(sandbox, "echo went > /tmp/now; mv /tmp/now /tmp/go")
    expect(await waiting, "went")


@promise()
async def a_closed_sandbox_stays_closed(lab: Lab) -> None:
    """`close` may be called twice; afterwards commands are refused with an EngineError."""
    sandbox = await lab.sandbox()
    await lab.succeed(sandbox, "true")
    await sandbox.close()
    await sandbox.close()
    try:
        await lab.run(sandbox, "true")
    except EngineError:
        return
    raise AssertionError("a closed sandbox ran a command")


@promise()
async def closing_ends_what_runs(lab: Lab) -> None:
    """A command that runs when its sandbox is closed comes to its end, and not with success."""
    sandbox = await lab.sandbox()
    process = await sandbox.spawn(Command(("sleep", "1000"), env=ENVIRONMENT), Stdio())
    await sandbox.close()
    completed = await process.wait()
    holds(completed.exit_code != 0, "it was said to have succeeded")


@promise()
async def processes_use_the_descriptors_they_are_given(lab: Lab) -> None:
    """A spawned process reads and writes the caller's descriptors, which stay the caller's."""
    sandbox = await lab.sandbox()
    read_in, write_in = os.pipe()
    read_out, write_out = os.pipe()
    read_error, write_error = os.pipe()
    try:
        process = await sandbox.spawn(
            Command(("/bin/sh", "-c", "cat; echo wrong >&2; exit 5"), env=ENVIRONMENT),
            Stdio(read_in, write_out, write_error),
        )
        os.write(write_in, b"through the pipe")
        for descriptor in (write_in, write_out, write_error):
            os.close(descriptor)
        output, errors = await asyncio.gather(read_descriptor(read_out), read_descriptor(read_error))
        expect((output, errors), (b"through the pipe", b"wrong\n"))
        expect((await process.wait()).exit_code, 5)
        expect((await process.wait()).exit_code, 5, "asked again")
        await process.kill(signal.SIGTERM)
    finally:
        for descriptor in (read_in, read_out, read_error):
            os.close(descriptor)


@promise()
async def a_process_without_descriptors_has_none(lab: Lab) -> None:
    """Without descriptors, stdin is at its end and output goes nowhere."""
    sandbox = await lab.sandbox()
    process = await sandbox.spawn(Command(("/bin/sh", "-c", "cat; echo x"), env=ENVIRONMENT), Stdio())
    expect((await process.wait()).exit_code, 0)


@promise()
async def signals_reach_a_process(lab: Lab) -> None:
    """A signal ends a process, with 128 + signal; another signal afterwards does nothing."""
    sandbox = await lab.sandbox()
    for number in (signal.SIGTERM, signal.SIGKILL):
        process = await sandbox.spawn(Command(("sleep", "1000"), env=ENVIRONMENT), Stdio())
        await process.kill(number)
        expect((await process.wait()).exit_code, 128 + number)
        await process.kill(number)


@promise()
async def a_spawned_process_has_a_timeout(lab: Lab) -> None:
    """A spawned process that runs out of time is killed."""
    sandbox = await lab.sandbox()
    process = await sandbox.spawn(Command(("sleep", "1000"), env=ENVIRONMENT, timeout=0.5), Stdio())
    holds((await process.wait()).timed_out, "it was not said to have timed out")


@promise()
async def an_idle_port_refuses(lab: Lab) -> None:
    """Connecting to a port nobody listens on raises ConnectionRefusedError."""
    sandbox = await lab.sandbox()
    try:
        descriptor = await sandbox.connect(PORT)
    except ConnectionRefusedError:
        return
    os.close(descriptor)
    raise AssertionError("a port that nobody listens on was connected")


@promise(Capability.EXPOSE_PORT)
async def a_port_can_be_connected(lab: Lab) -> None:
    """`connect` reaches a server on the sandbox's loopback, without any network."""
    sandbox = await lab.sandbox()
    await _serve(sandbox)
    connected = socket.socket(fileno=await sandbox.connect(PORT))
    with connected:
        sent = os.urandom(100_000)
        expect(await asyncio.to_thread(_echoed, connected, sent) == sent, True, "the bytes came back")


@promise(Capability.EXPOSE_PORT)
async def an_exposed_port_is_reachable_while_the_sandbox_lives(lab: Lab) -> None:
    """`expose` returns a URL on this machine that leads to the sandbox's port, until it is closed."""
    sandbox = await lab.sandbox()
    url = urlsplit(await sandbox.expose(PORT))
    expect((url.scheme, url.hostname), ("http", "127.0.0.1"))
    await _serve(sandbox)
    address = ("127.0.0.1", url.port or 0)
    for _ in range(3):
        with await asyncio.to_thread(socket.create_connection, address, 30) as connected:
            sent = os.urandom(50_000)
            expect(await asyncio.to_thread(_echoed, connected, sent) == sent, True, "the bytes came back")
    await sandbox.close()
    try:
        connected = await asyncio.to_thread(socket.create_connection, address, 30)
    except ConnectionRefusedError:
        return
    connected.close()
    raise AssertionError("the port is still open after the sandbox was closed")


@promise(Capability.EXPOSE_PORT)
async def ports_of_two_sandboxes_are_two_ports(lab: Lab) -> None:
    """Two sandboxes may listen on the same port; the other one's is not seen."""
    first, second = await lab.sandbox(), await lab.sandbox()
    await _serve(first)
    try:
        descriptor = await second.connect(PORT)
    except ConnectionRefusedError:
        pass
    else:
        os.close(descriptor)
        raise AssertionError("a sandbox reached the port of another")
    await _serve(second)


async def _serve(sandbox: Sandbox) -> None:
    """Start the server, and wait until it listens."""
    await sandbox.spawn(Command(SERVER, env=ENVIRONMENT), Stdio())

    async def listens() -> bool:
        try:
            os.close(await sandbox.connect(PORT))
        except ConnectionRefusedError:
            return False
        return True

    await until(listens)


def _echoed(connected: socket.socket, sent: bytes) -> bytes:
    """Send bytes, end the sending, and read everything until the end."""
    connected.settimeout(30)
    received = bytearray()
    for start in range(0, len(sent), 4096):
        connected.sendall(sent[start : start + 4096])
        received += connected.recv(65536)
    connected.shutdown(socket.SHUT_WR)
    while chunk := connected.recv(65536):
        received += chunk
    return bytes(received)


PROMISES = (
    a_sandbox_does_not_change_what_it_was_started_from,
    commands_in_one_sandbox_share_it,
    commands_run_at_the_same_time,
    a_closed_sandbox_stays_closed,
    closing_ends_what_runs,
    processes_use_the_descriptors_they_are_given,
    a_process_without_descriptors_has_none,
    signals_reach_a_process,
    a_spawned_process_has_a_timeout,
    an_idle_port_refuses,
    a_port_can_be_connected,
    an_exposed_port_is_reachable_while_the_sandbox_lives,
    ports_of_two_sandboxes_are_two_ports,
)
