"""In which order the packages of an apt layer are unpacked and configured: pre-dependencies. Pure but for
reading the packages' control files.

Everything is unpacked, then everything is configured, except that a package with a script to run before it is
unpacked may need others configured by then: those it pre-depends on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sandboxfile.errors import BuildError
from sandboxfile.inputs.control import fields, names_in
from sandboxfile.inputs.debfile import Deb, DebError


@dataclass(frozen=True)
class Control:
    """What the order depends on.

    early: what has to be configured before the package's script runs, names of packages
    needs: what the package depends on in any way
    """

    name: str
    provides: tuple[str, ...] = ()
    early: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Order:
    """`early`: names of packages to be configured before the files of `late` are unpacked."""

    early: tuple[str, ...] = ()
    late: tuple[str, ...] = ()


def control_of(path: Path) -> Control:
    """What a package's control file says. BuildError when it is no package."""
    try:
        with path.open("rb") as file:
            files = Deb(file).control
    except DebError as error:
        raise BuildError(f"{path.name} is no Debian package: {error}") from None
    found = fields(files["control"].content.decode("utf-8", "replace"))

    def names(*keys: str) -> tuple[str, ...]:
        return names_in(",".join(found[key] for key in keys if key in found))

    return Control(
        found.get("Package", ""),
        names("Provides"),
        names("Pre-Depends") if "preinst" in files else (),
        names("Depends", "Pre-Depends"),
    )


def order_of(packages: Mapping[str, Control]) -> Order:
    """The order for packages by the names of their files."""
    providers: dict[str, list[Control]] = {}
    for each in packages.values():
        for name in {each.name, *each.provides}:
            providers.setdefault(name, []).append(each)
    late = [file for file, each in packages.items() if any(name in providers for name in each.early)]
    waiting = [each for file in late for name in packages[file].early for each in providers.get(name, ())]
    early: set[str] = set()
    while waiting:
        each = waiting.pop()
        if each.name not in early:
            early.add(each.name)
            waiting += [other for name in each.needs for other in providers.get(name, ())]
    # Of two that need each other, one has to be first: it is unpacked with the others.
    late = [file for file in late if packages[file].name not in early]
    return Order(tuple(sorted(early)) if late else (), tuple(late))


def read_controls(directory: Path, names: Sequence[str]) -> dict[str, Control]:
    """The control of each of the files in a directory."""
    return {name: control_of(directory / name) for name in names}
