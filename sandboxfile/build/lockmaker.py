"""Making a lock answer a Sandboxfile: the seven rules of the lock, on top of apt's and uv's solvers.

What is locked stays; what was added becomes one new group; what was removed or changed is solved again from
the first group concerned, preferring the locked versions (docs/concepts/pinning.md).
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from sandboxfile.build.apt_transition import AptProblem, solve_preferring
from sandboxfile.build.aptstate import AptStates
from sandboxfile.build.pip_transition import PipContext, moved, solve_pip_transition
from sandboxfile.build.rewrite import EVERYTHING, Rewrite, carried, chained, changes, rewrite_of
from sandboxfile.core.digest import Digest
from sandboxfile.core.event import Outcome, Reporter, TaskFinished, TaskStarted
from sandboxfile.core.layer import LayerKey
from sandboxfile.core.units import plural
from sandboxfile.declared import dataclass, replace
from sandboxfile.engine.base import Engine, Workspace
from sandboxfile.errors import Issue, NoSuchSnapshot, ResolveError
from sandboxfile.inputs.archive import Archives, Suite, SuiteRequest
from sandboxfile.inputs.bootstrap_set import solve_base
from sandboxfile.inputs.controlcache import ControlCache
from sandboxfile.inputs.download import Downloader
from sandboxfile.inputs.dpkgstate import DpkgState
from sandboxfile.inputs.environment import SuiteSource, default_mirrors
from sandboxfile.inputs.interpreter import Interpreter, interpreter_of
from sandboxfile.inputs.origins import archives_of, base_suites, origins_of, source_suites
from sandboxfile.inputs.rows import without_sources_of
from sandboxfile.inputs.settings import Settings
from sandboxfile.plan.planner import plan_base
from sandboxfile.spec.lock import (
    AptTransition,
    DebRow,
    Group,
    LockedBase,
    Lockfile,
    PipTransition,
    Requests,
)
from sandboxfile.spec.model import DebianRequest, PipRequest, RootfsRequest, Sandboxfile, SnapshotRequest
from sandboxfile.spec.staleness import valid_prefix
from sandboxfile.store.store import Store

BuildBase = Callable[[LockedBase], Awaitable[Digest | None]]
"""Builds the base layer of a lock in the making, if it is not there; its diff_id."""
BuildStack = Callable[[Lockfile], Awaitable[Sequence[LayerKey]]]
"""Builds the base and the apt layers of a lock in the making; their keys, lowest first."""

FIXED_EPOCH = 315619200
"""SOURCE_DATE_EPOCH for bases that name no time: 1980-01-02, the first whole day that zip files can hold."""

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def native_architecture() -> str:
    """This machine's architecture as Debian calls it."""
    machine = os.uname().machine
    return _ARCHITECTURES.get(machine, machine)


async def make_lock(
    spec: Sandboxfile,
    requests: Requests,
    pip_requests: Sequence[PipRequest],
    lock: Lockfile | None,
    *,
    directory: Path,
    engine: Engine,
    store: Store,
    settings: Settings,
    reporter: Reporter,
    build_base: BuildBase,
    build_stack: BuildStack | None = None,
    downloader: Downloader | None = None,
    on_apt: Callable[[Lockfile], None] | None = None,
    refresh: bool = False,
    offline: bool = False,
    accept_older: bool = False,
    update: Sequence[str] | None = None,
) -> tuple[Lockfile, tuple[str, ...]]:
    """The lock that answers the requests, and what changed, one line each.

    directory: the Sandboxfile's, for keys and constraints that it names
    on_apt:    told of the lock as soon as its last group's apt packages are known
    downloader: the caller's, which knows how the origins behave; None makes one
    accept_older: take an archive's index though a newer one was seen before
    update:    None keeps what is locked, names renew those packages, an empty sequence renews everything
    Raises ResolveError, FetchError, IntegrityError; the lock that was passed is never half changed.
    """
    maker = _Maker(
        spec, requests, tuple(pip_requests), directory, engine, store, settings, reporter, build_base,
        build_stack, downloader or Downloader(store.blobs, settings, reporter), on_apt,
        refresh or update is not None, offline, accept_older, tuple(update or ()),
    )  # fmt: skip
    task = "lock"
    reporter.emit(TaskStarted(task, "lock"))
    try:
        made = await maker.make(lock, None if update is None else tuple(update))
    except BaseException:
        reporter.emit(TaskFinished(task, Outcome.FAILED))
        raise
    lines = changes(lock, made)
    reporter.emit(TaskFinished(task, Outcome.DONE if lines else Outcome.REUSED, plural(len(lines), "change")))
    return made, lines


