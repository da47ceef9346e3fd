"""The memory engine: everything in dicts of this process. For tests of ours and of our users.

What a program does is a Python coroutine (`programs=`), or is scripted by the text of a command
(`script=`); what goes wrong is a FaultPlan (`faults=`). Nothing touches the disk, except that files to
place and to mount are read from where the caller says they are.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sandboxfile.core.digest import hexadecimal
from sandboxfile.core.layer import DebianBase, LayerKey, RootfsBase
from sandboxfile.engine.base import Capability, Committed, Limits, Output, Stack
from sandboxfile.engines.memory.base import add_program, base_tree, unpack_tar, write_status
from sandboxfile.engines.memory.execution import check_network
from sandboxfile.engines.memory.faults import FaultPlan, Point
from sandboxfile.engines.memory.filesystem import Filesystem, Node, apply
from sandboxfile.engines.memory.machine import Process, Program
from sandboxfile.engines.memory.programs import PROGRAMS
from sandboxfile.engines.memory.sandbox import MemorySandbox
from sandboxfile.engines.memory.workspace import Layer, MemoryWorkspace
from sandboxfile.errors import BuildError, EngineError


@dataclass(frozen=True)
class Scripted:
    """What a scripted command does: what it writes, the files it makes (by path), its exit code."""

    exit_code: int = 0
    stdout: str = ""
    stderr: str = ""
    files: Mapping[str, str] | None = None

    async def __call__(self, process: Process) -> int:
        """Do it."""
        for path, content in (self.files or {}).items():
            files = process.files
            files.make_parents(path)
            files.write(path, content.encode(), cwd=process.cwd, who=process.who)
        if self.stdout:
            await process.say(self.stdout)
        if self.stderr:
            await process.stderr.write(self.stderr.encode())
        return self.exit_code


class MemoryEngine:
    """An engine without a host.

    programs: programs beside the usual ones, by name; a base has each of them in /usr/bin
    script:   what commands do, by the text that is given to `sh -c`, or by the words of argv joined by
              spaces; a text stands for one that is written to stdout
    faults:   what goes wrong, and where
    """

    name = "memory"
    capabilities = frozenset(
        {
            Capability.BOOTSTRAP_DEBIAN,
            Capability.ROOTFS_TAR,
            Capability.MOUNTS,
            Capability.NETWORK_FULL,
            Capability.EXPOSE_PORT,
            Capability.KEEP_WORKSPACE,
            Capability.DIFF_ID,
        }
    )

    def __init__(
        self,
        *,
        programs: Mapping[str, Program] | None = None,
        script: Mapping[str, Program | str] | None = None,
        faults: FaultPlan | None = None,
    ) -> None:
        self.programs: dict[str, Program] = {**PROGRAMS, **(programs or {})}
        self.script: dict[str, Program] = {
            text: Scripted(stdout=what) if isinstance(what, str) else what
            for text, what in (script or {}).items()
        }
        self.faults = faults or FaultPlan()
        self._layers: dict[LayerKey, Layer] = {}
        self._workspaces: dict[str, MemoryWorkspace] = {}
        self._kept: dict[str, MemoryWorkspace] = {}
        self._sandboxes: dict[str, MemorySandbox] = {}
        self._numbers = itertools.count(1)

    async def have(self, keys: Sequence[LayerKey]) -> frozenset[LayerKey]:
        """Which of the keys are committed here."""
        self.faults.hit(Point.CONNECTION_LOST)
        return frozenset(key for key in keys if key in self._layers)

    async def bootstrap(
        self, base: DebianBase, packages: Mapping[str, Path], output: Output
    ) -> MemoryWorkspace:
        """A small Debian-like tree whose dpkg knows the packages. Their files are not unpacked."""
        self.faults.hit(Point.CONNECTION_LOST)
        missing = sorted(pin.name for pin in base.packages if pin.sha256 not in packages)
        if missing:
            raise BuildError(f"packages of the base are missing: {', '.join(missing)}")
        files = Filesystem(base_tree(self.programs))
        write_status(files, base.packages)
        output("stdout", f"{len(base.packages)} packages of {base.suite}\n".encode())
        return self._workspace({}, files.nodes)

    async def unpack(self, base: RootfsBase, archive: Path, output: Output) -> MemoryWorkspace:
        """The tree of a tar, with the programs of the engine in its /usr/bin."""
        self.faults.hit(Point.CONNECTION_LOST)
        files = Filesystem(unpack_tar(archive))
        output("stdout", f"rootfs {base.rootfs[:16]}\n".encode())
        for name in self.programs:
            add_program(files, name)
        return self._workspace({}, files.nodes)

    async def prepare(self, stack: Stack) -> MemoryWorkspace:
        """A workspace on a stack."""
        self.faults.hit(Point.CONNECTION_LOST)
        lower = self._tree(stack)
        return self._workspace(lower, dict(lower))

    async def reopen(self, workspace: str) -> MemoryWorkspace:
        """A kept workspace. EngineError when it is gone."""
        self.faults.hit(Point.CONNECTION_LOST)
        found = self._workspaces[workspace] = self._kept_workspace(workspace).copy()
        return found

    async def start(
        self,
        stack: Stack,
        *,
        limits: Limits | None = None,
        network: str = "none",
        workspace: str | None = None,
    ) -> MemorySandbox:
        """A sandbox on a stack, or on a kept workspace."""
        self.faults.hit(Point.CONNECTION_LOST)
        check_network(network)
        nodes = self._tree(stack) if workspace is None else dict(self._kept_workspace(workspace).nodes)
        identifier = f"s-{next(self._numbers)}"
        sandbox = MemorySandbox(self, identifier, nodes, network=network, limits=limits)
        self._sandboxes[sandbox.id] = sandbox
        return sandbox

    async def remove(self, keys: Sequence[LayerKey]) -> None:
        """Drop layers; sandboxes that run have a copy of their own."""
        self.faults.hit(Point.CONNECTION_LOST)
        for key in keys:
            self._layers.pop(key, None)

    async def close(self) -> None:
        """End every sandbox."""
        for sandbox in list(self._sandboxes.values()):
            await sandbox.close()
        self._workspaces.clear()

    @property
    def workspaces(self) -> tuple[str, ...]:
        """Names of the workspaces that are neither committed nor aborted: none after a build."""
        return tuple(self._workspaces)

    @property
    def kept(self) -> tuple[str, ...]:
        """Names of the workspaces that were kept."""
        return tuple(self._kept)

    @property
    def sandboxes(self) -> tuple[str, ...]:
        """Names of the sandboxes that run."""
        return tuple(self._sandboxes)

    def publish(self, layer: Layer) -> Committed:
        """Take a layer, unless its key is there; what was committed. (For MemoryWorkspace.)"""
        return self._layers.setdefault(layer.committed.key, layer).committed

    def forget(self, workspace: MemoryWorkspace) -> None:
        """A workspace has come to its end. (For MemoryWorkspace.)"""
        self._workspaces.pop(workspace.id, None)
        self._kept.pop(workspace.id, None)

    def keep(self, workspace: MemoryWorkspace) -> None:
        """A workspace is to be kept. (For MemoryWorkspace.)"""
        self._kept[workspace.id] = workspace

    def ended(self, sandbox: MemorySandbox) -> None:
        """A sandbox has come to its end. (For MemorySandbox.)"""
        self._sandboxes.pop(sandbox.id, None)

    def _workspace(self, lower: Mapping[str, Node], nodes: dict[str, Node]) -> MemoryWorkspace:
        workspace = MemoryWorkspace(self, f"w-{next(self._numbers)}", lower, nodes)
        self._workspaces[workspace.id] = workspace
        return workspace

    def _kept_workspace(self, identifier: str) -> MemoryWorkspace:
        if identifier not in self._kept:
            raise EngineError(f"there is no kept workspace {identifier}")
        return self._kept[identifier]

    def _tree(self, stack: Stack) -> dict[str, Node]:
        nodes: dict[str, Node] = {}
        for key in stack:
            if key not in self._layers:
                raise EngineError(f"the layer {hexadecimal(key)[:16]} is not in this engine")
            apply(self._layers[key].change, nodes)
        return nodes
