"""The boot of a sandbox: what is mounted, connected and started, and in how few messages."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING

from sandboxfile.engine.base import Completed
from sandboxfile.engines.linux.operations import (
    BindMount,
    Limit,
    MakeDirectory,
    MakeNamespaces,
    MakePoints,
    Operation,
    OverlayMount,
    Signal,
    Spawn,
    WriteFile,
)
from sandboxfile.engines.linux.runtime import runtime_environment
from sandboxfile.engines.linux.runtimespec import (
    STANDARD_POINTS,
    BoundMount,
    Container,
    GuestProcess,
    config,
)
from sandboxfile.engines.linux.state import State
from sandboxfile.engines.linux.users import Identity
from sandboxfile.errors import EngineError, HostError

if TYPE_CHECKING:
    from sandboxfile.engines.linux.engine import LinuxEngine
    from sandboxfile.engines.linux.uppers import Uppers

_INIT = "/run/sandboxfile/init"
_DEADLINE = 30.0
_SECRETS = "/run/secrets"


class Boot:
    """Makes a sandbox run. What was made is in its state, also when the boot fails."""

    def __init__(
        self,
        engine: LinuxEngine,
        state: State,
        lowers: list[str],
        uppers: Uppers,
        init_ended: Callable[[], None],
    ) -> None:
        self._network = engine.network
        self._runtime = engine.runtime
        self._state = state
        self._lowers = lowers
        self._uppers = uppers
        self._init_ended = init_ended

    async def run(self) -> None:
        """Mount, connect and start the init. Raises EngineError, HostError."""
        state = self._state
        init = _find_init()
        # As few messages as can be: each costs two switches between processes.
        self._uppers.prepare(state.here, state.enforcement.disk)
        root = state.root
        before: list[Operation] = [
            MakeDirectory(state.here),
            *self._make_limits(),
            *self._uppers.making,
            OverlayMount(root, self._lowers, self._uppers.upper, self._uppers.work),
            MakeDirectory(f"{state.here}/secrets"),
            BindMount(init, f"{state.here}/init"),
        ]
        if state.options.network == "none":
            before.append(MakeNamespaces(state.net, state.enforcement.nested))
        else:
            await state.helper.do(*before)
            before.clear()
            network = state.options.network
            state.warnings += await self._network.make(network, state.net, state.enforcement.nested)
        mounts, state.env = await self._network.outfit(state.options.network, state.net)
        mounts += [BoundMount(f"{state.here}/init", _INIT), BoundMount(f"{state.here}/secrets", _SECRETS)]
        guest = GuestProcess((_INIT, "-P"), {}, "/", Identity(0, 0))
        container = Container(
            root,
            state.net,
            guest,
            False,
            self._runtime.host,
            (*mounts, *self._uppers.mounts),
            privileges=state.options.privileges,
            open_files=state.options.limits.open_files,
        )
        log, pid_file = f"{state.here}/log", f"{state.here}/pid"
        job, init_job = state.helper.new_job(), state.helper.new_job()
        argv = self._runtime.argv(
            log,
            "run",
            "--detach",
            *self._runtime.without_keyring,
            "--bundle",
            state.here,
            "--pid-file",
            pid_file,
            state.id,
        )
        document = json.dumps(config(container))
        points = [(_INIT, False), *((mount.target, False) for mount in mounts[:-1]), (_SECRETS, True)]
        points += [(mount.target, True) for mount in self._uppers.mounts]
        if state.options.volume is not None:
            # Whatever is made for the sandbox must not stay in the volume.
            points += [(point, True) for point in STANDARD_POINTS]
        making: list[Operation] = [
            *before,
            MakePoints(root, points),
            WriteFile(f"{state.here}/config.json", document, 0o600),
            Spawn(
                job,
                argv,
                runtime_environment(),
                pid_file=pid_file,
                cgroup=state.cgroup,
                sealed=self._runtime.sealable,
                adopt=init_job,
            ),
        ]
        starting = asyncio.ensure_future(self._start_init(making, len(before), job, init_job, log))
        try:
            await asyncio.shield(starting)
        except asyncio.CancelledError:
            # It is milliseconds until there is an init that `close` can end; half-way there is none.
            await asyncio.wait([starting], timeout=_DEADLINE)
            raise

    async def _start_init(
        self, making: list[Operation], points: int, job: int, init_job: int, log: str
    ) -> None:
        """Do all that makes the sandbox; the operation number `points` tells which mountpoints were made."""
        state = self._state
        results = await state.helper.do(*making)
        state.points = results[points]
        try:
            code = await asyncio.wait_for(state.helper.exit_of(job), _DEADLINE)
        except TimeoutError:
            await state.helper.do(Signal(job, signal.SIGKILL, tree=True))
            raise EngineError(f"the sandbox did not start within {_DEADLINE:.0f} seconds") from None
        init_pid = state.helper.left_by(job)
        if code or init_pid is None:
            await self._runtime.judge(Completed(code), log, _ignore)
            raise EngineError(f"the sandbox could not be started (the runtime ended with {code})")
        state.init_job, state.init_pid = init_job, init_pid
        state.init_end = state.helper.end_of(init_job)
        state.init_end.add_done_callback(lambda _: self._init_ended())

    def _make_limits(self) -> list[Operation]:
        if not self._state.cgroup:
            return []
        return [Limit(self._state.cgroup, *self._state.enforcement.group)]


def _find_init() -> str:
    path = shutil.which("catatonit") or shutil.which("catatonit", path="/usr/libexec/podman:/usr/bin")
    if not path:
        raise HostError(
            "`catatonit` is missing, the init of sandboxes", hint="sudo apt-get install catatonit"
        )
    return os.path.realpath(path)


def _ignore(_stream: str, _data: bytes) -> None:
    """Output that nobody wants."""
