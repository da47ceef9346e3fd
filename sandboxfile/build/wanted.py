"""The downloads that a planned fetch stands for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sandboxfile.errors import PlanError
from sandboxfile.inputs.download import Wanted
from sandboxfile.plan.model import PlannedFetch
from sandboxfile.spec.lock import Lockfile
from sandboxfile.spec.model import DebianRequest, RootfsRequest, Sandboxfile

if TYPE_CHECKING:
    from sandboxfile.inputs.settings import Settings


def wanted_of(
    fetch: PlannedFetch,
    *,
    spec: Sandboxfile,
    lock: Lockfile,
    directory: Path,
    settings: Settings,
    cache: Path,
) -> tuple[Wanted, ...]:
    """Each file of a fetch, with every origin it may come from, in order of preference."""
    found = {item.sha256: item for item in _known(spec, lock, directory, settings, cache)}
    # No origin has a wheel that was built here.
    built = {row.sha256 for row in lock.installed_wheels() if row.built}
    try:
        return tuple(found[sha256] for sha256, _, _ in fetch.items if sha256 not in built)
    except KeyError as error:
        raise PlanError(f"the lock does not say where the file {error.args[0]} comes from") from error


def _known(
    spec: Sandboxfile, lock: Lockfile, directory: Path, settings: Settings, cache: Path
) -> list[Wanted]:
    from sandboxfile.inputs.environment import default_mirrors
    from sandboxfile.inputs.origins import archives_of, origins_of

    found: list[Wanted] = []
    if isinstance(spec.base, DebianRequest):
        defaults = default_mirrors(spec.base.suite, cache)
        origins = origins_of(spec, archives_of(lock), defaults=defaults, settings=settings)
        rows = [*lock.base.packages, *(row for g in lock.groups if g.apt for row in g.apt.rows)]
        found += [origins.deb(row) for row in rows]
    if isinstance(spec.base, RootfsRequest):
        location = spec.base.location
        url = location if "://" in location else (directory / location).absolute().as_uri()
        found.append(Wanted(lock.base.rootfs, 0, location, (url,)))
    for wheel in lock.installed_wheels():
        found.append(Wanted(wheel.sha256, wheel.size, wheel.filename, (wheel.url,)))
    return found
