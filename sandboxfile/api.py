"""The one place that wires the adapters together, and what programs import.

A Client holds a store, an engine and a reporter. Everything long is a coroutine; `sandboxfile.cli` runs
them with asyncio. Imports that cost time are made where they are needed: a build that finds nothing changed
has to be over before they would be loaded.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sandboxfile.build.project import Project, find_file, load_project
from sandboxfile.build.result import BuildResult, SnapshotInfo, VendorResult
from sandboxfile.core.event import Notice, NullReporter, Reporter
from sandboxfile.core.units import plural
from sandboxfile.errors import EngineError, NoSuchSnapshot, UsageError

if TYPE_CHECKING:
    from sandboxfile.build.outdated import OutdatedReport
    from sandboxfile.build.projects import Projects
    from sandboxfile.build.rebuild import LayerRebuilt
    from sandboxfile.build.snapshotdiff import SnapshotDiff
    from sandboxfile.build.why import KnownLayer
    from sandboxfile.core.layer import LayerKey
    from sandboxfile.engine.base import Command, Engine, Limits, Sandbox
    from sandboxfile.engines.linux.probe import Requirement
    from sandboxfile.inputs.settings import Settings
    from sandboxfile.plan.model import Reconciled
    from sandboxfile.sdk.sandboxes import AsyncSandboxes
    from sandboxfile.sdk.session import Session
    from sandboxfile.sdk.snapshots import AsyncSnapshots
    from sandboxfile.sdk.volumes import AsyncVolumes
    from sandboxfile.spec.lock import Lockfile
    from sandboxfile.store.accounting import Account
    from sandboxfile.store.consistency import Checked
    from sandboxfile.store.evictions import Eviction
    from sandboxfile.store.records import LayerRecord, PastBuild, SnapshotRecord
    from sandboxfile.store.sandboxes import Entry, SandboxInfo
    from sandboxfile.store.store import Store
    from sandboxfile.store.sweep import Swept

__all__ = ["AsyncClient", "BuildResult", "Project", "SnapshotInfo", "doctor"]

ENGINES = ("linux", "memory")


def doctor() -> tuple[Requirement, ...]:
    """Every host requirement of the linux engine, whether it is met, and the exact remedy."""
    from sandboxfile.engines.linux.probe import probe

    return probe()


class AsyncClient:
    """A store, an engine and a reporter.

    home:    the store's directory; None is SANDBOXFILE_HOME, else $XDG_DATA_HOME/sandboxfile
    engine:  `linux` or `memory`
    vendor:  packages that `vendor` wrote, asked before any other origin; None looks beside each lock
    runtime: the linux engine's OCI runtime, a name or path; None is what the settings say, else crun or runc
    """

    def __init__(
        self,
        *,
        home: Path | None = None,
        engine: str = "linux",
        reporter: Reporter | None = None,
        runtime: str | None = None,
        vendor: Path | None = None,
    ) -> None:
        if engine not in ENGINES:
            raise UsageError(f"there is no engine `{engine}`", hint=f"engines: {', '.join(ENGINES)}")
        self.reporter = reporter or NullReporter()
        self._home = home
        self._engine_name = engine
        self._runtime = runtime
        self._vendor = vendor
        self._opened: Engine | None = None
        self._listed: dict[str, Entry] = {}

    # What a client is made of, each made when it is first needed.

    @cached_property
    def settings(self) -> Settings:
        """The user's settings."""
        from dataclasses import replace

        from sandboxfile.inputs.settings import load_settings

        settings = load_settings(os.environ, home=self._home)
        return replace(settings, vendored=self._vendor) if self._vendor else settings

    @cached_property
    def store(self) -> Store:
        """The store."""
        from sandboxfile.inputs.settings import store_home
        from sandboxfile.store.store import Store

        return Store.open(store_home(os.environ, home=self._home))

    @property
    def engine(self) -> Engine:
        """The engine, started at first use."""
        if self._opened is None:
            if self._engine_name == "memory":
                from sandboxfile.engines.memory.engine import MemoryEngine

                self._opened = MemoryEngine()
            else:
                from sandboxfile.engines.linux.engine import LinuxEngine

                ca = self.settings.ca_bundle if self.settings.host_ca else None
                runtime = self._runtime or self.settings.runtime
                self._opened = LinuxEngine(
                    self.store.home,
                    runtime=runtime,
                    host_ca=ca,
                    full_network=self.settings.full_network,
                    notify=lambda text: self.reporter.emit(Notice("warning", text)),
                )
        return self._opened

    @cached_property
    def _parts(self) -> _Parts:
        return _Parts(self)

    @cached_property
    def _projects(self) -> Projects:
        from sandboxfile.build.projects import Projects

        return Projects(self._parts)

    @cached_property
    def _session(self) -> Session:
        from sandboxfile.sdk.session import Session

        return Session(self.store, self.engine, self._parts.present, self.reporter)

    @cached_property
    def sandboxes(self) -> AsyncSandboxes:
        """Running sandboxes: create, get, list, connect."""
        from sandboxfile.sdk.sandboxes import AsyncSandboxes

        return AsyncSandboxes(self._session)

    @cached_property
    def volumes(self) -> AsyncVolumes:
        """Writable disks that outlive sandboxes: create, get, list, delete, snapshot."""
        from sandboxfile.sdk.volumes import AsyncVolumes

        return AsyncVolumes(self._session, self.sandboxes)

    @cached_property
    def snapshots(self) -> AsyncSnapshots:
        """Read-only states: get, list, delete."""
        from sandboxfile.sdk.snapshots import AsyncSnapshots

        return AsyncSnapshots(self._session)

    # Reading.

    def load(
        self,
        file: Path | None = None,
        *,
        directory: Path | None = None,
        params: Mapping[str, str] | None = None,
    ) -> Project:
        """Find and read a Sandboxfile. Raises SpecError with every issue, UsageError when there is none."""
        return load_project(find_file(file, directory), params)

    # Projects.

    async def lock(
        self,
        project: Project,
        *,
        update: Sequence[str] | None = None,
        security: bool = False,
        refresh: bool = False,
        offline: bool = False,
        accept_older: bool = False,
        squash: bool = False,
    ) -> tuple[Lockfile, tuple[str, ...]]:
        """Make the lock answer the Sandboxfile, and write it. `update=()` renews everything, names renew
        those, `security` what has a security update; `squash` writes all groups as one, without solving.
        Returns the lock and what changed, one line each (empty: it was already right).

        accept_older: take an archive's index though a newer one was seen before
        """
        return await self._projects.lock(
            project,
            update=update,
            security=security,
            refresh=refresh,
            offline=offline,
            accept_older=accept_older,
            squash=squash,
        )

    async def outdated(
        self, project: Project, *, refresh: bool = False, offline: bool = False
    ) -> OutdatedReport:
        """Pinned packages that the archives and indexes have newer versions of. Archives are asked at most
        once an hour, always with `refresh`; with `offline` the store answers, and the report says what it
        cannot know. Raises LockStale when there is no lock."""
        return await self._projects.outdated(project, refresh=refresh, offline=offline)

    def check_lock(self, project: Project) -> None:
        """Raise LockStale when the lock does not answer the Sandboxfile (or is missing)."""
        self._projects.check_lock(project)

    async def plan(
        self,
        project: Project,
        *,
        locked: bool = False,
        offline: bool = False,
        force: Sequence[str] = (),
        since: str | None = None,
    ) -> Reconciled:
        """What a build would do, and why. Nothing is written: requests that the lock does not answer are
        resolved for this plan only, unless `locked` makes them LockStale. `since` is an earlier build (its
        number or slug) to compare with, instead of the last one."""
        return await self._projects.plan(project, locked=locked, offline=offline, force=force, since=since)

    async def build(
        self,
        project: Project,
        *,
        locked: bool = False,
        offline: bool = False,
        force: Sequence[str] = (),
        expect_cached: bool = False,
    ) -> BuildResult:
        """Build what is missing, verify, publish. `force` names layers to build again.

        With `locked`, a lock that does not answer the Sandboxfile is LockStale instead of being mended. With
        `expect_cached`, which includes `locked`, anything that would be built or run is a CacheMiss, raised
        before anything is done.
        """
        return await self._projects.build(
            project, locked=locked, offline=offline, force=force, expect_cached=expect_cached
        )

    async def vendor(
        self,
        project: Project,
        place: Path | None = None,
        *,
        check: bool = False,
        locked: bool = False,
        offline: bool = False,
    ) -> VendorResult:
        """Write the lock and every file that it names to a directory (or a tar, when the name ends in
        `.tar`), from which it can be built without network; None is `sandboxfile.vendor` beside the lock,
        where a build finds it by itself. With `check` nothing is written."""
        return await self._projects.vendor(project, place, check=check, locked=locked, offline=offline)

    async def verify(self, project: Project) -> tuple[str, ...]:
        """Run every check of a built project again, remembered or not; names of the checks.

        Raises BuildError when the project is not built, VerifyFailed when a check fails.
        """
        return await self._projects.verify(project)

    async def rebuild(self, project: Project) -> tuple[LayerRebuilt, ...]:
        """Build every layer of a built project again, in a store of its own, and compare each with what is
        there. Raises BuildError when the project is not built, MissingCapability."""
        from sandboxfile.engines.linux.engine import LinuxEngine
        from sandboxfile.errors import MissingCapability

        if not isinstance(self.engine, LinuxEngine):
            raise MissingCapability(f"the {self.engine.name} engine builds in one place only", "diff-id")
        async with (
            self.engine.scratch() as directory,
            AsyncClient(home=directory, reporter=self.reporter, runtime=self._runtime) as other,
        ):
            return await self._projects.rebuild(project, other._parts)

    def unchanged(
        self,
        file: Path | None = None,
        *,
        directory: Path | None = None,
        params: Mapping[str, str] | None = None,
    ) -> BuildResult | None:
        """The result of a build whose inputs are all as they were when it was last done, without parsing
        anything; None when that cannot be said."""
        from sandboxfile.build.memo import recall

        return recall(self.store, find_file(file, directory), params or {}, self._parts.memo_salt)

    # Using.

    async def resolve_snapshot(self, target: str, project: Project | None = None) -> SnapshotInfo:
        """The snapshot that a slug, a name (its newest snapshot) or `.` (`project`'s, built if needed)
        stands for. NoSuchSnapshot, with near misses as hint."""
        if target == "." and project is not None:
            target = (await self.build(project)).slug
        return self.snapshot(target)

    async def start(self, snapshot: SnapshotInfo, *, network: str | None = None) -> Sandbox:
        """Boot a sandbox from a snapshot, with its configuration's limits."""
        from sandboxfile.store.sandboxes import list_here

        stack = snapshot.layers
        with ExitStack() as undo:
            undo.enter_context(self.store.uses.hold(layers=stack))
            missing = set(stack) - await self._parts.present(stack)
            if missing:
                raise NoSuchSnapshot(
                    f"{plural(len(missing), 'layer')} of the snapshot {snapshot.slug} "
                    f"{'is' if len(missing) == 1 else 'are'} no longer in the store",
                    hint="build it again",
                )
            self.store.index.touch_snapshot(snapshot.slug)
            mode = network if network is not None else str(snapshot.config.get("network") or "none")
            sandbox = await self.engine.start(stack, limits=_limits(snapshot.config), network=mode)
            # What runs keeps its layers until this client is closed.
            undo.pop_all()
        try:
            entry = list_here(self.store.sandboxes, snapshot.slug)
        except BaseException:
            await sandbox.close()
            raise
        self._listed[sandbox.id] = entry
        sandbox.when_ended(lambda: self._listed.pop(sandbox.id, entry).remove())
        return sandbox

    def announce(self, sandbox: Sandbox, url: str) -> None:
        """Say in the list of running sandboxes where one that `start` made is reached."""
        from dataclasses import replace

        entry = self._listed[sandbox.id]
        entry.write(replace(entry.info, url=url))

    async def debug(self, project: Project) -> tuple[Sandbox, Command, str]:
        """A sandbox in the state that this project's last failed step or check left, the command that
        failed, and the sentence that said so. Raises UsageError when nothing failed, EngineError when the
        state is gone."""
        from sandboxfile.build.failed import command_of_record

        failure = self.store.index.failure(project.environment)
        if failure is None:
            raise UsageError(
                "no step or check of this environment has failed since it was last built",
                hint="`sandboxfile shell` opens a shell in the built environment",
            )
        command, stack = command_of_record(failure.command)
        with ExitStack() as undo:
            undo.enter_context(self.store.uses.hold(layers=stack))
            if set(stack) - await self._parts.present(stack):
                raise EngineError(
                    f"the layers below the failed `{failure.layer}` are no longer in the store",
                    hint="run `sandboxfile build` again",
                )
            kept = failure.workspace or None
            sandbox = await self.engine.start(stack, network=command.network, workspace=kept)
            undo.pop_all()
        return sandbox, command, str(failure.command.get("message", failure.layer))

    # Looking after the store.

    def stored_snapshots(self) -> tuple[SnapshotInfo, ...]:
        """Every snapshot, newest first."""
        return tuple(self._info(record) for record in self.store.index.snapshots())

    def running_sandboxes(self) -> tuple[SandboxInfo, ...]:
        """Every sandbox that runs, of all clients of the store, newest first."""
        from sandboxfile.store.sandboxes import running

        return running(self.store.sandboxes)

    def snapshot(self, target: str) -> SnapshotInfo:
        """The snapshot of a slug, else the newest of a name. NoSuchSnapshot, with near misses as hint."""
        return self._info(self.store.index.find(target))

    def _info(self, record: SnapshotRecord) -> SnapshotInfo:
        from sandboxfile.sdk.session import snapshot_info

        return snapshot_info(self.store, record)

    async def diff(self, first: str, second: str) -> SnapshotDiff:
        """What differs between two snapshots, each a slug or a name. NoSuchSnapshot, MissingCapability."""
        from sandboxfile.build.snapshotdiff import diff

        infos = self.snapshot(first), self.snapshot(second)
        with self.store.uses.hold(layers={key for info in infos for key in info.layers}):
            for info in infos:
                await self._session.require(info.layers, f"the snapshot {info.slug}")
            return await diff(*infos, self.engine)

    async def remove_snapshot(self, slug: str) -> None:
        """Forget a snapshot; its layers go with the next gc."""
        self.store.index.remove_snapshot(slug)

    def builds(self, project: Project) -> tuple[PastBuild, ...]:
        """The builds of a project that are remembered, the last one first."""
        return self.store.index.builds(project.environment)

    def past_build(self, project: Project, which: str) -> PastBuild:
        """An earlier build of a project, by its number or slug. UsageError."""
        from sandboxfile.build.why import past_build

        return past_build(self.store, project.environment, which)

    def find_layer(self, digits: str) -> KnownLayer | None:
        """The layer whose key begins with these digits, of whatever environment, in the store or evicted;
        None when none is known. UsageError when several are."""
        from sandboxfile.build.why import find_layer

        return find_layer(self.store, digits)

    def layer_log(self, key: str) -> str | None:
        """The full log kept for a layer or check, None when there is none."""
        try:
            path = self.store.logs / f"{key.partition(':')[2]}.log"
            return path.read_text("utf-8", errors="replace")
        except FileNotFoundError:
            return None

    def layer(self, key: str) -> LayerRecord | None:
        """What the store knows of a built layer."""
        from sandboxfile.core.digest import Digest
        from sandboxfile.core.layer import LayerKey

        return self.store.index.layer(LayerKey(Digest(key)))

    def has_layer(self, key: str) -> bool:
        """Whether a layer is in the store."""
        from sandboxfile.core.digest import Digest
        from sandboxfile.core.layer import LayerKey

        return bool(self.store.index.layers_present([LayerKey(Digest(key))]))

    def eviction(self, key: str) -> Eviction | None:
        """Why a layer was taken out of the store, None when it was not or is there again."""
        from sandboxfile.core.digest import Digest
        from sandboxfile.core.layer import LayerKey

        return self.store.index.evictions.of([LayerKey(Digest(key))]).get(LayerKey(Digest(key)))

    async def disk_usage(self, by: str = "kind") -> Account:
        """What takes the disk, summed up by `kind`, `environment`, `group` or `age`."""
        from sandboxfile.store.accounting import BY
        from sandboxfile.store.sweep import usage

        if by not in BY:
            raise UsageError(f"the store is not counted by `{by}`", hint=f"there are {', '.join(BY)}")
        return usage(self.store, by)

    async def gc(
        self,
        *,
        keep_days: float | None = None,
        keep_bytes: int = 0,
        max_size: int | None = None,
        min_free: int | None = None,
        dry_run: bool = False,
    ) -> Swept:
        """Remove what no snapshot and no recent build needs, and what killed builds left.

        keep_days:  what was used within so many days stays (default: 14)
        keep_bytes: a floor: no more goes by age once the store is down to this
        max_size:   a ceiling: recent things go too, the longest unused first, until the store is that small
        min_free:   the same, until the disk has so many bytes free
        Sizes are in bytes. What a snapshot, a volume or anything that runs needs always stays.
        """
        from sandboxfile.store.gc import KEEP_DAYS, Policy
        from sandboxfile.store.sweep import sweep, trash_entries

        policy = Policy(KEEP_DAYS if keep_days is None else keep_days, keep_bytes, max_size)
        swept = sweep(self.store, policy, min_free=min_free, dry_run=dry_run)
        if not dry_run:
            await self.engine.remove(tuple(swept.garbage.layers))
            await self.sandboxes.list()
            await self.volumes.sweep()
            await self._empty_trash(trash_entries(self.store))
        return swept

    async def check_store(self, *, full: bool = False, repair: bool = False) -> Checked:
        """Whether the store is as it should be; with `full`, every byte of it is read. With `repair`, what
        can be put right is, and the problems that are told are those that could not."""
        from sandboxfile.build.keeping import check_store

        return await check_store(self._parts, self._empty_trash, full=full, repair=repair)

    async def _empty_trash(self, entries: Sequence[Path]) -> None:
        from sandboxfile.engines.linux.engine import LinuxEngine
        from sandboxfile.store.sweep import empty_trash

        if not isinstance(self.engine, LinuxEngine):
            empty_trash(self.store)
            return
        await self.engine.sweep()
        for entry in entries:
            await self.engine.delete_tree(entry)

    async def close(self) -> None:
        """Release everything: sandboxes end, mounts go. May be called twice."""
        if "sandboxes" in self.__dict__:
            await self.sandboxes.close()
        for name in ("sandboxes", "volumes", "snapshots", "_session"):
            self.__dict__.pop(name, None)
        if self._opened is not None:
            await self._opened.close()
            self._opened = None
        if "store" in self.__dict__:
            for text in self.store.notices:
                self.reporter.emit(Notice("warning", text))
            self.store.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()


class _Parts:
    """What building uses of a client; nothing is made before it is needed."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self.reporter = client.reporter

    @property
    def store(self) -> Store:
        return self._client.store

    @property
    def engine(self) -> Engine:
        return self._client.engine

    @property
    def settings(self) -> Settings:
        return self._client.settings

    @property
    def memo_salt(self) -> str:
        from sandboxfile import __version__

        return f"{__version__} {self._client._engine_name}"

    @property
    def layers_in_store(self) -> bool:
        return self._client._engine_name == "linux"

    async def present(self, keys: Sequence[LayerKey]) -> frozenset[LayerKey]:
        """Which layers are there. The linux engine keeps its layers in the store, whose index answers
        without an engine; others are asked."""
        if self.layers_in_store:
            return self.store.index.layers_present(keys)
        return await self.engine.have(keys)


def _limits(config: Mapping[str, Any]) -> Limits:
    from sandboxfile.engine.base import Limits

    given = config.get("resources") or {}
    return Limits(
        memory=int(given["memory"]) if "memory" in given else None,
        cpus=float(given["cpus"]) if "cpus" in given else None,
        pids=int(given["pids"]) if "pids" in given else None,
        disk=int(given["disk"]) if "disk" in given else None,
    )
