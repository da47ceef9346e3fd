"""Workspaces and committed layers of the memory engine."""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sandboxfile.core.digest import Digest, digest_bytes, digest_of, hexadecimal
from sandboxfile.core.layer import Definition, FilesLayer, LayerKey, TreeEntry
from sandboxfile.declared import dataclass
from sandboxfile.engine.base import Command, Committed, Completed, Output
from sandboxfile.engines.memory.accounts import credentials
from sandboxfile.engines.memory.execution import execute
from sandboxfile.engines.memory.faults import Point
from sandboxfile.engines.memory.filesystem import Change, Filesystem, Node, difference
from sandboxfile.engines.memory.machine import Machine
from sandboxfile.errors import BuildError, EngineError, IntegrityError

if TYPE_CHECKING:
    from sandboxfile.engines.memory.engine import MemoryEngine


@dataclass(frozen=True)
class Layer:
    """A committed layer: what it changes, and what was told about it."""

    change: Change
    committed: Committed


class MemoryWorkspace:
    """A copy of a stack's tree that is written to, and compared with the stack at the end."""

    def __init__(
        self, engine: MemoryEngine, identifier: str, lower: Mapping[str, Node], nodes: dict[str, Node]
    ) -> None:
        self.id = identifier
        self.nodes = nodes
        self._engine = engine
        self._lower = lower
        self._implied: set[str] = set()
        self._open = True

    async def execute(self, command: Command, output: Output, *, stdin: bytes = b"") -> Completed:
        """Run a command; whatever it leaves running ends with it."""
        self._check()
        machine = Machine(self._engine.programs, self._engine.script)
        try:
            return await execute(machine, self.nodes, command, output, stdin, self._engine.faults)
        finally:
            await machine.end()

    async def place(self, entries: Sequence[TreeEntry]) -> None:
        """Write entries. IntegrityError when a file's bytes are not those of its digest."""
        self._check()
        files = Filesystem(self.nodes, on_write=lambda: self._engine.faults.hit(Point.NO_SPACE))
        for entry in entries:
            try:
                who = credentials(files, entry.owner)
            except KeyError as error:
                raise BuildError(
                    f"{entry.path} is to belong to `{error.args[0]}`, who is not known in the base"
                ) from None
            content = _bytes_of(entry) if entry.type == "file" else b""
            mode = entry.mode if entry.type != "symlink" else 0o777
            try:
                self._implied.update(files.make_parents(entry.path))
                real = files.place(
                    entry.path, Node(entry.type, mode, who.uid, who.gid, content, entry.target)
                )
            except OSError as error:
                if error.errno == errno.ENOSPC:
                    raise EngineError(f"no space is left to write {entry.path}") from error
                raise BuildError(f"{entry.path} cannot be written: {error.strerror}") from error
            self._implied.discard(real)

    async def read(self, path: str) -> bytes:
        """The bytes of a regular file. FileNotFoundError."""
        self._check()
        return Filesystem(self.nodes).read(path)

    async def remove(self, path: str) -> None:
        """Remove a file or a tree, if it is there."""
        self._check()
        files = Filesystem(self.nodes)
        if files.exists(path, follow=False):
            files.remove(path)

    async def commit(self, definition: Definition, key: LayerKey) -> Committed:
        """Publish what was changed; a layer that is there under the key stays."""
        self._check()
        change = difference(self._lower, self.nodes)
        detached = isinstance(definition, FilesLayer) and not definition.parents
        change = Change(change.nodes, change.removed, frozenset(self._implied), follow=detached)
        self._engine.faults.hit(Point.BEFORE_COMMIT)
        self._open = False
        committed = self._engine.publish(Layer(change, committed_of(key, change)))
        self._engine.forget(self)
        self._engine.faults.hit(Point.AFTER_RENAME)
        return committed

    async def abort(self, *, keep: bool = False) -> None:
        """Drop what was written, or keep it for `reopen`."""
        if not self._open:
            return
        self._open = False
        self._engine.forget(self)
        if keep:
            self._engine.keep(self.copy())

    def copy(self) -> MemoryWorkspace:
        """Another workspace of the same state and name."""
        other = MemoryWorkspace(self._engine, self.id, self._lower, dict(self.nodes))
        other._implied = set(self._implied)
        return other

    def _check(self) -> None:
        self._engine.faults.hit(Point.CONNECTION_LOST)
        if not self._open:
            raise EngineError(f"the workspace {self.id} is closed")


def _bytes_of(entry: TreeEntry) -> bytes:
    try:
        content = Path(entry.origin).read_bytes()
    except OSError as error:
        raise BuildError(f"{entry.origin} cannot be read: {error.strerror}") from error
    if hexadecimal(digest_bytes(content)) != entry.sha256:
        raise IntegrityError(
            f"{entry.origin} is not what it was when the build began", hint="run the build again"
        )
    return content


def committed_of(key: LayerKey, change: Change) -> Committed:
    """What is told about a layer."""
    size = sum(len(node.content) for node in change.nodes.values())
    return Committed(key, _diff_id(change), size, len(change.nodes) + len(change.removed))


def _diff_id(change: Change) -> Digest:
    # Hex, because a file name may hold bytes that are no text.
    nodes = {
        path.encode("utf-8", "surrogateescape").hex(): [
            node.type,
            node.mode,
            node.uid,
            node.gid,
            digest_bytes(node.content),
            node.target.encode("utf-8", "surrogateescape").hex(),
        ]
        for path, node in change.nodes.items()
    }
    removed = sorted(path.encode("utf-8", "surrogateescape").hex() for path in change.removed)
    return digest_of("sandboxfile.memory.diff/v1", {"nodes": nodes, "removed": removed})
