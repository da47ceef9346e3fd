"""Commands on a terminal."""

from __future__ import annotations

import os

import pytest
from linux_bench import PATH, Bench

from sandboxfile.engine.base import Command, Stdio, Terminal

pytestmark = pytest.mark.host


def test_a_terminal_has_a_size_and_follows_it(bench: Bench) -> None:
    # The runtime may start a program a moment before its terminal has its size.
    script = (
        'until [ "$(stty size)" != "0 0" ]; do sleep 0.01; done; tty; stty size; '
        'trap "stty size; exit 7" WINCH; echo ready; while :; do sleep 0.05; done'
    )

    async def body() -> tuple[int, str]:
        from sandboxfile.engines.linux.streams import Reader

        sandbox = await bench.engine.start(bench.base)
        reading, writing = os.pipe()
        said: list[bytes] = []
        import asyncio

        ready = asyncio.Event()

        def take(data: bytes) -> None:
            said.append(data)
            if b"ready" in b"".join(said):
                ready.set()

        reader = Reader(reading, take)
        command = Command(("sh", "-c", script), {"PATH": PATH, "TERM": "xterm"})
        process = await sandbox.spawn(command, Stdio(-1, writing, writing), terminal=Terminal(33, 99))
        await ready.wait()
        await process.resize(Terminal(40, 120))
        completed = await process.wait()
        os.close(writing)
        await reader.finish()
        os.close(reading)
        return completed.exit_code, b"".join(said).decode()

    code, said = bench.trial(body)
    assert code == 7
    assert said.split() == ["/dev/pts/0", "33", "99", "ready", "40", "120"]


def test_what_is_typed_arrives(bench: Bench) -> None:
    async def body() -> str:
        sandbox = await bench.engine.start(bench.base)
        reading, writing = os.pipe()
        typing, typed = os.pipe()
        os.write(typed, b"hello\n")
        os.close(typed)
        command = Command(("sh", "-c", "read x; echo got $x; read y || echo end"), {"PATH": PATH})
        process = await sandbox.spawn(command, Stdio(typing, writing, writing), terminal=Terminal())
        await process.wait()
        os.close(writing)
        text = os.read(reading, 4096).decode()
        for descriptor in (reading, typing):
            os.close(descriptor)
        return text

    said = bench.trial(body)
    assert "got hello\r\n" in said
    assert said.endswith("end\r\n")
