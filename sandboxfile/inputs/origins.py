"""Where packages come from: the suites to ask, and the URLs of a locked package.

No host is written here. Mirrors are those of the Sandboxfile or the settings, else the ones that this
machine's own tools use for a suite; older packages come from a snapshot archive, when the settings name one.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from sandboxfile.declared import dataclass
from sandboxfile.errors import Issue, ResolveError, SpecError
from sandboxfile.inputs.archive import SuiteRequest
from sandboxfile.inputs.download import Wanted
from sandboxfile.inputs.environment import SuiteSource
from sandboxfile.inputs.settings import Settings
from sandboxfile.inputs.signature import Keyring, dearmor, debian_keyring
from sandboxfile.spec.lock import Archive, DebRow, Lockfile
from sandboxfile.spec.model import AptSource, DebianRequest, Sandboxfile


def stamp(when: int) -> str:
    """A time as snapshot archives name it: `20260912T075541Z`."""
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(when))


def snapshot_stamp(request: DebianRequest) -> str | None:
    """The `snapshot:` time of a base in that form; it may be written in that form or as ISO 8601.

    Raises SpecError when it is neither.
    """
    text = request.snapshot
    if text is None or re.fullmatch(r"\d{8}T\d{6}Z", text):
        return text
    from datetime import UTC, datetime

    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        hint = "write it as 2026-09-12T07:55:41Z"
        issue = Issue("bad-value", f"`{text}` is no time", request.span, "base.snapshot", hint)
        raise SpecError((issue,)) from None
    return stamp(int((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()))


def base_urls(archive: str, defaults: Iterable[SuiteSource], settings: Settings) -> tuple[str, ...]:
    """The base URLs of an archive: the settings' mirrors, else the defaults."""
    if chosen := settings.apt_mirrors.get(archive):
        return tuple(url.rstrip("/") for url in chosen)
    return tuple(dict.fromkeys(s.url.rstrip("/") for s in defaults if s.archive == archive))


def base_suites(
    request: DebianRequest,
    *,
    defaults: Sequence[SuiteSource],
    settings: Settings,
    architecture: str,
    extra: Iterable[str] = (),
) -> tuple[SuiteRequest, ...]:
    """The suites of a Debian base, and `extra` ones (such as backports) of its main archive."""
    keyring = debian_keyring(settings.keyring)
    when = snapshot_stamp(request)
    if when is not None and not settings.snapshot_hosts:
        issue = Issue(
            "no-snapshot-host",
            "`snapshot:` needs a snapshot archive, and the settings name none",
            request.span,
            "base.snapshot",
            "set `snapshot-hosts` in the settings",
        )
        raise ResolveError(issue.message, issues=(issue,), hint=issue.hint)
    wanted = [(source.archive, source.suite) for source in defaults]
    wanted += [("debian", suite) for suite in extra if ("debian", suite) not in wanted]
    suites = []
    for archive, suite in dict.fromkeys(wanted):
        if when is not None:
            urls = tuple(f"{host.rstrip('/')}/archive/{archive}/{when}" for host in settings.snapshot_hosts)
        elif request.mirror is not None and archive == "debian":
            urls = (request.mirror.rstrip("/"),)
        else:
            urls = base_urls(archive, defaults, settings)
        suites.append(
            SuiteRequest(
                archive,
                suite,
                request.components,
                architecture,
                urls,
                keyring,
                past=when is not None,
                span=request.span,
            )
        )
    return tuple(suites)


def source_suites(
    sources: Iterable[AptSource], *, directory: Path, architecture: str
) -> tuple[SuiteRequest, ...]:
    """The suites of the Sandboxfile's own sources. Raises SpecError for keys that cannot be read."""
    issues = []
    suites = []
    for source in sources:
        if source.architectures and architecture not in source.architectures:
            continue
        try:
            keyring = Keyring(f"the key of the source `{source.name}`", dearmor(_key(source, directory)))
        except (OSError, ValueError) as failure:
            reason = failure.strerror if isinstance(failure, OSError) else str(failure)
            message = f"the signing key of `{source.name}` cannot be used: {reason}"
            issues.append(Issue("bad-key", message, source.span, f"apt.sources.{source.name}"))
            continue
        urls = tuple(uri.rstrip("/") for uri in source.uris)
        suites += [
            SuiteRequest(source.name, suite, source.components, architecture, urls, keyring, span=source.span)
            for suite in source.suites
        ]
    if issues:
        raise SpecError(tuple(issues))
    return tuple(suites)


def _key(source: AptSource, directory: Path) -> bytes:
    if "-----BEGIN PGP" in source.signed_by:
        return source.signed_by.encode()
    path = (directory / source.signed_by).resolve()
    if not path.is_relative_to(directory.resolve()):
        raise ValueError("it is outside of the build context")
    return path.read_bytes()


@dataclass(frozen=True)
class Origins:
    """Turns rows of a lock into downloads.

    urls:  base URLs by archive
    hosts: snapshot archives
    dates: when each archive was looked at, newest first, seconds since the epoch
    """

    urls: Mapping[str, tuple[str, ...]]
    hosts: tuple[str, ...] = ()
    dates: Mapping[str, tuple[int, ...]] | None = None

    def deb(self, row: DebRow) -> Wanted:
        """A package: from its archive's mirrors, then from each snapshot archive at the lock's dates."""
        urls = [f"{url}/{row.path}" for url in self.urls.get(row.archive, ())]
        urls += [
            f"{host.rstrip('/')}/archive/{row.archive}/{stamp(date)}/{row.path}"
            for host in self.hosts
            for date in (self.dates or {}).get(row.archive, ())
        ]
        return Wanted(row.sha256, row.size, row.path.rpartition("/")[2], tuple(dict.fromkeys(urls)))


def origins_of(
    spec: Sandboxfile, archives: Iterable[Archive], *, defaults: Sequence[SuiteSource], settings: Settings
) -> Origins:
    """The origins of every package that a lock with these archives can name."""
    urls = {name: base_urls(name, defaults, settings) for name in {s.archive for s in defaults}}
    for name, mirrors in settings.apt_mirrors.items():
        urls.setdefault(name, tuple(url.rstrip("/") for url in mirrors))
    for source in spec.apt.sources:
        urls[source.name] = tuple(uri.rstrip("/") for uri in source.uris)
    if isinstance(spec.base, DebianRequest) and spec.base.mirror:
        urls["debian"] = (spec.base.mirror.rstrip("/"), *urls.get("debian", ()))
    dates: dict[str, set[int]] = {}
    for archive in archives:
        dates.setdefault(archive.name, set()).add(archive.date)
    # A point release replaces packages at once; a few dates reach every version a lock can hold.
    newest = {name: tuple(sorted(when, reverse=True)[:4]) for name, when in dates.items()}
    return Origins(urls, tuple(settings.snapshot_hosts), newest)


def archives_of(lock: Lockfile) -> tuple[Archive, ...]:
    """Every archive a lock names."""
    return (*lock.base.archives, *(a for g in lock.groups if g.apt for a in g.apt.archives))
