"""The writable state between prepare and commit, as an overlay on this machine."""

from __future__ import annotations

import json
import os
import struct
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sandboxfile.core.digest import Digest
from sandboxfile.core.layer import Definition, LayerKey, TreeEntry
from sandboxfile.declared import replace
from sandboxfile.engine.base import Command, Committed, Completed, Output
from sandboxfile.engines.linux.layers import Owned, Sealed, write_json
from sandboxfile.engines.linux.operations import (
    DropPoints,
    MakeDirectory,
    MakePoints,
    OverlayMount,
    Spawn,
    Unmount,
    WriteFile,
)
from sandboxfile.engines.linux.runtime import Refused, runtime_environment
from sandboxfile.engines.linux.runtimespec import STANDARD_POINTS, Container, config
from sandboxfile.engines.linux.work import work
from sandboxfile.errors import EngineError

if TYPE_CHECKING:
    from sandboxfile.engines.linux.engine import LinuxEngine

_CHUNK = 1 << 18
_CLOCK_MARGIN = 1.0


class LinuxWorkspace:
    """A workspace: `<path>/layer/fs` is the upper directory of an overlay on the stack's layers."""

    def __init__(
        self,
        engine: LinuxEngine,
        path: Path,
        stack: Sequence[LayerKey],
        lowers: list[str],
        owned: Owned | None,
    ) -> None:
        self.id = path.name
        self._engine = engine
        self._helper = engine.helper
        self._path = path
        self._stack = tuple(stack)
        self._lowers = lowers
        self._owned = owned
        self._implied: dict[str, None] = {}
        # File systems stamp with a clock that lags a few milliseconds behind.
        self._started = time.time() - _CLOCK_MARGIN
        self._here = f"{engine.helper.base}/workspaces/{self.id}"
        self._root = f"{self._here}/root"
        self._mounted = False
        self._networks: dict[str, str] = {}
        self._closed = False

    @property
    def stack(self) -> tuple[LayerKey, ...]:
        """The keys below."""
        return self._stack

    @property
    def is_kept(self) -> bool:
        """Whether this is a kept workspace that was opened again."""
        return self._path.parent == self._engine.layers.kept

    @property
    def upper(self) -> str:
        """The directory that takes what is written."""
        return str(self._path / "layer" / "fs")

    async def begin(self) -> None:
        """Make the directories of a new workspace."""
        await self._helper.do(MakeDirectory(self.upper, 0o755, guest=True))
        write_json(
            self._path / "state.json", {"stack": list(self._stack), "started": self._started, "implied": []}
        )

    def resume(self, state: Mapping[str, Any]) -> None:
        """Take over what a kept workspace remembers."""
        self._started = state["started"]
        self._implied = dict.fromkeys(state["implied"])

    async def mount(self) -> str:
        """Mount the workspace, unless it is; its root directory."""
        self._check_open()
        if not self._mounted:
            work = str(self._path / "work")
            await self._helper.do(OverlayMount(self._root, self._lowers, self.upper, work))
            self._mounted = True
        return self._root

    async def unmount(self) -> None:
        """Take all mounts of this workspace away."""
        if (self._mounted or self._networks) and self._helper.running:
            await self._helper.do(Unmount(self._here))
        self._mounted = False
        self._networks.clear()

    async def execute(self, command: Command, output: Output, *, stdin: bytes = b"") -> Completed:
        """Run a command as a build step and wait for it."""
        root = await self.mount()
        self._engine.runtime.check(command.network)
        network, network_mounts, network_env = await self._engine.network.for_build(
            command.network, f"{self._here}/net", self._networks
        )
        runtime = self._engine.runtime
        try:
            process = await runtime.resolve(command, root, None)
        except Refused as refused:
            return refused.tell(output)
        if network_env:
            process = replace(process, env={**network_env, **process.env})
        name = f"b-{os.urandom(6).hex()}"
        bundle = f"{self._helper.base}/bundles/{name}"
        mounts, staging = await runtime.stage(command, bundle, process.identity)
        mounts += network_mounts
        points = [(point, True) for point in STANDARD_POINTS]
        sources = {f"{bundle}/mounts/{n}": m.origin.is_dir() for n, m in enumerate(command.mounts)}
        points += [
            (mount.target, sources.get(mount.source, mount.target == "/run/secrets")) for mount in mounts
        ]
        container = Container(root, network, process, True, runtime.host, tuple(mounts))
        (made,) = await self._helper.do(MakePoints(root, points))
        log = f"{bundle}/log"
        owner = (
            self._engine.ids.guest_uid + process.identity.uid,
            self._engine.ids.guest_gid + process.identity.gid,
        )
        try:
            return await runtime.run(
                [*staging, WriteFile(f"{bundle}/config.json", json.dumps(config(container)), 0o600)],
                lambda job: Spawn(
                    job,
                    runtime.argv(log, "run", "--bundle", bundle, "--pid-file", f"{bundle}/pid", name),
                    runtime_environment(),
                    pid_file=f"{bundle}/pid",
                    sealed=runtime.sealable,
                ),
                output,
                stdin=stdin,
                owner=owner,
                timeout=command.timeout,
                log=log,
                whole=True,
            )
        finally:
            if self._helper.running:
                await runtime.delete(name, Unmount(bundle), DropPoints(root, made))

    async def place(self, entries: Sequence[TreeEntry]) -> None:
        """Write entries, in order."""
        root = await self.mount()
        made = await work(
            self._helper, "place", {}, {"root": root}, feed=lambda stream: _write_entries(stream, entries)
        )
        self._implied |= dict.fromkeys(made["implied"])

    async def write_texts(self, texts: Mapping[str, tuple[str, int]]) -> None:
        """Write small files of user 0: path -> content and mode."""
        root = await self.mount()
        feed = partial(_write_texts, texts=texts)
        await work(self._helper, "place", {}, {"root": root}, feed=feed)

    async def read(self, path: str) -> bytes:
        """The bytes of a regular file."""
        root = await self.mount()
        pieces: list[bytes] = []
        await work(self._helper, "read", {"path": path}, {"root": root}, deliver=pieces.append)
        return b"".join(pieces)

    async def remove(self, path: str) -> None:
        """Remove a file or a tree."""
        root = await self.mount()
        await work(self._helper, "remove", {"path": path}, {"root": root})

    async def commit(self, definition: Definition, key: LayerKey) -> Committed:
        """Normalise, seal and publish under `key`."""
        self._check_open()
        layers = self._engine.layers
        if layers.has(key):
            committed = layers.sealed(key).committed
            await self.abort()
            return committed
        await self.unmount()
        epoch = getattr(definition, "epoch", 0)
        args = {"epoch": epoch, "started": self._started}
        found = await work(self._helper, "seal", args, {"root": self.upper})
        committed = Committed(
            key, Digest(found["diff_id"]), found["size"], found["entries"], tuple(found["unreproducible"])
        )
        detached = definition.kind == "files" and not definition.parents
        sealed = Sealed(committed, tuple(sorted(self._implied)) if detached else None)
        published = layers.publish(self._path, definition, key, sealed)
        await self._discard()
        return published.committed

    async def abort(self, *, keep: bool = False) -> None:
        """Give up; with `keep`, what was written stays."""
        if self._closed:
            return
        await self.unmount()
        if not keep:
            await self._discard()
            return
        self._closed = True
        state = {"stack": list(self._stack), "started": self._started, "implied": list(self._implied)}
        write_json(self._path / "state.json", state)
        if self._path.parent != self._engine.layers.kept:
            os.rename(self._path, self._engine.layers.kept / self.id)
        if self._owned:
            self._owned.release()
        self._engine.forget(self)

    async def _discard(self) -> None:
        self._closed = True
        name = self._engine.layers.to_trash(self._path)
        if self._owned:
            self._owned.release()
        self._engine.forget(self)
        if name:
            await self._engine.empty_trash([name])

    def _check_open(self) -> None:
        if self._closed:
            raise EngineError("the workspace is no longer there")


