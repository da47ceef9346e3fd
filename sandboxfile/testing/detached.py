"""Promises on detached sandboxes, and on being told that a sandbox has ended."""

from __future__ import annotations

import asyncio
import os

from sandboxfile.engine.base import Capability, Command, DetachedSandbox, SandboxOptions, Stdio
from sandboxfile.errors import EngineError, NoSuchSandbox
from sandboxfile.testing.promise import ENVIRONMENT, Lab, expect, holds, promise, read_descriptor, until
from sandboxfile.testing.sandboxes import PORT, SERVER


@promise()
async def the_end_of_a_sandbox_is_told(lab: Lab) -> None:
    """Whoever asked for it is told once when a sandbox has ended, by `close` or by its time; its volumes
    are free by then."""
    volume = await lab.volume(stack=())
    for options in (
        SandboxOptions(mounts={"/data": volume}, timeout=0.3),
        SandboxOptions(mounts={"/data": volume}),
    ):
        sandbox = await lab.start(options)
        told: list[bool] = []
        ended = asyncio.Event()

        def tell(told: list[bool] = told, ended: asyncio.Event = ended) -> None:
            told.append(True)
            ended.set()

        sandbox.when_ended(tell)
        if options.timeout is None:
            await sandbox.close()
        await ended.wait()
        holds(not sandbox.alive, "it was told to have ended and is alive")
        await sandbox.close()
        expect(told, [True])


@promise(Capability.DETACHED)
async def a_detached_sandbox_is_reached_by_its_id(lab: Lab) -> None:
    """Every client that connects has the same sandbox: commands, files, standard input and exit codes."""
    maker = await lab.detach()
    other = await lab.connect(maker)
    await lab.succeed(maker, "echo one > /tmp/file")
    outcome = await lab.run(other, "cat /tmp/file -; echo no >&2; exit 7", stdin=b"two\n")
    expect((outcome.exit_code, outcome.stdout, outcome.stderr), (7, b"one\ntwo\n", b"no\n"))
    await other.fs.write_file("/tmp/file", b"three")
    expect(await maker.fs.read_file("/tmp/file"), b"three")
    expect((other.id, other.stack, other.about), (maker.id, maker.stack, {"note": lab.token}))


@promise(Capability.DETACHED)
async def a_detached_sandbox_outlives_its_maker(lab: Lab) -> None:
    """When its maker lets go of it, it goes on, and others find what was there."""
    maker = await lab.detach()
    await lab.succeed(maker, "echo kept > /tmp/kept")
    other = await lab.connect(maker)
    await maker.leave()
    await maker.leave()
    holds(not maker.alive, "what was let go of is said to be alive")
    expect(await lab.succeed(other, "cat /tmp/kept"), "kept")
    await other.leave()
    expect(await lab.succeed(await lab.connect(maker), "cat /tmp/kept"), "kept")


@promise(Capability.DETACHED)
async def what_is_half_made_ends_with_its_maker(lab: Lab) -> None:
    """A detached sandbox that was not told to be kept ends when its maker lets go of it."""
    maker = await lab.detach(keep=False)
    await maker.leave()

    async def gone() -> bool:
        try:
            other = await lab.connect(maker)
        except NoSuchSandbox:
            return True
        await other.leave()
        return False

    await until(gone)


@promise(Capability.DETACHED)
async def what_a_client_has_started_ends_when_it_leaves(lab: Lab) -> None:
    """A command ends when the client that started it lets go of the sandbox; those of others go on."""
    maker = await lab.detach()
    other = await lab.connect(maker)
    sleeping = Command(("sh", "-c", "echo $$ > $1; exec sleep 1000", "sh", "/tmp/other"), env=ENVIRONMENT)
    await other.spawn(sleeping, Stdio())
    mine = await maker.spawn(
        Command(("sh", "-c", "echo $$ > /tmp/mine; exec sleep 1000"), env=ENVIRONMENT), Stdio()
    )
    await lab.succeed(maker, "until [ -s /tmp/other ] && [ -s /tmp/mine ]; do sleep 0.02; done")
    await other.leave()
    await lab.succeed(maker, "while kill -0 $(cat /tmp/other) 2>/dev/null; do sleep 0.02; done")
    await lab.succeed(maker, "kill -0 $(cat /tmp/mine)")
    await mine.kill(9)
    expect((await mine.wait()).exit_code, 137)


@promise(Capability.DETACHED)
async def descriptors_reach_commands_of_detached_sandboxes(lab: Lab) -> None:
    """A spawned command has the client's own descriptors, wherever the client is."""
    other = await lab.connect(await lab.detach())
    reading, writing = os.pipe()
    try:
        process = await other.spawn(Command(("echo", "through"), env=ENVIRONMENT), Stdio(stdout=writing))
    finally:
        os.close(writing)
    try:
        expect(await read_descriptor(reading), b"through\n")
    finally:
        os.close(reading)
    expect((await process.wait()).exit_code, 0)