@dataclass
class _Maker:
    spec: Sandboxfile
    requests: Requests
    pip_requests: tuple[PipRequest, ...]
    directory: Path
    engine: Engine
    store: Store
    settings: Settings
    reporter: Reporter
    build_base: BuildBase
    build_stack: BuildStack | None
    downloader: Downloader
    on_apt: Callable[[Lockfile], None] | None
    refresh: bool
    offline: bool
    accept_older: bool
    update: tuple[str, ...]

    def __post_init__(self) -> None:
        self.archives = Archives(
            self.store.indexes, self.downloader, self.store.suites, accept_older=self.accept_older
        )

    async def make(self, old: Lockfile | None, update: tuple[str, ...] | None) -> Lockfile:
        rewrite = EVERYTHING if old is None else rewrite_of(old, self.requests, update)
        if rewrite.base or old is None:
            # With names to renew, or on another base, everything else keeps its version where it can.
            prefer = None if update == () else old
            made = await self._groups(Lockfile(await self._base(old)), Rewrite(0, 0), prefer)
        else:
            made = await self._groups(old, rewrite, old)
        # What was solved again and came out the same keeps its groups, and so its layers.
        return self._labelled(old) if old is not None and _same_state(old, made) else made

    async def _groups(self, old: Lockfile, rewrite: Rewrite, prefer: Lockfile | None) -> Lockfile:
        """`old` with the groups that `rewrite` keeps, and what the requests ask for beyond them."""
        while True:
            count = len(old.groups)
            kept = old.groups[: rewrite.apt_from]
            answered = {r for g in kept if g.apt for r in g.apt.requests}
            wanted = tuple(sorted(self.requests.apt - answered))
            apt: AptTransition | None = None
            base = old.base
            if wanted:
                apt, base = await self._apt(old, rewrite, wanted, prefer)
            groups = [Group(Digest(""), g.apt, g.pip if n < rewrite.pip_from else None)
                      for n, g in enumerate(kept)]  # fmt: skip
            lower = Lockfile(base, tuple(groups))
            upper = Lockfile(base, (*groups, Group(Digest(""), apt)))
            if apt is not None and self.on_apt is not None:
                self.on_apt(upper)
            interpreter = await self._interpreter(upper)
            if (again := self._other_python(old, rewrite, interpreter)) is not None:
                # Wheels below were chosen for another minor version: everything from there is solved again.
                rewrite = rewrite.earlier(apt=again, pip=again)
                continue
            pip = await self._pip(old, rewrite, lower, upper, interpreter, prefer)
            if isinstance(pip, int):
                rewrite = rewrite.earlier(pip=pip)
                continue
            if rewrite.pip_from < min(rewrite.apt_from, count):
                groups[rewrite.pip_from] = replace(groups[rewrite.pip_from], pip=pip)
                pip = None
            groups.append(Group(Digest(""), apt, pip))
            return self._labelled(Lockfile(base, chained(base, groups)))

    def _labelled(self, lock: Lockfile) -> Lockfile:
        """The lock with the options it now answers."""
        return replace(
            lock,
            apt_options=dict(self.requests.apt_options),
            pip_options=dict(self.requests.pip_options),
            recipes=dict(self.requests.recipes),
            inputs=dict(self.requests.inputs),
        )

    # The base.

    async def _base(self, old: Lockfile | None) -> LockedBase:
        request, architecture = self.spec.base, native_architecture()
        text = self.requests.base
        if isinstance(request, DebianRequest):
            wanted = base_suites(
                request,
                defaults=self._defaults(request.suite),
                settings=self.settings,
                architecture=architecture,
            )
            suites = await self._fetch(wanted, old)
            kept: tuple[DebRow, ...] = ()
            stanzas: dict[str, str] = {}
            if old is not None and self.update and old.base.request == text:
                # Some packages are to move, and no other.
                stanzas = await self._controls(old).stanzas(old.base.packages, suites, offline=self.offline)
                kept = without_sources_of(self.update, old.base.packages, stanzas)
            base = await solve_base(
                suites,
                preferred=kept,
                stanzas=stanzas,
                request=text,
                suite=request.suite,
                components=request.components,
                architecture=architecture,
            )
            self._controls(Lockfile(base)).keep(base.packages, suites)
        elif isinstance(request, RootfsRequest):
            base = LockedBase(text, "rootfs", architecture, FIXED_EPOCH, rootfs=request.sha256)
        elif isinstance(request, SnapshotRequest):
            try:
                record = self.store.index.find(request.slug)
            except NoSuchSnapshot as error:
                error.span = request.span
                raise
            base = LockedBase(
                text,
                "snapshot",
                architecture,
                FIXED_EPOCH,
                snapshot=record.slug,
                layers=tuple(Digest(key) for key in record.layers),
            )
        else:
            base = LockedBase(text, "scratch", architecture, FIXED_EPOCH)
        # A base that came out the same is the same: its layer, and the diff_id seen for it, stay.
        if old is not None and _same_packages(old.base, base):
            return old.base
        return base

    def _defaults(self, suite: str) -> tuple[SuiteSource, ...]:
        return default_mirrors(suite, self.store.indexes)

    async def _fetch(self, wanted: Sequence[SuiteRequest], old: Lockfile | None) -> tuple[Suite, ...]:
        locked = [archive.inrelease for archive in archives_of(old)] if old else []
        return await self.archives.fetch(
            wanted, refresh=self.refresh and not self.offline, offline=self.offline, locked=locked
        )

    def _controls(self, lock: Lockfile) -> ControlCache:
        defaults = self._defaults(lock.base.suite) if lock.base.suite else ()
        origins = origins_of(self.spec, archives_of(lock), defaults=defaults, settings=self.settings)
        return ControlCache(self.store.indexes / "control", self.store.blobs, self.downloader, origins)

    # apt.

    async def _apt(
        self, old: Lockfile, rewrite: Rewrite, wanted: tuple[str, ...], prefer: Lockfile | None
    ) -> tuple[AptTransition, LockedBase]:
        """The transition that answers `wanted` on the groups that are kept, and the base, now built."""
        diff_id = await self.build_base(old.base)
        base = old.base if old.base.diff_id else replace(old.base, diff_id=diff_id)
        stack = plan_base(base).stack
        workspace = await self.engine.prepare(stack)
        try:
            suites = await self._fetch(await self._suites(base, workspace), prefer or old)
            state = await read_state(workspace)
            kept = old.groups[: rewrite.apt_from]
            preferred = self._preferred(old, rewrite, prefer)
            controls = self._controls(prefer or old)
            rows = [row for group in kept if group.apt for row in group.apt.rows]
            stanzas = await controls.stanzas([*rows, *preferred], suites, offline=self.offline)
            for group in kept:
                if group.apt:
                    for removed in group.apt.removed:
                        state.remove(removed.name)
                    for row in group.apt.rows:
                        state.install(stanzas[row.sha256], auto=row.auto)
                    state.manual(name.partition(":")[0] for name in group.apt.manual)
            automatic = state.automatic()
            state.manual(request.name for request in self.spec.apt.packages)
            problem = AptProblem(
                requests=self.spec.apt.packages,
                answers=wanted,
                suites=suites,
                state=state,
                architecture=base.architecture,
                preferred=without_sources_of(self.update, preferred, stanzas),
                stanzas=stanzas,
                automatic=automatic,
                recommends=self.spec.apt.recommends,
            )
            apt = await solve_preferring(
                problem,
                workspace,
                stack=stack,
                staging=self.store.staging,
                states=AptStates(self.store.indexes),
            )
        finally:
            await workspace.abort()
        controls.keep(apt.rows, suites)
        return apt, base

    async def _suites(self, base: LockedBase, workspace: Workspace) -> tuple[SuiteRequest, ...]:
        """The suites that apt may take packages from."""
        request = self.spec.base
        if not isinstance(request, DebianRequest):
            request = DebianRequest(await _code_name(workspace, self.spec), span=request.span)
        named = {r.suite for r in self.spec.apt.packages if r.suite}
        own = {suite for source in self.spec.apt.sources for suite in source.suites}
        return (
            *base_suites(
                request,
                defaults=self._defaults(request.suite),
                settings=self.settings,
                architecture=base.architecture,
                # `stable-backports` and its like belong to the main archive.
                extra=sorted(name for name in named - own if name.startswith(f"{request.suite}-")),
            ),
            *source_suites(self.spec.apt.sources, directory=self.directory, architecture=base.architecture),
        )

    def _preferred(self, old: Lockfile, rewrite: Rewrite, prefer: Lockfile | None) -> tuple[DebRow, ...]:
        """The rows that were locked in groups that are solved again, in their newest version."""
        if prefer is None or prefer.base.suite != old.base.suite:
            return ()
        groups = prefer.groups if prefer is not old else old.groups[rewrite.apt_from :]
        return tuple({row.name: row for group in groups if group.apt for row in group.apt.rows}.values())

    # pip.

    async def _pip(
        self,
        old: Lockfile,
        rewrite: Rewrite,
        lower: Lockfile,
        upper: Lockfile,
        interpreter: Interpreter | None,
        prefer: Lockfile | None,
    ) -> PipTransition | int | None:
        """The pip part of the new group (or of the group it is rewritten in), or the number of an earlier
        group to rewrite pip from."""
        below = [g.pip for g in lower.groups if g.pip]
        along = list(carried(old, rewrite))
        answered = {r for part in (*below, *along) for r in part.requests}
        wanted = tuple(sorted(self.requests.pip - answered))
        rows = tuple(row for part in along for row in part.rows)
        if not wanted:
            if not along:
                return None
            requests = tuple(sorted(r for part in along for r in part.requests))
            return PipTransition(requests, along[-1].python, rows)
        if interpreter is None:
            raise self._no_interpreter()
        renewed = {name.lower().replace("_", "-").replace(".", "-") for name in self.update}
        source = prefer if prefer is not None else Lockfile(old.base)
        groups = source.groups if source is not old else old.groups[rewrite.pip_from :]
        context = PipContext(
            requests=self.pip_requests,
            pip=self.spec.pip,
            interpreter=interpreter,
            directory=self.directory,
            held=tuple(row for part in (*below, *along) for row in part.rows),
            preferred=tuple(row for g in groups if g.pip for row in g.pip.rows if row.name not in renewed),
            offline=self.offline,
            refresh=self.refresh,
            engine=self.engine,
            store=self.store,
            settings=self.settings,
            downloader=self.downloader,
            reporter=self.reporter,
            build_stack=self.build_stack,
            lock=upper,
        )
        solved = await solve_pip_transition(context)
        if shifted := moved(context.held, solved):
            for number, group in enumerate(old.groups[: rewrite.pip_from]):
                if group.pip and any(row.name in shifted for row in group.pip.rows):
                    return number
        held = {row.name for row in context.held}
        new = tuple(row for row in solved if row.name not in held)
        requests = tuple(sorted({*wanted, *(r for part in along for r in part.requests)}))
        return PipTransition(requests, interpreter.version, (*rows, *new))

    def _other_python(self, old: Lockfile, rewrite: Rewrite, interpreter: Interpreter | None) -> int | None:
        """The first group whose wheels were chosen for another minor version of the interpreter."""
        for number, group in enumerate(old.groups[: rewrite.pip_from]):
            if group.pip and group.pip.rows:
                minor = ".".join(group.pip.python.split(".")[:2])
                if interpreter is None or minor != interpreter.minor:
                    return number
        return None

    async def _interpreter(self, lock: Lockfile) -> Interpreter | None:
        """The interpreter that a lock in the making brings."""
        if not self.requests.pip:
            return None
        versions = {row.name: row.version for row in lock.installed_debs().values()}
        if lock.base.kind in {"rootfs", "snapshot"}:
            await self.build_base(lock.base)
            workspace = await self.engine.prepare(plan_base(lock.base).stack)
            try:
                versions = {**(await read_state(workspace)).versions(), **versions}
            finally:
                await workspace.abort()
        return interpreter_of(versions, lock.base.architecture)

    def _no_interpreter(self) -> ResolveError:
        message = "pip packages need a Python interpreter, and neither the base nor `apt` brings one"
        hint = "add python3 to `apt`"
        span = self.spec.pip.span or (self.pip_requests[0].span if self.pip_requests else None)
        return ResolveError(message, issues=(Issue("no-interpreter", message, span, "pip", hint),), hint=hint)


