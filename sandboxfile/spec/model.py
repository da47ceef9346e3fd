"""The validated document. Frozen values; every one that a message may point at carries its span.

Nothing here decides what is built: that is `plan`. The values are what the user said, checked, with
defaults filled in, recipes merged and templates rendered.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Literal

from sandboxfile.declared import dataclass
from sandboxfile.errors import Span

ParamValue = str | int | bool | tuple[str, ...]


def _span() -> Span | None:
    return field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class DebianRequest:
    """`debian:<suite>`: `suite` is always the code name (`13` has become `trixie`)."""

    suite: str
    mirror: str | None = None
    snapshot: str | None = None
    components: tuple[str, ...] = ("main",)
    span: Span | None = _span()


@dataclass(frozen=True)
class RootfsRequest:
    """A root filesystem tar (`path` relative to the Sandboxfile, or a URL) with its sha256 (hex)."""

    location: str
    sha256: str
    span: Span | None = _span()


@dataclass(frozen=True)
class SnapshotRequest:
    """`snapshot:SLUG`."""

    slug: str
    span: Span | None = _span()


@dataclass(frozen=True)
class ScratchRequest:
    """`scratch`."""

    span: Span | None = _span()


BaseRequest = DebianRequest | RootfsRequest | SnapshotRequest | ScratchRequest


@dataclass(frozen=True)
class AptRequest:
    """One package: `name[:arch][=version][/suite]`."""

    name: str
    version: str | None = None
    suite: str | None = None
    arch: str | None = None
    span: Span | None = _span()

    def __str__(self) -> str:
        arch = f":{self.arch}" if self.arch else ""
        version = f"={self.version}" if self.version else ""
        suite = f"/{self.suite}" if self.suite else ""
        return f"{self.name}{arch}{version}{suite}"


@dataclass(frozen=True)
class AptSource:
    """An additional archive, as deb822 has it; `signed_by` is an armoured key or a file in the context."""

    name: str
    uris: tuple[str, ...]
    suites: tuple[str, ...]
    components: tuple[str, ...]
    signed_by: str
    architectures: tuple[str, ...] = ()
    span: Span | None = _span()


@dataclass(frozen=True)
class Apt:
    """The apt packages of a Sandboxfile."""

    packages: tuple[AptRequest, ...] = ()
    sources: tuple[AptSource, ...] = ()
    recommends: bool = False
    span: Span | None = _span()


@dataclass(frozen=True)
class PipRequest:
    """One PEP 508 requirement, normalised text. From a `-r` file, `span` points into that file."""

    requirement: str
    span: Span | None = _span()


@dataclass(frozen=True)
class RequirementsFile:
    """A `-r FILE` entry, not yet read; `inputs` reads it and turns it into requests."""

    path: str
    span: Span | None = _span()


@dataclass(frozen=True)
class Pip:
    """The Python distributions of a Sandboxfile.

    build: names of distributions that may be built from source (in a sandbox on the apt layers)
    venv:  absolute path of a virtual environment, or None for the system interpreter
    """

    requests: tuple[PipRequest, ...] = ()
    files: tuple[RequirementsFile, ...] = ()
    index_url: str | None = None
    extra_index_urls: tuple[str, ...] = ()
    find_links: tuple[str, ...] = ()
    constraints: tuple[str, ...] = ()
    prereleases: bool = False
    exclude_newer: str | None = None
    build: tuple[str, ...] = ()
    venv: str | None = None
    span: Span | None = _span()


@dataclass(frozen=True)
class FileRequest:
    """One `files` entry: `source` (a path in the context) or `content`, placed at `to`.

    mode:  permission bits for files; None keeps the source's executable bit (0755 or 0644)
    owner: `uid[:gid]` or names; None is root
    """

    to: str
    source: str | None = None
    content: str | None = None
    mode: int | None = None
    owner: str | None = None
    root: str = ""
    span: Span | None = _span()


@dataclass(frozen=True)
class RunStep:
    """One build step. `network` is False, True, or the hosts it may reach; `timeout` in seconds."""

    run: str
    name: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    workdir: str | None = None
    user: str | None = None
    network: bool | tuple[str, ...] = False
    secrets: tuple[str, ...] = ()
    timeout: float | None = None
    span: Span | None = _span()


@dataclass(frozen=True)
class HttpCheck:
    """A request against `start`'s port. `body` is a regular expression searched in the answer."""

    path: str
    status: int = 200
    body: str | None = None
    method: str = "GET"


@dataclass(frozen=True)
class Check:
    """One verify entry: a command or an HTTP request. `stdout` and `stderr` are searched as patterns."""

    run: str | None = None
    http: HttpCheck | None = None
    name: str | None = None
    exit: int = 0
    stdout: str | None = None
    stderr: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    workdir: str | None = None
    user: str | None = None
    network: bool | tuple[str, ...] = False
    timeout: float = 60.0
    span: Span | None = _span()


@dataclass(frozen=True)
class Start:
    """The long-running command. `timeout` in seconds ends `up`; None is no limit."""

    command: str
    port: int | None = None
    timeout: float | None = None
    span: Span | None = _span()


@dataclass(frozen=True)
class Resources:
    """Limits of sandboxes booted from the result; bytes and counts, None is the engine's default."""

    memory: int | None = None
    cpus: float | None = None
    pids: int | None = None
    disk: int | None = None
    span: Span | None = _span()


@dataclass(frozen=True)
class Secret:
    """A secret that steps or sandboxes may use by `name`; the value comes from the caller's environment
    variable `env` or file `file` at build or run time and is never stored."""

    name: str
    env: str | None = None
    file: str | None = None
    hosts: tuple[str, ...] = ()
    span: Span | None = _span()


@dataclass(frozen=True)
class Network:
    """Network of sandboxes booted from the result: `none`, `full`, or `filtered` with the hosts."""

    mode: Literal["none", "full", "filtered"] = "none"
    allow: tuple[str, ...] = ()
    span: Span | None = _span()


@dataclass(frozen=True)
class RecipeInput:
    """A recipe that was merged in: its name, the directory it came from, the digest of its tree."""

    name: str
    directory: str
    digest: str
    params: Mapping[str, ParamValue] = field(default_factory=dict)
    span: Span | None = _span()


@dataclass(frozen=True)
class Sandboxfile:
    """One validated document, recipes merged and templates rendered.

    freshness: how old the lock may be before `plan` says so, in seconds; None when that does not matter
    """

    name: str
    base: BaseRequest
    apt: Apt = field(default_factory=Apt)
    pip: Pip = field(default_factory=Pip)
    env: Mapping[str, str] = field(default_factory=dict)
    workdir: str = "/"
    user: str = "root"
    files: tuple[FileRequest, ...] = ()
    run: tuple[RunStep, ...] = ()
    verify: tuple[Check, ...] = ()
    start: Start | None = None
    resources: Resources = field(default_factory=Resources)
    network: Network = field(default_factory=Network)
    secrets: tuple[Secret, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, ParamValue] = field(default_factory=dict)
    recipes: tuple[RecipeInput, ...] = ()
    freshness: float | None = None
