"""A project's lock, plan, build and verification, each whole: what the verbs of the same names do."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sandboxfile.build.project import LOCK_NAME, Project
from sandboxfile.build.result import BuildResult
from sandboxfile.build.workshop import Parts, Workshop, blobs_of
from sandboxfile.core.event import Notice
from sandboxfile.core.units import plural
from sandboxfile.errors import LockStale

if TYPE_CHECKING:
    from sandboxfile.core.digest import Digest
    from sandboxfile.inputs.context import ContextTree
    from sandboxfile.plan.model import Plan, Reconciled
    from sandboxfile.spec.lock import LockedBase, Lockfile


class Projects:
    """Locks, plans, builds and verifies projects with the parts of a client."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._workshop = Workshop(parts)

    async def lock(
        self,
        project: Project,
        *,
        update: Sequence[str] | None = None,
        refresh: bool = False,
        offline: bool = False,
    ) -> tuple[Lockfile, tuple[str, ...]]:
        """Make the lock answer the Sandboxfile, and write it. `update=()` renews everything, names renew
        those. Returns the lock and what changed, one line each (empty: it was already right)."""
        from sandboxfile.core.digest import digest_bytes

        name = f"lock-{digest_bytes(str(project.lock_path).encode())}"
        async with self._parts.store.locks.exclusive(name, on_wait=self._workshop.telling("the lock")):
            # The lock is read after the wait: whoever held it may have done the work.
            lock, changes = await self._resolve(project, update=update, refresh=refresh, offline=offline)
            project.write_lock(lock)
        return lock, changes

    async def _resolve(
        self,
        project: Project,
        *,
        update: Sequence[str] | None = None,
        refresh: bool = False,
        offline: bool = False,
    ) -> tuple[Lockfile, tuple[str, ...]]:
        """The lock that answers the Sandboxfile, and how it differs from the one that is there."""
        from sandboxfile.build.lockmaker import make_lock
        from sandboxfile.declared import replace
        from sandboxfile.spec.lock import Lockfile

        async def build_base(base: LockedBase) -> Digest | None:
            stack = await self._workshop.build_packages(project, Lockfile(base=base), offline)
            record = self._parts.store.index.layer(stack[-1])
            return record.diff_id if record else None

        requests, constraints = project.pip_inputs
        # Constraints named in a requirements file count as well.
        pip = replace(project.sandboxfile.pip, constraints=tuple(constraints))
        return await make_lock(
            replace(project.sandboxfile, pip=pip),
            project.requests,
            requests,
            project.read_lock(),
            directory=project.directory,
            engine=self._parts.engine,
            store=self._parts.store,
            settings=self._parts.settings,
            reporter=self._parts.reporter,
            build_base=build_base,
            build_stack=self._workshop.stack_builder(project, offline),
            update=update,
            refresh=refresh,
            offline=offline,
        )

    def check_lock(self, project: Project) -> None:
        """Raise LockStale when the lock does not answer the Sandboxfile (or is missing)."""
        self._current_lock(project)

    def _current_lock(self, project: Project) -> Lockfile:
        from sandboxfile.spec.staleness import after_merge, differences

        lock = project.read_lock()
        if lock is None:
            raise LockStale(
                f"there is no {LOCK_NAME}",
                ("the Sandboxfile was never locked",),
                hint="run `sandboxfile lock`",
            )
        broken = after_merge(lock)
        found = differences(lock, project.requests)
        if broken or found:
            texts = tuple(d.text for d in found)
            raise LockStale(
                f"{LOCK_NAME} does not answer the Sandboxfile",
                (*((broken,) if broken else ()), *texts),
                hint="run `sandboxfile lock`",
            )
        return lock

    async def plan(
        self, project: Project, *, locked: bool = False, offline: bool = False, force: Sequence[str] = ()
    ) -> Reconciled:
        """What a build would do, and why. Nothing is written: requests that the lock does not answer are
        resolved for this plan only, unless `locked` makes them LockStale."""
        try:
            lock = self._current_lock(project)
        except LockStale:
            if locked:
                raise
            lock, changes = await self._resolve(project, offline=offline)
            self._parts.reporter.emit(
                Notice("info", f"{LOCK_NAME} is not up to date; a build would write: {', '.join(changes)}")
            )
        return await self._plan(project, lock, self._scan(project), force)

    async def _plan(
        self, project: Project, lock: Lockfile, context: ContextTree, force: Sequence[str] = ()
    ) -> Reconciled:
        from sandboxfile.plan.planner import plan

        planned = plan(project.sandboxfile, lock, context.entries)
        return await self._workshop.reconcile(planned, project.environment, force)

    def _scan(self, project: Project) -> ContextTree:
        from sandboxfile.inputs.context import scan

        return scan(project.directory, project.sandboxfile.files, cache=self._parts.store.index.stat_cache())

    async def build(
        self, project: Project, *, locked: bool = False, offline: bool = False, force: Sequence[str] = ()
    ) -> BuildResult:
        """Build what is missing, verify, publish. `force` names layers to build again.

        With `locked`, a lock that does not answer the Sandboxfile is LockStale instead of being mended.
        """
        from sandboxfile.build.builder import Outcomes

        started = time.monotonic()
        changes: tuple[str, ...] = ()
        try:
            lock = self._current_lock(project)
        except LockStale:
            if locked:
                raise
            lock, changes = await self.lock(project, offline=offline)
        context = self._scan(project)
        reconciled = await self._plan(project, lock, context, force)
        plan = reconciled.plan
        outcomes = Outcomes()
        builder = self._workshop.builder(project, lock, context, offline=offline)
        with self._parts.store.uses.hold(layers=plan.stack, blobs=blobs_of(plan)):
            await builder.build_layers(reconciled, outcomes)
            async with self._parts.store.locks.exclusive(
                f"snapshot-{plan.slug}", on_wait=self._workshop.telling("the checks")
            ):
                await builder.check(reconciled, outcomes)
                self._publish(project, plan)
        self._remember(project, context, plan.slug)
        return BuildResult(
            slug=plan.slug,
            built=tuple(outcomes.built),
            reused=tuple(outcomes.reused),
            checked=tuple(outcomes.checked),
            seconds=time.monotonic() - started,
            lock_changes=changes,
        )

    def _publish(self, project: Project, plan: Plan) -> None:
        from sandboxfile.core.digest import record_of
        from sandboxfile.plan.diff import records
        from sandboxfile.store.records import Head, SnapshotRecord

        index = self._parts.store.index
        now = time.time()
        config = {
            **record_of(plan.config),
            "resources": dict(plan.config.resources),
            "labels": dict(plan.config.labels),
        }
        if plan.config.start is not None:
            config["start"]["timeout"] = plan.config.start.timeout
        index.publish(SnapshotRecord(plan.slug, plan.key, plan.name, plan.stack, config, now, now))
        layers = {layer.name: layer.key for layer in plan.layers}
        index.set_head(Head(project.environment, plan.slug, layers, records(plan)))
        index.clear_failure(project.environment)

    async def verify(self, project: Project) -> tuple[str, ...]:
        """Run every check of a built project again, remembered or not; names of the checks.

        Raises BuildError when the project is not built, VerifyFailed when a check fails.
        """
        from sandboxfile.build.builder import Outcomes
        from sandboxfile.errors import BuildError

        lock = self._current_lock(project)
        context = self._scan(project)
        reconciled = await self._plan(project, lock, context)
        if reconciled.builds:
            raise BuildError(
                f"{plural(len(reconciled.builds), 'layer')} of this environment "
                f"{'is' if len(reconciled.builds) == 1 else 'are'} not built",
                hint="run `sandboxfile build`, which verifies as well",
            )
        outcomes = Outcomes()
        with self._parts.store.uses.hold(layers=reconciled.plan.stack):
            builder = self._workshop.builder(project, lock, context)
            await builder.check(reconciled, outcomes, every=True)
        return tuple(outcomes.checked)

    def _remember(self, project: Project, context: ContextTree, slug: str) -> None:
        from sandboxfile.build.memo import remember

        remember(self._parts.store, project, context, slug, self._parts.memo_salt)
        self._parts.store.index.flush()
