"""Solving apt requests with the base's own apt, on the state that the lock's earlier groups leave.

apt runs in a throw-away workspace on the base, without network. It sees the verified suites as local
archives, checks their signatures itself, and is told by a synthetic dpkg status what is installed.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import field
from pathlib import Path

from sandboxfile.build.aptstate import CACHE, AptStates
from sandboxfile.core.environment import DEFAULT_PATH
from sandboxfile.core.layer import LayerKey
from sandboxfile.declared import dataclass, replace
from sandboxfile.engine.base import Command, Mount, Workspace
from sandboxfile.errors import Issue, ResolveError
from sandboxfile.inputs import aptsolver
from sandboxfile.inputs.aptsolver import Installed, Solution
from sandboxfile.inputs.archive import Suite
from sandboxfile.inputs.control import fields, names_in
from sandboxfile.inputs.debian_index import suggest
from sandboxfile.inputs.dpkgstate import DpkgState
from sandboxfile.inputs.rows import gone_stanzas, rows_of, stanza_of, without_sources_of
from sandboxfile.spec.lock import AptTransition, DebRow, RemovedRow
from sandboxfile.spec.model import AptRequest

PLACE = "/run/sandboxfile/apt"
SCRATCH = "/tmp/sandboxfile-apt"
TIMEOUT = 300.0
REQUESTED_PRIORITY = 1001
CONFLICT = "apt-conflict"
LOOSENED = 4
"""How often locked versions are given up one reason at a time, before all are."""
ERROR_TRIALS = 12
"""How many more solves an error may cost to find out which two requests do not go together."""


@dataclass(frozen=True)
class AptProblem:
    """One solve.

    requests:   every apt request of the file
    answers:    the canonical texts of those this transition answers
    suites:     the verified archives, in order of preference for equal versions
    state:      what is installed before it
    preferred:  locked rows that are to be kept if possible, though they are not installed in `state`
    stanzas:    control stanzas of `preferred`, by sha256
    automatic:  names of installed packages that nobody had asked for before
    recommends: whether recommended packages are installed too
    """

    requests: tuple[AptRequest, ...]
    answers: tuple[str, ...]
    suites: tuple[Suite, ...]
    state: DpkgState
    architecture: str
    preferred: tuple[DebRow, ...] = ()
    stanzas: Mapping[str, str] = field(default_factory=dict)
    automatic: frozenset[str] = frozenset()
    recommends: bool = False

    def package(self, request: AptRequest) -> str:
        """The package that answers a request: of that name, else the only one that provides it."""
        indexes = [suite.index() for suite in self.suites]
        if not any(request.name in index for index in indexes):
            providers = {name for index in indexes for name in index.providers(request.name)}
            if len(providers) == 1:
                return providers.pop()
        return request.name

    def known(self) -> dict[tuple[str, str, str], DebRow]:
        """Preferred rows by what apt calls them."""
        return {(row.name, row.version, row.arch): row for row in self.preferred}


def check_requests(problem: AptProblem) -> None:
    """Raise ResolveError with an Issue for each request that no archive can answer."""
    indexes = [suite.index() for suite in problem.suites]
    issues: list[Issue] = []
    for request in sorted(problem.requests, key=_place):
        if request.arch and request.arch not in {problem.architecture, "all", "native"}:
            issues.append(
                Issue(
                    "foreign-architecture",
                    f"`{request}` asks for another architecture than the base's, {problem.architecture}",
                    request.span,
                    hint="packages of a foreign architecture are not supported",
                )
            )
            continue
        if request.suite and request.suite not in {suite.request.suite for suite in problem.suites}:
            known = ", ".join(suite.request.suite for suite in problem.suites)
            issues.append(
                Issue("unknown-suite", f"no archive has a suite `{request.suite}`", request.span,
                      hint=f"there are: {known}")
            )  # fmt: skip
        versions = [v for index in indexes for v in index.versions(request.name)]
        versions += [row.version for row in problem.preferred if row.name == request.name]
        if not versions:
            providers = sorted({name for index in indexes for name in index.providers(request.name)})
            if len(providers) == 1 and not request.version:
                continue
            issues.append(_virtual(request, providers) if providers else _unknown(problem, request))
        elif request.version and request.version not in versions:
            issues.append(
                Issue(
                    "unknown-version",
                    f"no archive has `{request.name}` in version {request.version}",
                    request.span,
                    hint=f"there is: {', '.join(sorted(set(versions)))}",
                )
            )
    if issues:
        raise ResolveError(issues[0].message, issues=tuple(issues), hint=issues[0].hint)


def _unknown(problem: AptProblem, request: AptRequest) -> Issue:
    near = suggest([suite.index() for suite in problem.suites], request.name)
    names = " or ".join(f"`{name}`" for name in near)
    suites = ", ".join(suite.request.suite for suite in problem.suites)
    return Issue(
        "unknown-package",
        f"apt knows no package `{request.name}`",
        request.span,
        hint=f"did you mean {names}?" if near else f"looked in {suites}; other archives go in `apt.sources`",
    )


def _virtual(request: AptRequest, providers: Sequence[str]) -> Issue:
    return Issue(
        "virtual-package",
        f"`{request.name}` is a virtual package; several packages provide it",
        request.span,
        hint=f"name one of: {', '.join(providers[:8])}",
    )


async def solve_preferring(
    problem: AptProblem,
    workspace: Workspace,
    *,
    stack: Sequence[LayerKey],
    staging: Path,
    states: AptStates,
) -> AptTransition:
    """The transition that keeps as many of the preferred rows as go with the requests: those that apt names
    as the reason why there is no solution are given up first, all of them last. Raises like `solve_apt`."""
    for _ in range(LOOSENED):
        if not problem.preferred:
            break
        try:
            return await solve_apt(
                problem, workspace, stack=stack, staging=staging, states=states, thorough=False
            )
        except ResolveError as failure:
            if failure.issues and failure.issues[0].code != CONFLICT:
                raise
            named = aptsolver.named_in(failure.details)
            kept = without_sources_of(named, problem.preferred, problem.stanzas)
            problem = replace(problem, preferred=kept if len(kept) < len(problem.preferred) else ())
    if len(problem.preferred):
        problem = replace(problem, preferred=())
    return await solve_apt(problem, workspace, stack=stack, staging=staging, states=states)


async def solve_apt(
    problem: AptProblem,
    workspace: Workspace,
    *,
    stack: Sequence[LayerKey],
    staging: Path,
    states: AptStates,
    thorough: bool = True,
) -> AptTransition:
    """The transition that answers the problem's requests.

    workspace: on the base alone, whose layers are `stack`; the caller aborts it
    states:    what apt made of the archives before
    thorough:  find out which requests do not go together, at the price of more solves
    Raises ResolveError: an Issue for each unknown package, or the requests that do not go together.
    """
    check_requests(problem)
    staging.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(prefix="apt-", dir=staging))
    try:
        solver = _Solver(problem, workspace, place, states, stack)
        await solver.read_archives()
        solution, errors = await solver.solve(problem.requests)
        if solution is None and not thorough:
            raise _conflict(problem.requests, aptsolver.explanation(errors))
        if solution is None:
            raise await _no_solution(problem, solver, errors)
        await _check_complete(problem, solver, solution, thorough)
        return _transition(problem, solution)
    finally:
        shutil.rmtree(place, ignore_errors=True)


async def check_apt(problem: AptProblem, workspace: Workspace, *, staging: Path) -> None:
    """Let apt look whether the problem's state answers its requests: without any archive, so that it can
    neither add nor choose anything. Raises ResolveError with its words."""
    staging.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(prefix="apt-", dir=staging))
    try:
        solver = _Solver(problem, workspace, place, None, ())
        await solver.read_archives()
        # Which suite a version is from is not written in a state.
        solution, errors = await solver.solve([replace(each, suite=None) for each in problem.requests])
    finally:
        shutil.rmtree(place, ignore_errors=True)
    if solution is None or solution.install or solution.remove:
        raise ResolveError(
            "apt does not find in the lock what `apt` asks for",
            details=aptsolver.explanation(errors),
            hint="run `sandboxfile lock --update`",
        )


class _Solver:
    """The base's apt, prepared for one problem. `place` is a directory that is mounted into the workspace."""

    def __init__(
        self,
        problem: AptProblem,
        workspace: Workspace,
        place: Path,
        states: AptStates | None,
        stack: Sequence[LayerKey],
    ) -> None:
        self._problem = problem
        self._workspace = workspace
        self._mounts = [Mount(place, PLACE)]
        self._installed = problem.state.versions()
        place.chmod(0o755)
        lines = []
        for number, suite in enumerate(problem.suites):
            _write(place / "keys" / f"{number}.gpg", suite.request.keyring.content)
            at = f"/run/sandboxfile/archive-{number}"
            self._mounts.append(Mount(suite.root, at))
            lines.append(aptsolver.source_line(suite, at, signed_by=f"{PLACE}/keys/{number}.gpg"))
        self._states = states
        self._state: Path | None = None
        if states is not None:
            self._state = states.path(stack, problem.architecture, problem.suites, "".join(lines))
        if gone := gone_stanzas(problem.preferred, problem.suites, problem.stanzas):
            # Locked versions that no archive holds any more; each stanza is that of a package whose digest
            # the lock names. They are another set each time.
            self._state = None
            _write(place / "locked/Packages", gone.encode())
            lines.append(f"deb [trusted=yes] file:{PLACE}/locked ./\n")
        _write(place / "sources.list", "".join(lines).encode())
        # apt believes no cache that is older than its sources.
        os.utime(place / "sources.list", (0, 0))
        _write(place / "preferences", self._preferences().encode())
        _write(place / "state/status", problem.state.status().encode())
        extended = problem.state.extended_states(problem.architecture)
        _write(place / "state/extended_states", extended.encode())
        configuration = aptsolver.Configuration(
            architecture=problem.architecture,
            sources=f"{PLACE}/sources.list",
            state=f"{PLACE}/state",
            lists=SCRATCH,
            preferences=f"{PLACE}/preferences",
            recommends=problem.recommends,
        )
        _write(place / "apt.conf", configuration.text().encode())

    def _preferences(self) -> str:
        requested: dict[str, str] = {}
        for request in self._problem.requests:
            if request.version is None:
                continue
            requested[request.name] = request.version
            # Libraries of one source often need each other in equal versions, so the pin is on all of them.
            for suite in self._problem.suites:
                for name, version in suite.index().siblings(request.name, request.version):
                    requested.setdefault(name, version)
        locked = {r.name: r.version for r in self._problem.preferred if r.name not in requested}
        # A named suite is for the request and for what must follow it there, not for everything.
        return aptsolver.pins(sorted(requested.items()), REQUESTED_PRIORITY) + aptsolver.pins(
            sorted(locked.items()), aptsolver.LOCKED_PRIORITY
        )

    async def read_archives(self) -> None:
        """Let apt read the archives and check their signatures, unless it has done so with just these."""
        if self._states and self._state and await self._states.find(self._state):
            self._mounts.append(Mount(self._state, SCRATCH))
            return
        make = f"mkdir -p {SCRATCH}/lists/partial {SCRATCH}/cache/archives/partial"
        code, _, errors = await self._said(("/bin/sh", "-ec", f"{make}; exec {' '.join(aptsolver.UPDATE)}"))
        if code in {126, 127}:
            raise ResolveError(
                "the base has no apt, which solves the `apt` packages",
                issues=_issues(self._problem.requests[:1], "no-apt", "the base has no apt to install this"),
                hint="use a Debian base, or leave `apt` out",
            )
        if code != 0:
            raise ResolveError(
                "the base's apt does not accept the archives", details=aptsolver.explanation(errors)
            )
        if self._states and self._state:
            # `lists/partial` and `auxfiles` are directories; what is in `lists` itself is the state.
            pack = f"cd {SCRATCH} && find lists {CACHE} -maxdepth 1 ! -type d | tar -cf - -T -"
            code, content, _ = await self._run(("/bin/sh", "-ec", pack))
            if code == 0:
                await self._states.keep(self._state, content)

    async def solve(self, requests: Sequence[AptRequest]) -> tuple[Solution | None, str]:
        """The solution for some requests, or None and what apt says about it."""
        names = sorted(_argument(request) for request in requests)
        code, output, errors = await self._said((*aptsolver.PLAN, *names))
        if code == 0 and (solution := aptsolver.parse_plan(output, self._installed)) is not None:
            return solution, errors
        code, output, errors = await self._said((*aptsolver.SIMULATE, *names))
        return (aptsolver.parse(output + errors), errors) if code == 0 else (None, output + errors)

    async def _said(self, argv: tuple[str, ...]) -> tuple[int, str, str]:
        code, *streams = await self._run(argv)
        output, errors = (stream.decode("utf-8", "replace") for stream in streams)
        return code, output, errors

    async def _run(self, argv: tuple[str, ...]) -> tuple[int, bytes, bytes]:
        pieces: dict[str, bytearray] = {"stdout": bytearray(), "stderr": bytearray()}

        def take(stream: str, piece: bytes) -> None:
            pieces[stream].extend(piece)

        env = {"PATH": DEFAULT_PATH, "LC_ALL": "C.UTF-8", "APT_CONFIG": f"{PLACE}/apt.conf"}
        command = Command(argv, env=env, mounts=tuple(self._mounts), timeout=TIMEOUT)
        done = await self._workspace.execute(command, take)
        if done.timed_out:
            raise ResolveError(f"apt did not find a solution in {TIMEOUT:.0f} seconds")
        return done.exit_code, bytes(pieces["stdout"]), bytes(pieces["stderr"])


