"""What every way of building shares: a store, an engine, and how layers are compared with what is there.

A Workshop is given the parts of a client. They are asked for when they are needed, not before: the engine
and the settings cost time to make.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from sandboxfile.core.event import Notice, Reporter
from sandboxfile.core.units import plural
from sandboxfile.errors import FetchError

if TYPE_CHECKING:
    from sandboxfile.build.builder import Builder
    from sandboxfile.build.failed import FailedStep
    from sandboxfile.build.lockmaker import BuildStack
    from sandboxfile.build.project import Project
    from sandboxfile.core.layer import LayerKey
    from sandboxfile.engine.base import Engine
    from sandboxfile.inputs.context import ContextTree
    from sandboxfile.inputs.download import Downloader
    from sandboxfile.inputs.settings import Settings
    from sandboxfile.plan.model import Plan, PlannedFetch, Reconciled
    from sandboxfile.spec.lock import Lockfile
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

    async def present(self, keys: Sequence[LayerKey]) -> frozenset[LayerKey]:
        """Which layers are there."""


class Workshop:
    """Plans compared with what is there, and builders with all they need."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts

    @cached_property
    def downloader(self) -> Downloader:
        """Brings files into the store."""
        from sandboxfile.inputs.download import Downloader

        return Downloader(self.parts.store.blobs, self.parts.settings, self.parts.reporter)

    async def reconcile(self, plan: Plan, environment: str | None, force: Sequence[str] = ()) -> Reconciled:
        from sandboxfile.plan.reconcile import reconcile

        index = self.parts.store.index
        wanted = {sha256 for fetch in plan.fetches for sha256, _, _ in fetch.items}
        head = index.head(environment) if environment else None
        return reconcile(
            plan,
            have=await self.parts.present(plan.stack),
            blobs=wanted - set(self.parts.store.blobs.missing(wanted)),
            passed=index.passed([check.key for check in plan.checks]),
            published=index.snapshot(plan.slug) is not None,
            previous=head.definitions if head else None,
            force=force,
        )

    def builder(
        self, project: Project, lock: Lockfile, context: ContextTree | None, *, offline: bool = False
    ) -> Builder:
        from sandboxfile.build.builder import Builder
        from sandboxfile.build.layers import Ingredients
        from sandboxfile.build.wanted import wanted_of
        from sandboxfile.build.wheel_build import restore_built
        from sandboxfile.inputs.environment import secret_values

        used = {name for step in project.sandboxfile.run for name in step.secrets}
        declared = [secret for secret in project.sandboxfile.secrets if secret.name in used]
        secrets = secret_values(declared, os.environ, project.directory) if declared else {}

        async def fetch(planned: PlannedFetch) -> None:
            built = {row.sha256 for row in lock.installed_wheels() if row.built}
            if self.parts.store.blobs.missing(built & {sha256 for sha256, _, _ in planned.items}):
                await restore_built(
                    lock,
                    pip=project.sandboxfile.pip,
                    directory=project.directory,
                    engine=self.parts.engine,
                    store=self.parts.store,
                    settings=self.parts.settings,
                    reporter=self.parts.reporter,
                    build_stack=self.stack_builder(project, offline),
                    offline=offline,
                )
            if offline:
                missing = self.parts.store.blobs.missing(sha256 for sha256, _, _ in planned.items)
                raise FetchError(
                    f"`{planned.layer}` needs {plural(len(missing), 'file')} that the store does not have",
                    hint="build once without --offline",
                )
            wanted = wanted_of(
                planned,
                spec=project.sandboxfile,
                lock=lock,
                directory=project.directory,
                settings=self.parts.settings,
                cache=self.parts.store.indexes,
            )
            await self.downloader.fetch(wanted, task=planned.name)

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
