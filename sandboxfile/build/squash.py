"""Writing a lock's groups as one, without solving: the rows are replayed to the state they leave.

apt and uv then look at that state, without network, and find that it answers every request.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sandboxfile.build.rewrite import chained
from sandboxfile.core.digest import Digest
from sandboxfile.errors import FetchError, ResolveError
from sandboxfile.spec.lock import (
    AptTransition,
    Archive,
    DebRow,
    Group,
    LockedBase,
    Lockfile,
    PipTransition,
    RemovedRow,
    WheelRow,
)
from sandboxfile.spec.model import PipRequest, Sandboxfile

if TYPE_CHECKING:
    from sandboxfile.engine.base import Engine
    from sandboxfile.inputs.download import Downloader
    from sandboxfile.inputs.settings import Settings
    from sandboxfile.store.store import Store


def squashed(lock: Lockfile) -> Lockfile:
    """The same packages, versions and marks, with everything above the base in one group.

    A row that ends where the base began is left out; a package that a group brought and a later one took
    away again was never there.
    """
    parts = [group.apt for group in lock.groups if group.apt]
    pips = [group.pip for group in lock.groups if group.pip]
    group = Group(Digest(""), _apt(lock.base, parts) if parts else None, _pip(pips) if pips else None)
    return replace(lock, groups=chained(lock.base, (group,)))


@dataclass
class _Replay:
    """Where the rows lead: by package name, what the base had and what is there in the end."""

    origins: dict[str, str | None] = field(default_factory=dict)
    rows: dict[str, DebRow] = field(default_factory=dict)
    removed: dict[str, RemovedRow] = field(default_factory=dict)
    manual: dict[str, str] = field(default_factory=dict)

    def remove(self, row: RemovedRow) -> None:
        self.origins.setdefault(row.name, row.version)
        self.rows.pop(row.name, None)
        self.manual.pop(row.name, None)
        if self.origins[row.name] is not None:
            self.removed[row.name] = row

    def install(self, row: DebRow) -> None:
        origin = self.origins.setdefault(row.name, row.replaces)
        self.removed.pop(row.name, None)
        self.manual.pop(row.name, None)
        because = row.because if origin is not None else None
        self.rows[row.name] = replace(row, replaces=origin, because=because)

    def ask_for(self, marked: str) -> None:
        name = marked.partition(":")[0]
        if name in self.rows:
            self.rows[name] = replace(self.rows[name], auto=False)
        else:
            self.manual[name] = marked


def _apt(base: LockedBase, parts: Sequence[AptTransition]) -> AptTransition:
    replay = _Replay()
    for part in parts:
        for gone in part.removed:
            replay.remove(gone)
        for row in part.rows:
            replay.install(row)
        for marked in part.manual:
            replay.ask_for(marked)
    in_base = {row.name: row for row in base.packages}
    rows = [row for row in replay.rows.values() if not _is(row, in_base.get(row.name))]
    removed = [
        # What is removed is what the base has, which a group may have replaced before it went.
        RemovedRow(name, replay.origins[name] or row.version, _arch(in_base, row), row.because)
        for name, row in replay.removed.items()
    ]
    archives: dict[Archive, None] = dict.fromkeys(each for part in parts for each in part.archives)
    return AptTransition(
        requests=tuple(sorted({request for part in parts for request in part.requests})),
        rows=tuple(sorted(rows, key=lambda row: (row.name, row.arch))),
        removed=tuple(sorted(removed, key=lambda row: (row.name, row.arch))),
        manual=tuple(sorted(replay.manual.values())),
        archives=tuple(archives),
    )


def _is(row: DebRow, other: DebRow | None) -> bool:
    return other is not None and (row.version, row.arch, row.sha256) == (
        other.version,
        other.arch,
        other.sha256,
    )


def _arch(in_base: Mapping[str, DebRow], row: RemovedRow) -> str:
    return in_base[row.name].arch if row.name in in_base else row.arch


def _pip(parts: Sequence[PipTransition]) -> PipTransition:
    rows: list[WheelRow] = [row for part in parts for row in part.rows]
    return PipTransition(
        requests=tuple(sorted({request for part in parts for request in part.requests})),
        python=next((part.python for part in reversed(parts) if part.python), ""),
        rows=tuple(sorted(rows, key=lambda row: row.name)),
    )


@dataclass(frozen=True)
class SquashContext:
    """What the proof of a squashed lock needs.

    build_base: builds the base layer of the lock, if it is not there
    """

    spec: Sandboxfile
    pip_requests: tuple[PipRequest, ...]
    directory: Path
    engine: Engine = field(repr=False)
    store: Store = field(repr=False)
    settings: Settings = field(repr=False)
    downloader: Downloader = field(repr=False)
    build_base: Callable[[LockedBase], Awaitable[Digest | None]] = field(repr=False)
    offline: bool = False


async def prove(lock: Lockfile, context: SquashContext) -> None:
    """Let apt and uv look, without network, whether a lock's packages answer the requests as they are.

    Packages that the store lacks are fetched first. Raises ResolveError when they do not answer, FetchError
    for a package that is not to be had.
    """
    if any(group.apt for group in lock.groups):
        await _prove_apt(lock, context)
    if any(group.pip for group in lock.groups):
        await _prove_pip(lock, context)


async def _prove_apt(lock: Lockfile, context: SquashContext) -> None:
    from sandboxfile.build.apt_transition import AptProblem, check_apt
    from sandboxfile.build.lockmaker import read_state
    from sandboxfile.inputs.controlcache import ControlCache
    from sandboxfile.inputs.environment import default_mirrors
    from sandboxfile.inputs.origins import archives_of, origins_of
    from sandboxfile.plan.planner import plan_base

    await context.build_base(lock.base)
    indexes = context.store.indexes
    defaults = default_mirrors(lock.base.suite, indexes) if lock.base.suite else ()
    origins = origins_of(context.spec, archives_of(lock), defaults=defaults, settings=context.settings)
    controls = ControlCache(indexes / "control", context.store.blobs, context.downloader, origins)
    rows = [row for group in lock.groups if group.apt for row in group.apt.rows]
    stanzas = await controls.stanzas(rows, (), offline=context.offline)
    workspace = await context.engine.prepare(plan_base(lock.base).stack)
    try:
        state = await read_state(workspace)
        for part in (group.apt for group in lock.groups if group.apt):
            for gone in part.removed:
                state.remove(gone.name)
            for row in part.rows:
                state.install(stanzas[row.sha256], auto=row.auto)
        problem = AptProblem(context.spec.apt.packages, (), (), state, lock.base.architecture)
        await check_apt(problem, workspace, staging=context.store.staging)
    finally:
        await workspace.abort()


async def _prove_pip(lock: Lockfile, context: SquashContext) -> None:
    from sandboxfile.build.staging import staged
    from sandboxfile.inputs.download import Wanted
    from sandboxfile.inputs.interpreter import interpreter_of
    from sandboxfile.inputs.pipsolver import UvError, check_pip

    blobs = context.store.blobs
    wheels = tuple(lock.installed_wheels())
    versions = {row.name: row.version for row in lock.installed_debs().values()}
    interpreter = interpreter_of(versions, lock.base.architecture)
    if interpreter is None:
        # The base brings the interpreter: which one is known to those who build on it.
        return
    missing = set(blobs.missing(row.sha256 for row in wheels))
    lost = [row for row in wheels if row.sha256 in missing and (context.offline or row.built)]
    if lost:
        raise FetchError(
            f"the wheel {lost[0].filename} is not in the store", hint="run `sandboxfile build` first"
        )
    wanted = [
        Wanted(row.sha256, row.size, row.filename, (row.url,)) for row in wheels if row.sha256 in missing
    ]
    await context.downloader.fetch(wanted, task="fetch:locked")
    with staged(context.store.staging, {row.filename: blobs.path(row.sha256) for row in wheels}) as place:
        try:
            await check_pip(
                context.pip_requests,
                context.spec.pip,
                interpreter,
                context.directory,
                place,
                context.settings,
            )
        except UvError as failure:
            raise ResolveError(
                "uv does not find in the lock what `pip` asks for",
                details=tuple(failure.words.splitlines()[-12:]),
                hint="run `sandboxfile lock --update`",
            ) from None
