"""Solving pip requirements with uv, outside of any sandbox, for the interpreter that is locked.

Only metadata is read: building anything is refused here, so that no code of a distribution runs on this
machine.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from sandboxfile.declared import dataclass
from sandboxfile.errors import FetchError, HostError, Issue, ResolveError
from sandboxfile.inputs.interpreter import Interpreter
from sandboxfile.inputs.settings import Settings
from sandboxfile.inputs.wheels import no_wheel, read_pylock
from sandboxfile.spec.lock import WheelRow
from sandboxfile.spec.model import Pip, PipRequest

_NETWORK_WORDS = (
    "Failed to fetch",
    "error sending request",
    "Request failed after",
    "Could not connect",
    "dns error",
    "tcp connect error",
    "network connectivity is disabled",
    "operation timed out",
)


# Credentials of named indexes, and how uv talks and where it keeps things, are no part of an answer.
_UV_CREDENTIALS = re.compile(r"UV_INDEX_\w+_(USERNAME|PASSWORD)")
_UV_KEPT = frozenset({"UV_CACHE_DIR", "UV_HTTP_TIMEOUT", "UV_NATIVE_TLS", "UV_KEYRING_PROVIDER"})


@dataclass(frozen=True)
class PipProblem:
    """One solve.

    requests:  every pip request of the file
    pip:       its options
    held:      locked distributions that must not move
    preferred: locked distributions to keep if possible
    local:     a directory of wheels that were built here, or None
    directory: what relative paths of the Sandboxfile are relative to
    """

    requests: tuple[PipRequest, ...]
    pip: Pip
    interpreter: Interpreter
    directory: Path
    held: tuple[WheelRow, ...] = ()
    preferred: tuple[WheelRow, ...] = ()
    local: Path | None = None
    offline: bool = False
    refresh: bool = False


class UvError(Exception):
    """uv found no solution; its words are kept for the error that the caller makes of it."""

    def __init__(self, words: str) -> None:
        super().__init__(words)
        self.words = words


def uv_program() -> Path:
    """The uv program that comes with this package. Raises HostError."""
    import uv

    try:
        return Path(uv.find_uv_bin())
    except FileNotFoundError:
        raise HostError("the uv program is missing", hint="reinstall the Python package `uv`") from None


def default_index(settings: Settings) -> str | None:
    """The index that uv asks when nobody names one, as it says itself."""
    argv = [
        str(uv_program()),
        "pip",
        "compile",
        "-",
        "--emit-index-url",
        "--offline",
        "--no-header",
        "--quiet",
    ]
    done = subprocess.run(
        [*argv, "--python", sys.executable],
        env=uv_environment(settings),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.search(r"^--index-url (\S+)", done.stdout, re.MULTILINE)
    return found.group(1) if found else None


def index_arguments(pip: Pip, settings: Settings, directory: Path) -> list[str]:
    """uv's options for where to look: those of the Sandboxfile, else the settings'."""
    argv: list[str] = []
    index = pip.index_url or settings.pip_index_url
    if index:
        argv += ["--default-index", index]
    for extra in pip.extra_index_urls or settings.pip_extra_index_urls:
        argv += ["--index", extra]
    for place in pip.find_links or settings.pip_find_links:
        local = "://" not in place and not os.path.isabs(place)
        argv += ["--find-links", str(directory / place) if local else place]
    return argv


def uv_environment(settings: Settings) -> dict[str, str]:
    """The environment for uv: this process's, for proxies and credentials, without any configuration
    of uv that would change an answer."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in _UV_KEPT
        or _UV_CREDENTIALS.fullmatch(name)
        or not (name.startswith(("UV_", "PIP_")) or name == "VIRTUAL_ENV")
    }
    kept |= {"UV_PYTHON_DOWNLOADS": "never", "UV_NO_CONFIG": "1", "NO_COLOR": "1", "UV_NO_PROGRESS": "1"}
    if settings.ca_bundle:
        kept["SSL_CERT_FILE"] = str(settings.ca_bundle)
    return kept


async def solve_pip(problem: PipProblem, settings: Settings) -> tuple[WheelRow, ...]:
    """Every distribution that the requests need, held ones included.

    Raises UvError when there is no solution with the held distributions, ResolveError when a
    distribution has no wheel for the target, FetchError when no index answers.
    """
    return await asyncio.to_thread(_solve, problem, settings)


def _solve(problem: PipProblem, settings: Settings) -> tuple[WheelRow, ...]:
    with tempfile.TemporaryDirectory(prefix="sandboxfile-uv-") as scratch:
        place = Path(scratch)
        requirements = "".join(f"{r.requirement}\n" for r in problem.requests)
        (place / "requirements.in").write_text(requirements)
        held = "".join(f"{row.name}=={row.version}\n" for row in problem.held)
        (place / "constraints.txt").write_text(held)
        common = [
            "--quiet", "--python", sys.executable,
            "--python-version", problem.interpreter.version,
            "--python-platform", problem.interpreter.platform,
            "--only-binary", ":all:", "--no-header", "--no-annotate",
            "--constraints", str(place / "constraints.txt"),
            *index_arguments(problem.pip, settings, problem.directory),
        ]  # fmt: skip
        for path in problem.pip.constraints:
            common += ["--constraints", str(problem.directory / path)]
        if problem.pip.prereleases:
            common += ["--prerelease", "allow"]
        if problem.pip.exclude_newer:
            common += ["--exclude-newer", problem.pip.exclude_newer]
        if problem.local is not None:
            common += ["--find-links", str(problem.local)]
        if problem.offline:
            common.append("--offline")
        if problem.refresh:
            common.append("--refresh")
        environment = uv_environment(settings)
        source = str(place / "requirements.in")
        if problem.preferred:
            # uv prefers the versions of its output file. What it then chooses is locked exactly.
            preferences = "".join(f"{row.name}=={row.version}\n" for row in problem.preferred)
            out = place / "versions.txt"
            out.write_text(preferences)
            _uv(["pip", "compile", source, "--output-file", str(out), *common], environment, problem)
            with (place / "constraints.txt").open("a") as constraints:
                constraints.write(out.read_text())
        out = place / "pylock.toml"
        _uv(
            ["pip", "compile", source, "--format", "pylock.toml", "--output-file", str(out), *common],
            environment,
            problem,
        )
        return read_pylock(_absolute(out.read_text(), place), problem.interpreter)


