"""The memory engine: everything in dicts of this process. For tests of ours and of our users.

What a program does is a Python coroutine (`programs=`), or is scripted by the text of a command
(`script=`); what goes wrong is a FaultPlan (`faults=`). Nothing touches the disk, except that files to
place and to mount are read from where the caller says they are.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

from sandboxfile.core.digest import Digest, hexadecimal
from sandboxfile.core.layer import DebianBase, Definition, LayerKey, RootfsBase
from sandboxfile.core.manifest import Entry
from sandboxfile.declared import dataclass
from sandboxfile.engine.base import (
    Capability,
    Committed,
    DetachedSandbox,
    Detachment,
    Limits,
    Output,
    SandboxOptions,
    Stack,
)
from sandboxfile.engines.memory.base import add_program, base_tree, unpack_tar, write_status
from sandboxfile.engines.memory.execution import check_network
from sandboxfile.engines.memory.faults import FaultPlan, Point
from sandboxfile.engines.memory.filesystem import Filesystem, Node, apply, difference
from sandboxfile.engines.memory.machine import Process, Program
from sandboxfile.engines.memory.programs import PROGRAMS
from sandboxfile.engines.memory.sandbox import MemorySandbox
from sandboxfile.engines.memory.volumes import Disk, MemoryVolume
from sandboxfile.engines.memory.workspace import Layer, MemoryWorkspace, committed_of, entries_of
from sandboxfile.errors import BuildError, EngineError, LimitNotEnforceable, MissingCapability, NoSuchVolume


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
            Capability.HARD_DISK,
            Capability.VOLUME_CAPACITY,
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
        self._volumes: dict[str, MemoryVolume] = {}
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
        options: SandboxOptions | None = None,
    ) -> MemorySandbox:
        """A sandbox on a stack, on a kept workspace, or on a volume."""
        self.faults.hit(Point.CONNECTION_LOST)
        if options is None:
            options = SandboxOptions(limits or Limits(), network, workspace, best_effort=True)
        check_network(options.network)
        _check_limits(options)
        root = self._volume(options.volume) if options.volume is not None else None
        mounts = {path: self._volume(volume) for path, volume in options.mounts.items()}
        for volume in (*mounts.values(), *([root] if root else [])):
            volume.check_free()
        if root is not None:
            nodes, lower = root.nodes, root.lower
        else:
            kept = options.workspace
            lower = self._tree(stack) if kept is None else dict(self._kept_workspace(kept).nodes)
            nodes = Disk(lower, options.limits.disk, lower)
        identifier = f"s-{next(self._numbers)}"
        sandbox = MemorySandbox(self, identifier, tuple(stack), nodes, lower, options, root, mounts)
        self._sandboxes[sandbox.id] = sandbox
        return sandbox

    async def detach(
        self,
        stack: Stack,  # noqa: ARG002
        options: SandboxOptions,  # noqa: ARG002
        detachment: Detachment,  # noqa: ARG002
    ) -> DetachedSandbox:
        """Nothing here outlives this process."""
        raise MissingCapability("the memory engine keeps no sandbox without its client", Capability.DETACHED)

    async def connect(self, sandbox: str) -> DetachedSandbox:  # noqa: ARG002
        """Nothing here outlives this process."""
        raise MissingCapability("the memory engine keeps no sandbox without its client", Capability.DETACHED)

    async def create_volume(
        self,
        volume: str,
        capacity: int | None,
        stack: Stack,
        *,
        best_effort: bool = False,  # noqa: ARG002
    ) -> None:
        """An empty volume on a stack. Its capacity holds to the byte."""
        self.faults.hit(Point.CONNECTION_LOST)
        self._volumes[volume] = MemoryVolume(volume, capacity, self._tree(stack))

    async def remove_volume(self, volume: str) -> None:
        """Forget a volume, if there is one. VolumeInUse."""
        self.faults.hit(Point.CONNECTION_LOST)
        if volume in self._volumes:
            self._volumes[volume].check_free()
            del self._volumes[volume]

    async def freeze_volume(self, volume: str, definition: Definition, key: LayerKey) -> Committed:  # noqa: ARG002
        """A layer of what a volume holds that no sandbox uses."""
        self.faults.hit(Point.CONNECTION_LOST)
        found = self._volume(volume)
        found.check_free()
        change = difference(found.lower, found.nodes)
        committed = self.publish(Layer(change, committed_of(key, change)))
        found.freeze()
        return committed

    async def measure(self, key: LayerKey) -> Digest | None:
        """The digest of a layer's content, worked out anew."""
        self.faults.hit(Point.CONNECTION_LOST)
        if key not in self._layers:
            raise EngineError(f"the layer {hexadecimal(key)[:16]} is not in this engine")
        return committed_of(key, self._layers[key].change).diff_id

    async def manifests(self, stack: Stack, *, start: int = 0) -> tuple[tuple[Entry, ...], ...]:
        """What each layer changes in the tree of those below it, from number `start` on."""
        self.faults.hit(Point.CONNECTION_LOST)
        below = self._tree(stack[:start])
        found = []
        for number in range(start, len(stack)):
            tree = self._tree(stack[: number + 1])
            found.append(entries_of(difference(below, tree)))
            below = tree
        return tuple(found)

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

    def _volume(self, identifier: str) -> MemoryVolume:
        if identifier not in self._volumes:
            raise NoSuchVolume(f"the volume {identifier} is not in this engine")
        return self._volumes[identifier]

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


def _check_limits(options: SandboxOptions) -> None:
    """Refuse limits that mean nothing to programs that are coroutines."""
    if options.best_effort:
        return
    for name in ("memory", "cpus", "pids", "open_files"):
        if getattr(options.limits, name) is not None:
            raise LimitNotEnforceable(
                f"the memory engine cannot enforce a limit of {name}",
                name,
                hint='leave it out, or pass limits="best-effort"',
            )
