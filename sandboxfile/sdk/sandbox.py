"""A sandbox as programs use it."""

from __future__ import annotations

import asyncio
import os
import shlex
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from sandboxfile.core.environment import run_environment
from sandboxfile.core.event import Notice
from sandboxfile.core.layer import LayerKey, layer_key
from sandboxfile.declared import replace
from sandboxfile.engine.base import Command, DetachedSandbox, Stdio
from sandboxfile.engine.base import Sandbox as EngineSandbox
from sandboxfile.errors import EngineError, SandboxGone, UsageError, VolumeInUse
from sandboxfile.sdk import arguments
from sandboxfile.sdk.origin import Origin
from sandboxfile.sdk.pipes import AsyncReader, AsyncWriter, close_quietly, pipe
from sandboxfile.sdk.process import AsyncProcess, CommandOutput, limit_of
from sandboxfile.sdk.session import Session, new_layer, snapshot_info
from sandboxfile.sdk.tenure import Tenure
from sandboxfile.sdk.variables import AsyncVariables
from sandboxfile.sdk.volumes import slug_of
from sandboxfile.store.sandboxes import SandboxInfo

if TYPE_CHECKING:
    from sandboxfile.build.result import SnapshotInfo
    from sandboxfile.engine.files import SandboxFiles
    from sandboxfile.store.uses import Hold
    from sandboxfile.store.volumes import VolumeRecord