async def check_pip(
    requests: Sequence[PipRequest],
    pip: Pip,
    interpreter: Interpreter,
    directory: Path,
    wheels: Path,
    settings: Settings,
) -> None:
    """Whether the wheels in a directory answer the requests, with nothing else to choose from and no network.
    Raises UvError with uv's words when they do not."""
    await asyncio.to_thread(_check, requests, pip, interpreter, directory, wheels, settings)


def _check(
    requests: Sequence[PipRequest],
    pip: Pip,
    interpreter: Interpreter,
    directory: Path,
    wheels: Path,
    settings: Settings,
) -> None:
    with tempfile.TemporaryDirectory(prefix="sandboxfile-uv-") as scratch:
        source = Path(scratch, "requirements.in")
        source.write_text("".join(f"{request.requirement}\n" for request in requests))
        argv = ["pip", "compile", str(source), "--output-file", str(Path(scratch, "out.txt"))]
        argv += ["--quiet", "--python", sys.executable, "--python-version", interpreter.version]
        argv += ["--python-platform", interpreter.platform, "--only-binary", ":all:", "--no-header"]
        # Each version is given: whether it is one before its release was decided when it was locked.
        argv += ["--offline", "--no-index", "--find-links", str(wheels), "--prerelease", "allow"]
        for path in pip.constraints:
            argv += ["--constraints", str(directory / path)]
        done = _run_uv(argv, uv_environment(settings))
    if done.returncode != 0:
        raise UvError(done.stderr.strip())


def _absolute(pylock: str, place: Path) -> str:
    """Paths of local wheels, which uv writes relative to its output file, as they are on this machine."""

    def full(found: re.Match[str]) -> str:
        return f'path = "{os.path.normpath(place / found.group(1))}"'

    return re.sub(r'path = "([^"/][^"]*)"', full, pylock)


def _uv(arguments: Sequence[str], environment: Mapping[str, str], problem: PipProblem) -> None:
    done = _run_uv(arguments, environment)
    if done.returncode == 0:
        return
    words = done.stderr.strip()
    if any(word in words for word in _NETWORK_WORDS):
        raise FetchError(
            "the package index does not answer"
            if not problem.offline
            else "the package index was not asked before, and this is offline",
            details=tuple(words.splitlines()[-12:]),
            hint="check the network and the index in `pip` or in the settings",
        )
    raise UvError(words)


def _run_uv(arguments: Sequence[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(uv_program()), *arguments], env=dict(environment), capture_output=True, text=True, check=False
    )


def explain(problem: PipProblem, words: str) -> ResolveError:
    """The error for a failed solve: uv's explanation, and an issue at each request that it names."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    text = " ".join(words.split())
    lines = _explanation(words)
    mentioned = set(re.findall(r"[a-z0-9]+(?:[-_.]+[a-z0-9]+)*", text.lower()))
    mentioned = {re.sub(r"[-_.]+", "-", word) for word in mentioned}
    named = [
        request
        for request in problem.requests
        if canonicalize_name(Requirement(request.requirement).name) in mentioned
    ]
    missing = re.search(r"(?:Because )?(\S+) was not found in the (?:package registry|provided)", text)
    # uv's hint on wheels also stands below conflicts of versions; only this sentence says what the cause is.
    wheel = re.search(r"all versions of (\S+) have no usable wheels", text)
    if wheel is None and len(named) < 2:
        wheel = re.search(r"Wheels are required for `([^`]+)`", text)
    if missing:
        message = f"the index has no distribution `{missing.group(1)}`"
        code, hint = "unknown-distribution", "check the spelling, or add the index that has it"
    elif wheel:
        failure = no_wheel(wheel.group(1))
        message, code, hint = failure.message, "no-wheel", failure.hint or ""
    else:
        shown = [f"`{request.requirement}`" for request in named]
        if len(shown) > 1:
            together = ", ".join(shown[:-1]) + f" and {shown[-1]}"
            message = f"the pip requirements {together} have no solution together"
        elif shown:
            message = f"the pip requirement {shown[0]} has no solution"
        else:
            message = "the pip requirements have no solution"
        code, hint = "pip-conflict", "loosen one of the requirements"
    spans = named or list(problem.requests)[:1]
    first = spans[0] if spans else None
    related = tuple((f"`{r.requirement}` is asked for here", r.span) for r in spans[1:] if r.span)
    issue = Issue(code, message, first.span if first else problem.pip.span, hint=hint, related=related)
    return ResolveError(message, issues=(issue,), details=lines, hint=hint)


def _explanation(words: str) -> tuple[str, ...]:
    """uv's explanation, without the words that name its own options."""
    kept = []
    for line in words.splitlines():
        if line.startswith("hint:"):
            # They name uv's own options; ours says the same in terms of the Sandboxfile.
            continue
        text = re.sub(r"^(error|cause|  cause): ?", "", line).strip()
        if text and text != "No solution found when resolving dependencies":
            kept.append(text.removeprefix("cause: "))
    return tuple(kept)
