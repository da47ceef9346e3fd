"""The text of a lock as values. A lock may come from a branch nobody has read: every field is checked
against the one form it can have before anything else sees it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn, TypeVar

from sandboxfile.core.digest import Digest, is_digest
from sandboxfile.core.slug import is_slug
from sandboxfile.errors import LockFormatError, Source
from sandboxfile.spec.lock import (
    LOCK_VERSION,
    AptTransition,
    Archive,
    DebRow,
    Group,
    LockedBase,
    Lockfile,
    PipTransition,
    RemovedRow,
    WheelRow,
)
from sandboxfile.spec.tomlplaces import line_span, span_of, syntax_problem
from sandboxfile.spec.tomlscan import Path

T = TypeVar("T")

_BASE: Path = ("base",)
_MAX_INTEGER = 2**53
_NAME = r"[A-Za-z0-9][A-Za-z0-9+._-]*"
_VERSION = r"[A-Za-z0-9][A-Za-z0-9.+~:-]*"
_ARCH = r"[a-z0-9][a-z0-9-]*"
_PACKAGE = rf"{_NAME}(?::{_ARCH})?"

_DEB = re.compile(
    rf"({_NAME}) ({_VERSION}) ({_ARCH}) ([0-9a-f]{{64}}) ([0-9]{{1,15}}) "
    rf"([A-Za-z0-9+._~:%@,=/-]+) ({_NAME})( auto)?(?: replaces=({_VERSION}))?(?: because=({_PACKAGE}))?"
)
_REMOVED = re.compile(rf"({_NAME}) ({_VERSION}) ({_ARCH})(?: because=({_PACKAGE}))?")
_ARCHIVE = re.compile(
    rf"({_NAME}) ([A-Za-z0-9+._~/-]+) "
    r"(-|[A-Za-z0-9][A-Za-z0-9._/-]*(?:,[A-Za-z0-9][A-Za-z0-9._/-]*)*) (sha256:[0-9a-f]{64}) ([0-9]{1,15})"
)
_MARKED = re.compile(rf"{_NAME}:{_ARCH}")
_HEX = re.compile(r"[0-9a-f]{64}")
_WHEEL_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_WHEEL_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+!_-]*")
_WHEEL_FILE = re.compile(r"[A-Za-z0-9._]+(?:-[A-Za-z0-9._+!]+){4,5}\.whl")
# An address, or the place of a file on this machine.
_URL = re.compile(r"(?:https?|file)://[!-~]+|(?!.*://).+")
_COMPONENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]*")

_KINDS = {"debian": "suite", "rootfs": "rootfs", "snapshot": "snapshot", "scratch": ""}


def load(text: str, name: str = "sandboxfile.lock") -> Lockfile:
    """Read a lock. Raises LockFormatError, with the line, for anything `dump` would not have written."""
    return _Reader(text, name).lockfile()


class _Reader:
    def __init__(self, text: str, name: str) -> None:
        self._source = Source(name, text)

    def lockfile(self) -> Lockfile:
        document = self._decode()
        self._check_version(document)
        self._only(
            document, (), {"version", "base", "apt-options", "pip-options", "recipes", "inputs", "group"}
        )
        groups = document.get("group", [])
        if not isinstance(groups, list) or not all(isinstance(each, dict) for each in groups):
            self._wrong(("group",), "`group` must be written as [[group]] tables")
        return Lockfile(
            base=self._base(self._table(document, "base", ())),
            groups=tuple(self._group(each, ("group", number)) for number, each in enumerate(groups)),
            apt_options=self._texts(document, "apt-options"),
            pip_options=self._texts(document, "pip-options"),
            recipes=self._digests(document, "recipes"),
            inputs=self._digests(document, "inputs"),
        )

    def _decode(self) -> dict[str, Any]:
        import tomllib

        try:
            return tomllib.loads(self._source.text)
        except (ValueError, RecursionError) as error:
            conflict = re.search(r"^(<{7}|\|{7}|={7}|>{7})( |$)", self._source.text, re.MULTILINE)
            if conflict:
                line = self._source.text.count("\n", 0, conflict.start()) + 1
                raise LockFormatError(
                    "the lock has an unresolved merge conflict",
                    span=line_span(self._source, line),
                    hint="delete the lines that begin with <<<<<<<, ======= and >>>>>>>, which keeps both "
                    "sides, and run `sandboxfile lock`",
                ) from None
            reason, span = syntax_problem(self._source, error)
            raise LockFormatError(
                f"the lock is not valid TOML: {_shown(reason)}", span=span, hint=_RESTORE
            ) from None

    def _check_version(self, document: Mapping[str, Any]) -> None:
        version = document.get("version")
        if type(version) is not int or version < 1:
            self._wrong(("version",), "the lock does not say which version of the format it has")
        if version > LOCK_VERSION:
            raise LockFormatError(
                f"the lock was written by a newer version of sandboxfile "
                f"(lock version {version}; this one reads up to {LOCK_VERSION})",
                span=span_of(self._source, ("version",)),
                hint="upgrade sandboxfile",
            )

    def _base(self, table: Mapping[str, Any]) -> LockedBase:
        self._only(
            table,
            _BASE,
            {"request", "kind", "architecture", "epoch", "suite", "components", "archives", "packages"}
            | {"rootfs", "snapshot", "layers", "diff-id"},
        )
        kind = self._text(table, "kind", _BASE)
        if kind not in _KINDS:
            self._wrong(("base", "kind"), f"{_quoted(kind)} is not a kind of base")
        if _KINDS[kind] and not table.get(_KINDS[kind]):
            self._wrong(("base",), f"a base of kind {kind} needs `{_KINDS[kind]}`")
        diff_id = self._text(table, "diff-id", _BASE, default="")
        if diff_id and not is_digest(diff_id):
            self._wrong(("base", "diff-id"), "`diff-id` is not a digest")
        packages = self._rows(table, "packages", _BASE, self._deb)
        self._unique(((row.name, row.arch) for row in packages), ("base", "packages"))
        return LockedBase(
            request=self._text(table, "request", _BASE),
            kind=kind,
            architecture=self._matched(table, "architecture", _BASE, re.compile(_ARCH)),
            epoch=self._integer(table, "epoch", _BASE),
            suite=self._matched(table, "suite", _BASE, re.compile(_NAME), default=""),
            components=self._rows(table, "components", _BASE, self._pattern(_COMPONENT, "a component")),
            archives=self._rows(table, "archives", _BASE, self._archive),
            packages=packages,
            rootfs=self._matched(table, "rootfs", _BASE, _HEX, default=""),
            snapshot=self._slug(table),
            layers=self._rows(table, "layers", _BASE, self._digest),
            diff_id=Digest(diff_id) if diff_id else None,
        )

    def _slug(self, table: Mapping[str, Any]) -> str:
        slug = self._text(table, "snapshot", _BASE, default="")
        if slug and not is_slug(slug):
            self._wrong(("base", "snapshot"), f"{_quoted(slug)} is not a snapshot's slug")
        return slug

    def _group(self, table: Mapping[str, Any], at: Path) -> Group:
        self._only(table, at, {"after", "apt", "pip"})
        after = self._text(table, "after", at)
        if not is_digest(after):
            self._wrong((*at, "after"), "`after` is not a digest")
        if "apt" not in table and "pip" not in table:
            self._wrong(at, "a group needs `apt`, `pip` or both")
        return Group(
            after=Digest(after),
            apt=self._apt(self._table(table, "apt", (*at, "apt")), (*at, "apt")) if "apt" in table else None,
            pip=self._pip(self._table(table, "pip", (*at, "pip")), (*at, "pip")) if "pip" in table else None,
        )

    def _apt(self, table: Mapping[str, Any], at: Path) -> AptTransition:
        self._only(table, at, {"requests", "archives", "install", "remove", "manual"})
        rows = self._rows(table, "install", at, self._deb)
        self._unique(((row.name, row.arch) for row in rows), (*at, "install"))
        removed = self._rows(table, "remove", at, self._removed)
        self._unique(((row.name, row.arch) for row in removed), (*at, "remove"))
        return AptTransition(
            requests=self._requests(table, at),
            rows=rows,
            removed=removed,
            manual=self._rows(table, "manual", at, self._pattern(_MARKED, "a package NAME:ARCH")),
            archives=self._rows(table, "archives", at, self._archive),
        )

    def _pip(self, table: Mapping[str, Any], at: Path) -> PipTransition:
        self._only(table, at, {"requests", "python", "packages"})
        rows = self._rows(table, "packages", at, self._wheel)
        self._unique((re.sub(r"[-_.]+", "-", row.name).lower() for row in rows), (*at, "packages"))
        return PipTransition(
            requests=self._requests(table, at),
            python=self._matched(table, "python", at, re.compile(r"[0-9]+(?:\.[0-9a-z+]+)*"), default=""),
            rows=rows,
        )

    def _requests(self, table: Mapping[str, Any], at: Path) -> tuple[str, ...]:
        if "requests" not in table:
            self._wrong(at, "`requests` is missing")
        requests = self._rows(table, "requests", at, self._request)
        self._unique(requests, (*at, "requests"))
        return requests

    # Rows, in the order of how many there are of each.

    def _deb(self, row: Any, at: Path) -> DebRow:
        match = _DEB.fullmatch(row) if isinstance(row, str) else None
        if match is None:
            self._wrong(
                at,
                "this is not a package row: "
                "NAME VERSION ARCH SHA256 SIZE PATH ARCHIVE [auto] [replaces=VERSION] [because=NAME]",
            )
        name, version, arch, sha256, size, path, archive, auto, replaces, because = match.groups()
        if path.startswith("/") or not {"", ".", ".."}.isdisjoint(path.split("/")):
            self._wrong(at, f"{_quoted(path)} is not a plain path in an archive's pool")
        return DebRow(
            name, version, arch, sha256, int(size), path, archive, auto is not None, replaces, because
        )

    def _wheel(self, row: Any, at: Path) -> WheelRow:
        if not isinstance(row, dict):
            self._wrong(at, "this is not a Python distribution: {name = …, version = …, wheels = […]}")
        self._only(row, at, {"name", "version", "wheels", "sdist"})
        name = self._matched(row, "name", at, _WHEEL_NAME)
        version = self._matched(row, "version", at, _WHEEL_VERSION)
        wheels = row.get("wheels")
        if not isinstance(wheels, list) or len(wheels) != 1 or not isinstance(wheels[0], dict):
            self._wrong(at, f"{name} needs exactly one wheel")
        wheel = wheels[0]
        self._only(wheel, at, {"name", "url", "size", "hashes"})
        url, sdist_sha256 = self._url(wheel, at), ""
        if "sdist" in row:
            sdist = self._table(row, "sdist", at)
            self._only(sdist, at, {"url", "hashes"})
            if url:
                self._wrong(at, f"{name} is built from source, so its wheel has no URL")
            url, sdist_sha256 = self._url(sdist, at), self._sha256(sdist, at)
        return WheelRow(
            name,
            version,
            self._matched(wheel, "name", at, _WHEEL_FILE),
            self._sha256(wheel, at),
            self._integer(wheel, "size", at),
            url,
            "sdist" in row,
            sdist_sha256,
        )

    def _removed(self, row: Any, at: Path) -> RemovedRow:
        match = _REMOVED.fullmatch(row) if isinstance(row, str) else None
        if match is None:
            self._wrong(at, "this is not a removed package: NAME VERSION ARCH [because=NAME]")
        return RemovedRow(*match.groups())

    def _archive(self, row: Any, at: Path) -> Archive:
        match = _ARCHIVE.fullmatch(row) if isinstance(row, str) else None
        if match is None or ".." in match[2].split("/"):
            self._wrong(at, "this is not an archive: NAME SUITE COMPONENT[,COMPONENT…] sha256:DIGEST DATE")
        name, suite, components, inrelease, date = match.groups()
        listed = () if components == "-" else tuple(components.split(","))
        return Archive(name, suite, listed, Digest(inrelease), int(date))

    def _request(self, row: Any, at: Path) -> str:
        if not isinstance(row, str) or not row or not row.isprintable():
            self._wrong(at, "a request is a line of printable text")
        return row

    def _digest(self, row: Any, at: Path) -> Digest:
        if not isinstance(row, str) or not is_digest(row):
            self._wrong(at, "this is not a digest")
        return Digest(row)

    def _pattern(self, pattern: re.Pattern[str], what: str) -> Callable[[Any, Path], str]:
        def read(row: Any, at: Path) -> str:
            if not isinstance(row, str) or not pattern.fullmatch(row):
                self._wrong(at, f"this is not {what}")
            return row

        return read

    # Fields.

    def _rows(
        self, table: Mapping[str, Any], key: str, at: Path, read: Callable[[Any, Path], T]
    ) -> tuple[T, ...]:
        rows = table.get(key, [])
        if not isinstance(rows, list):
            self._wrong((*at, key), f"`{key}` must be an array")
        return tuple([read(row, (*at, key, number)) for number, row in enumerate(rows)])

    def _table(self, parent: Mapping[str, Any], key: str, at: Path) -> Mapping[str, Any]:
        table = parent.get(key)
        if table is None:
            self._wrong(at, f"`{key}` is missing")
        if not isinstance(table, dict):
            self._wrong(at, f"`{key}` must be a table")
        return table

    def _text(self, table: Mapping[str, Any], key: str, at: Path, *, default: str | None = None) -> str:
        value = table.get(key, default)
        if value is None:
            self._wrong(at, f"`{key}` is missing")
        if not isinstance(value, str) or not value.isprintable():
            self._wrong((*at, key), f"`{key}` must be a line of printable text")
        if not value and default is None:
            self._wrong((*at, key), f"`{key}` is empty")
        return value

    def _matched(
        self,
        table: Mapping[str, Any],
        key: str,
        at: Path,
        pattern: re.Pattern[str],
        *,
        default: str | None = None,
    ) -> str:
        value = self._text(table, key, at, default=default)
        if value != default and not pattern.fullmatch(value):
            self._wrong((*at, key), f"{_quoted(value)} cannot be a `{key}`")
        return value

    def _integer(self, table: Mapping[str, Any], key: str, at: Path) -> int:
        value = table.get(key)
        if value is None:
            self._wrong(at, f"`{key}` is missing")
        if type(value) is not int or not 0 <= value < _MAX_INTEGER:
            self._wrong((*at, key), f"`{key}` must be a whole number, 0 or more")
        return value

    def _sha256(self, table: Mapping[str, Any], at: Path) -> str:
        hashes = self._table(table, "hashes", at)
        self._only(hashes, at, {"sha256"})
        return self._matched(hashes, "sha256", at, _HEX)

    def _url(self, table: Mapping[str, Any], at: Path) -> str:
        url = self._matched(table, "url", at, _URL, default="")
        if "@" in url.partition("://")[2].partition("/")[0]:
            self._wrong(at, "a URL in the lock must not hold a user name or password")
        return url

    def _texts(self, document: Mapping[str, Any], key: str) -> dict[str, str]:
        if key not in document:
            return {}
        table = self._table(document, key, ())
        for name, value in table.items():
            plain = isinstance(value, str) and value.replace("\n", "").replace("\t", "").isprintable()
            if not name or not name.isprintable() or not plain:
                self._wrong((key, name), f"{_quoted(name)} must be a printable text")
        return dict(table)

    def _digests(self, document: Mapping[str, Any], key: str) -> dict[str, str]:
        table = self._texts(document, key)
        for name, value in table.items():
            if not _HEX.fullmatch(value.removeprefix("sha256:")):
                self._wrong((key, name), f"the digest of {_quoted(name)} is not a sha256")
        return table

    def _only(self, table: Mapping[str, Any], at: Path, known: set[str]) -> None:
        if not table.keys() <= known:
            key = min(table.keys() - known)
            self._wrong((*at, key), f"the lock has no key {_quoted(key)} here")

    def _unique(self, keys: Iterable[Any], at: Path) -> None:
        seen = set()
        for number, key in enumerate(keys):
            if key in seen:
                what = ":".join(key) if isinstance(key, tuple) else key
                self._wrong((*at, number), f"{what} is listed twice")
            seen.add(key)

    def _wrong(self, at: Path, message: str) -> NoReturn:
        raise LockFormatError(message, span=span_of(self._source, at), hint=_RESTORE)


_RESTORE = "restore the lock from version control, or delete it and run `sandboxfile lock`"


def _quoted(text: str) -> str:
    return f"`{_shown(text)}`"


def _shown(text: str) -> str:
    """Text of a file nobody has read, safe on a terminal and not longer than a line."""
    safe = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
    return safe if len(safe) <= 80 else safe[:77] + "…"
