"""A project's lock: made, extended, squashed, compared with what archives and indexes offer now."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from sandboxfile.build.project import LOCK_NAME, Project
from sandboxfile.build.workshop import Parts, Workshop
from sandboxfile.declared import replace
from sandboxfile.errors import FetchError, LockStale, UsageError

if TYPE_CHECKING:
    from sandboxfile.build.outdated import Ask, Outdated, OutdatedReport
    from sandboxfile.core.digest import Digest
    from sandboxfile.inputs.archive import Suite
    from sandboxfile.inputs.interpreter import Interpreter
    from sandboxfile.inputs.sdists import Release
    from sandboxfile.spec.lock import LockedBase, Lockfile


class Locks:
    """Locks projects with the parts of a client."""

    def __init__(self, parts: Parts, workshop: Workshop) -> None:
        self._parts = parts
        self._workshop = workshop

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
        on_apt: Callable[[Lockfile], None] | None = None,
    ) -> tuple[Lockfile, tuple[str, ...]]:
        """Make the lock answer the Sandboxfile, and write it. `update=()` renews everything, names renew
        those, `security` what has a security update; `squash` writes all groups as one, without solving.
        Returns the lock and what changed, one line each (empty: it was already right).

        accept_older: take an archive's index though a newer one was seen before
        on_apt:       told of the lock in the making as soon as apt has answered
        """
        from sandboxfile.core.digest import digest_bytes

        if squash and (update is not None or security or refresh):
            raise UsageError("`squash` moves no package: it cannot be combined with an update or a refresh")
        name = f"lock-{digest_bytes(str(project.lock_path).encode())}"
        async with self._parts.store.locks.exclusive(name, on_wait=self._workshop.telling("the lock")):
            # The lock is read after the wait: whoever held it may have done the work.
            if squash:
                lock, changes = await self._squash(project, offline)
            elif security:
                lock, changes = await self._secure(project, update or (), offline)
            else:
                lock, changes = await self.resolve(
                    project,
                    update=update,
                    refresh=refresh,
                    offline=offline,
                    accept_older=accept_older,
                    on_apt=on_apt,
                )
            project.write_lock(lock)
        return lock, changes

    async def resolve(
        self,
        project: Project,
        *,
        update: Sequence[str] | None = None,
        refresh: bool = False,
        offline: bool = False,
        accept_older: bool = False,
        on_apt: Callable[[Lockfile], None] | None = None,
    ) -> tuple[Lockfile, tuple[str, ...]]:
        """The lock that answers the Sandboxfile, and how it differs from the one that is there."""
        from sandboxfile.build.lockmaker import make_lock

        requests, constraints = project.pip_inputs
        # Constraints named in a requirements file count as well.
        pip = replace(project.sandboxfile.pip, constraints=tuple(constraints))
        async with self._workshop.downloader(project).session(warm=not offline):
            return await make_lock(
                replace(project.sandboxfile, pip=pip),
                project.requests,
                requests,
                project.read_lock(),
                directory=project.directory,
                engine=self._parts.engine,
                store=self._parts.store,
                settings=self._workshop.settings(project),
                downloader=self._workshop.downloader(project),
                on_apt=on_apt,
                reporter=self._parts.reporter,
                build_base=lambda base: self._build_base(project, base, offline),
                build_stack=self._workshop.stack_builder(project, offline),
                update=update,
                refresh=refresh or accept_older,
                offline=offline,
                accept_older=accept_older,
            )

    async def _build_base(self, project: Project, base: LockedBase, offline: bool) -> Digest | None:
        from sandboxfile.spec.lock import Lockfile

        stack = await self._workshop.build_packages(project, Lockfile(base=base), offline)
        record = self._parts.store.index.layer(stack[-1])
        return record.diff_id if record else None

    async def _squash(self, project: Project, offline: bool) -> tuple[Lockfile, tuple[str, ...]]:
        from sandboxfile.build.squash import SquashContext, prove, squashed

        lock = self.current(project)
        if len(lock.groups) < 2:
            return lock, ()
        made = squashed(lock)
        requests, constraints = project.pip_inputs
        pip = replace(project.sandboxfile.pip, constraints=tuple(constraints))
        context = SquashContext(
            spec=replace(project.sandboxfile, pip=pip),
            pip_requests=tuple(requests),
            directory=project.directory,
            engine=self._parts.engine,
            store=self._parts.store,
            settings=self._workshop.settings(project),
            downloader=self._workshop.downloader(project),
            build_base=lambda base: self._build_base(project, base, offline),
            offline=offline,
        )
        await prove(made, context)
        return made, (f"~ {len(lock.groups)} groups became one, with the same packages",)

    async def _secure(
        self, project: Project, names: Sequence[str], offline: bool
    ) -> tuple[Lockfile, tuple[str, ...]]:
        """Renew the packages that have a security update, of those that are named, if any are."""
        lock = self.current(project)
        suites = await self._suites(project, lock, refresh=not offline, offline=offline)
        from sandboxfile.build.outdated import outdated_debs

        found = {each.name for each in outdated_debs(lock, suites) if each.security}
        if names:
            found &= set(names)
        if not found:
            return lock, ()
        return await self.resolve(project, update=tuple(sorted(found)), offline=offline)

    # Judging.

    def current(self, project: Project) -> Lockfile:
        """The lock, when it answers the Sandboxfile. Raises LockStale when it does not, or is missing."""
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

    def at_hand(self, project: Project) -> Lockfile:
        """The lock beside the Sandboxfile; when there is none, the one that was vendored, provided that it
        answers the Sandboxfile. Raises LockStale."""
        place = self._workshop.settings(project).vendored
        if place is not None and project.read_lock() is None:
            from sandboxfile.inputs.vendored import open_vendored
            from sandboxfile.spec.lockfile import load
            from sandboxfile.spec.staleness import after_merge, differences

            text = open_vendored(place).lock_text()
            lock = load(text, f"{place}/{LOCK_NAME}") if text is not None else None
            if lock is not None and not after_merge(lock) and not differences(lock, project.requests):
                return lock
        return self.current(project)

    async def outdated(
        self, project: Project, *, refresh: bool = False, offline: bool = False
    ) -> OutdatedReport:
        """Pinned packages that the archives and indexes have newer versions of; archives are asked at most
        once an hour, always with `refresh`, never `offline`. Raises LockStale without a lock."""
        from sandboxfile.build.outdated import OutdatedReport, outdated_debs

        lock = project.read_lock()
        if lock is None:
            raise LockStale(f"there is no {LOCK_NAME}", (), hint="run `sandboxfile lock`")
        debs = lock.installed_debs()
        wheels = tuple(lock.installed_wheels())
        unknown: list[str] = []
        found: tuple[Outdated, ...] = ()
        if debs:
            try:
                suites = await self._suites(project, lock, refresh=refresh, offline=offline)
                found = tuple(outdated_debs(lock, suites))
            except FetchError as failure:
                if not offline:
                    raise
                unknown.append(f"Debian packages: {failure.message}")
        if wheels and offline:
            unknown.append("Python distributions: their index is not asked offline")
        elif wheels:
            newer, failed = await self._outdated_wheels(project, lock, refresh)
            found += newer
            unknown += failed
        return OutdatedReport(found, len(debs) + len(wheels), tuple(unknown))

    async def _outdated_wheels(
        self, project: Project, lock: Lockfile, refresh: bool
    ) -> tuple[tuple[Outdated, ...], tuple[str, ...]]:
        """What the indexes say of the locked distributions; like an archive's, their answer counts for an
        hour."""
        from dataclasses import asdict

        from sandboxfile.build.outdated import OUTDATED_TAG, Outdated, outdated_wheels
        from sandboxfile.core.digest import digest_of
        from sandboxfile.inputs.archive import ASKED_AGAIN_AFTER
        from sandboxfile.spec.requests import pip_options

        index = self._parts.store.index
        asked = {"groups": lock.groups, "pip": pip_options(project.sandboxfile.pip)}
        key = digest_of(OUTDATED_TAG, asked)
        known = None if refresh else index.document(OUTDATED_TAG, key)
        if isinstance(known, dict) and 0 <= time.time() - known["asked"] < ASKED_AGAIN_AFTER:
            return tuple(Outdated(**each) for each in known["found"]), ()
        found, failed = await outdated_wheels(lock, self._interpreter(lock), self._asking(project))
        if not failed:
            answer = {"asked": time.time(), "found": [asdict(each) for each in found]}
            index.keep_document(OUTDATED_TAG, key, answer)
        return found, failed

    def _interpreter(self, lock: Lockfile) -> Interpreter | None:
        from sandboxfile.inputs.interpreter import interpreter_of

        versions = {row.name: row.version for row in lock.installed_debs().values()}
        return interpreter_of(versions, lock.base.architecture)

    def _asking(self, project: Project) -> Ask:
        from sandboxfile.inputs.pipsolver import default_index
        from sandboxfile.inputs.sdists import releases

        settings = self._workshop.settings(project)
        index = default_index(settings)
        pip, downloader = project.sandboxfile.pip, self._workshop.downloader(project)

        async def ask(name: str) -> Sequence[Release]:
            return await releases(name, pip, settings, project.directory, downloader, index)

        return ask

    async def _suites(
        self, project: Project, lock: Lockfile, *, refresh: bool, offline: bool
    ) -> tuple[Suite, ...]:
        """The suites that the lock's packages come from, as they are now."""
        from sandboxfile.inputs.archive import Archives
        from sandboxfile.inputs.environment import default_mirrors
        from sandboxfile.inputs.origins import archives_of, base_suites, source_suites
        from sandboxfile.spec.model import DebianRequest

        spec, store, settings = project.sandboxfile, self._parts.store, self._workshop.settings(project)
        wanted = source_suites(
            spec.apt.sources, directory=project.directory, architecture=lock.base.architecture
        )
        if isinstance(spec.base, DebianRequest):
            defaults = default_mirrors(spec.base.suite, store.indexes)
            wanted = (
                *base_suites(
                    spec.base, defaults=defaults, settings=settings, architecture=lock.base.architecture
                ),
                *wanted,
            )
        archives = Archives(store.indexes, self._workshop.downloader(project), store.suites)
        return await archives.fetch(
            wanted,
            refresh=refresh,
            offline=offline,
            locked=[archive.inrelease for archive in archives_of(lock)],
        )

    async def freshness_notes(self, project: Project, lock: Lockfile, *, offline: bool) -> tuple[str, ...]:
        """What `plan` says about a lock that is older than `freshness`: nothing when it is not, or when the
        Sandboxfile does not say how fresh it has to be."""
        freshness = project.sandboxfile.freshness
        if freshness is None:
            return ()
        from sandboxfile.build.freshness import age_text, older_than, refresh_notes

        age = older_than(lock, freshness, now=time.time())
        if age is None:
            return ()
        head = f"the lock is {age_text(age)} old, and `freshness` is {age_text(freshness)}"
        try:
            report = await self.outdated(project, offline=offline)
        except FetchError as failure:
            return (f"{head}; what a refresh would change is not known: {failure.message}",)
        return (f"{head}; {refresh_notes(report)}",)
