"""What this machine knows: which archives a Debian suite has by default, and the values of secrets."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from sandboxfile.declared import dataclass
from sandboxfile.errors import HostError, StoreError, UsageError

if TYPE_CHECKING:
    from sandboxfile.spec.model import Secret

_SUITE = re.compile(r"[a-z][a-z0-9.-]*")
_LINE = re.compile(r"deb\s+(?:\[[^\]]*\]\s+)?(\S+)\s+(\S+)((?:\s+\S+)+)")
_SECONDS = 60
_INSTALL = "install it with `apt-get install mmdebstrap`"


@dataclass(frozen=True)
class SuiteSource:
    """One suite of an archive. `archive` is its name (`debian`, `debian-security`), `url` the base that
    `dists/` and `pool/` are below, without a slash at its end."""

    archive: str
    url: str
    suite: str
    components: tuple[str, ...]


def default_mirrors(suite: str, cache: Path | None = None) -> tuple[SuiteSource, ...]:
    """The archives a suite has by default (for a stable one: itself, its updates and its security suite).

    Which they are is what mmdebstrap would use. With a directory `cache`, the answer is remembered there
    until another mmdebstrap is installed. Raises HostError when mmdebstrap is missing and nothing is
    remembered, or when it fails; UsageError for a name that no suite can have.
    """
    if not _SUITE.fullmatch(suite):
        raise UsageError(f"`{suite}` is not the name of a suite")
    tool = _tool()
    if cache is not None and (known := _remembered(cache / f"mirrors-{suite}.json", tool)) is not None:
        return known
    if tool is None:
        raise HostError("mmdebstrap is not installed", hint=_INSTALL)
    sources = parse_sources(_sources_list(suite))
    if not sources:
        raise HostError(f"mmdebstrap names no archive for {suite}", hint="give the base a `mirror:`")
    if cache is not None:
        _remember(cache / f"mirrors-{suite}.json", tool, sources)
    return sources


def parse_sources(text: str) -> tuple[SuiteSource, ...]:
    """The `deb` lines of a sources.list, in order; everything else in it is passed over."""
    found = []
    for line in text.splitlines():
        match = _LINE.fullmatch(line.partition("#")[0].strip())
        if match:
            url = match[1].rstrip("/")
            found.append(SuiteSource(_archive_name(url, match[2]), url, match[2], tuple(match[3].split())))
    return tuple(found)


def _archive_name(url: str, suite: str) -> str:
    """The last part of the URL's path. Some distributions keep their security suites under the same name
    on another host; they are told apart, since a mirror is chosen by archive name."""
    name = urlsplit(url).path.rstrip("/").rpartition("/")[2] or "archive"
    return f"{name}-security" if suite.endswith("-security") and not name.endswith("-security") else name


def _remember(path: Path, tool: str, sources: Sequence[SuiteSource]) -> None:
    document = {"tool": tool, "sources": [asdict(source) for source in sources]}
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(document, indent=1) + "\n", "utf-8")
        part.replace(path)
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror}") from None
    finally:
        part.unlink(missing_ok=True)


def _remembered(path: Path, tool: str | None) -> tuple[SuiteSource, ...] | None:
    try:
        document = json.loads(path.read_text("utf-8"))
        if tool is not None and document["tool"] != tool:
            return None
        return tuple(
            SuiteSource(**{**entry, "components": tuple(entry["components"])})
            for entry in document["sources"]
        )
    except (OSError, ValueError, TypeError, KeyError):
        # What is not there or cannot be read is asked for again and replaced.
        return None


def _tool() -> str | None:
    """What tells one mmdebstrap from another without starting it: its size and time; None without one."""
    import shutil

    found = shutil.which("mmdebstrap", path=_search_path())
    if found is None:
        return None
    status = os.stat(found)
    return f"{status.st_size}-{status.st_mtime_ns}"


def _search_path() -> str:
    """PATH with the directories for administrators, which ordinary users' may lack."""
    return f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"


def _sources_list(suite: str) -> str:
    """The sources.list that mmdebstrap writes, out of a run that stops before anything is fetched."""
    import tarfile
    import tempfile

    # Both modes make no namespace and need no subordinate ids; nothing is installed in either.
    mode = "root" if os.geteuid() == 0 else "chrootless"
    with tempfile.TemporaryDirectory(prefix="sandboxfile-") as scratch:
        tar = Path(scratch, "empty.tar")
        _run_mmdebstrap(
            (
                "--quiet",
                "--variant=custom",
                f"--mode={mode}",
                "--skip=update,cleanup",
                "--format=tar",
                suite,
                str(tar),
            ),
            scratch,
        )
        with tarfile.open(tar) as archive:
            for member in archive:
                if member.name.removeprefix("./") == "etc/apt/sources.list":
                    file = archive.extractfile(member)
                    return file.read().decode("utf-8", "replace") if file else ""
    return ""


def _run_mmdebstrap(arguments: Sequence[str], scratch: str) -> None:
    import subprocess

    env = {"PATH": _search_path(), "LC_ALL": "C.UTF-8", "HOME": "/", "TMPDIR": scratch}
    try:
        done = subprocess.run(
            ("mmdebstrap", *arguments),
            env=env,
            cwd=scratch,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=_SECONDS,
            check=False,
        )
    except OSError as error:
        raise HostError(f"mmdebstrap cannot be started: {error.strerror}", hint=_INSTALL) from None
    except subprocess.TimeoutExpired:
        raise HostError(f"mmdebstrap gave no answer within {_SECONDS} seconds") from None
    if done.returncode != 0:
        last = done.stderr.decode("utf-8", "replace").splitlines()[-5:]
        raise HostError("mmdebstrap could not tell the default archives", details=tuple(last))


def secret_values(
    secrets: Sequence[Secret], environ: Mapping[str, str], directory: Path
) -> Mapping[str, bytes]:
    """The values of declared secrets by name, read now: from the variable `env`, or from `file` (relative
    to `directory`, `~` is the user's home; its bytes as they are). One with neither is looked for in the
    variable of its own name.

    Raises UsageError naming every secret that is missing or empty; values are in no message.
    """
    values: dict[str, bytes] = {}
    missing: list[tuple[Secret, str]] = []
    for secret in secrets:
        try:
            values[secret.name] = _secret(secret, environ, directory)
        except _MissingError as error:
            missing.append((secret, str(error)))
    if missing:
        first = missing[0][0]
        raise UsageError(
            f"secret {first.name}: {missing[0][1]}"
            if len(missing) == 1
            else f"secrets {', '.join(secret.name for secret, _ in missing)} are missing",
            span=first.span,
            hint="give it where sandboxfile is started; the value is kept nowhere",
            details=tuple(f"{secret.name}: {reason}" for secret, reason in missing) if missing[1:] else (),
        )
    return values


class _MissingError(Exception):
    """A secret has no value; the text says why."""


def _secret(secret: Secret, environ: Mapping[str, str], directory: Path) -> bytes:
    if secret.file is not None:
        home = environ.get("HOME", "/")
        path = Path(home, secret.file[2:]) if secret.file.startswith("~/") else directory / secret.file
        try:
            value = path.read_bytes()
        except OSError as error:
            raise _MissingError(f"the file {secret.file} cannot be read: {error.strerror}") from None
        if not value:
            raise _MissingError(f"the file {secret.file} is empty")
        return value
    variable = secret.env or secret.name
    text = environ.get(variable)
    if text is None:
        raise _MissingError(f"the environment variable {variable} is not set")
    if not text:
        raise _MissingError(f"the environment variable {variable} is empty")
    return os.fsencode(text)
