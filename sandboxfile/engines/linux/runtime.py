"""Starting commands through the OCI runtime: what build steps and sandboxes have in common."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import resource
import shutil
import signal
import stat
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sandboxfile.declared import replace
from sandboxfile.engine.base import Command, Completed, Output
from sandboxfile.engines.linux.helper_client import HelperClient
from sandboxfile.engines.linux.idmap import IdMap
from sandboxfile.engines.linux.operations import (
    BindMount,
    MakeDirectory,
    Operation,
    ReadModes,
    ReadText,
    RemoveTree,
    Signal,
    Spawn,
    WriteSecret,
)
from sandboxfile.engines.linux.pipes import Pipes
from sandboxfile.engines.linux.runtimespec import BoundMount, GuestProcess, Host
from sandboxfile.engines.linux.seccomp_bpf import CompiledProfiles
from sandboxfile.engines.linux.streams import Reader
from sandboxfile.engines.linux.users import Identity, NoSuchUser, resolve_user
from sandboxfile.errors import EngineError, HostError, MissingCapability

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NOT_FOUND = 127
NOT_EXECUTABLE = 126
_GRACE = 10.0
_OPTIONS = {
    "crun": ("--cgroup-manager=disabled",),
    "runsc": ("--platform=ptrace", "--ignore-cgroups", "--network=none"),
}
"""What the runtimes are told on every command line: control groups are the helper's affair."""
_OWN_KERNEL = ("runsc",)

Judge = Callable[[Completed, str, Output], Awaitable[Completed]]
"""Given how a command ended, the runtime's log and where to say things; see `Runtime.judge`."""


class Refused(Exception):
    """A command that cannot be started for a reason its author can mend; the shell's exit codes."""

    def __init__(self, exit_code: int, sentence: str) -> None:
        super().__init__(sentence)
        self.exit_code = exit_code
        self.sentence = sentence

    def tell(self, output: Output) -> Completed:
        """Say it as a shell would, on standard error."""
        output("stderr", f"{self.sentence}\n".encode())
        return Completed(self.exit_code)


