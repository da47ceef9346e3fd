"""Solving pip requests with uv for the locked interpreter, sources included where the file allows them.

Locked distributions are held. Where that leaves no solution, uv may move them, and the lock is then
rewritten from the group that held the first of them: pip never replaces in an upper layer.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import field
from pathlib import Path

from sandboxfile.build.wheel_build import WheelBuilder
from sandboxfile.core.event import Reporter
from sandboxfile.core.layer import LayerKey
from sandboxfile.declared import dataclass, replace
from sandboxfile.engine.base import Engine
from sandboxfile.errors import ResolveError
from sandboxfile.inputs.download import Downloader
from sandboxfile.inputs.interpreter import Interpreter
from sandboxfile.inputs.pipsolver import PipProblem, UvError, explain, solve_pip
from sandboxfile.inputs.settings import Settings
from sandboxfile.spec.lock import Lockfile, WheelRow
from sandboxfile.spec.model import Pip, PipRequest
from sandboxfile.store.store import Store


@dataclass(frozen=True)
class PipContext:
    """One solve, and what building from source needs.

    held:      locked distributions that stay where they are
    preferred: locked distributions of groups that are solved again
    lock:      the lock in the making, whose apt groups are what builds run on
    """

    requests: tuple[PipRequest, ...]
    pip: Pip
    interpreter: Interpreter
    directory: Path
    held: tuple[WheelRow, ...]
    preferred: tuple[WheelRow, ...]
    offline: bool
    refresh: bool
    engine: Engine = field(repr=False)
    store: Store = field(repr=False)
    settings: Settings = field(repr=False)
    downloader: Downloader = field(repr=False)
    reporter: Reporter = field(repr=False)
    build_stack: Callable[[Lockfile], Awaitable[Sequence[LayerKey]]] | None = field(repr=False)
    lock: Lockfile = field(repr=False)


async def solve_pip_transition(context: PipContext) -> tuple[WheelRow, ...]:
    """Every distribution the requests need, the held ones in their locked version unless there is no
    solution with them. Raises ResolveError with uv's explanation."""
    context.store.staging.mkdir(parents=True, exist_ok=True)
    local = Path(tempfile.mkdtemp(prefix="wheels-", dir=context.store.staging))
    try:
        built = await _built(context, local)
        problem = PipProblem(
            requests=context.requests,
            pip=context.pip,
            interpreter=context.interpreter,
            directory=context.directory,
            held=context.held,
            preferred=context.preferred,
            local=local if built else None,
            offline=context.offline,
            refresh=context.refresh,
        )
        try:
            rows = await solve_pip(problem, context.settings)
        except UvError as failure:
            rows = await _freely(problem, context.settings, failure)
        return tuple(built.get(row.filename, row) for row in rows)
    finally:
        shutil.rmtree(local, ignore_errors=True)


async def _freely(problem: PipProblem, settings: Settings, failure: UvError) -> tuple[WheelRow, ...]:
    """Try without holding anything; the error of a problem without solution is that of this last try."""
    if problem.held:
        try:
            return await solve_pip(_loosened(problem), settings)
        except UvError as again:
            failure = again
    raise explain(problem, failure.words) from None


def _loosened(problem: PipProblem) -> PipProblem:
    """The problem with held distributions merely preferred."""
    return replace(problem, held=(), preferred=(*problem.held, *problem.preferred))


async def _built(context: PipContext, local: Path) -> dict[str, WheelRow]:
    """Wheels of the distributions that may be built, in `local`, and their rows by file name."""
    if not context.pip.build:
        return {}
    build_stack = context.build_stack
    if build_stack is None:
        raise ResolveError("distributions cannot be built from source here")
    builder = WheelBuilder(
        interpreter=context.interpreter,
        pip=context.pip,
        directory=context.directory,
        engine=context.engine,
        store=context.store,
        settings=context.settings,
        downloader=context.downloader,
        reporter=context.reporter,
        stack=lambda: build_stack(context.lock),
        epoch=context.lock.base.epoch,
        offline=context.offline,
    )
    rows: dict[str, WheelRow] = {}
    locked = {row.name: row for row in (*context.preferred, *context.held) if row.built}
    for name in sorted(context.pip.build):
        row = await builder.wheel(name, context.requests, locked.get(name))
        if row is not None:
            context.store.blobs.copy_to(row.sha256, local / row.filename)
            rows[row.filename] = row
    return rows


def moved(held: Sequence[WheelRow], solved: Sequence[WheelRow]) -> frozenset[str]:
    """Names of held distributions that a solution has in another version, or without."""
    versions = {row.name: row.version for row in solved}
    # A held distribution that the file's requests alone would not bring stays: nobody asked to remove it.
    return frozenset(row.name for row in held if versions.get(row.name, row.version) != row.version)