async def read_state(workspace: Workspace) -> DpkgState:
    """What is installed in a base, from its own dpkg and apt; nothing in a base without them."""
    texts = []
    for path in ("/var/lib/dpkg/status", "/var/lib/apt/extended_states"):
        try:
            texts.append((await workspace.read(path)).decode("utf-8", "replace"))
        except FileNotFoundError:
            texts.append("")
    return DpkgState(*texts)


async def _code_name(workspace: Workspace, spec: Sandboxfile) -> str:
    """The Debian suite that a base without a name is of, from its os-release."""
    for path in ("/etc/os-release", "/usr/lib/os-release"):
        try:
            text = (await workspace.read(path)).decode("utf-8", "replace")
        except FileNotFoundError:
            continue
        found = {}
        for line in text.splitlines():
            name, _, value = line.partition("=")
            found[name] = value.strip("\"'")
        if found.get("ID") == "debian" and found.get("VERSION_CODENAME"):
            return found["VERSION_CODENAME"]
    message = "`apt` needs a Debian base, and this one does not say that it is one"
    first = spec.apt.packages[0].span if spec.apt.packages else None
    raise ResolveError(message, issues=(Issue("no-apt", message, first, "apt"),))


def _same_packages(old: LockedBase, new: LockedBase) -> bool:
    """Whether two locked bases hold the same packages; a newer date of the archive alone moves nothing."""
    return replace(old, archives=(), epoch=0, diff_id=None) == replace(
        new, archives=(), epoch=0, diff_id=None
    )


def _same_state(old: Lockfile, new: Lockfile) -> bool:
    """Whether a renewed lock installs what the old one does; then the old one's groups stay."""
    answers = old.requests().apt == new.requests().apt and old.requests().pip == new.requests().pip
    debs = [
        {(r.name, r.arch, r.version, r.sha256) for r in lock.installed_debs().values()} for lock in (old, new)
    ]
    wheels = [{(r.name, r.sha256) for r in lock.installed_wheels()} for lock in (old, new)]
    same_base = _same_packages(old.base, new.base)
    intact = valid_prefix(old) == len(old.groups)
    return intact and answers and same_base and debs[0] == debs[1] and wheels[0] == wheels[1]
