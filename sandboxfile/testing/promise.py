"""What a promise of an engine is, and the laboratory it is tried in."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from sandboxfile.core.environment import DEFAULT_PATH
from sandboxfile.core.layer import (
    Definition,
    FilesLayer,
    LayerKey,
    RunLayer,
    TreeEntry,
    VolumeLayer,
    layer_key,
)
from sandboxfile.declared import dataclass
from sandboxfile.engine.base import (
    Capability,
    Command,
    Completed,
    DetachedSandbox,
    Detachment,
    Engine,
    Sandbox,
    SandboxOptions,
    Stack,
    Workspace,
)
from sandboxfile.store.sandboxes import SandboxInfo

ENVIRONMENT = {"PATH": DEFAULT_PATH, "HOME": "/root"}
EPOCH = 1_700_000_000
PATIENCE = 60.0
"""Seconds after which a promise that has not come to its end counts as broken."""

Trial = Callable[["Lab"], Awaitable[None]]


@dataclass(frozen=True)
class Promise:
    """One thing every engine does. Called with an engine and a base stack, it raises AssertionError when
    the engine does not.

    name:      of the function
    statement: the promise in words
    needs:     capabilities without which it does not apply
    """

    name: str
    statement: str
    trial: Trial
    needs: frozenset[Capability] = frozenset()

    async def __call__(self, engine: Engine, base: Stack) -> None:
        """Try it; whatever was made for it is removed again."""
        async with asyncio.timeout(PATIENCE), Lab(engine, base) as lab:
            await self.trial(lab)


def promise(*needs: Capability) -> Callable[[Trial], Promise]:
    """Make a function a Promise; its docstring is the statement."""

    def made(trial: Trial) -> Promise:
        name = getattr(trial, "__name__", "promise")
        return Promise(name, (trial.__doc__ or name).strip(), trial, frozenset(needs))

    return made


@dataclass(frozen=True)
class Outcome:
    """How a command ended and what it wrote."""

    exit_code: int
    stdout: bytes
    stderr: bytes
    completed: Completed

    @property
    def text(self) -> str:
        """stdout, decoded, without white space at its ends."""
        return self.stdout.decode("utf-8", "surrogateescape").strip()


class Lab:
    """An engine, a base stack with a shell and the usual small programs, and what was made on them."""

    def __init__(self, engine: Engine, base: Stack) -> None:
        self.engine = engine
        self.base: tuple[LayerKey, ...] = tuple(base)
        # Keys are made from definitions; this makes them new in every run.
        self.token = uuid.uuid4().hex
        self._number = 0
        self._workspaces: list[Workspace] = []
        self._sandboxes: list[Sandbox] = []
        self._detached: dict[str, str] = {}
        self._volumes: list[str] = []
        self._keys: list[LayerKey] = []
        self._directory: Path | None = None

    async def __aenter__(self) -> Lab:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for sandbox in self._sandboxes:
            await sandbox.close()
        for workspace in self._workspaces:
            with contextlib.suppress(Exception):
                await workspace.abort()
        for volume in self._volumes:
            await self.engine.remove_volume(volume)
        await self.engine.remove(self._keys)
        if self._directory is not None:
            shutil.rmtree(self._directory)

    async def prepare(self, stack: Stack | None = None) -> Workspace:
        """A workspace on a stack, the base by default."""
        workspace = await self.engine.prepare(self.base if stack is None else stack)
        self._workspaces.append(workspace)
        return workspace

    async def sandbox(self, stack: Stack | None = None, *, workspace: str | None = None) -> Sandbox:
        """A sandbox on a stack, the base by default."""
        sandbox = await self.engine.start(self.base if stack is None else stack, workspace=workspace)
        self._sandboxes.append(sandbox)
        return sandbox

    async def start(self, options: SandboxOptions, stack: Stack | None = None) -> Sandbox:
        """A sandbox with options, on the base by default."""
        sandbox = await self.engine.start(self.base if stack is None else stack, options=options)
        self._sandboxes.append(sandbox)
        return sandbox

    async def detach(
        self, options: SandboxOptions | None = None, *, command: Command | None = None, keep: bool = True
    ) -> DetachedSandbox:
        """A detached sandbox on the base, with a variable and a note of this laboratory's token."""
        self._number += 1
        info = SandboxInfo(f"x-{self.token[:12]}-{self._number}", "base", time.time(), detached=True)
        detachment = Detachment(
            info, self.base, {"note": self.token}, variables={"FIRST": "1"}, command=command
        )
        sandbox = await self.engine.detach(self.base, options or SandboxOptions(), detachment)
        self._sandboxes.append(sandbox)
        self._detached[sandbox.id] = info.id
        if keep:
            await sandbox.keep()
        return sandbox

    async def connect(self, sandbox: DetachedSandbox) -> DetachedSandbox:
        """A detached sandbox as another client has it."""
        other = await self.engine.connect(self._detached[sandbox.id])
        self._sandboxes.append(other)
        return other

    async def volume(self, capacity: int | None = None, stack: Stack | None = None) -> str:
        """An empty volume on a stack, the base by default; its id."""
        self._number += 1
        name = f"v-{self.token[:12]}-{self._number}"
        await self.engine.create_volume(name, capacity, self.base if stack is None else stack)
        self._volumes.append(name)
        return name

    def frozen(self, stack: Stack) -> VolumeLayer:
        """A definition for what a volume or a sandbox on a stack holds."""
        self._number += 1
        return VolumeLayer(tuple(stack), f"{self.token} {self._number}")

    async def freeze(self, volume: str, stack: Stack) -> tuple[LayerKey, ...]:
        """Freeze a volume that stands on a stack; the stack with the new layer."""
        definition = self.frozen(stack)
        committed = await self.engine.freeze_volume(volume, definition, self.key(definition))
        return (*stack, committed.key)

    async def snapshot(self, sandbox: Sandbox) -> tuple[tuple[LayerKey, ...], float]:
        """A snapshot of a running sandbox: its stack with the new layer, and how long it stood still."""
        definition = self.frozen(sandbox.stack)
        committed, pause = await sandbox.snapshot(definition, self.key(definition))
        return (*sandbox.stack, committed.key), pause

    def definition(self, stack: Stack, note: str = "") -> RunLayer:
        """A definition that no layer has yet."""
        self._number += 1
        return RunLayer(
            parents=tuple(stack),
            command=f"# {self.token} {self._number} {note}",
            env={},
            cwd="/",
            user="root",
            network="none",
            secrets=(),
            epoch=EPOCH,
        )

    def key(self, definition: Definition) -> LayerKey:
        """The key of a definition; its layer is removed at the end."""
        key = layer_key(definition)
        self._keys.append(key)
        return key

    async def commit(self, workspace: Workspace, stack: Stack | None = None) -> tuple[LayerKey, ...]:
        """Commit a workspace that was prepared on a stack; the stack with the new layer."""
        below = self.base if stack is None else tuple(stack)
        definition = self.definition(below)
        committed = await workspace.commit(definition, self.key(definition))
        return (*below, committed.key)

    async def layer(self, script: str, stack: Stack | None = None) -> tuple[LayerKey, ...]:
        """Commit what a script does on a stack; the stack with the new layer."""
        workspace = await self.prepare(stack)
        await self.succeed(workspace, script)
        return await self.commit(workspace, stack)

    async def detached(self, entries: Sequence[TreeEntry]) -> LayerKey:
        """Commit entries as a layer that stands on nothing; its key."""
        marker = self.file("/srv/.conformance", self.token.encode())
        definition = FilesLayer(entries=(*entries, marker), epoch=EPOCH)
        workspace = await self.prepare(())
        await workspace.place(definition.entries)
        key = self.key(definition)
        await workspace.commit(definition, key)
        return key

    async def run(
        self, where: Workspace | Sandbox, what: str | Sequence[str], *, stdin: bytes = b"", **fields: Any
    ) -> Outcome:
        """Run a script with `sh -c`, or words as they are. `fields` are Command's."""
        argv = ("/bin/sh", "-c", what) if isinstance(what, str) else tuple(what)
        streams: dict[str, bytearray] = {"stdout": bytearray(), "stderr": bytearray()}

        def take(stream: str, data: bytes) -> None:
            streams[stream] += data

        command = Command(argv, **{"env": ENVIRONMENT, **fields})
        completed = await where.execute(command, take, stdin=stdin)
        return Outcome(completed.exit_code, bytes(streams["stdout"]), bytes(streams["stderr"]), completed)

    async def succeed(self, where: Workspace | Sandbox, what: str | Sequence[str], **fields: Any) -> str:
        """Run something that has to exit with 0; its output as text."""
        outcome = await self.run(where, what, **fields)
        if outcome.exit_code != 0:
            raise AssertionError(f"{what!r} exited with {outcome.exit_code}: {outcome.stderr!r}")
        return outcome.text

    async def seen(self, stack: Stack, what: str | Sequence[str]) -> str:
        """The output of a command in a fresh sandbox on a stack."""
        sandbox = await self.sandbox(stack)
        try:
            return await self.succeed(sandbox, what)
        finally:
            await sandbox.close()

    def directory(self) -> Path:
        """A directory of this machine that everybody can read."""
        if self._directory is None:
            self._directory = Path(tempfile.mkdtemp(prefix="conformance-"))
            self._directory.chmod(0o755)
        return self._directory

    def file(self, path: str, content: bytes, mode: int = 0o644, owner: str = "0:0") -> TreeEntry:
        """An entry for a file with that content."""
        digest = hashlib.sha256(content).hexdigest()
        origin = self.directory() / digest
        origin.write_bytes(content)
        origin.chmod(0o644)
        return TreeEntry(path, "file", mode, owner, digest, size=len(content), origin=str(origin))


def expect(actual: object, expected: object, what: str = "") -> None:
    """AssertionError unless both are equal. (`assert` would be silent under `python -O`.)"""
    if actual != expected:
        raise AssertionError(f"{what + ': ' if what else ''}expected {expected!r}, got {actual!r}")


def holds(condition: bool, what: str) -> None:
    """AssertionError unless something holds."""
    if not condition:
        raise AssertionError(what)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for something that happens by itself, such as a server that begins to listen."""
    while not await condition():
        # Nothing tells when; the promise's PATIENCE bounds the wait.
        await asyncio.sleep(0.02)


async def read_descriptor(descriptor: int) -> bytes:
    """Everything from a descriptor until its end."""
    data = bytearray()
    while chunk := await asyncio.to_thread(os.read, descriptor, 65536):
        data += chunk
    return bytes(data)
