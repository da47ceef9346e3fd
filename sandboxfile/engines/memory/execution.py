"""Running one command of the caller in a machine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from sandboxfile.declared import replace
from sandboxfile.engine.base import Capability, Command, Completed, Output
from sandboxfile.engines.memory.accounts import credentials
from sandboxfile.engines.memory.faults import FaultPlan, Point
from sandboxfile.engines.memory.filesystem import DEVICES, Filesystem, Node, read_host
from sandboxfile.engines.memory.machine import Machine, Process, Running
from sandboxfile.engines.memory.streams import Called, Given, Sink, Source
from sandboxfile.errors import EngineError, MissingCapability

KILLED = 137


class OutputLimit(Exception):
    """A command has written more than it may."""


_DEVICES = "Inter-|   Receive\n face |bytes\n{}"


def check_network(network: str) -> None:
    """Refuse what this engine cannot give."""
    if network not in ("none", "full"):
        raise MissingCapability(
            "the memory engine cannot limit a network to named hosts", Capability.NETWORK_FILTERED
        )


def begin(
    machine: Machine,
    nodes: dict[str, Node],
    command: Command,
    streams: tuple[Source, Sink, Sink],
    faults: FaultPlan,
    *,
    network: str = "none",
) -> Running:
    """Start a command. EngineError when its user is unknown."""
    check_network(command.network)
    network = "full" if "full" in (command.network, network) else "none"
    files = _view(nodes, machine.proc, command, network, lambda: faults.hit(Point.NO_SPACE))
    try:
        who = credentials(files, command.user)
    except KeyError as error:
        raise EngineError(f"the user `{error.args[0]}` is not known in the sandbox") from None
    stdin, stdout, stderr = streams
    process = Process(
        machine=machine,
        files=files,
        argv=command.argv,
        env=dict(command.env),
        cwd=command.cwd,
        who=who,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        network=network,
    )
    return machine.spawn(process)


async def execute(
    machine: Machine,
    nodes: dict[str, Node],
    command: Command,
    output: Output,
    stdin: bytes,
    faults: FaultPlan,
    *,
    network: str = "none",
    most_output: int | None = None,
) -> Completed:
    """Run a command to its end, its time or its cancellation. It is killed once it has written more than
    `most_output` bytes."""
    broken: list[BaseException] = []
    written = 0

    def passing(stream: str) -> Callable[[bytes], None]:
        def take(data: bytes) -> None:
            nonlocal written
            try:
                allowed = data if most_output is None else data[: max(0, most_output - written)]
                written += len(data)
                if len(allowed) < len(data):
                    if allowed:
                        output(stream, allowed)
                    raise OutputLimit
                output(stream, data)
                faults.hit(Point.MID_OUTPUT)
            except BaseException as error:
                broken.append(error)
                raise

        return take

    streams = (Given(stdin), Called(passing("stdout")), Called(passing("stderr")))
    running = begin(machine, nodes, command, streams, faults, network=network)
    try:
        completed = await finish(machine, running, command.timeout)
    except BaseException:
        await machine.end(running.process.pid)
        if broken and isinstance(broken[0], OutputLimit):
            return Completed(KILLED, limit="output")
        if broken:
            raise broken[0] from None
        raise
    if broken and isinstance(broken[0], OutputLimit):
        await machine.end(running.process.pid)
        return replace(completed, exit_code=KILLED, limit="output")
    if broken:
        raise broken[0]
    return completed


async def finish(machine: Machine, running: Running, timeout: float | None) -> Completed:
    """Wait for a command, and end it with all it started when its time is over."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    done, _ = await asyncio.wait({running.task}, timeout=timeout)
    if not done:
        await machine.end(running.process.pid)
        return Completed(KILLED, timed_out=True, seconds=loop.time() - started, limit="timeout")
    return Completed(await running.wait(), seconds=loop.time() - started)


def _view(
    nodes: dict[str, Node],
    proc: Mapping[str, Node],
    command: Command,
    network: str,
    on_write: Callable[[], None],
) -> Filesystem:
    """The filesystem with what is mounted while a command runs."""
    interfaces = "    lo: 0\n" + ("  eth0: 0\n" if network == "full" else "")
    mounted = {
        "/dev": Node("dir", 0o755),
        **DEVICES,
        "/proc/net": Node("dir", 0o555),
        "/proc/net/dev": Node("file", 0o444, content=_DEVICES.format(interfaces).encode()),
    }
    for mount in command.mounts:
        mounted |= read_host(mount.origin, mount.target.rstrip("/"))
    if command.secrets:
        mounted["/run/secrets"] = Node("dir", 0o755)
    for name, value in command.secrets.items():
        mounted[f"/run/secrets/{name}"] = Node("file", 0o444, content=value)
    for path in list(mounted):
        above = path.rpartition("/")[0]
        while above and above not in nodes and above not in mounted and above not in proc:
            mounted[above] = Node("dir", 0o755)
            above = above.rpartition("/")[0]
    return Filesystem(
        nodes,
        mounted=mounted,
        live=proc,
        read_only=tuple(mount.target.rstrip("/") for mount in command.mounts),
        volatile=("/dev", "/run/secrets") if command.secrets else ("/dev",),
        on_write=on_write,
    )
