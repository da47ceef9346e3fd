"""What every way of building shares: a store, an engine, and how layers are compared with what is there.

A Workshop is given the parts of a client. They are asked for when they are needed, not before: the engine
and the settings cost time to make.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from sandboxfile.core.event import Notice, Reporter
from sandboxfile.core.units import plural
from sandboxfile.errors import FetchError

if TYPE_CHECKING:
    from sandboxfile.build.builder import Builder
    from sandboxfile.build.failed import FailedStep
    from sandboxfile.build.lockmaker import BuildStack
    from sandboxfile.build.project import Project
    from sandboxfile.build.wanted import WantedFiles
    from sandboxfile.core.layer import LayerKey
    from sandboxfile.engine.base import Engine
    from sandboxfile.inputs.context import ContextTree
    from sandboxfile.inputs.download import Downloader, Search, Wanted
    from sandboxfile.inputs.settings import Settings
    from sandboxfile.plan.model import Plan, PlannedFetch, Reconciled
    from sandboxfile.spec.lock import Lockfile
    from sandboxfile.store.records import Head, PastBuild
    from sandboxfile.store.store import Store


class Parts(Protocol):
    """What a client is made of; `present` says which layers are there."""

    reporter: Reporter

    @property
    def store(self) -> Store:
        """The store."""

    @property
    def engine(self) -> Engine:
        """The engine."""

    @property
    def settings(self) -> Settings:
        """The user's settings."""

    @property
    def memo_salt(self) -> str:
        """What else tells builds apart, beside their inputs: the version and the engine."""

    @property
    def layers_in_store(self) -> bool:
        """Whether the engine keeps its layers in the store."""

    async def present(self, keys: Sequence[LayerKey]) -> frozenset[LayerKey]:
        """Which layers are there."""


