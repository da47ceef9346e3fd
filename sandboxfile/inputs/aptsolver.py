"""Talking with apt's solver: what it is given, and what its simulation says.

The solver runs elsewhere (a base's own apt in a workspace, the host's for the closure of a base); here are
its command line, its configuration and its answers, as values.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field
from urllib.parse import unquote

from sandboxfile.declared import dataclass
from sandboxfile.inputs.archive import Suite

UPDATE = ("apt-get", "update", "--error-on=any")
SIMULATE = ("apt-get", "--simulate", "--allow-downgrades", "install")
PLAN = ("apt-get", "--print-uris", "--verbose-versions", "--allow-downgrades", "install")
"""Says what a simulation says, in half of its time: apt does not go through the installation once more."""

LOCKED_PRIORITY = 995
"""Above every version of an archive, below what the Sandboxfile asks for."""

_INST = re.compile(r"^Inst (\S+)(?: \[([^\]]*)\])? \((\S+) .*?\[([a-z0-9-]+)\]\)")
_REMV = re.compile(r"^(?:Remv|Purg) (\S+)(?: \[([^\]]*)\])?")
_URI = re.compile(r"^'[^']+' ([^_\s]+)_([^_\s]+)_([a-z0-9-]+)\.deb \d+")
_GONE = "The following packages will be REMOVED:"
_LISTED = re.compile(r"^ +([^\s*]+)\*? \((\S+)\)$")
_COUNTS = re.compile(
    r"^(\d+) upgraded, (\d+) newly installed, (?:(\d+) reinstalled, )?(?:(\d+) downgraded, )?(\d+) to remove"
)


@dataclass(frozen=True)
class Installed:
    """A package the solution installs; `old` is the version it replaces."""

    name: str
    version: str
    arch: str
    old: str | None = None


@dataclass(frozen=True)
class Solution:
    """What a simulated installation would do; `remove` holds names and versions."""

    install: tuple[Installed, ...]
    remove: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Configuration:
    """apt's configuration for one solve, as `apt.conf` text; paths are as apt sees them.

    state:      the directory that holds `status` and `extended_states`
    lists:      a writable directory for downloaded lists
    """

    architecture: str
    sources: str
    state: str
    lists: str
    recommends: bool = False
    preferences: str = "/dev/null"
    root: str = ""
    options: tuple[str, ...] = field(default=())

    def text(self) -> str:
        """The text of the configuration file."""
        install = "true" if self.recommends else "false"
        lines = [
            *([f'Dir "{self.root}";'] if self.root else []),
            f'APT::Architecture "{self.architecture}";',
            "#clear APT::Architectures;",
            f'APT::Architectures {{ "{self.architecture}"; }};',
            f'APT::Install-Recommends "{install}";',
            'APT::Install-Suggests "false";',
            'APT::Get::AllowUnauthenticated "false";',
            'APT::Get::Assume-Yes "true";',
            'APT::Sandbox::User "root";',
            'Acquire::Languages "none";',
            'Acquire::PDiffs "false";',
            # Dates were judged outside, against this machine's clock and the lock.
            'Acquire::Check-Date "false";',
            'Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled "false";',
            'Acquire::AllowInsecureRepositories "false";',
            # The repository here holds its Packages files unpacked, whatever else the signed text lists.
            'Acquire::IndexTargets::deb::Packages::CompressionTypes "uncompressed";',
            'Acquire::IndexTargets::deb::Packages::DefaultCompressionTypes "uncompressed";',
            f'Dir::Etc::SourceList "{self.sources}";',
            'Dir::Etc::SourceParts "/dev/null";',
            f'Dir::Etc::Preferences "{self.preferences}";',
            'Dir::Etc::PreferencesParts "/dev/null";',
            f'Dir::State::status "{self.state}/status";',
            f'Dir::State::extended_states "{self.state}/extended_states";',
            f'Dir::State::Lists "{self.lists}/lists";',
            f'Dir::Cache "{self.lists}/cache";',
            f'Dir::Cache::archives "{self.lists}/cache/archives";',
            # What is installed is new in each solve: only the part about the archives is worth a file.
            'Dir::Cache::pkgcache "";',
            'Debug::NoLocking "true";',
            *self.options,
        ]
        return "\n".join(lines) + "\n"


def source_line(suite: Suite, root: str, *, signed_by: str | None) -> str:
    """The `sources.list` line of a suite whose repository is seen at `root`.

    Its Valid-Until was judged outside, against this machine's clock and the lock.
    """
    request = suite.request
    options = [f"arch={request.architecture}", "check-valid-until=no"]
    if signed_by:
        options.append(f"signed-by={signed_by}")
    components = "" if request.flat else " " + " ".join(request.components)
    return f"deb [{' '.join(options)}] file:{root} {request.suite}{components}\n"


def pins(versions: Iterable[tuple[str, str]], priority: int) -> str:
    """`apt_preferences` entries that prefer exactly these versions."""
    return "".join(
        f"Package: {name}\nPin: version {version}\nPin-Priority: {priority}\n\n" for name, version in versions
    )


def parse(output: str) -> Solution:
    """The solution in a simulation's output."""
    install: list[Installed] = []
    remove: list[tuple[str, str]] = []
    for line in output.splitlines():
        if found := _INST.match(line):
            name, old, version, arch = found.groups()
            install.append(Installed(name.partition(":")[0], version, arch, old or None))
        elif found := _REMV.match(line):
            remove.append((found.group(1).partition(":")[0], found.group(2) or ""))
    return Solution(tuple(install), tuple(remove))


def parse_plan(output: str, installed: Mapping[str, str]) -> Solution | None:
    """The solution in the output of `PLAN`; `installed` are the versions that are there. None when it does
    not add up to the counts that apt gives, so that a simulation has to be asked."""
    install: list[Installed] = []
    remove: list[tuple[str, str]] = []
    counted: tuple[int, int] | None = None
    going = False
    for line in output.splitlines():
        if found := _URI.match(line):
            name, version, arch = (unquote(part) for part in found.groups())
            install.append(Installed(name, version, arch, installed.get(name)))
        elif going and (found := _LISTED.match(line)):
            remove.append((found.group(1).partition(":")[0], found.group(2)))
            continue
        elif found := _COUNTS.match(line):
            *new, gone = (int(each or 0) for each in found.groups())
            counted = sum(new), gone
        going = line == _GONE
    return Solution(tuple(install), tuple(remove)) if counted == (len(install), len(remove)) else None


def explanation(output: str) -> tuple[str, ...]:
    """apt's own words on why there is no solution, without what it says on every run."""
    lines = [line.rstrip() for line in output.splitlines()]
    lines = [line for line in lines if line and not line.startswith(("W: ", "N: ", "NOTE: ", "Note, "))]
    for number, line in enumerate(lines):
        if line.startswith(("The following packages have unmet dependencies", "E: ")):
            return tuple(lines[number:][:20])
    return tuple(lines[-20:])


def named_in(errors: Sequence[str]) -> frozenset[str]:
    """Every word of an explanation that could be a package's name."""
    found = set()
    for line in errors:
        found.update(re.findall(r"[a-z0-9][a-z0-9+.-]+", line))
    return frozenset(word.rstrip(".") for word in found)