def _argument(request: AptRequest) -> str:
    """A request as apt-get's argument; the native architecture goes without saying."""
    version = f"={request.version}" if request.version else ""
    suite = f"/{request.suite}" if request.suite and not request.version else ""
    return f"{request.name}{version}{suite}"


async def _no_solution(problem: AptProblem, solver: _Solver, errors: str) -> ResolveError:
    """The error for requests that have no solution; it names those that do not go together."""
    words = aptsolver.explanation(errors)
    named = [r for r in problem.requests if r.name in aptsolver.named_in(words)]
    if len(named) < 2 and len(problem.requests) > 1:
        for request in (r for r in problem.requests[: ERROR_TRIALS + 1] if r not in named):
            others = [r for r in problem.requests if r is not request]
            solution, _ = await solver.solve(others)
            if solution is not None:
                named.append(request)
                break
    return _conflict(named or list(problem.requests), words)


async def _check_complete(problem: AptProblem, solver: _Solver, solution: Solution, thorough: bool) -> None:
    """Refuse a solution that silently drops a request."""
    removed = {name for name, _ in solution.remove}
    after = problem.state.versions()
    after.update({p.name: p.version for p in solution.install})
    for name in removed - {p.name for p in solution.install}:
        after.pop(name, None)
    dropped = []
    for request in problem.requests:
        name = problem.package(request)
        if name not in after or request.version not in {None, after.get(name)}:
            dropped.append(request)
    if not dropped:
        return
    words = tuple(f"apt would remove {name}" for name in sorted(removed))
    trials = problem.requests[: ERROR_TRIALS + 1] if thorough else ()
    for request in (r for r in trials if r not in dropped):
        others = [r for r in problem.requests if r is not request]
        trial, _ = await solver.solve(others)
        if trial is not None and not {n for n, _ in trial.remove} & {r.name for r in dropped}:
            raise _conflict([*dropped, request], words)
    raise _conflict(dropped, words)


