"""A stronger runtime: gVisor's `runsc`, whose sandboxes have a kernel of their own."""

from __future__ import annotations

import shutil

import pytest
from escape_arena import Arena, Said, execute

from sandboxfile.engines.linux.engine import LinuxEngine
from sandboxfile.errors import MissingCapability

pytestmark = [
    pytest.mark.host,
    pytest.mark.root,
    pytest.mark.skipif(
        not shutil.which("runsc"), reason="runsc is not installed: sudo apt-get install runsc"
    ),
]


def test_runsc_boots_passes_the_exit_code_on_and_gives_no_network(arena: Arena) -> None:
    stack, engine = arena.stack, LinuxEngine(arena.engine.layers.home, runtime="runsc")

    async def body() -> tuple[Said, Said]:
        try:
            sandbox = await engine.start(stack)
            code = await execute(sandbox, "sh", "-c", "uname -r; cat; exit 7", stdin=b"given\n")
            reach = await execute(sandbox, "probes", "tcp", "127.0.0.1", arena.facts["port"])
            world = await execute(sandbox, "probes", "udp", "192.0.2.1", "9")
            return code, Said(world.completed, reach.stdout + world.stdout, reach.stderr + world.stderr)
        finally:
            await engine.close()

    code, reach = arena.run(body())
    assert code.completed.exit_code == 7, code
    kernel, given = code.stdout.splitlines()
    assert given == "given"
    with open("/proc/sys/kernel/osrelease") as file:
        assert kernel != file.read().strip()
    assert [line.split()[0] for line in reach.stdout.splitlines()] == ["refused", "refused"], reach


def test_a_network_that_runsc_would_not_have_is_refused(arena: Arena) -> None:
    stack, engine = arena.stack, LinuxEngine(arena.engine.layers.home, runtime="runsc")

    async def body() -> None:
        try:
            await engine.start(stack, network="full")
        finally:
            await engine.close()

    with pytest.raises(MissingCapability, match="no network"):
        arena.run(body())
