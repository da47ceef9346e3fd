"""Commands in a running sandbox, through the runtime's `exec`."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable

from sandboxfile.declared import replace
from sandboxfile.engine.base import Command, Completed, Output, Stdio, Terminal
from sandboxfile.engines.linux.helper_client import OperationFailed
from sandboxfile.engines.linux.idmap import IdMap
from sandboxfile.engines.linux.operations import (
    DropPoints,
    Listen,
    MakePoints,
    Operation,
    RemoveTree,
    Spawn,
    WriteFile,
)
from sandboxfile.engines.linux.output import KILLED, TooMuchOutput, capped
from sandboxfile.engines.linux.process import LinuxProcess, Voice
from sandboxfile.engines.linux.runtime import Refused, Runtime, runtime_environment, secret_writes
from sandboxfile.engines.linux.runtimespec import GuestProcess, process
from sandboxfile.engines.linux.state import State
from sandboxfile.engines.linux.terminal import Bridge
from sandboxfile.engines.linux.users import Identity
from sandboxfile.engines.linux.verdicts import Verdicts
from sandboxfile.engines.linux.work import work
from sandboxfile.errors import EngineError


class Commands:
    """Starts the commands of one sandbox."""

    def __init__(self, state: State, runtime: Runtime, ids: IdMap, check_open: Callable[[], None]) -> None:
        self._state = state
        self._runtime = runtime
        self._ids = ids
        self._check_open = check_open
        self._verdicts = Verdicts(state, runtime, check_open)
        self._started = 0

    async def execute(self, command: Command, output: Output, *, stdin: bytes = b"") -> Completed:
        """Run a command and wait for it."""
        try:
            guest, bundle, release = await self._stage(command, None)
        except Refused as refused:
            return refused.tell(output)
        started = time.monotonic()
        try:
            return await self._runtime.run(
                [self._process_file(bundle, guest)],
                lambda job: self._spawning(job, bundle),
                capped(output, self._state.options.limits.output),
                stdin=stdin,
                owner=self._owner(guest.identity),
                timeout=command.timeout,
                log=f"{bundle}/log",
                whole=False,
                judge=self._verdicts.judge,
            )
        except TooMuchOutput:
            return Completed(KILLED, seconds=time.monotonic() - started, limit="output")
        finally:
            await release()

    async def spawn(
        self, command: Command, stdio: Stdio, *, terminal: Terminal | None = None, own: bool = False
    ) -> LinuxProcess:
        """Start a command on the caller's descriptors, or on a terminal bridged to them. With `own`, they are
        given to the command's user, so that it can open /dev/stdout again."""
        size = (terminal.rows, terminal.columns) if terminal else None
        try:
            guest, bundle, release = await self._stage(command, size)
        except Refused as refused:
            with Voice(stdio) as voice:
                voice.say(f"{refused.sentence}\n".encode())
            return LinuxProcess.ended(refused.exit_code)
        job = self._state.helper.new_job()
        started = time.monotonic()
        before = self._process_file(bundle, guest)
        # The caller may close its own meanwhile.
        voice = Voice(stdio)
        try:
            if terminal:
                console = f"{bundle}/console"
                waiting = self._state.helper.console_of(job)
                operation = self._spawning(job, bundle, "--tty", "--console-socket", console)
                await self._state.helper.do(before, Listen(job, console), operation)
                bridge = await self._bridge(job, waiting, stdio, terminal)
            else:
                wanted = (stdio.stdin, stdio.stdout, stdio.stderr)
                given = [each for each in wanted if each >= 0]
                indexes = [
                    sum(e >= 0 for e in wanted[:n]) if each >= 0 else -1 for n, each in enumerate(wanted)
                ]
                owner = self._owner(guest.identity) if own else ()
                operation = replace(self._spawning(job, bundle), stdio=tuple(indexes), own_stdio=owner)
                await self._state.helper.do(before, operation, descriptors=given)
                bridge = None
        except BaseException:
            voice.close()
            await release()
            raise
        return LinuxProcess(
            self._state.helper,
            self._verdicts.judge,
            job,
            started,
            command.timeout,
            f"{bundle}/log",
            bridge,
            release,
            voice,
        )

    async def _bridge(
        self, job: int, waiting: asyncio.Future[int], stdio: Stdio, terminal: Terminal
    ) -> Bridge | None:
        ended = asyncio.ensure_future(self._state.helper.exit_of(job))
        try:
            await asyncio.wait({ended, waiting}, return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                # It ended without ever having had a terminal: the runtime could not start it.
                self._state.helper.put_back(job, ended.result())
                return None
            bridge = Bridge(waiting.result(), stdio)
            # crun may start the program before it gives the terminal its size, or (crun 1.8) not give it one.
            bridge.resize(terminal)
            return bridge
        finally:
            ended.cancel()

    async def _stage(
        self, command: Command, size: tuple[int, int] | None
    ) -> tuple[GuestProcess, str, Callable[[], Awaitable[None]]]:
        """Look the command up and prepare what it needs; what undoes that."""
        await self._state.moving()
        self._check_open()
        if command.network not in ("none", self._state.options.network):
            raise EngineError("the sandbox was started without network", hint="start it with network `full`")
        # A runtime with a kernel of its own shows nothing of the sandbox on the host but its root's mount.
        inside = f"/proc/{self._state.init_pid}/root" if self._runtime.shares_kernel else self._state.root
        try:
            guest = await self._runtime.resolve(command, inside, size)
        except OperationFailed:
            await self._verdicts.check_init()
            raise
        guest = replace(guest, env={**self._state.env, **guest.env})
        self._started += 1
        bundle = f"{self._state.here}/commands/{self._started}"
        undo: list[Operation] = [RemoveTree(bundle)]
        if command.secrets:
            writes = secret_writes(command.secrets, f"{self._state.here}/secrets", guest.identity)
            await self._state.helper.do(*writes)
        undo += [RemoveTree(f"{self._state.here}/secrets/{name}") for name in command.secrets]
        targets = await self._attach(command, inside, undo)

        async def release() -> None:
            if self._state.closing is None and self._state.helper.running:
                if targets:
                    await work(
                        self._state.helper,
                        "detach",
                        {"pid": self._state.init_pid, "targets": targets},
                        mapped=False,
                    )
                await self._state.helper.do(*undo)

        return guest, bundle, release

    async def _attach(self, command: Command, inside: str, undo: list[Operation]) -> list[str]:
        if not command.mounts:
            return []
        points = [(mount.target, mount.origin.is_dir()) for mount in command.mounts]
        (made,) = await self._state.helper.do(MakePoints(inside, points))
        undo.append(DropPoints(inside, made))
        mounts = [(str(mount.origin.resolve()), mount.target) for mount in command.mounts]
        targets: list[str] = await work(
            self._state.helper, "attach", {"pid": self._state.init_pid, "mounts": mounts}, mapped=False
        )
        return targets

    def _process_file(self, bundle: str, guest: GuestProcess) -> WriteFile:
        document = process(
            guest,
            self._runtime.host,
            build=False,
            privileges=self._state.options.privileges,
            open_files=self._state.options.limits.open_files,
        )
        return WriteFile(f"{bundle}/process.json", json.dumps(document), 0o600)

    def _spawning(self, job: int, bundle: str, *options: str) -> Spawn:
        files = ("--process", f"{bundle}/process.json", "--pid-file", f"{bundle}/pid")
        argv = self._runtime.argv(f"{bundle}/log", "exec", *options, *files, self._state.id)
        return Spawn(
            job,
            argv,
            runtime_environment(),
            pid_file=f"{bundle}/pid",
            cgroup=self._state.cgroup,
            sealed=self._runtime.sealable,
        )

    def _owner(self, identity: Identity) -> tuple[int, int]:
        return self._ids.guest_uid + identity.uid, self._ids.guest_gid + identity.gid
