"""A project's lock, plan, build and verification, each whole: what the verbs of the same names do."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sandboxfile.build.locks import Locks
from sandboxfile.build.project import LOCK_NAME, VENDOR_NAME, Project
from sandboxfile.build.result import BuildResult, VendorResult
from sandboxfile.build.workshop import Parts, Workshop, blobs_of
from sandboxfile.core.event import Notice
from sandboxfile.core.units import plural
from sandboxfile.errors import LockStale

if TYPE_CHECKING:
    from pathlib import Path

    from sandboxfile.build.builder import Outcomes
    from sandboxfile.build.outdated import OutdatedReport
    from sandboxfile.build.rebuild import LayerRebuilt
    from sandboxfile.inputs.context import ContextTree
    from sandboxfile.inputs.fingerprint import Fingerprint
    from sandboxfile.plan.model import Reconciled
    from sandboxfile.spec.lock import Lockfile


class Projects:
    """Locks, plans, builds and verifies projects with the parts of a client."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._workshop = Workshop(parts)
        self._locks = Locks(parts, self._workshop)

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
        Returns the lock and what changed, one line each (empty: it was already right)."""
        return await self._locks.lock(
            project,
            update=update,
            security=security,
            refresh=refresh,
            offline=offline,
            accept_older=accept_older,
            squash=squash,
        )

    def check_lock(self, project: Project) -> None:
        """Raise LockStale when the lock does not answer the Sandboxfile (or is missing)."""
        self._locks.current(project)

    async def outdated(
        self, project: Project, *, refresh: bool = False, offline: bool = False
    ) -> OutdatedReport:
        """Pinned packages that the archives and indexes have newer versions of."""
        return await self._locks.outdated(project, refresh=refresh, offline=offline)

    async def vendor(
        self,
        project: Project,
        place: Path | None = None,
        *,
        check: bool = False,
        locked: bool = False,
        offline: bool = False,
    ) -> VendorResult:
        """Write the project's lock and every file that it names to a directory or a tar; with `check` only
        compare. What is vendored already is the first origin; what the store has is not fetched."""
        import asyncio

        from sandboxfile.build import vendoring
        from sandboxfile.spec.lockfile import dump

        try:
            lock = self._locks.at_hand(project)
        except LockStale:
            if locked or check:
                raise
            lock, _ = await self.lock(project, offline=offline)
        place = place or project.directory / VENDOR_NAME
        wanted = vendoring.vendoring_of(
            self._workshop.files(project, lock, offline=offline or check), dump(lock)
        )
        if check:
            return await asyncio.to_thread(vendoring.compare, place, wanted)
        store = self._parts.store
        items = tuple(wanted.files.values())
        with store.uses.hold(blobs=frozenset(item.sha256 for item in items)):
            await self._workshop.fetch(project, lock, items, task="fetch:vendor", offline=offline)
            return await asyncio.to_thread(vendoring.write, place, wanted, store.blobs)

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
        try:
            lock = self._locks.at_hand(project)
        except LockStale:
            if locked:
                raise
            lock, changes = await self._locks.resolve(project, offline=offline)
            self._parts.reporter.emit(
                Notice("info", f"{LOCK_NAME} is not up to date; a build would write: {', '.join(changes)}")
            )
        notes = await self._locks.freshness_notes(project, lock, offline=offline)
        return await self._plan(project, lock, self._scan(project), force, since, notes)

    async def _plan(
        self,
        project: Project,
        lock: Lockfile,
        context: ContextTree,
        force: Sequence[str] = (),
        since: str | None = None,
        notes: tuple[str, ...] = (),
    ) -> Reconciled:
        from sandboxfile.declared import replace
        from sandboxfile.plan.planner import plan

        planned = plan(project.sandboxfile, lock, context.entries)
        if notes:
            planned = replace(planned, proposals=(*planned.proposals, *notes))
        return await self._workshop.reconcile(planned, project.environment, force, since)

    def _scan(self, project: Project) -> ContextTree:
        from sandboxfile.inputs.context import scan

        return scan(project.directory, project.sandboxfile.files, cache=self._parts.store.index.stat_cache())

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
        from sandboxfile.build.memo import context_fingerprint
        from sandboxfile.build.why import check_cached

        started = time.monotonic()
        async with self._workshop.fetching_ahead(project) as fetch_ahead:
            changes: tuple[str, ...] = ()
            try:
                lock = self._locks.at_hand(project)
            except LockStale:
                if locked or expect_cached:
                    raise
                on_apt = None if offline else fetch_ahead
                lock, changes = await self._locks.lock(project, offline=offline, on_apt=on_apt)
            before = context_fingerprint(project)
            context = self._scan(project)
            reconciled = await self._plan(project, lock, context, force)
            if expect_cached:
                check_cached(reconciled)
            if not project.lock_path.exists():
                # What was vendored is the project's own lock from now on.
                project.write_lock(lock)
            outcomes = await self._carry_out(project, lock, context, reconciled, offline=offline)
        slug = reconciled.plan.slug
        self._remember(project, context, slug, before)
        return BuildResult(
            slug=slug,
            built=tuple(outcomes.built),
            reused=tuple(outcomes.reused),
            checked=tuple(outcomes.checked),
            seconds=time.monotonic() - started,
            lock_changes=changes,
        )

    async def _carry_out(
        self,
        project: Project,
        lock: Lockfile,
        context: ContextTree,
        reconciled: Reconciled,
        *,
        offline: bool,
    ) -> Outcomes:
        """Build, verify and publish a plan."""
        from sandboxfile.build.builder import Outcomes
        from sandboxfile.store.failure import reported
        from sandboxfile.store.faults import point

        plan, outcomes = reconciled.plan, Outcomes()
        builder = self._workshop.builder(project, lock, context, offline=offline)
        with self._parts.store.uses.hold(layers=plan.stack, blobs=blobs_of(plan)):
            await builder.build_layers(reconciled, outcomes)
            async with self._parts.store.locks.exclusive(
                f"snapshot-{plan.slug}", on_wait=self._workshop.telling("the checks")
            ):
                await builder.check(reconciled, outcomes)
                with reported("publishing a snapshot"):
                    point("build:checked")
                    self._publish(project, reconciled)
                    point("build:published")
        return outcomes

    def _publish(self, project: Project, reconciled: Reconciled) -> None:
        from sandboxfile.build.why import done
        from sandboxfile.core.digest import record_of
        from sandboxfile.plan.diff import records
        from sandboxfile.store.faults import point
        from sandboxfile.store.records import Head, SnapshotRecord

        index, plan = self._parts.store.index, reconciled.plan
        index.make_durable()
        now = time.time()
        config = {
            **record_of(plan.config),
            "resources": dict(plan.config.resources),
            "labels": dict(plan.config.labels),
        }
        if plan.config.start is not None:
            config["start"]["timeout"] = plan.config.start.timeout
        index.publish(SnapshotRecord(plan.slug, plan.key, plan.name, plan.stack, config, now, now))
        point("build:unheaded")
        layers = {layer.name: layer.key for layer in plan.layers}
        index.set_head(Head(project.environment, plan.slug, layers, records(plan)), done(reconciled))
        index.clear_failure(project.environment)

    async def verify(self, project: Project) -> tuple[str, ...]:
        """Run every check of a built project again, remembered or not; names of the checks.

        Raises BuildError when the project is not built, VerifyFailed when a check fails.
        """
        from sandboxfile.build.builder import Outcomes

        lock, context, reconciled = await self._built(project)
        outcomes = Outcomes()
        with self._parts.store.uses.hold(layers=reconciled.plan.stack):
            builder = self._workshop.builder(project, lock, context)
            await builder.check(reconciled, outcomes, every=True)
        return tuple(outcomes.checked)

    async def _built(self, project: Project) -> tuple[Lockfile, ContextTree, Reconciled]:
        from sandboxfile.errors import BuildError

        lock = self._locks.current(project)
        context = self._scan(project)
        reconciled = await self._plan(project, lock, context)
        if reconciled.builds:
            raise BuildError(
                f"{plural(len(reconciled.builds), 'layer')} of this environment "
                f"{'is' if len(reconciled.builds) == 1 else 'are'} not built",
                hint="run `sandboxfile build`, which verifies as well",
            )
        return lock, context, reconciled

    async def rebuild(self, project: Project, elsewhere: Parts) -> tuple[LayerRebuilt, ...]:
        """Build every layer of a built project again with other parts (another store), and compare.

        Raises BuildError when the project is not built.
        """
        from sandboxfile.build.builder import Outcomes
        from sandboxfile.build.rebuild import compare

        lock, context, reconciled = await self._built(project)
        plan, parts = reconciled.plan, self._parts
        wanted = blobs_of(plan)
        with parts.store.uses.hold(layers=plan.stack, blobs=wanted):
            parts.store.blobs.share(wanted, elsewhere.store.blobs)
            workshop = Workshop(elsewhere)
            builder = workshop.builder(project, lock, context)
            with elsewhere.store.uses.hold(layers=plan.stack, blobs=wanted):
                await builder.build_layers(await workshop.reconcile(plan, None), Outcomes())
                return await compare(plan, parts, elsewhere)

    def _remember(
        self, project: Project, context: ContextTree, slug: str, before: tuple[Fingerprint, int]
    ) -> None:
        from sandboxfile.build.memo import remember

        remember(self._parts.store, project, context, slug, self._parts.memo_salt, before)
        self._parts.store.index.flush()