def _conflict(requests: Sequence[AptRequest], words: tuple[str, ...]) -> ResolveError:
    ordered = sorted(requests, key=_place)
    names = [f"`{request}`" for request in ordered]
    if len(names) > 1:
        shown = ", ".join(names[:-1]) + f" and {names[-1]}"
        message = f"apt cannot install {shown} together"
    else:
        message = f"apt cannot install {names[0]}"
    return ResolveError(
        message,
        issues=_issues(ordered, CONFLICT, message),
        details=words,
        hint="leave one of them out, or ask for versions that go together"
        if len(names) > 1
        else "see what it depends on",
    )


def _issues(requests: Sequence[AptRequest], code: str, message: str) -> tuple[Issue, ...]:
    """One Issue at the first request; the other requests are related places of it."""
    if not requests:
        return ()
    first, *others = requests
    related = tuple((f"`{r}` is asked for here", r.span) for r in others if r.span is not None)
    return (Issue(code, message, first.span, related=related),)


def _transition(problem: AptProblem, solution: Solution) -> AptTransition:
    requested = {problem.package(request) for request in problem.requests}
    reinstalled = {package.name for package in solution.install}
    removed = [(n, v) for n, v in solution.remove if n not in reinstalled]
    because = {
        package.name: _forced_by(problem, package.name, solution.install, requested)
        for package in solution.install
        if package.old is not None and package.name not in requested
    }
    # A removed package comes back in the same run only as a change of its architecture.
    before = problem.state.versions()
    install = tuple(
        Installed(p.name, p.version, p.arch, p.old or before.get(p.name)) for p in solution.install
    )
    # A replacement keeps the mark of what it replaces.
    auto = {p.name for p in solution.install if p.old is None or p.name in problem.automatic} - requested
    there = before.keys() - reinstalled - {name for name, _ in removed}
    manual = sorted(requested & there & problem.automatic)
    return AptTransition(
        requests=tuple(sorted(problem.answers)),
        rows=rows_of(
            install, problem.suites, auto=auto, because=because, known=problem.known()
        ),
        removed=tuple(
            RemovedRow(
                name,
                version or before.get(name, ""),
                problem.state.architecture(name),
                _forced_by(problem, name, solution.install, requested),
            )
            for name, version in sorted(removed)
        ),
        manual=tuple(f"{name}:{problem.state.architecture(name)}" for name in manual),
        archives=tuple(suite.archive for suite in problem.suites),
    )  # fmt: skip


