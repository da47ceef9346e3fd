"""Solving apt requests with the base's own apt, on the state that the lock's earlier groups leave.

apt runs in a throw-away workspace on the base, without network. It sees the verified suites as local
archives, checks their signatures itself, and is told by a synthetic dpkg status what is installed.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import field
from pathlib import Path

from sandboxfile.core.environment import DEFAULT_PATH
from sandboxfile.declared import dataclass
from sandboxfile.engine.base import Command, Mount, Workspace
from sandboxfile.errors import Issue, ResolveError
from sandboxfile.inputs import aptsolver
from sandboxfile.inputs.aptsolver import Installed, Solution
from sandboxfile.inputs.archive import Suite
from sandboxfile.inputs.control import fields, names_in
from sandboxfile.inputs.debian_index import suggest
from sandboxfile.inputs.dpkgstate import DpkgState
from sandboxfile.inputs.rows import rows_of, stanza_of
from sandboxfile.spec.lock import AptTransition, DebRow, RemovedRow
from sandboxfile.spec.model import AptRequest

PLACE = "/run/sandboxfile/apt"
SCRATCH = "/tmp/sandboxfile-apt"
TIMEOUT = 300.0
LOCKED_PRIORITY = 995
REQUESTED_PRIORITY = 1001
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
    recommends: whether recommended packages are installed too
    """

    requests: tuple[AptRequest, ...]
    answers: tuple[str, ...]
    suites: tuple[Suite, ...]
    state: DpkgState
    architecture: str
    preferred: tuple[DebRow, ...] = ()
    stanzas: Mapping[str, str] = field(default_factory=dict)
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


async def solve_apt(problem: AptProblem, workspace: Workspace, *, staging: Path) -> AptTransition:
    """The transition that answers the problem's requests.

    workspace: on the base alone; the caller aborts it
    Raises ResolveError: an Issue for each unknown package, or the requests that do not go together.
    """
    check_requests(problem)
    staging.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(prefix="apt-", dir=staging))
    try:
        solver = _Solver(problem, workspace, place)
        await solver.update()
        solution, errors = await solver.solve(problem.requests)
        if solution is None:
            raise await _no_solution(problem, solver, errors)
        await _check_complete(problem, solver, solution)
        return _transition(problem, solution)
    finally:
        shutil.rmtree(place, ignore_errors=True)


class _Solver:
    """The base's apt, prepared for one problem. `place` is a directory that is mounted into the workspace."""

    def __init__(self, problem: AptProblem, workspace: Workspace, place: Path) -> None:
        self._problem = problem
        self._workspace = workspace
        self._mounts = [Mount(place, PLACE)]
        place.chmod(0o755)
        lines = []
        for number, suite in enumerate(problem.suites):
            _write(place / "keys" / f"{number}.gpg", suite.request.keyring.content)
            at = f"/run/sandboxfile/archive-{number}"
            self._mounts.append(Mount(suite.root, at))
            lines.append(aptsolver.source_line(suite, at, signed_by=f"{PLACE}/keys/{number}.gpg"))
        if gone := self._gone():
            # Locked versions that no archive holds any more; each stanza is that of a package whose digest
            # the lock names.
            _write(place / "locked/Packages", gone.encode())
            lines.append(f"deb [trusted=yes] file:{PLACE}/locked ./\n")
        _write(place / "sources.list", "".join(lines).encode())
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

    def _gone(self) -> str:
        texts = []
        for row in self._problem.preferred:
            if stanza_of(self._problem.suites, row.name, row.version, row.arch) is None:
                text = self._problem.stanzas.get(row.sha256, "")
                kept = [f"Filename: {row.path}", f"Size: {row.size}", f"SHA256: {row.sha256}"]
                if text and "\nFilename:" not in text:
                    text = "\n".join((text, *kept))
                texts.append(text)
        return "".join(f"{text}\n\n" for text in texts if text)

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
            sorted(locked.items()), LOCKED_PRIORITY
        )

    async def update(self) -> None:
        """Let apt read the archives and check their signatures."""
        make = f"mkdir -p {SCRATCH}/lists/partial {SCRATCH}/cache/archives/partial"
        code, _, errors = await self._run(("/bin/sh", "-ec", f"{make}; exec {' '.join(aptsolver.UPDATE)}"))
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

    async def solve(self, requests: Sequence[AptRequest]) -> tuple[Solution | None, str]:
        """The solution for some requests, or None and what apt says about it."""
        names = sorted(_argument(request) for request in requests)
        code, output, errors = await self._run((*aptsolver.SIMULATE, *names))
        return (aptsolver.parse(output + errors), errors) if code == 0 else (None, output + errors)

    async def _run(self, argv: tuple[str, ...]) -> tuple[int, str, str]:
        pieces: dict[str, bytearray] = {"stdout": bytearray(), "stderr": bytearray()}

        def take(stream: str, piece: bytes) -> None:
            pieces[stream].extend(piece)

        env = {"PATH": DEFAULT_PATH, "LC_ALL": "C.UTF-8", "APT_CONFIG": f"{PLACE}/apt.conf"}
        command = Command(argv, env=env, mounts=tuple(self._mounts), timeout=TIMEOUT)
        done = await self._workspace.execute(command, take)
        if done.timed_out:
            raise ResolveError(f"apt did not find a solution in {TIMEOUT:.0f} seconds")
        output, errors = (pieces[name].decode("utf-8", "replace") for name in ("stdout", "stderr"))
        return done.exit_code, output, errors


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


async def _check_complete(problem: AptProblem, solver: _Solver, solution: Solution) -> None:
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
    for request in (r for r in problem.requests[: ERROR_TRIALS + 1] if r not in dropped):
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
        issues=_issues(ordered, "apt-conflict", message),
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
    new = [package for package in solution.install if package.old is None]
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
    auto = {package.name for package in new} - requested
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