class Workshop:
    """Plans compared with what is there, and builders with all they need."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self._downloaders: dict[Path | None, Downloader] = {}
        self._told: set[Path | None] = set()

    def settings(self, project: Project) -> Settings:
        """The user's settings, with what is vendored beside the project's lock."""
        settings = self.parts.settings
        if settings.vendored is not None:
            return settings
        from dataclasses import replace

        from sandboxfile.inputs.vendored import find_vendored

        return replace(settings, vendored=find_vendored(project.directory))

    def downloader(self, project: Project) -> Downloader:
        """Brings files into the store. One for all projects with the same vendored packages, since it knows
        which origins are down."""
        settings = self.settings(project)
        found = self._downloaders.get(settings.vendored)
        if found is None:
            from sandboxfile.inputs.download import Downloader

            found = Downloader(self.parts.store.blobs, settings, self.parts.reporter)
            self._downloaders[settings.vendored] = found
        return found

    def files(self, project: Project, lock: Lockfile, *, offline: bool = False) -> WantedFiles:
        """Every file of a lock, and where it comes from."""
        from sandboxfile.build.wanted import WantedFiles

        return WantedFiles(
            spec=project.sandboxfile,
            lock=lock,
            directory=project.directory,
            settings=self.settings(project),
            cache=self.parts.store.indexes,
            offline=offline,
        )

    async def fetch(
        self, project: Project, lock: Lockfile, wanted: Sequence[Wanted], *, task: str, offline: bool
    ) -> None:
        """Bring files of a lock into the store. A wheel that was built from source here, and that nobody
        keeps, is built again. Raises FetchError, IntegrityError."""
        downloader = self.downloader(project)
        built = {row.sha256 for row in lock.installed_wheels() if row.built}
        gone = [w for w in wanted if w.sha256 in built and not downloader.locally(w)]
        if gone and not offline and any("://" in cache for cache in self.parts.settings.caches):
            with suppress(FetchError):
                await downloader.fetch(gone, task=f"{task}:caches")
        if self.parts.store.blobs.missing(w.sha256 for w in gone):
            await self._restore_built(project, lock, downloader, offline)
        if offline:
            self._check_offline(downloader, wanted, task)
        self._tell_incomplete(project, downloader, wanted)
        await downloader.fetch(
            wanted, task=task, offline=offline, search=self._searching(project, downloader)
        )

    @asynccontextmanager
    async def fetching_ahead(self, project: Project) -> AsyncIterator[Callable[[Lockfile], None]]:
        """Gives a function that begins to fetch the last group's packages of a lock in the making, while the
        rest of it is solved. What fails is told by the fetch that needs the file."""
        import asyncio

        tasks: list[asyncio.Task[None]] = []

        async def fetch(lock: Lockfile) -> None:
            rows = lock.groups[-1].apt.rows if lock.groups and lock.groups[-1].apt else ()
            names = {row.sha256 for row in rows}
            wanted = [item for row, item in self.files(project, lock).debs() if row.sha256 in names]
            with suppress(FetchError):
                await self.downloader(project).fetch(wanted, task="fetch:ahead")

        async with self.downloader(project).session():
            try:
                yield lambda lock: tasks.append(asyncio.ensure_future(fetch(lock)))
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    def _check_offline(self, downloader: Downloader, wanted: Sequence[Wanted], task: str) -> None:
        missing = [w.name for w in wanted if not downloader.locally(w)]
        if missing:
            what = f"{plural(len(missing), 'file')} that {'is' if len(missing) == 1 else 'are'}"
            raise FetchError(
                f"`{task.partition(':')[2] or task}` needs {what} neither in the store nor vendored, "
                "and this is offline",
                hint="build once without --offline, or vendor the packages with `sandboxfile vendor`",
                details=(*missing[:5], *([f"and {len(missing) - 5} more"] if missing[5:] else [])),
            )

    def _tell_incomplete(self, project: Project, downloader: Downloader, wanted: Sequence[Wanted]) -> None:
        """Say that vendored packages are not those of the lock; what they lack comes from elsewhere."""
        place = self.settings(project).vendored
        lacking = [w for w in wanted if not downloader.locally(w)] if place else []
        if lacking and place not in self._told:
            self._told.add(place)
            text = f"{place} lacks {plural(len(lacking), 'file')} of the lock: run `sandboxfile vendor` again"
            self.parts.reporter.emit(Notice("warning", text))

    def _searching(self, project: Project, downloader: Downloader) -> Search:
        """Looks in this machine's indexes for wheels that are gone from where the lock says."""

        async def search(item: Wanted) -> Sequence[str]:
            if not item.distribution:
                return ()
            import asyncio

            from sandboxfile.inputs.pipsolver import default_index
            from sandboxfile.inputs.sdists import other_places

            settings, pip = self.settings(project), project.sandboxfile.pip
            index = await asyncio.to_thread(default_index, settings)
            return await other_places(item, pip, settings, project.directory, downloader, index)

        return search

    async def _restore_built(
        self, project: Project, lock: Lockfile, downloader: Downloader, offline: bool
    ) -> None:
        from sandboxfile.build.wheel_build import restore_built

        await restore_built(
            lock,
            pip=project.sandboxfile.pip,
            directory=project.directory,
            engine=self.parts.engine,
            store=self.parts.store,
            settings=self.settings(project),
            downloader=downloader,
            reporter=self.parts.reporter,
            build_stack=self.stack_builder(project, offline),
            offline=offline,
        )

    async def reconcile(
        self, plan: Plan, environment: str | None, force: Sequence[str] = (), since: str | None = None
    ) -> Reconciled:
        """A plan beside what is there and what the environment was last built from, or was in the build
        `since`."""
        from sandboxfile.build.why import evicted, past_build
        from sandboxfile.plan.reconcile import reconcile

        store, index = self.parts.store, self.parts.store.index
        wanted = {sha256 for fetch in plan.fetches for sha256, _, _ in fetch.items}
        head: Head | PastBuild | None = index.head(environment) if environment else None
        if environment and since is not None:
            head = past_build(store, environment, since)
        have = await self.parts.present(plan.stack)
        return reconcile(
            plan,
            have=have,
            blobs=wanted - set(self.parts.store.blobs.missing(wanted)),
            passed=index.passed([check.key for check in plan.checks]),
            published=index.snapshot(plan.slug) is not None,
            previous=head.definitions if head else None,
            force=force,
            evicted=evicted(store, [key for key in plan.stack if key not in have]),
            sizes={key: record.size for key in plan.stack if (record := index.layer(key)) is not None},
        )

    def builder(
        self, project: Project, lock: Lockfile, context: ContextTree | None, *, offline: bool = False
    ) -> Builder:
        from sandboxfile.build.builder import Builder
        from sandboxfile.build.layers import Ingredients
        from sandboxfile.inputs.environment import secret_values

        used = {name for step in project.sandboxfile.run for name in step.secrets}
        declared = [secret for secret in project.sandboxfile.secrets if secret.name in used]
        secrets = secret_values(declared, os.environ, project.directory) if declared else {}

        async def fetch(planned: PlannedFetch) -> None:
            wanted = self.files(project, lock, offline=offline).of(planned)
            await self.fetch(project, lock, wanted, task=planned.name, offline=offline)

        return Builder(
            engine=self.parts.engine,
            store=self.parts.store,
            reporter=self.parts.reporter,
            fetch=fetch,
            present=self.parts.present,
            ingredients=Ingredients(inline=context.inline if context else {}, secrets=secrets),
            on_failed=lambda failed: self.keep_failure(project, failed),
        )

    def stack_builder(self, project: Project, offline: bool) -> BuildStack:
        """Builds what wheels are built from source on: the base and the apt layers of a lock."""
        from sandboxfile.declared import replace

        async def build_stack(lock: Lockfile) -> Sequence[LayerKey]:
            groups = tuple(replace(group, pip=None) for group in lock.groups)
            return await self.build_packages(project, replace(lock, groups=groups), offline)

        return build_stack

    async def build_packages(self, project: Project, lock: Lockfile, offline: bool) -> tuple[LayerKey, ...]:
        """Build the base and the package layers of a lock in the making; their keys, lowest first."""
        from sandboxfile.build.builder import Outcomes
        from sandboxfile.declared import replace
        from sandboxfile.plan.planner import plan

        packages = replace(project.sandboxfile, files=(), run=(), verify=())
        planned = plan(packages, lock, ())
        with self.parts.store.uses.hold(layers=planned.stack, blobs=blobs_of(planned)):
            builder = self.builder(project, lock, None, offline=offline)
            await builder.build_layers(await self.reconcile(planned, None), Outcomes())
        return planned.stack

    def keep_failure(self, project: Project, failed: FailedStep) -> None:
        from sandboxfile.store.records import Failure

        self.parts.store.index.set_failure(
            Failure(project.environment, failed.workspace, failed.error.layer, failed.record())
        )

    def telling(self, what: str) -> Callable[[int | None], None]:
        def tell(pid: int | None) -> None:
            who = f"process {pid}" if pid else "another process"
            self.parts.reporter.emit(Notice("info", f"waiting for {what}: {who} is at it"))

        return tell


def blobs_of(plan: Plan) -> frozenset[str]:
    """The blobs that a plan's layers are made from."""
    return frozenset(sha256 for fetch in plan.fetches for sha256, _, _ in fetch.items)
