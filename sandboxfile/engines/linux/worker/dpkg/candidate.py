"""A package that may be unpacked without dpkg, and the reasons that speak against it. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from sandboxfile.inputs.control import fields
from sandboxfile.inputs.debfile import ControlFile, DebError
from sandboxfile.inputs.relations import Relation, relations

_DIRECTIVES = {
    "interest": ("interest", ""),
    "interest-await": ("interest", ""),
    "interest-noawait": ("interest", "/noawait"),
    "activate": ("activate", ""),
    "activate-await": ("activate", ""),
    "activate-noawait": ("activate", "/noawait"),
}
_TRIGGER = re.compile(r"/(?:[!-.0-~]+/)*[!-.0-~]+|[a-zA-Z0-9][a-zA-Z0-9+.-]+")


@dataclass(frozen=True)
class Trigger:
    """One directive of a package's `triggers` file. `option` is empty or `/noawait`."""

    action: str
    name: str
    option: str


@dataclass(frozen=True)
class Package:
    """A package by its control fields: one that is to be unpacked, or one that is there."""

    name: str
    version: str
    arch: str
    same: bool
    provides: tuple[Relation, ...]
    refuses: tuple[Relation, ...]

    @property
    def qualified(self) -> str:
        """The name as dpkg writes it in its own files: with the architecture where several can be there."""
        return f"{self.name}:{self.arch}" if self.same else self.name

    def conflicts_with(self, other: Package) -> bool:
        """Whether this package declares that the other one cannot be there beside it."""
        for relation in self.refuses:
            if relation.name == other.name and relation.accepts(other.version):
                return True
            if any(p.name == relation.name and relation.accepts(p.version) for p in other.provides):
                return True
        return False


@dataclass(frozen=True)
class Candidate:
    """A package that is to be unpacked.

    stanza:    the text of its control file
    files:     its control files by name, without `control` itself
    conffiles: the paths of its configuration files
    """

    package: Package
    stanza: str
    files: Mapping[str, ControlFile] = field(repr=False)
    conffiles: tuple[bytes, ...]
    triggers: tuple[Trigger, ...]

    @property
    def info_files(self) -> Iterator[tuple[str, ControlFile]]:
        """The control files that dpkg keeps, with the ends of their names."""
        return ((name, each) for name, each in self.files.items() if "." not in name and name != "list")


def package_of(found: Mapping[str, str]) -> Package:
    """A package from its control fields. ValueError when a relation of it is malformed."""
    provided = relations(found.get("Provides", ""))
    refused = (*relations(found.get("Conflicts", "")), *relations(found.get("Breaks", "")))
    return Package(
        found["Package"],
        found["Version"],
        found["Architecture"],
        found.get("Multi-Arch") == "same",
        tuple(each for group in provided for each in group),
        tuple(each for group in refused for each in group),
    )


def candidate_of(control: Mapping[str, ControlFile]) -> Candidate:
    """A candidate from a package's control files. DebError when something is not as dpkg wants it."""
    stanza = control["control"].content.decode("utf-8", "surrogateescape").strip("\n")
    try:
        package = package_of(fields(stanza))
    except (KeyError, ValueError) as error:
        raise DebError(f"its control file is not understood: {error}") from None
    if "\n\n" in stanza or any(line[:1] in ("#", "") for line in stanza.splitlines()):
        raise DebError("its control file is more than one record")
    files = {name: each for name, each in control.items() if name != "control"}
    return Candidate(
        package, stanza, files, _conffiles(files.get("conffiles")), _triggers(files.get("triggers"))
    )


def _conffiles(file: ControlFile | None) -> tuple[bytes, ...]:
    if file is None:
        return ()
    if not file.content.endswith(b"\n"):
        raise DebError("its list of configuration files is cut off")
    paths = tuple(line.rstrip() for line in file.content.splitlines())
    if not all(path.startswith(b"/") for path in paths) or len(set(paths)) != len(paths):
        raise DebError("its list of configuration files holds more than paths")
    return paths


def _triggers(file: ControlFile | None) -> tuple[Trigger, ...]:
    found: list[Trigger] = []
    for line in (file.content if file else b"").decode("ascii", "replace").splitlines():
        words = line.strip().split(None, 1)
        if not words or words[0].startswith("#"):
            continue
        if len(words) != 2 or words[0] not in _DIRECTIVES or not _TRIGGER.fullmatch(words[1]):
            raise DebError("its triggers are not understood")
        action, option = _DIRECTIVES[words[0]]
        found.append(Trigger(action, words[1], option))
    return tuple(found)


def objections(
    candidates: Sequence[Candidate], present: Mapping[str, Sequence[Package]], native: str
) -> dict[int, str]:
    """Why dpkg has to unpack some of the candidates, by their position, from their control files alone.

    present: the packages that dpkg knows, by name, in whatever state
    """
    names = Counter(each.package.name for each in candidates)
    found: dict[int, str] = {}
    for number, each in enumerate(candidates):
        package = each.package
        if "preinst" in each.files:
            found[number] = "it has a script to run before"
        elif package.arch not in (native, "all"):
            found[number] = "it is of another architecture"
        elif package.name in present or names[package.name] > 1:
            found[number] = "dpkg knows a package of that name"
        elif "md5sums" not in each.files:
            found[number] = "it has no list of checksums"
    _add_conflicts(candidates, present, found)
    return found


def _add_conflicts(
    candidates: Sequence[Candidate], present: Mapping[str, Sequence[Package]], found: dict[int, str]
) -> None:
    """Note both sides of every conflict, whether dpkg would act on it or not."""
    by_name: dict[str, list[tuple[int, Package]]] = {}

    def offer(number: int, package: Package) -> None:
        for name in {package.name, *(each.name for each in package.provides)}:
            by_name.setdefault(name, []).append((number, package))

    for number, each in enumerate(candidates):
        offer(number, each.package)
    installed = [package for group in present.values() for package in group]
    for package in installed:
        offer(-1, package)
    every: Iterable[tuple[int, Package]] = (
        *((number, each.package) for number, each in enumerate(candidates)),
        *((-1, package) for package in installed),
    )
    for number, package in every:
        for relation in package.refuses:
            for other_number, other in by_name.get(relation.name, ()):
                if other.name == package.name or (number < 0 and other_number < 0):
                    continue
                if package.conflicts_with(other):
                    for each_number in (number, other_number):
                        if each_number >= 0:
                            found.setdefault(each_number, f"{package.name} cannot be beside {other.name}")
