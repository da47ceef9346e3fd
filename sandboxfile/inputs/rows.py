"""Rows of a lock from what apt says it would install and what the verified indexes say about it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from sandboxfile.declared import replace
from sandboxfile.errors import IntegrityError
from sandboxfile.inputs.aptsolver import Installed
from sandboxfile.inputs.archive import Suite
from sandboxfile.inputs.control import fields
from sandboxfile.spec.lock import DebRow


def stanza_of(suites: Sequence[Suite], name: str, version: str, arch: str) -> tuple[Suite, str] | None:
    """The suite that holds a version of a package, and its stanza there."""
    for suite in suites:
        text = suite.index().find_text(name, version, arch)
        if text is not None:
            return suite, text
    return None


def row_of(
    package: Installed, suites: Sequence[Suite], *, auto: bool = False, because: str | None = None
) -> DebRow | None:
    """The row of a package, with the digest that the signed index gives it; None when no index has it."""
    found = stanza_of(suites, package.name, package.version, package.arch)
    if found is None:
        return None
    suite, text = found
    stanza = fields(text)
    path, sha256, size = stanza.get("Filename", ""), stanza.get("SHA256", ""), stanza.get("Size", "")
    path = path.removeprefix("./")
    if len(sha256) != 64 or not size.isdigit() or not path or path.startswith("/") or ".." in path.split("/"):
        raise IntegrityError(
            f"{suite.request} describes {package.name} without a usable place, size or SHA256"
        )
    return DebRow(
        name=package.name,
        version=package.version,
        arch=package.arch,
        sha256=sha256,
        size=int(size),
        path=path,
        archive=suite.archive.name,
        auto=auto,
        replaces=package.old,
        because=because,
    )


def gone_stanzas(rows: Iterable[DebRow], suites: Sequence[Suite], stanzas: Mapping[str, str]) -> str:
    """A Packages file of the rows that no suite holds any more, from their control stanzas by sha256."""
    texts = []
    for row in rows:
        text = stanzas.get(row.sha256, "")
        if text and stanza_of(suites, row.name, row.version, row.arch) is None:
            if "\nFilename:" not in text:
                kept = (f"Filename: {row.path}", f"Size: {row.size}", f"SHA256: {row.sha256}")
                text = "\n".join((text, *kept))
            texts.append(f"{text}\n\n")
    return "".join(texts)


def without_sources_of(
    names: Collection[str], rows: Sequence[DebRow], stanzas: Mapping[str, str]
) -> tuple[DebRow, ...]:
    """The rows without the named packages, and without what is built from the same sources, which often has
    to move with them. `stanzas`: control stanzas by sha256."""

    def source(row: DebRow) -> str:
        return fields(stanzas.get(row.sha256, "")).get("Source", row.name).partition(" ")[0]

    sources = {source(row) for row in rows if row.name in names}
    return tuple(row for row in rows if source(row) not in sources)


def rows_of(
    packages: Iterable[Installed],
    suites: Sequence[Suite],
    *,
    auto: Collection[str],
    because: Mapping[str, str],
    known: Mapping[tuple[str, str, str], DebRow] | None = None,
) -> tuple[DebRow, ...]:
    """Rows in the order of their names.

    auto:    names that nobody asked for
    because: the package that forced a replacement, by the name of the replaced one
    known:   rows of an earlier lock by (name, version, arch), for packages that no index holds any more
    """
    rows = []
    for package in sorted(packages, key=lambda p: (p.name, p.arch)):
        reason = because.get(package.name)
        row = row_of(package, suites, auto=package.name in auto, because=reason)
        if row is None and known:
            before = known.get((package.name, package.version, package.arch))
            if before is not None:
                row = replace(before, auto=package.name in auto, replaces=package.old, because=reason)
        if row is None:
            raise IntegrityError(f"no verified index holds {package.name} {package.version}")
        rows.append(row)
    return tuple(rows)