@promise(Capability.DETACHED)
async def variables_are_the_same_for_all_clients(lab: Lab) -> None:
    """What one client sets or unsets, the others have."""
    maker = await lab.detach()
    other = await lab.connect(maker)
    expect(other.variables, {"FIRST": "1"})
    await other.set_variables({"SECOND": "2", "FIRST": None})
    expect((await lab.connect(maker)).variables, {"SECOND": "2"})

    async def told() -> bool:
        return maker.variables == {"SECOND": "2"}

    await until(told)


@promise(Capability.DETACHED)
async def closing_a_detached_sandbox_ends_it_for_all(lab: Lab) -> None:
    """After `close` by one client nothing is left: others are told, and nobody can connect."""
    maker = await lab.detach()
    other = await lab.connect(maker)
    ended = asyncio.Event()
    maker.when_ended(ended.set)
    await other.close()
    await ended.wait()
    try:
        await lab.run(maker, "true")
    except EngineError:
        pass
    else:
        raise AssertionError("a command ran in a sandbox that had ended")
    await _is_gone(lab, maker)


@promise(Capability.DETACHED)
async def a_detached_sandbox_ends_when_its_time_is_over(lab: Lab) -> None:
    """It ends by itself, and says why; no client can take time away that another was promised."""
    maker = await lab.detach(SandboxOptions(timeout=1000))
    ended = asyncio.Event()
    maker.when_ended(ended.set)
    await maker.extend(0.2)
    await asyncio.wait([asyncio.ensure_future(ended.wait())], timeout=0.6)
    holds(maker.alive, "time was taken away from it")
    short = await lab.detach(SandboxOptions(timeout=0.5))
    over = asyncio.Event()
    short.when_ended(over.set)
    if short.alive:
        await over.wait()
    try:
        await lab.run(short, "true")
    except EngineError as error:
        holds("time was over" in error.message, f"it said: {error.message}")
    else:
        raise AssertionError("a command ran in a sandbox that had ended")
    await _is_gone(lab, short)


@promise(Capability.DETACHED)
async def a_detached_sandbox_ends_with_its_command(lab: Lab) -> None:
    """A command that it was made for runs from the start, its output is kept, and its end is the end."""
    script = "echo begun; until [ -e /tmp/go ]; do sleep 0.02; done; echo over >&2; exit 5"
    maker = await lab.detach(command=Command(("sh", "-c", script), env=ENVIRONMENT))
    ended = asyncio.Event()
    maker.when_ended(ended.set)

    async def begun() -> bool:
        return await maker.log() == b"begun\n"

    await until(begun)
    await maker.fs.write_file("/tmp/go", b"")
    await ended.wait()
    expect(maker.completed and maker.completed.exit_code, 5)
    expect(await maker.log(), b"begun\nover\n")


@promise(Capability.DETACHED, Capability.EXPOSE_PORT)
async def exposed_ports_of_detached_sandboxes_stay(lab: Lab) -> None:
    """A port that a client has exposed is served when that client is gone."""
    maker = await lab.detach(command=Command(SERVER, env=ENVIRONMENT))
    other = await lab.connect(maker)
    url = await other.expose(PORT)
    await other.leave()
    host, _, port = url.removeprefix("http://").rpartition(":")

    async def answers() -> bool:
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            writer.write(b"hello")
            await writer.drain()
            return await reader.read(5) == b"hello"
        except OSError:
            return False
        finally:
            writer.close()

    await until(answers)
    descriptor = await maker.connect(PORT)
    os.close(descriptor)


@promise(Capability.DETACHED)
async def a_detached_sandbox_has_volumes_and_snapshots(lab: Lab) -> None:
    """It writes to volumes, which stay; a snapshot of it is a layer like any other."""
    volume = await lab.volume(stack=())
    maker = await lab.detach(SandboxOptions(mounts={"/data": volume}))
    other = await lab.connect(maker)
    await lab.succeed(other, "echo volume > /data/file; echo root > /opt/file")
    stack, pause = await lab.snapshot(other)
    holds(pause >= 0, "it stood still for less than no time")
    expect(await lab.seen(stack, "cat /opt/file; ls /data 2>/dev/null || true"), "root")
    await other.close()
    again = await lab.start(SandboxOptions(mounts={"/data": volume}))
    expect(await lab.succeed(again, "cat /data/file"), "volume")


async def _is_gone(lab: Lab, sandbox: DetachedSandbox) -> None:
    try:
        await lab.connect(sandbox)
    except NoSuchSandbox:
        return
    raise AssertionError("a sandbox that had ended was connected to")


PROMISES = (
    the_end_of_a_sandbox_is_told,
    a_detached_sandbox_is_reached_by_its_id,
    a_detached_sandbox_outlives_its_maker,
    what_is_half_made_ends_with_its_maker,
    what_a_client_has_started_ends_when_it_leaves,
    descriptors_reach_commands_of_detached_sandboxes,
    variables_are_the_same_for_all_clients,
    closing_a_detached_sandbox_ends_it_for_all,
    a_detached_sandbox_ends_when_its_time_is_over,
    a_detached_sandbox_ends_with_its_command,
    exposed_ports_of_detached_sandboxes_stay,
    a_detached_sandbox_has_volumes_and_snapshots,
)
