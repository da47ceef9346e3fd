"""Finding and reading source distributions: what an index offers, and what a build of one needs."""

from __future__ import annotations

import json
import os
import re
import tarfile
import tomllib
from collections.abc import Iterable, Sequence
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

from sandboxfile.declared import dataclass
from sandboxfile.errors import FetchError, ResolveError
from sandboxfile.inputs.download import Downloader
from sandboxfile.inputs.interpreter import Interpreter
from sandboxfile.inputs.settings import Settings
from sandboxfile.inputs.wheels import Candidate, rank
from sandboxfile.spec.model import Pip

PAGE_LIMIT = 64 << 20
PYPROJECT_LIMIT = 1 << 20
LEGACY_REQUIRES = ("setuptools>=40.8.0",)
"""What a distribution without a `[build-system]` table is built with (PEP 518)."""


@dataclass(frozen=True)
class Release:
    """One version of a distribution and its files."""

    version: str
    files: tuple[Candidate, ...]

    def sdist(self) -> Candidate | None:
        """Its source archive."""
        tars = [file for file in self.files if file.filename.endswith((".tar.gz", ".tgz"))]
        return tars[0] if tars else None

    def has_wheel(self, interpreter: Interpreter) -> bool:
        """Whether a wheel of it fits the interpreter."""
        return any(rank(file.filename, interpreter) is not None for file in self.files)


async def releases(
    name: str,
    pip: Pip,
    settings: Settings,
    directory: Path,
    downloader: Downloader,
    default_index: str | None,
) -> tuple[Release, ...]:
    """The versions that the indexes and `find-links` directories offer, newest first.

    Raises ResolveError when no index is known, FetchError when none answers.
    """
    files: list[Candidate] = []
    failures: list[str] = []
    indexes = [pip.index_url or settings.pip_index_url or default_index]
    indexes += pip.extra_index_urls or settings.pip_extra_index_urls
    places = [directory / p for p in (pip.find_links or settings.pip_find_links) if "://" not in p]
    for place in places:
        if place.is_dir():
            files += _local(place, name)
    for index in dict.fromkeys(index for index in indexes if index):
        page = f"{index.rstrip('/')}/{name}/"
        if urlsplit(page).scheme == "file":
            page += "index.html"
        try:
            content, url = await downloader.fetch_document([page], PAGE_LIMIT)
        except FetchError as failure:
            failures.extend(failure.details)
            continue
        files += read_page(content, url)
    if not files:
        if failures and not all(": 404" in line or "No such file" in line for line in failures):
            raise FetchError("the package index does not answer", details=tuple(failures))
        raise ResolveError(
            f"no index has a distribution `{name}` to build",
            hint="check `pip.build`, or add the index that has it",
        )
    return _grouped(name, files)


def _local(place: Path, name: str) -> Iterable[Candidate]:
    import hashlib

    for path in sorted(place.iterdir()):
        normal = re.sub(r"[-_.]+", "-", path.name).lower()
        if path.is_file() and normal.startswith(name + "-"):
            content = path.read_bytes()
            digest = hashlib.sha256(content).hexdigest()
            yield Candidate(path.name, path.absolute().as_uri(), digest, len(content))


def read_page(content: bytes, url: str) -> list[Candidate]:
    """The files that a project's page of an index lists (PEP 503 as HTML, PEP 691 as JSON)."""
    if content.lstrip()[:1] == b"{":
        try:
            listed = json.loads(content).get("files", [])
        except ValueError:
            return []
        return [
            Candidate(f["filename"], urljoin(url, f["url"]), f.get("hashes", {}).get("sha256", ""),
                      int(f.get("size") or 0))
            for f in listed if not f.get("yanked")
        ]  # fmt: skip
    parser = _Links()
    parser.feed(content.decode("utf-8", "replace"))
    found = []
    for link in parser.links:
        target, fragment = urldefrag(urljoin(url, link))
        filename = unquote(urlsplit(target).path.rpartition("/")[2])
        digest = fragment.removeprefix("sha256=") if fragment.startswith("sha256=") else ""
        found.append(Candidate(filename, target, digest))
    return found


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        href = given.get("href")
        if tag == "a" and href and "data-yanked" not in given:
            self.links.append(href)


def _grouped(name: str, files: Sequence[Candidate]) -> tuple[Release, ...]:
    from packaging.utils import (
        InvalidSdistFilename,
        InvalidWheelFilename,
        canonicalize_name,
        parse_sdist_filename,
        parse_wheel_filename,
    )
    from packaging.version import InvalidVersion, Version

    found: dict[Version, list[Candidate]] = {}
    for file in files:
        try:
            if file.filename.endswith(".whl"):
                own, version, _, _ = parse_wheel_filename(file.filename)
            else:
                own, version = parse_sdist_filename(file.filename)
        except (InvalidSdistFilename, InvalidWheelFilename, InvalidVersion):
            continue
        if own == canonicalize_name(name):
            found.setdefault(version, []).append(file)
    return tuple(Release(str(version), tuple(found[version])) for version in sorted(found, reverse=True))


def build_requires(sdist: Path, name: str) -> tuple[str, ...]:
    """The requirements that a source archive names for its build. Nothing of it is unpacked or run.

    Raises ResolveError when it cannot be read.
    """
    try:
        with tarfile.open(sdist, "r:gz") as archive:
            for member in archive:
                parts = os.path.normpath(member.name).split("/")
                if len(parts) == 2 and parts[1] == "pyproject.toml" and member.isfile():
                    if member.size > PYPROJECT_LIMIT:
                        raise ResolveError(f"the pyproject.toml of {name} is too large")
                    file = archive.extractfile(member)
                    text = file.read().decode("utf-8") if file else ""
                    system = tomllib.loads(text).get("build-system", {})
                    return tuple(str(r) for r in system.get("requires", LEGACY_REQUIRES))
    except (tarfile.TarError, OSError, EOFError, UnicodeDecodeError, tomllib.TOMLDecodeError) as failure:
        raise ResolveError(f"the source archive of {name} cannot be read: {failure}") from None
    return LEGACY_REQUIRES
