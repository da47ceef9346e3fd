"""The lock as text, and back (docs/reference/lockfile.md describes the format).

TOML with one package a line. It is written for people who review and merge it: two branches that each
appended a group merge into TOML that can be read whichever way git cuts the lines, because every line of
a group but its brackets ends in a mark of that group's requests, and so never equals another group's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator

from sandboxfile.core.digest import digest_of, hexadecimal
from sandboxfile.errors import LockFormatError
from sandboxfile.spec.lock import (
    Archive,
    DebRow,
    Group,
    LockedBase,
    Lockfile,
    RemovedRow,
    WheelRow,
)
from sandboxfile.spec.lockreader import load

__all__ = ["dump", "load", "pylock"]

_HEADING = "# Written by sandboxfile: commit this file, and change it with `sandboxfile lock`."
_MARK_TAG = "sandboxfile.lock.mark/v1"


def dump(lock: Lockfile) -> str:
    """The text of a lock. It depends on nothing but the lock, and `load` gives the same lock back.

    Raises LockFormatError when a value has no place in a lock (a package whose name is not one, a URL
    with a password): what an archive or an index said is checked before it is written.
    """
    text = "\n".join(_document(lock)) + "\n"
    if load(text) != lock:
        raise LockFormatError("the lock holds values that its text cannot express")
    return text


def _document(lock: Lockfile) -> Iterator[str]:
    yield _HEADING
    yield f"version = {lock.version}"
    yield ""
    yield "[base]"
    yield from _base(lock.base)
    for name, table in (
        ("apt-options", lock.apt_options),
        ("pip-options", lock.pip_options),
        ("recipes", lock.recipes),
        ("inputs", lock.inputs),
    ):
        if table:
            yield ""
            yield f"[{name}]"
            yield from (f"{_key(key)} = {_string(table[key])}" for key in sorted(table))
    for group in lock.groups:
        yield ""
        yield from _group(group)


def _base(base: LockedBase) -> Iterator[str]:
    yield f"request = {_string(base.request)}"
    yield f"kind = {_string(base.kind)}"
    yield f"architecture = {_string(base.architecture)}"
    yield f"epoch = {base.epoch}"
    for key, value in (
        ("suite", base.suite),
        ("rootfs", base.rootfs),
        ("snapshot", base.snapshot),
        ("diff-id", base.diff_id),
    ):
        if value:
            yield f"{key} = {_string(value)}"
    yield from _array("components", map(_string, base.components))
    yield from _array("layers", map(_string, base.layers))
    yield from _array("archives", map(_archive, base.archives))
    yield from _array("packages", map(_deb, base.packages))


def _group(group: Group) -> Iterator[str]:
    mark = f"  # {_mark(group)}"
    yield f"[[group]]{mark}"
    yield f"after = {_string(group.after)}{mark}"
    if group.apt is not None:
        yield from _array("apt.requests", map(_string, group.apt.requests), mark, always=True)
        yield from _array("apt.archives", map(_archive, group.apt.archives), mark)
        yield from _array("apt.install", map(_deb, group.apt.rows), mark)
        yield from _array("apt.remove", map(_removed, group.apt.removed), mark)
        yield from _array("apt.manual", map(_string, group.apt.manual), mark)
    if group.pip is not None:
        yield from _array("pip.requests", map(_string, group.pip.requests), mark, always=True)
        if group.pip.python:
            yield f"pip.python = {_string(group.pip.python)}{mark}"
        yield from _array("pip.packages", map(_wheel, group.pip.rows), mark)
    # A last line that no other group has: git takes a common one out of a conflict, and a `]` is common.
    yield f"# end{mark}"


def _mark(group: Group) -> str:
    """Six digits that stand for a group's requests: they stay when its packages are updated, so that a
    diff of the lock shows what changed and nothing else."""
    requests = {
        "apt": sorted(group.apt.requests) if group.apt else None,
        "pip": sorted(group.pip.requests) if group.pip else None,
    }
    return hexadecimal(digest_of(_MARK_TAG, requests))[:6]


def _array(key: str, rows: Iterable[str], mark: str = "", *, always: bool = False) -> Iterator[str]:
    lines = [f"  {row},{mark}" for row in rows]
    if lines or always:
        yield f"{key} = ["
        yield from lines
        yield "]"


def _deb(row: DebRow) -> str:
    text = f"{row.name} {row.version} {row.arch} {row.sha256} {row.size} {row.path} {row.archive}"
    if row.auto:
        text += " auto"
    if row.replaces is not None:
        text += f" replaces={row.replaces}"
    return _literal(text + _because(row.because))


def _removed(row: RemovedRow) -> str:
    return _literal(f"{row.name} {row.version} {row.arch}{_because(row.because)}")


def _because(name: str | None) -> str:
    return "" if name is None else f" because={name}"


def _archive(archive: Archive) -> str:
    components = ",".join(archive.components) or "-"
    return _literal(f"{archive.name} {archive.suite} {components} {archive.inrelease} {archive.date}")


def _wheel(row: WheelRow) -> str:
    wheel = f"name = {_string(row.filename)}, "
    if row.url and not row.built:
        wheel += f"url = {_string(row.url)}, "
    wheel += f"size = {row.size}, {_hashes(row.sha256)}"
    sdist = ""
    if row.built:
        url = f"url = {_string(row.url)}, " if row.url else ""
        sdist = f", sdist = {{{url}{_hashes(row.sdist_sha256)}}}"
    return f"{{name = {_string(row.name)}, version = {_string(row.version)}, wheels = [{{{wheel}}}]{sdist}}}"


def _hashes(sha256: str) -> str:
    return f"hashes = {{sha256 = {_string(sha256)}}}"


def _literal(text: str) -> str:
    """A row as a literal string, which readers find the end of without looking at each character."""
    return f"'{text}'" if "'" not in text and text.isprintable() else _string(text)


def _string(text: str) -> str:
    # JSON's escapes are TOML's; DEL is the one character JSON leaves and TOML does not allow.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _key(text: str) -> str:
    return text if re.fullmatch(r"[A-Za-z0-9_-]+", text) else _string(text)


def pylock(lock: Lockfile) -> str:
    """Every locked distribution as a PEP 751 document (`pylock.toml`), in the order of their names.

    A distribution that was built from source is listed by its sdist. One that has no URL (it came from a
    directory) is listed by its file name, relative to the document.
    """
    lines = ['lock-version = "1.0"', 'created-by = "sandboxfile"']
    pythons = {group.pip.python for group in lock.groups if group.pip and group.pip.python}
    if len(pythons) == 1:
        minor = ".".join(pythons.pop().split(".")[:2])
        lines.append(f"requires-python = {_string(f'=={minor}.*')}")
    rows = sorted(lock.installed_wheels(), key=lambda row: _normal(row.name))
    if not rows:
        lines.append("packages = []")
    for row in rows:
        lines += [
            "",
            "[[packages]]",
            f"name = {_string(_normal(row.name))}",
            f"version = {_string(row.version)}",
        ]
        if row.built:
            lines.append(f"sdist = {{{_place(row.url)}, {_hashes(row.sdist_sha256)}}}")
        else:
            place = _place(row.url or row.filename)
            wheel = f"name = {_string(row.filename)}, {place}, size = {row.size}, {_hashes(row.sha256)}"
            lines.append(f"wheels = [{{{wheel}}}]")
    return "\n".join(lines) + "\n"


def _place(location: str) -> str:
    return f"{'url' if '://' in location else 'path'} = {_string(location)}"


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
