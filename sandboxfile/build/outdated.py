"""Which pinned packages the archives and indexes have newer versions of.

A security update is a version that a suite named `…-security` holds. There is no such word for Python
distributions: an index says which files are withdrawn, and nothing of advisories.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from sandboxfile.errors import FetchError, ResolveError
from sandboxfile.inputs.archive import Suite
from sandboxfile.inputs.control import fields
from sandboxfile.inputs.interpreter import Interpreter
from sandboxfile.inputs.relations import compare
from sandboxfile.inputs.sdists import Release
from sandboxfile.spec.lock import DebRow, Lockfile, RemovedRow, WheelRow

Ask = Callable[[str], Awaitable[Sequence[Release]]]
OUTDATED_TAG = "sandboxfile.outdated/v1"
AT_ONCE = 8
"""How many of an index's pages are asked for at the same time."""


@dataclass(frozen=True)
class Outdated:
    """One pinned package with something to say about it.

    kind:      `base`, `apt` or `pip`
    layer:     the layer that holds it: `base`, `apt-2`, `pip-1`
    locked:    the pinned version
    newest:    the newest version on offer; for a hidden file the one that mends it; None when it is only
               withdrawn
    security:  a version newer than the locked one is a security update
    withdrawn: the index no longer offers the locked file: it was yanked, or removed
    hidden_by: the layer above that replaces or removes it; its files are still in the layer that holds it
    """

    kind: str
    name: str
    layer: str
    locked: str
    newest: str | None
    security: bool = False
    withdrawn: bool = False
    hidden_by: str | None = None


@dataclass(frozen=True)
class OutdatedReport:
    """What was found, in the order of layers and names.

    looked_at: how many pinned packages were compared
    unknown:   one sentence for each thing that could not be asked
    """

    packages: tuple[Outdated, ...]
    looked_at: int
    unknown: tuple[str, ...] = ()

    @property
    def security(self) -> tuple[Outdated, ...]:
        """Those with a security update, hidden ones included."""
        return tuple(each for each in self.packages if each.security)


def outdated_debs(lock: Lockfile, suites: Sequence[Suite]) -> Iterator[Outdated]:
    """Debian packages that these suites have newer versions of, and vulnerable ones that lie hidden in a
    lower layer because a group replaced or removed them."""
    for layer, row in _present(lock):
        versions = _newer(suites, row.name, row.version)
        if versions:
            newest = max(versions, key=_Ordered)
            yield Outdated(_kind(layer), row.name, layer, row.version, newest, any(versions.values()))
    for layer, row, above in _hidden(lock):
        mending = [v for v, secure in _newer(suites, row.name, row.version).items() if secure]
        if mending:
            newest = max(mending, key=_Ordered)
            yield Outdated(_kind(layer), row.name, layer, row.version, newest, True, hidden_by=above)


class _Ordered:
    """A version as a key for `max`."""

    def __init__(self, version: str) -> None:
        self._version = version

    def __lt__(self, other: _Ordered) -> bool:
        return compare(self._version, other._version) < 0


def _newer(suites: Sequence[Suite], name: str, locked: str) -> dict[str, bool]:
    """Each version on offer that is newer than the locked one, and whether it is a security update."""
    found: dict[str, bool] = {}
    for suite in suites:
        secure = suite.request.suite.rstrip("/").endswith("-security")
        for text in suite.index().texts(name):
            version = fields(text).get("Version", "")
            if version and compare(version, locked) > 0:
                found[version] = found.get(version, False) or secure
    return found


def _kind(layer: str) -> str:
    return layer.partition("-")[0]


def _present(lock: Lockfile) -> Iterator[tuple[str, DebRow]]:
    """What is installed in the end, with the layer that brought it."""
    holder = {(row.name, row.sha256): "base" for row in lock.base.packages}
    for number, group in enumerate(lock.groups, 1):
        for row in group.apt.rows if group.apt else ():
            holder[row.name, row.sha256] = f"apt-{number}"
    rows = lock.installed_debs().values()
    numbered = sorted(((holder[row.name, row.sha256], row) for row in rows), key=lambda each: _order(*each))
    yield from numbered


def _hidden(lock: Lockfile) -> Iterator[tuple[str, DebRow, str]]:
    """What lies in a layer though a higher one replaces or removes it: that layer, the row, the higher."""
    there = {row.name: ("base", row) for row in lock.base.packages}
    for number, group in enumerate(lock.groups, 1):
        layer = f"apt-{number}"
        gone: Iterable[DebRow | RemovedRow] = (*group.apt.removed, *group.apt.rows) if group.apt else ()
        for each in gone:
            before = there.pop(each.name, None)
            if before is not None:
                yield (*before, layer)
            if isinstance(each, DebRow):
                there[each.name] = (layer, each)


def _order(layer: str, row: DebRow) -> tuple[int, str]:
    return int(layer.partition("-")[2] or 0), row.name


async def outdated_wheels(
    lock: Lockfile, interpreter: Interpreter | None, ask: Ask
) -> tuple[tuple[Outdated, ...], tuple[str, ...]]:
    """Python distributions that the indexes have newer versions of, with a wheel for the interpreter, and
    what could not be asked.

    ask: the versions an index offers of a distribution, newest first, without withdrawn ones
    """
    limit = asyncio.Semaphore(AT_ONCE)
    rows = [
        (f"pip-{number}", row)
        for number, group in enumerate(lock.groups, 1)
        for row in (group.pip.rows if group.pip else ())
    ]

    async def look(layer: str, row: WheelRow) -> Outdated | str | None:
        async with limit:
            try:
                offered = await ask(row.name)
            except ResolveError:
                return Outdated("pip", row.name, layer, row.version, None, withdrawn=True)
            except FetchError as failure:
                return f"{row.name}: {failure.message}"
        return _newer_wheel(layer, row, offered, interpreter)

    found = await asyncio.gather(*(look(layer, row) for layer, row in rows))
    return (
        tuple(each for each in found if isinstance(each, Outdated)),
        tuple(each for each in found if isinstance(each, str)),
    )


def _newer_wheel(
    layer: str, row: WheelRow, offered: Sequence[Release], interpreter: Interpreter | None
) -> Outdated | None:
    from packaging.version import InvalidVersion, Version

    try:
        locked = Version(row.version)
    except InvalidVersion:
        return None
    newest: Version | None = None
    for release in offered:
        version = Version(release.version)
        usable = row.built or interpreter is None or release.has_wheel(interpreter)
        if version > locked and usable and (locked.is_prerelease or not version.is_prerelease):
            newest = version if newest is None else max(newest, version)
    files = {file.filename for release in offered for file in release.files}
    withdrawn = not row.built and row.filename not in files
    if newest is None and not withdrawn:
        return None
    return Outdated("pip", row.name, layer, row.version, str(newest) if newest else None, withdrawn=withdrawn)