def _forced_by(
    problem: AptProblem, name: str, install: Sequence[Installed], requested: Collection[str]
) -> str:
    """The package that does not go with this one as it was: either names the other in its relations. One
    that was asked for counts before any other."""
    target = problem.state.fields_of(name)
    target_names = {name, *names_in(target.get("Provides", ""))}
    refused = {*names_in(target.get("Breaks", "")), *names_in(target.get("Conflicts", ""))}
    candidates = []
    for package in install:
        if package.name == name:
            continue
        found = stanza_of(problem.suites, package.name, package.version, package.arch)
        stanza = fields(found[1]) if found else {}
        relations = ("Depends", "Pre-Depends", "Breaks", "Conflicts")
        named = {each for relation in relations for each in names_in(stanza.get(relation, ""))}
        own_names = {package.name, *names_in(stanza.get("Provides", ""))}
        if named & target_names or refused & own_names:
            candidates.append(package)
    # One that is new to the system is more telling than another replacement.
    candidates.sort(key=lambda p: (p.name not in requested, p.old is not None, p.name))
    return candidates[0].name if candidates else ", ".join(sorted(problem.answers)[:3])


def _place(request: AptRequest) -> tuple[int, int, str]:
    span = request.span
    return (span.line, span.column, str(request)) if span else (0, 0, str(request))


def _write(path: Path, content: bytes) -> None:
    """Write a file that a sandbox can read, whose ids own nothing here."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    path.parent.chmod(0o755)
    path.write_bytes(content)
    path.chmod(0o644)