class Runtime:
    """An OCI runtime and what the host gives it."""

    def __init__(self, helper: HelperClient, ids: IdMap, wanted: str | None, filters: Path) -> None:
        self.helper = helper
        self.path = find_runtime(wanted)
        self._is_crun = os.path.basename(self.path) == "crun"
        told = None if self._is_crun else (ids.guest_uid, ids.guest_gid)
        machine = os.uname().machine
        compiled = CompiledProfiles(filters, machine) if self._is_crun else {}
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        self.host = Host(most, machine, told, compiled, self.shares_kernel)

    @property
    def sealable(self) -> bool:
        """Whether the runtime may be started from a sealed copy of itself, as crun does at each start."""
        return self._is_crun

    @property
    def without_keyring(self) -> tuple[str, ...]:
        """What keeps `run` from making a keyring for each sandbox: an ordinary user may have 200 keys in all.
        Sandboxes keep the helper's, which is empty and which their system call filter hides."""
        return ("--no-new-keyring",) if os.path.basename(self.path) in ("crun", "runc") else ()

    @property
    def shares_kernel(self) -> bool:
        """Whether sandboxes are processes of the host's kernel, in namespaces made for them beforehand."""
        return os.path.basename(self.path) not in _OWN_KERNEL

    def check(self, network: str) -> None:
        """Raise MissingCapability or HostError for what a runtime with a kernel of its own does not get."""
        if self.shares_kernel:
            return
        name = os.path.basename(self.path)
        if os.geteuid() != 0:
            raise HostError(f"`{name}` starts sandboxes for root only", hint="choose crun or runc")
        if network != "none":
            raise MissingCapability(
                f"a sandbox of `{name}` has no network", "network-full", hint="choose crun or runc"
            )

    def argv(self, log: str, *arguments: str) -> list[str]:
        """The command line of the runtime; its own complaints go to a file, never among the output."""
        argv = [self.path, "--root", f"{self.helper.base}/runtime", "--log", log, "--log-format", "json"]
        return [*argv, *_OPTIONS.get(os.path.basename(self.path), ()), *arguments]

    async def resolve(self, command: Command, root: str, terminal: tuple[int, int] | None) -> GuestProcess:
        """Look up user, directory and program below a root. Raises Refused."""
        candidates = _candidates(command)
        passwd, group, modes = await self.helper.do(
            ReadText(root, "/etc/passwd"),
            ReadText(root, "/etc/group"),
            ReadModes(root, [command.cwd, *candidates]),
        )
        try:
            identity = resolve_user(command.user, passwd or "", group or "")
        except NoSuchUser as error:
            raise Refused(NOT_EXECUTABLE, f"sandboxfile: {error}") from None
        modes = [
            mode if mode is not None else _mounted_mode(command, path)
            for mode, path in zip(modes, [command.cwd, *candidates], strict=True)
        ]
        if modes[0] is None or not stat.S_ISDIR(modes[0]):
            raise Refused(NOT_EXECUTABLE, f"sandboxfile: there is no directory {command.cwd}")
        _check_program(command.argv[0], modes[1:])
        return GuestProcess(command.argv, command.env, command.cwd, identity, terminal)

    async def stage(
        self, command: Command, directory: str, identity: Identity
    ) -> tuple[list[BoundMount], list[Operation]]:
        """What shows a command's mounts and secrets below the helper's memory, where the sandboxes' ids
        reach them."""
        operations: list[Operation] = []
        bound: list[BoundMount] = []
        for number, mount in enumerate(command.mounts):
            source = f"{directory}/mounts/{number}"
            if not mount.origin.exists():
                raise EngineError(f"{mount.origin}, to be mounted at {mount.target}, does not exist")
            operations.append(BindMount(str(mount.origin.resolve()), source))
            bound.append(BoundMount(source, mount.target))
        if command.secrets:
            operations.append(MakeDirectory(f"{directory}/secrets", 0o755))
            operations += secret_writes(command.secrets, f"{directory}/secrets", identity)
            bound.append(BoundMount(f"{directory}/secrets", "/run/secrets"))
        return bound, operations

    async def run(
        self,
        before: Sequence[Operation],
        spawn: Callable[[int], Spawn],
        output: Output,
        *,
        stdin: bytes,
        owner: Sequence[int],
        timeout: float | None,
        log: str,
        whole: bool,
        judge: Judge | None = None,
    ) -> Completed:
        """Do `before`, start `spawn(job)` on pipes and pass its output on until it ends.

        owner: ids (of the helper's view) that the pipes are given to
        judge: tells a command's failure from the runtime's, in place of `self.judge`
        whole: every process that can hold the pipes ends with the command, so read them to their end
        """
        job = self.helper.new_job()
        started = time.monotonic()
        pipes = Pipes(stdin)
        try:
            operation = spawn(job)
            staged = replace(operation, stdio=tuple(pipes.indexes), own_stdio=tuple(owner))
            await self._launch(job, [*before, staged], pipes.theirs)
            pipes.close_theirs()
            readers = [
                Reader(pipes.stdout, lambda data: output("stdout", data)),
                Reader(pipes.stderr, lambda data: output("stderr", data)),
            ]
            feeder = asyncio.ensure_future(pipes.feed(stdin))
            try:
                code, timed_out = await self._await_end(job, timeout, readers)
                for reader in readers:
                    if whole:
                        await reader.finish()
                    else:
                        reader.drain()
            finally:
                feeder.cancel()
                for reader in readers:
                    reader.stop()
        finally:
            pipes.close()
        completed = Completed(exit_code(code), timed_out, False, time.monotonic() - started)
        return await (judge or self.judge)(completed, log, output)

    async def _await_end(
        self, job: int, timeout: float | None, readers: Sequence[Reader]
    ) -> tuple[int, bool]:
        """Wait for a job's end, killing its whole tree when its time is up or nobody waits any more."""
        ended = asyncio.ensure_future(self.helper.exit_of(job))
        broken = [asyncio.ensure_future(reader.finish()) for reader in readers]
        try:
            # A reader that fails (its callback raised) must not leave the command running for nobody.
            waiting: set[asyncio.Future[Any]] = {ended, *broken}
            deadline = None if timeout is None else time.monotonic() + timeout
            while not ended.done():
                patience = None if deadline is None else max(0.0, deadline - time.monotonic())
                done, waiting = await asyncio.wait(
                    waiting, timeout=patience, return_when=asyncio.FIRST_COMPLETED
                )
                if not done:
                    await self.helper.do(Signal(job, signal.SIGKILL, tree=True))
                    return await ended, True
                for each in done - {ended}:
                    each.result()
            return ended.result(), False
        except BaseException:
            if not ended.done():
                await asyncio.shield(self._end(job, ended))
            raise
        finally:
            ended.cancel()
            for each in broken:
                each.cancel()

    async def _end(self, job: int, ended: asyncio.Future[int]) -> None:
        if self.helper.running:
            await self.helper.do(Signal(job, signal.SIGKILL, tree=True))
            await asyncio.wait([ended], timeout=_GRACE)

    async def _launch(self, job: int, operations: Sequence[Operation], descriptors: Sequence[int]) -> None:
        """Start a job; when the caller gives up meanwhile, it is ended again."""
        try:
            await self.helper.do(*operations, descriptors=descriptors)
        except BaseException:
            if self.helper.running:
                await asyncio.shield(self.helper.do(Signal(job, signal.SIGKILL, tree=True)))
            raise

    async def delete(self, name: str, *after: Operation) -> None:
        """Let the runtime forget a container that has ended, and do something `after` that, in one message.
        crun keeps nothing but a directory of state."""
        if not self._is_crun:
            job = self.helper.new_job()
            argv = self.argv(f"{self.helper.base}/delete-log", "delete", "--force", name)
            await self.helper.do(Spawn(job, argv, runtime_environment()))
            await self.helper.exit_of(job)
        await self.helper.do(RemoveTree(f"{self.helper.base}/runtime/{name}"), *after)

    async def judge(self, completed: Completed, log: str, output: Output) -> Completed:
        """Tell a command's failure from the runtime's: only the latter leaves something in its log."""
        if completed.exit_code == 0 or completed.timed_out or not self.helper.running:
            return completed
        (text,) = await self.helper.do(ReadText("/", log))
        complaint = _complaint(text or "")
        if not complaint:
            return completed
        for words, code in (
            (("no such file or directory", "not found"), NOT_FOUND),
            (("permission denied", "exec format error"), NOT_EXECUTABLE),
        ):
            lowered = complaint.lower()
            if any(word in lowered for word in words) and ("exec" in lowered):
                return Refused(code, f"sandboxfile: {complaint}").tell(output)
        raise EngineError(
            f"the sandbox could not be started: {complaint}",
            hint="run `sandboxfile doctor` to see what is missing",
        )


