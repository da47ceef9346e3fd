"""Building a wheel from source: in a sandbox on the apt layers, without network.

The source archive and everything its build requires are fetched and hash-checked outside; inside, uv builds
with exactly those. No code of a distribution runs outside of the sandbox.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import field
from pathlib import Path

from sandboxfile.build.staging import staged
from sandboxfile.core.environment import build_environment
from sandboxfile.core.event import Outcome, Reporter, TaskFinished, TaskOutput, TaskStarted
from sandboxfile.core.layer import LayerKey
from sandboxfile.declared import dataclass
from sandboxfile.engine.base import Command, Engine, Mount
from sandboxfile.errors import IntegrityError, Issue, PlanError, ResolveError, StepFailed
from sandboxfile.inputs.download import Downloader, Wanted, shown
from sandboxfile.inputs.interpreter import Interpreter, interpreter_of
from sandboxfile.inputs.pipsolver import PipProblem, UvError, default_index, explain, solve_pip, uv_program
from sandboxfile.inputs.sdists import Release, build_requires, releases
from sandboxfile.inputs.settings import Settings
from sandboxfile.inputs.wheels import Candidate, rank
from sandboxfile.spec.lock import Lockfile, WheelRow
from sandboxfile.spec.model import Pip, PipRequest
from sandboxfile.store.store import Store

SOURCES = "/run/sandboxfile/sources"
UV = "/run/sandboxfile/uv"
OUT = "/tmp/sandboxfile-wheel"
TIMEOUT = 3600.0


@dataclass(frozen=True)
class WheelBuilder:
    """Builds wheels on one stack.

    stack: gives the keys of the base and apt layers, built if need be
    epoch: SOURCE_DATE_EPOCH of the build, so that it can be repeated to the byte
    """

    interpreter: Interpreter
    pip: Pip
    directory: Path
    epoch: int
    offline: bool
    stack: Callable[[], Awaitable[Sequence[LayerKey]]]
    engine: Engine = field(repr=False)
    store: Store = field(repr=False)
    settings: Settings = field(repr=False)
    downloader: Downloader = field(repr=False)
    reporter: Reporter = field(repr=False)

    async def wheel(
        self, name: str, requests: Sequence[PipRequest], locked: WheelRow | None
    ) -> WheelRow | None:
        """The row of a wheel that was built for `name`, which is then in the store; None when the index
        has a wheel for the version that is wanted, so that nothing is to be built.

        locked: the row of an earlier lock, built again only when its bytes are gone
        Raises ResolveError when there is no source archive, StepFailed when the build fails.
        """
        if locked is not None and _allowed(locked.version, name, requests):
            return await self.again(locked)
        offered = await releases(
            name, self.pip, self.settings, self.directory, self.downloader, default_index(self.settings)
        )
        release = self._choose(name, offered, requests)
        if release.has_wheel(self.interpreter):
            return None
        sdist = release.sdist()
        if sdist is None or not sdist.sha256:
            raise ResolveError(
                f"{name} {release.version} has neither a wheel that fits nor a source archive with a sha256"
            )
        return await self._build(name, release.version, sdist)

    async def again(self, row: WheelRow) -> WheelRow:
        """A locked wheel, built again unless it is in the store. Raises IntegrityError when the build does
        not give the bytes that the lock names."""
        if self.store.blobs.has(row.sha256):
            return row
        filename = shown(row.url).rpartition("/")[2]
        sdist = Candidate(filename, row.url, row.sdist_sha256)
        built = await self._build(row.name, row.version, sdist)
        if built.sha256 != row.sha256:
            raise IntegrityError(
                f"building {row.name} {row.version} from source gave other bytes than the lock names",
                hint=f"its build cannot be repeated; run `sandboxfile lock --update {row.name}`",
                details=(f"locked sha256 {row.sha256}", f"built sha256  {built.sha256}"),
            )
        return row

    def _choose(self, name: str, offered: Sequence[Release], requests: Sequence[PipRequest]) -> Release:
        from packaging.version import Version

        fits = [
            release
            for release in offered
            if _allowed(release.version, name, requests)
            and (self.pip.prereleases or not Version(release.version).is_prerelease)
        ]
        usable = [r for r in fits if r.has_wheel(self.interpreter) or r.sdist() is not None]
        if usable:
            return usable[0]
        wanted = [r for r in requests if _name(r) == name]
        message = f"no version of {name} answers its requirement"
        span = wanted[0].span if wanted else self.pip.span
        raise ResolveError(message, issues=(Issue("no-source", message, span, "pip"),))

    async def _build(self, name: str, version: str, sdist: Candidate) -> WheelRow:
        task = f"wheel:{name}"
        wanted = Wanted(sdist.sha256, sdist.size, sdist.filename, (sdist.url,))
        await self.downloader.fetch([wanted], task=f"fetch:{name}")
        source = self.store.blobs.path(sdist.sha256)
        needs = await self._needs(name, build_requires(source, name))
        files: dict[str, Path | bytes] = {row.filename: self.store.blobs.path(row.sha256) for row in needs}
        files[sdist.filename] = source
        self.reporter.emit(TaskStarted(task, f"build {name} {version} from source"))
        workspace = await self.engine.prepare(tuple(await self.stack()))
        said = bytearray()

        def take(_stream: str, piece: bytes) -> None:
            said.extend(piece)
            self.reporter.emit(TaskOutput(task, _safe(piece)))

        try:
            with staged(self.store.staging, files) as place:
                command = self._command(place, sdist.filename)
                done = await workspace.execute(command, take)
                if done.exit_code != 0:
                    raise StepFailed(
                        f"building {name} {version} from source failed",
                        layer=task,
                        exit_code=None if done.timed_out else done.exit_code,
                        details=tuple(_safe(bytes(said)).splitlines()[-20:]),
                        span=self.pip.span,
                        hint="what its build needs beyond Python packages goes in `apt`; it has no network",
                    )
                listing = (await workspace.read(f"{OUT}/name")).decode().strip()
                if "/" in listing or rank(listing, self.interpreter) is None:
                    raise ResolveError(f"building {name} {version} gave no wheel that fits: {listing}")
                content = await workspace.read(f"{OUT}/dist/{listing}")
        except BaseException:
            self.reporter.emit(TaskFinished(task, Outcome.FAILED))
            raise
        finally:
            await workspace.abort()
        sha256 = self.store.blobs.put_bytes(content)
        self.reporter.emit(TaskFinished(task, Outcome.DONE, listing))
        return WheelRow(
            name=name,
            version=version,
            filename=listing,
            sha256=sha256,
            size=len(content),
            url=shown(sdist.url),
            built=True,
            sdist_sha256=sdist.sha256,
        )

    def _command(self, place: Path, filename: str) -> Command:
        build = (
            f"{UV} build --wheel --offline --no-index --find-links {SOURCES} "
            f"--python /usr/bin/python3 --out-dir {OUT}/dist {SOURCES}/{_quoted(filename)} "
            f"&& cd {OUT}/dist && ls *.whl > {OUT}/name"
        )
        env = build_environment(
            self.epoch,
            {
                "UV_NO_CONFIG": "1",
                "UV_PYTHON_DOWNLOADS": "never",
                "UV_NO_PROGRESS": "1",
                "UV_CACHE_DIR": f"{OUT}/cache",
                "UV_LINK_MODE": "copy",
                "NO_COLOR": "1",
            },
        )
        return Command(
            ("/bin/sh", "-ec", f"mkdir -p {OUT}/dist; {build}"),
            env=env,
            mounts=(Mount(place, SOURCES), Mount(uv_program(), UV)),
            timeout=TIMEOUT,
        )

    async def _needs(self, name: str, requires: Sequence[str]) -> tuple[WheelRow, ...]:
        """The wheels that a build needs, fetched."""
        if not requires:
            return ()
        problem = PipProblem(
            requests=tuple(PipRequest(requirement) for requirement in requires),
            pip=self.pip,
            interpreter=self.interpreter,
            directory=self.directory,
            offline=self.offline,
        )
        try:
            rows = await solve_pip(problem, self.settings)
        except UvError as failure:
            error = explain(problem, failure.words)
            raise ResolveError(
                f"what {name} needs to be built cannot be had: {error.message}",
                details=error.details,
                hint=error.hint,
            ) from None
        wanted = [Wanted(row.sha256, row.size, row.filename, (row.url,)) for row in rows]
        await self.downloader.fetch(wanted, task=f"fetch:{name}-build")
        return rows


async def restore_built(
    lock: Lockfile,
    *,
    pip: Pip,
    directory: Path,
    engine: Engine,
    store: Store,
    settings: Settings,
    reporter: Reporter,
    build_stack: Callable[[Lockfile], Awaitable[Sequence[LayerKey]]],
    offline: bool = False,
) -> None:
    """Build again every wheel that a lock holds as built from source and the store does not have: no index
    could be asked for one. Raises IntegrityError when a build gives other bytes than the lock names."""
    missing = [row for row in lock.installed_wheels() if row.built and not store.blobs.has(row.sha256)]
    if not missing:
        return
    versions = {row.name: row.version for row in lock.installed_debs().values()}
    interpreter = interpreter_of(versions, lock.base.architecture)
    if interpreter is None:
        raise PlanError("the lock holds wheels built from source, and no interpreter to build them again")

    async def stack() -> Sequence[LayerKey]:
        return await build_stack(lock)

    builder = WheelBuilder(
        interpreter=interpreter,
        pip=pip,
        directory=directory,
        epoch=lock.base.epoch,
        offline=offline,
        stack=stack,
        engine=engine,
        store=store,
        settings=settings,
        downloader=Downloader(store.blobs, settings, reporter),
        reporter=reporter,
    )
    for row in missing:
        await builder.again(row)


def _allowed(version: str, name: str, requests: Sequence[PipRequest]) -> bool:
    from packaging.requirements import Requirement

    return all(
        Requirement(request.requirement).specifier.contains(version, prereleases=True)
        for request in requests
        if _name(request) == name
    )


def _name(request: PipRequest) -> str:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    return canonicalize_name(Requirement(request.requirement).name)


def _quoted(text: str) -> str:
    import shlex

    return shlex.quote(text)


def _safe(piece: bytes) -> str:
    """Output as it may be shown: without control characters other than line ends and tabs."""
    text = piece.decode("utf-8", "replace")
    return "".join(c for c in text if c in "\n\t" or c.isprintable())