def _write_entries(descriptor: int, entries: Sequence[TreeEntry]) -> None:
    """Write entries as the worker reads them (blocking; in a thread)."""
    with open(descriptor, "wb", closefd=False) as stream:
        for entry in entries:
            header = {
                "path": entry.path,
                "type": entry.type,
                "mode": entry.mode,
                "owner": entry.owner,
                "sha256": entry.sha256,
                "target": entry.target,
            }
            stream.write(json.dumps(header).encode() + b"\n")
            if entry.type == "file":
                _write_content(stream, entry)


def _write_texts(descriptor: int, texts: Mapping[str, tuple[str, int]]) -> None:
    with open(descriptor, "wb", closefd=False) as stream:
        for path, (text, mode) in texts.items():
            header = {"path": path, "type": "file", "mode": mode, "owner": "0:0", "sha256": "", "target": ""}
            content = text.encode()
            stream.write(json.dumps(header).encode() + b"\n")
            if content:
                stream.write(struct.pack("=I", len(content)) + content)
            stream.write(struct.pack("=I", 0))


def _write_content(stream: Any, entry: TreeEntry) -> None:
    try:
        file = open(entry.origin, "rb")  # noqa: SIM115 -- only failures to open are the user's to mend
    except OSError as error:
        raise EngineError(f"{entry.origin} cannot be read: {error.strerror}") from error
    with file:
        while piece := file.read(_CHUNK):
            stream.write(struct.pack("=I", len(piece)))
            stream.write(piece)
    stream.write(struct.pack("=I", 0))