PIPED = "piped"
NULL = "null"
INHERIT = "inherit"
_TIME_OVER = "its time was over"
_CLOCKS_APART = 0.2
"""Seconds by which the engine's clock may be ahead of ours."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.01, 0.5
"""Seconds between two tries of a port; the pause doubles from the first to the longest."""
_MODES = (PIPED, NULL, INHERIT)


class AsyncSandbox:
    """A running sandbox. Leaving its `async with` block ends it; so does closing the client.

    On a snapshot it writes to a layer that is thrown away, on a volume to the volume. A sandbox that has
    ended raises SandboxGone. A detached one goes on when this client lets go of it in these ways: `kill`,
    its timeout or the end of its command ends it, for all clients.
    """

    def __init__(
        self,
        session: Session,
        engine_sandbox: EngineSandbox,
        origin: Origin,
        tenure: Tenure,
        *,
        env: dict[str, str],
        detached: DetachedSandbox | None = None,
        fork: Callable[[Origin, dict[str, str], float], Awaitable[AsyncSandbox]],
        ended: Callable[[AsyncSandbox], None],
        pause: float = 0.0,
    ) -> None:
        self.env = AsyncVariables(env, detached.set_variables if detached is not None else None)
        self.pause = pause
        """Seconds that the sandbox this is a fork of stood still; 0 when it is none."""
        self._env = env
        self._session = session
        self._sandbox = engine_sandbox
        self._origin = origin
        self._tenure = tenure
        self._detached = detached
        self._left = False
        self._fork = fork
        self._told_ended = ended
        self._processes: set[AsyncProcess] = set()
        self._closing: asyncio.Future[None] | None = None
        self._why = ""
        self._timer: asyncio.TimerHandle | None = None
        if detached is None and tenure.info.ends_at is not None:
            self._end_in(tenure.info.ends_at - time.time())
        engine_sandbox.when_ended(self._ended_by_itself)

    # What is known of it.

    @property
    def info(self) -> SandboxInfo:
        """What `client.sandboxes.list()` says of it."""
        return self._tenure.info

    @property
    def id(self) -> str:
        """Its name, which no other sandbox ever has."""
        return self.info.id

    @property
    def url(self) -> str | None:
        """Where its first exposed port is, None while none is."""
        return self.info.url

    @property
    def labels(self) -> Mapping[str, str]:
        """The labels it was made with."""
        return self.info.labels

    @property
    def created_at(self) -> float:
        """When it was made, seconds since the epoch."""
        return self.info.created_at

    @property
    def ends_at(self) -> float | None:
        """When it ends by itself, seconds since the epoch; None when it lasts as long as its client, or is
        detached and lasts until it is killed."""
        return self.info.ends_at

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._closing is None and self._sandbox.alive

    @property
    def warnings(self) -> tuple[str, ...]:
        """One sentence for each limit that was asked for and is not strictly enforced, and for what a network
        lacks."""
        return self._sandbox.warnings

    @property
    def root_volume(self) -> str | None:
        """The id of the volume that its root writes to, None on a snapshot."""
        return self._origin.options.volume

    @property
    def volume_ids(self) -> frozenset[str]:
        """The ids of all volumes that it has."""
        options = self._origin.options
        return frozenset(each for each in (options.volume, *options.mounts.values()) if each is not None)

    @property
    def fs(self) -> SandboxFiles:
        """Its files, seen from outside, with the rights of its user."""
        self._check()
        files: SandboxFiles = self._sandbox.fs
        return files if self._origin.user == "root" else files.as_user(self._origin.user)

    # Commands.

    async def sh(
        self,
        script: str,
        *values: object,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        user: str | None = None,
        stdin: bytes | str = b"",
        stdout: str = PIPED,
        stderr: str = PIPED,
        timeout: arguments.Duration | None = None,
        check: bool = True,
    ) -> CommandOutput:
        """Run a shell script (`/bin/sh -c`) to its end.

        With `values`, each `{}` of the script is replaced by one, quoted, so that it stays one word whatever
        is in it; without values, braces are left alone. `stdout` and `stderr` are `piped` (in the result),
        `inherit` (passed on as they come) or `null`. CommandFailed unless the exit code is 0 or `check` is
        False.
        """
        if not isinstance(script, str) or "\0" in script:
            raise UsageError(f"a script is a text, not {script!r}")
        text = _filled(script, values)
        command = self._command(("/bin/sh", "-c", text), cwd, env, user, timeout)
        modes = {"stdout": _mode("stdout", stdout), "stderr": _mode("stderr", stderr)}
        pieces: dict[str, list[bytes]] = {"stdout": [], "stderr": []}
        descriptors = {"stdout": 1, "stderr": 2}

        def take(stream: str, data: bytes) -> None:
            if modes[stream] == PIPED:
                pieces[stream].append(data)
            elif modes[stream] == INHERIT:
                os.write(descriptors[stream], data)

        given = stdin.encode() if isinstance(stdin, str) else stdin
        async with self._use():
            completed = await self._sandbox.execute(command, take, stdin=given)
        output = CommandOutput(
            completed.exit_code,
            limit_of(completed),
            completed.seconds,
            b"".join(pieces["stdout"]),
            b"".join(pieces["stderr"]),
        )
        if not output.success and not self.alive:
            # It did not fail by itself: the sandbox ended under it.
            raise self._gone()
        if check:
            output.check(text)
        return output

    async def spawn(
        self,
        *argv: str,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        user: str | None = None,
        stdin: str = NULL,
        stdout: str = INHERIT,
        stderr: str = INHERIT,
        timeout: arguments.Duration | None = None,
    ) -> AsyncProcess:
        """Start a program. Each of its streams is `piped`, `null`, or `inherit`: this process's own."""
        command = self._command(arguments.argv(argv), cwd, env, user, timeout)
        modes = (_mode("stdin", stdin), _mode("stdout", stdout), _mode("stderr", stderr))
        ours: list[int] = [-1, -1, -1]
        theirs: list[int] = [-1, -1, -1]
        made: list[int] = []
        try:
            for number, mode in enumerate(modes):
                if mode == INHERIT:
                    theirs[number] = number
                elif mode == PIPED:
                    ends = pipe()
                    theirs[number], ours[number] = ends if number == 0 else (ends[1], ends[0])
                    made.append(theirs[number])
            async with self._use():
                running = await self._sandbox.spawn(command, Stdio(*theirs))
        except BaseException:
            close_quietly(*ours)
            raise
        finally:
            close_quietly(*made)
        process = AsyncProcess(
            command.argv,
            running,
            AsyncWriter(ours[0]) if ours[0] >= 0 else None,
            AsyncReader(ours[1]) if ours[1] >= 0 else None,
            AsyncReader(ours[2]) if ours[2] >= 0 else None,
        )
        self._processes = {each for each in (*self._processes, process) if each.has_open_streams}
        return process

    def _command(
        self,
        argv: tuple[str, ...],
        cwd: str | None,
        env: Mapping[str, str] | None,
        user: str | None,
        timeout: arguments.Duration | None,
    ) -> Command:
        name = arguments.user(user) if user is not None else self._origin.user
        return Command(
            argv=argv,
            env={**run_environment(self._env, user=name), **arguments.variables(env)},
            cwd=arguments.directory(cwd) if cwd is not None else self._origin.cwd,
            user=name,
            network=self._origin.options.network,
            timeout=arguments.seconds(timeout),
        )

    async def logs(self) -> bytes:
        """The last of what the command of a detached sandbox has written (`create(command=)`), stdout and
        stderr as they came; also when it has ended since. UsageError when it is none."""
        if self._detached is None:
            raise UsageError("only a detached sandbox has logs", hint="the output of `sh` is in its result")
        if self._left:
            raise self._gone()
        return await self._detached.log()

    # Ports, time, copies.

    async def expose_http(self, port: int, *, host_port: int | None = None) -> str:
        """The URL at which this machine reaches a port that a program in the sandbox listens on, at its
        loopback address; a network is not needed. It works for as long as the sandbox lives.

        host_port: the port on this machine, None for a free one
        """
        number = arguments.port(port)
        ours = arguments.port(host_port) if host_port is not None else 0
        async with self._use():
            url = await self._sandbox.expose(number, host_port=ours)
        if self.info.url is None:
            self._tenure.note(replace(self.info, url=url))
        return url

    async def wait_for_port(self, port: int, *, timeout: arguments.Duration = 30) -> None:
        """Wait until a program in the sandbox listens on a port. EngineError when none does in that time,
        SandboxGone when the sandbox ends before."""
        number, seconds = arguments.port(port), arguments.seconds(timeout)
        deadline = time.monotonic() + (seconds or 0)
        pause = _FIRST_PAUSE
        while True:
            try:
                async with self._use():
                    os.close(await self._sandbox.connect(number))
                return
            except ConnectionError:
                pass
            if time.monotonic() > deadline:
                raise EngineError(
                    f"nothing listens on port {number} of the sandbox after {timeout}",
                    hint="let the program listen on 0.0.0.0 or 127.0.0.1",
                )
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def extend_timeout(self, timeout: arguments.Duration) -> float:
        """Let the sandbox live for at least this long from now; when it ends now, seconds since the epoch.
        UsageError when it has no timeout."""
        seconds = arguments.seconds(timeout)
        if seconds is None:
            raise UsageError("`timeout` cannot be None", hint="write seconds, or a text such as `5m`")
        self._check()
        if self.info.ends_at is None:
            raise UsageError(
                "the sandbox has no timeout to extend", hint="it lasts until it or its client is closed"
            )
        ends_at = max(self.info.ends_at, time.time() + seconds)
        async with self._use():
            await self._sandbox.extend(ends_at - time.time())
        if self._detached is not None:
            return self.info.ends_at or ends_at
        self._end_in(ends_at - time.time())
        self._tenure.note(replace(self.info, ends_at=ends_at))
        return ends_at

    async def snapshot(self, slug: str) -> SnapshotInfo:
        """Make a snapshot of what its root holds now. Its processes stand still while what it has written
        is copied; `pause` of the result says for how long. SlugTaken."""
        arguments.slug(slug)
        self._check()
        self._session.store.index.check_slug_free(slug)
        stack, held, pause = await self._copy(slug, self._origin.stack)
        with held:
            record = self._session.publish(slug, stack, self._origin.config)
        return snapshot_info(self._session.store, record, pause=pause)

    async def _snapshot_volume(self, volume: VolumeRecord, slug: str) -> SnapshotInfo:
        """A snapshot of a volume that this sandbox has, as its root or at a path."""
        mount = next((p for p, each in self._origin.options.mounts.items() if each == volume.id), None)
        stack, held, pause = await self._copy(slug, volume.stack, mount)
        with held:
            record = self._session.publish(slug, stack, volume.config)
        return snapshot_info(self._session.store, record, pause=pause)

    async def fork(self, *, volumes: Mapping[str, str] | None = None) -> AsyncSandbox:
        """Another sandbox, with the same limits, labels and variables, that starts from what the root of
        this one holds now. It writes to a layer of its own that is thrown away, and no process is copied.

        volumes: what is mounted in the fork. A volume cannot be in two sandboxes, so this has to be said
                 (`{}` for none) when this sandbox has some. VolumeInUse
        """
        self._check()
        options = self._origin.options
        if volumes is None and options.mounts:
            raise VolumeInUse(
                f"the volumes of {self.id} cannot be in its fork as well",
                hint="pass `volumes={}` for a fork without them, or other volumes",
            )
        wanted = arguments.mounts(volumes, slug_of)
        stack, held, pause = await self._copy("fork", self._origin.stack)
        with held:
            origin = replace(self._origin, stack=stack, options=replace(options, volume=None, mounts=wanted))
            return await self._fork(origin, dict(self._env), pause)

    async def _copy(
        self, name: str, below: tuple[LayerKey, ...], mount: str | None = None
    ) -> tuple[tuple[LayerKey, ...], Hold, float]:
        """Commit what the root, or the volume at a path, holds above some layers; the layers of that, kept
        from gc, and the seconds of the pause."""
        definition = new_layer(below)
        key = layer_key(definition)
        stack = (*below, key)
        held = self._session.store.uses.hold(layers=stack)
        try:
            async with self._use():
                committed, pause = await self._sandbox.snapshot(definition, key, mount=mount)
            self._session.record_layer(definition, name, committed)
        except BaseException:
            held.release()
            raise
        self._session.reporter.emit(Notice("info", f"{self.id} stood still for {pause * 1000:.0f} ms"))
        return stack, held, pause

    # Its end.

    async def kill(self) -> None:
        """End every process in it and give back all it has, at once. What it wrote to a snapshot is gone,
        what it wrote to volumes stays. May be called twice."""
        if self._left:
            raise self._gone()
        await self._end("it was killed")

    async def close(self) -> None:
        """The same as `kill`. A detached sandbox is only let go of: it goes on, but not what this client has
        started in it."""
        if self._detached is None:
            await self._end("it was closed")
            return
        if self._closing is None:
            self._left = True
            self._closing = asyncio.ensure_future(self._leave(self._detached))
        await asyncio.shield(self._closing)

    async def __aenter__(self) -> AsyncSandbox:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def _end(self, why: str) -> None:
        if self._closing is None:
            self._why = why if self._sandbox.alive else self._own_end
            self._closing = asyncio.ensure_future(self._finish())
        await asyncio.shield(self._closing)

    async def _finish(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        try:
            await self._sandbox.close()
            for process in self._processes:
                await process.close_streams()
        finally:
            self._processes.clear()
            self._tenure.release()
            self._told_ended(self)

    async def _leave(self, detached: DetachedSandbox) -> None:
        try:
            await detached.leave()
            for process in self._processes:
                await process.close_streams()
        finally:
            self._processes.clear()
            self._told_ended(self)

    def _ended_by_itself(self) -> None:
        """Told by the engine when it has ended: give back what it had now, not when somebody asks next."""
        if self._closing is None:
            self._why = self._own_end
            self._closing = asyncio.ensure_future(self._finish())

    def _end_in(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(max(seconds, 0), self._expire)

    def _expire(self) -> None:
        if self._closing is None:
            self._why = _TIME_OVER
            self._closing = asyncio.ensure_future(self._finish())

    def _check(self) -> None:
        if not self.alive:
            raise self._gone()

    def _gone(self) -> SandboxGone:
        if self._left:
            return SandboxGone(
                f"this client has let go of the sandbox {self.id}", hint="connect to it again by its id"
            )
        why = self._why if self._closing is not None else self._own_end
        return SandboxGone(f"the sandbox {self.id} has ended: {why}", hint="create another one")

    @property
    def _own_end(self) -> str:
        """Why it ended when nobody ended it. The engine keeps the time as well, and may be the first."""
        completed = self._detached.completed if self._detached is not None else None
        if completed is not None:
            return f"its command ended with exit code {completed.exit_code}"
        late = self.ends_at is not None and time.time() > self.ends_at - _CLOCKS_APART
        return _TIME_OVER if late else "it ended by itself"

    @asynccontextmanager
    async def _use(self) -> AsyncIterator[None]:
        """A verb of the engine, refused when the sandbox has ended before or meanwhile."""
        self._check()
        try:
            yield
        except EngineError as error:
            if not self.alive:
                raise self._gone() from error
            raise


def _mode(name: str, value: object) -> str:
    return arguments.choice(value, name, _MODES)


def _filled(script: str, values: tuple[object, ...]) -> str:
    if not values:
        return script
    parts = script.split("{}")
    if len(parts) != len(values) + 1:
        raise UsageError(
            f"the script has {len(parts) - 1} places for values, and {len(values)} were given",
            hint="write one {} for each value",
        )
    filled = [parts[0]]
    for value, part in zip(values, parts[1:], strict=True):
        filled += [shlex.quote(str(value)), part]
    return "".join(filled)
