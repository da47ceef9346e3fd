"""The downloads that a planned fetch stands for, and those of a whole lock."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from sandboxfile.errors import PlanError
from sandboxfile.inputs.download import Wanted
from sandboxfile.plan.model import PlannedFetch
from sandboxfile.spec.lock import Archive, DebRow, Lockfile, WheelRow
from sandboxfile.spec.model import DebianRequest, RootfsRequest, Sandboxfile

if TYPE_CHECKING:
    from sandboxfile.inputs.origins import Origins
    from sandboxfile.inputs.settings import Settings


@dataclass(frozen=True)
class WantedFiles:
    """Every file of a lock, with every origin it may come from, in order of preference.

    cache:   where the default mirrors of a suite are remembered
    offline: only origins on this machine count, so that nobody has to be asked for the default mirrors
    """

    spec: Sandboxfile
    lock: Lockfile
    directory: Path
    settings: Settings
    cache: Path
    offline: bool = False

    def of(self, fetch: PlannedFetch) -> tuple[Wanted, ...]:
        """The files of a planned fetch."""
        names = {sha256 for sha256, _, _ in fetch.items}
        found = {item.sha256: item for item in self._some(names)}
        try:
            return tuple(found[sha256] for sha256, _, _ in fetch.items)
        except KeyError as error:
            raise PlanError(f"the lock does not say where the file {error.args[0]} comes from") from error

    def debs(self) -> tuple[tuple[DebRow, Wanted], ...]:
        """Every Debian package."""
        origins = self._origins()
        return tuple((row, origins.deb(row, archives)) for row, archives in self._deb_rows())

    def wheels(self) -> tuple[tuple[WheelRow, Wanted], ...]:
        """Every wheel; what was built from source here has no origin but vendored packages and caches."""
        return tuple((row, self._wheel(row)) for row in self.lock.installed_wheels())

    def sources(self) -> tuple[tuple[WheelRow, Wanted], ...]:
        """The source archives of the wheels that were built here."""
        found = []
        for row in self.lock.installed_wheels():
            if row.built and row.sdist_sha256:
                name = urlsplit(row.url).path.rpartition("/")[2]
                urls = (self._url(row.url),)
                found.append((row, Wanted(row.sdist_sha256, 0, name, urls, distribution=row.name)))
        return tuple(found)

    def rootfs(self) -> Wanted | None:
        """The tar of a `rootfs` base."""
        if not isinstance(self.spec.base, RootfsRequest):
            return None
        location = self.spec.base.location
        url = location if "://" in location else (self.directory / location).absolute().as_uri()
        return Wanted(self.lock.base.rootfs, 0, location, (url,))

    def _some(self, names: set[str]) -> Iterator[Wanted]:
        rows = [(row, archives) for row, archives in self._deb_rows() if row.sha256 in names]
        if rows:
            origins = self._origins()
            yield from (origins.deb(row, archives) for row, archives in rows)
        yield from (item for _, item in self.wheels())
        if (rootfs := self.rootfs()) is not None:
            yield rootfs

    def _deb_rows(self) -> Iterator[tuple[DebRow, tuple[Archive, ...]]]:
        """Each package, with the suites it was solved on."""
        base = self.lock.base
        yield from ((row, base.archives) for row in base.packages)
        for group in self.lock.groups:
            if group.apt:
                yield from ((row, group.apt.archives) for row in group.apt.rows)

    def _origins(self) -> Origins:
        from sandboxfile.inputs.environment import default_mirrors
        from sandboxfile.inputs.origins import archives_of, origins_of

        archives = archives_of(self.lock)
        suite = self._suite(archives)
        defaults = default_mirrors(suite, self.cache) if suite and not self.offline else ()
        return origins_of(self.spec, archives, defaults=defaults, settings=self.settings)

    def _suite(self, archives: tuple[Archive, ...]) -> str | None:
        """The Debian suite whose default mirrors have the packages; a base that is no `debian:` one was asked
        for its code name when the lock was made."""
        if isinstance(self.spec.base, DebianRequest):
            return self.spec.base.suite
        suites = [a.suite for a in archives if a.name == "debian" and "-" not in a.suite]
        return suites[0] if suites else None

    def _wheel(self, row: WheelRow) -> Wanted:
        urls = () if row.built else (self._url(row.url),)
        return Wanted(row.sha256, row.size, row.filename, urls, distribution=row.name)

    def _url(self, url: str) -> str:
        """A locked URL, with the credentials of an index of the same origin: they are in no lock."""
        parts = urlsplit(url)
        pip, settings = self.spec.pip, self.settings
        indexes = (
            pip.index_url,
            settings.pip_index_url,
            *pip.extra_index_urls,
            *settings.pip_extra_index_urls,
        )
        for index in indexes:
            user, at, host = urlsplit(index or "").netloc.rpartition("@")
            if at and host == parts.netloc and urlsplit(index or "").scheme == parts.scheme:
                return urlunsplit(parts._replace(netloc=f"{user}@{host}"))
        return url