def find_runtime(wanted: str | None) -> str:
    """The path of the OCI runtime. Raises HostError."""
    for name in (wanted,) if wanted else ("crun", "runc"):
        path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin:/usr/local/sbin")
        if path:
            return os.path.realpath(path)
    missing = f"the OCI runtime `{wanted}` is missing" if wanted else "no OCI runtime is installed"
    package = wanted if wanted in ("crun", "runc", "runsc") else "crun"
    raise HostError(missing, hint=f"sudo apt-get install {package}")


def secret_writes(values: Mapping[str, bytes], directory: str, identity: Identity) -> list[Operation]:
    """What makes secrets readable by one user of the sandbox. Raises EngineError for an impossible name."""
    operations: list[Operation] = []
    for name, value in values.items():
        if "/" in name or name in ("", ".", ".."):
            raise EngineError(f"a secret cannot be named `{name}`")
        encoded = base64.b64encode(value).decode()
        operations.append(WriteSecret(f"{directory}/{name}", encoded, (identity.uid, identity.gid)))
    return operations


def exit_code(code: int) -> int:
    """A shell's exit code: 128 + signal for a process that a signal ended."""
    return 128 - code if code < 0 else code


def runtime_environment() -> dict[str, str]:
    """The environment of the runtime itself; nothing of it reaches a command."""
    return {"PATH": DEFAULT_PATH, "XDG_RUNTIME_DIR": "/nonexistent"}


def _candidates(command: Command) -> list[str]:
    if not command.argv:
        raise EngineError("there is no command to run")
    program = command.argv[0]
    if "/" in program:
        return [program if program.startswith("/") else f"{command.cwd.rstrip('/')}/{program}"]
    directories = command.env.get("PATH", DEFAULT_PATH).split(":")
    return [f"{directory.rstrip('/')}/{program}" for directory in directories if directory.startswith("/")]


def _mounted_mode(command: Command, path: str) -> int | None:
    """The mode of a path that a command's own mounts will show, None if none does."""
    for mount in command.mounts:
        if path == mount.target or path.startswith(mount.target.rstrip("/") + "/"):
            inside = Path(str(mount.origin) + path[len(mount.target.rstrip("/")) :])
            try:
                return inside.stat().st_mode
            except OSError:
                return None
    # Standard mounts are there whatever the layers hold.
    return stat.S_IFDIR | 0o755 if path in ("/", "/proc", "/sys", "/dev", "/dev/shm") else None


def _check_program(program: str, modes: Sequence[int | None]) -> None:
    found = [mode for mode in modes if mode is not None]
    files = [mode for mode in found if stat.S_ISREG(mode)]
    if any(mode & 0o111 for mode in files):
        return
    if not found:
        raise Refused(NOT_FOUND, f"sandboxfile: {program}: not found")
    raise Refused(NOT_EXECUTABLE, f"sandboxfile: {program}: not executable")


def _complaint(log: str) -> str:
    for line in reversed(log.splitlines()):
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if record.get("level") in ("error", "fatal"):
            return str(record.get("msg", "")).strip()
    return ""
