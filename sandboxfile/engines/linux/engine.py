"""The linux engine: overlayfs layers in the user's store, sandboxes by an OCI runtime."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sandboxfile.core.digest import Digest
from sandboxfile.core.layer import DebianBase, Definition, LayerKey, RootfsBase
from sandboxfile.engine.base import (
    Capability,
    Committed,
    Detachment,
    Limits,
    Output,
    SandboxOptions,
    Stack,
)
from sandboxfile.engines.linux.helper_client import HelperClient
from sandboxfile.engines.linux.idmap import IdMap, load_ids
from sandboxfile.engines.linux.layers import Layers, Owned, is_abandoned
from sandboxfile.engines.linux.limits import enforce, host_capabilities, needs_groups
from sandboxfile.engines.linux.network import Networks, check_mode
from sandboxfile.engines.linux.operations import Unlimit
from sandboxfile.engines.linux.runtime import Runtime
from sandboxfile.engines.linux.sandbox import LinuxSandbox
from sandboxfile.engines.linux.stack import Stacks
from sandboxfile.engines.linux.uppers import Uppers
from sandboxfile.engines.linux.volumes import Volumes
from sandboxfile.engines.linux.work import work
from sandboxfile.engines.linux.workspace import LinuxWorkspace
from sandboxfile.errors import EngineError

if TYPE_CHECKING:
    from sandboxfile.core.manifest import Entry
    from sandboxfile.engines.linux.detached.sandbox import LinuxDetached

_CAPABILITIES = frozenset(
    {
        Capability.BOOTSTRAP_DEBIAN,
        Capability.ROOTFS_TAR,
        Capability.UNPACK_PACKAGES,
        Capability.MOUNTS,
        Capability.TTY,
        Capability.NETWORK_FULL,
        Capability.EXPOSE_PORT,
        Capability.KEEP_WORKSPACE,
        Capability.DIFF_ID,
        Capability.DETACHED,
    }
)


class LinuxEngine:
    """Builds layers and runs sandboxes on this machine, as root or as an ordinary user.

    home:    the store's directory
    runtime: an OCI runtime's name or path; None is crun, else runc
    host_ca: a bundle of certificates that commands with network are given, None for none
    full_network: what connects those, `pasta` or `relay`; None is pasta where it can be used
    notify:  told, once, when a network lacks something
    """

    name = "linux"

    def __init__(
        self,
        home: Path,
        *,
        runtime: str | None = None,
        host_ca: Path | None = None,
        environ: Mapping[str, str] = os.environ,
        full_network: str | None = None,
        notify: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.capabilities = _CAPABILITIES | host_capabilities()
        self.layers = Layers(home.absolute())
        self._wanted_runtime = runtime
        self._host_ca = host_ca
        self._environ = environ
        self._full_network = full_network
        self._notify = notify
        self._held: set[LinuxWorkspace | LinuxSandbox] = set()
        self._removed: set[LayerKey] = set()

    @cached_property
    def ids(self) -> IdMap:
        """The store's mapping of ids."""
        self.layers.make()
        return load_ids(self.layers.home)

    @cached_property
    def helper(self) -> HelperClient:
        """The helper; it starts when it is first asked for something."""
        return HelperClient(self.layers.home, self.ids)

    @cached_property
    def runtime(self) -> Runtime:
        """The OCI runtime."""
        return Runtime(self.helper, self.ids, self._wanted_runtime, self.layers.home / "seccomp")

    @cached_property
    def stacks(self) -> Stacks:
        """From keys to directories."""
        return Stacks(self.layers, self.helper)

    @cached_property
    def volumes(self) -> Volumes:
        """What is written to stays, whatever becomes of the sandboxes."""
        return Volumes(self.layers, lambda: self.helper, lambda: self.ids)

    @cached_property
    def network(self) -> Networks:
        """Networks of build steps and sandboxes."""
        return Networks(self.helper, self._host_ca, self._environ, self._full_network, self._notify)

    async def have(self, keys: Sequence[LayerKey]) -> frozenset[LayerKey]:
        """Which of the keys are committed here."""
        return frozenset(key for key in keys if self.layers.has(key))

    async def prepare(self, stack: Stack) -> LinuxWorkspace:
        """A workspace on top of a stack."""
        await self.helper.start()
        lowers = await self.stacks.lowers(await self.stacks.directories(stack), writable=True)
        owned = Owned(self.layers.workspaces)
        workspace = LinuxWorkspace(self, owned.path, stack, lowers, owned)
        self._held.add(workspace)
        try:
            await workspace.begin()
        except BaseException:
            await workspace.abort()
            raise
        return workspace

    async def bootstrap(
        self, base: DebianBase, packages: Mapping[str, Path], output: Output
    ) -> LinuxWorkspace:
        """A workspace that holds a Debian base of exactly these packages."""
        from sandboxfile.engines.linux.bootstrap import bootstrap_debian

        workspace = await self.prepare(())
        try:
            await bootstrap_debian(self.helper, workspace, base, packages, output)
        except BaseException:
            await workspace.abort()
            raise
        return workspace

    async def unpack(self, base: RootfsBase, archive: Path, output: Output) -> LinuxWorkspace:  # noqa: ARG002
        """A workspace that holds a root filesystem tar's content; the caller has checked its digest."""
        workspace = await self.prepare(())
        try:
            descriptor = os.open(archive, os.O_RDONLY | os.O_CLOEXEC)
            try:
                dirs = {"root": workspace.upper}
                result = await work(self.helper, "unpack", {}, dirs, descriptors=(descriptor,))
            finally:
                os.close(descriptor)
            output("stdout", f"{result['members']} entries unpacked\n".encode())
        except BaseException:
            await workspace.abort()
            raise
        return workspace

    async def reopen(self, workspace: str) -> LinuxWorkspace:
        """A kept workspace."""
        path, state = self._kept(workspace)
        await self.helper.start()
        stack = tuple(state["stack"])
        lowers = await self.stacks.lowers(await self.stacks.directories(stack), writable=True)
        opened = LinuxWorkspace(self, path, stack, lowers, None)
        opened.resume(state)
        self._held.add(opened)
        return opened

    async def start(
        self,
        stack: Stack,
        *,
        limits: Limits | None = None,
        network: str = "none",
        workspace: str | None = None,
        options: SandboxOptions | None = None,
    ) -> LinuxSandbox:
        """Boot a sandbox. On a volume, the stack is the volume's own and the given one is not looked at."""
        options = options or SandboxOptions(limits or Limits(), network, workspace)
        check_mode(options.network)
        self.runtime.check(options.network)
        if options.privileges not in ("none", "sudo"):
            raise EngineError(f"there are no privileges `{options.privileges}`, only `none` and `sudo`")
        await self.helper.start()
        if needs_groups(options.limits):
            await self.helper.claim_limits()
        enforcement = enforce(
            options.limits,
            groups=self.helper.limits,
            memory_uppers=self.helper.memory_uppers,
            throw_away=options.volume is None,
            best_effort=options.best_effort,
        )
        uppers = Uppers(self)
        try:
            await uppers.take(options.volume, dict(options.mounts))
            stack = tuple(stack) if uppers.stack is None else uppers.stack
            directories = await self.stacks.directories(stack)
            if options.workspace is not None:
                path, _ = self._kept(options.workspace)
                directories = [*directories, str(path / "layer" / "fs")]
            if not directories:
                raise EngineError("a sandbox needs at least one layer")
            lowers = await self.stacks.lowers(directories, writable=True)
        except BaseException:
            await uppers.release()
            raise
        sandbox = LinuxSandbox(self, stack, lowers, options, enforcement, uppers)
        self._held.add(sandbox)
        try:
            await sandbox.boot()
        except BaseException:
            await sandbox.close()
            raise
        return sandbox

    async def detach(self, stack: Stack, options: SandboxOptions, detachment: Detachment) -> LinuxDetached:
        """Boot a sandbox that outlives this client."""
        from sandboxfile.engines.linux.detached.making import detach

        self.layers.make()
        settings = {
            "runtime": self._wanted_runtime,
            "host_ca": self._host_ca and str(self._host_ca),
            "full_network": self._full_network,
        }
        made = await detach(self.layers.home, settings, self._environ, stack, options, detachment)
        # Its keeper has nobody to tell.
        for warning in made.warnings:
            self._notify(warning)
        return made

    async def connect(self, sandbox: str) -> LinuxDetached:
        """A detached sandbox of this user and store."""
        from sandboxfile.engines.linux.detached.making import connect

        return await connect(self.layers.home, sandbox)

    async def create_volume(
        self, volume: str, capacity: int | None, stack: Stack, *, best_effort: bool = False
    ) -> None:
        """Make an empty volume on a stack."""
        await self.volumes.create(volume, capacity, stack, best_effort=best_effort)

    async def remove_volume(self, volume: str) -> None:
        """Delete a volume that no sandbox uses."""
        await self.volumes.remove(volume)

    async def freeze_volume(self, volume: str, definition: Definition, key: LayerKey) -> Committed:
        """Make a layer of what a volume holds, by a rename."""
        return await self.volumes.freeze(volume, definition, key)

    async def measure(self, key: LayerKey) -> Digest | None:
        """The digest of a layer's content as it is now; None for one in a file system of its own."""
        if self.layers.sealed(key).image:
            return None
        content = {"root": str(self.layers.directory(key) / "fs")}
        found = await work(self.helper, "seal", {"epoch": None}, content)
        return Digest(found["diff_id"])

    async def manifests(self, stack: Stack, *, start: int = 0) -> tuple[tuple[Entry, ...], ...]:
        """What each layer of a stack holds, lowest first, from number `start` on."""
        from sandboxfile.core.manifest import entry_of

        await self.helper.start()
        found = []
        for directory in (await self.stacks.directories(stack))[start:]:
            pieces: list[bytes] = []
            await work(self.helper, "manifest", {}, {"root": directory}, deliver=pieces.append)
            found.append(tuple(entry_of(json.loads(line)) for line in b"".join(pieces).splitlines()))
        return tuple(found)

    @asynccontextmanager
    async def scratch(self) -> AsyncIterator[Path]:
        """A directory on the store's file system for as long as the block lasts. What a killed client leaves
        of it goes with the next `sweep`."""
        self.layers.make()
        owned = Owned(self.layers.workspaces)
        try:
            yield owned.path / "layer"
        finally:
            await self.delete_tree(owned.path)
            owned.release()

    async def remove(self, keys: Sequence[LayerKey]) -> None:
        """Drop committed layers; those a sandbox or workspace of this client uses go when it ends."""
        self._removed.update(key for key in keys if self.layers.has(key))
        await self._remove_unused()

    async def delete_tree(self, path: Path) -> None:
        """Delete a directory of the store whatever ids its content belongs to."""
        name = self.layers.to_trash(path)
        if name:
            await self.empty_trash([name])

    async def sweep(self) -> None:
        """Delete what is left behind: workspaces of clients that are gone, placements that nothing can use,
        volumes that were never finished, control groups without processes, and the trash."""
        self.layers.make()
        abandoned = [path for path in self.layers.workspaces.iterdir() if is_abandoned(path)]
        for path in [*abandoned, *self.stacks.leftovers(), *self.volumes.leftovers()]:
            self.layers.to_trash(path)
        names = [path.name for path in self.layers.trash.iterdir()]
        if names:
            await self.empty_trash(names)
        await self.helper.do(Unlimit())

    async def empty_trash(self, names: Sequence[str]) -> None:
        """Delete things in the trash."""
        await work(
            self.helper, "delete", {"names": list(names)}, {"parent": str(self.layers.trash)}, mapped=False
        )

    def forget(self, held: LinuxWorkspace | LinuxSandbox) -> None:
        """Told by a workspace or sandbox when it has ended."""
        self._held.discard(held)

    async def after(self, held: LinuxSandbox) -> None:
        """Told by a sandbox when its layers are free."""
        self.forget(held)
        await self._remove_unused()

    async def _remove_unused(self) -> None:
        if not self._removed:
            return
        used = {key for each in self._held for key in each.stack}
        free = self._removed - used - self.volumes.stacks()
        if not free:
            return
        self._removed -= free
        await self.stacks.release(tuple(free))
        paths = [self.layers.directory(key) for key in free] + self.stacks.forget(tuple(free))
        names = [name for path in paths if (name := self.layers.to_trash(path))]
        if names:
            await self.empty_trash(names)

    def _kept(self, workspace: str) -> tuple[Path, dict[str, Any]]:
        path = self.layers.kept / workspace
        try:
            if os.path.basename(workspace) != workspace:
                raise FileNotFoundError(workspace)
            return path, json.loads((path / "state.json").read_bytes())
        except (OSError, ValueError):
            raise EngineError(
                f"the kept workspace {workspace} is gone", hint="build again to get a new one"
            ) from None

    async def close(self) -> None:
        """End every sandbox and release everything this client holds. May be called twice."""
        for held in tuple(self._held):
            if isinstance(held, LinuxSandbox):
                await held.close()
            else:
                await held.abort(keep=held.is_kept)
        if "helper" in self.__dict__:
            await self.helper.close()
