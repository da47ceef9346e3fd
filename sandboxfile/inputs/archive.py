"""Signed archives: what a suite holds, fetched, verified and kept as a local repository.

A suite is known by the digest of its InRelease file. Its index files lie in `indexes/<digest>/dists/…`, in
the layout of a repository, so that the base's own apt can use the directory as a `file:` archive and check
the signature once more. Nothing is written there before its digest was found in the signed text.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import lzma
import os
import re
import shutil
import tempfile
import time
import zlib
from collections.abc import Collection, Sequence
from dataclasses import field
from pathlib import Path

from sandboxfile.core.digest import Digest, digest_bytes, digest_of, hexadecimal
from sandboxfile.declared import dataclass
from sandboxfile.errors import FetchError, IntegrityError, Span
from sandboxfile.inputs.control import fields
from sandboxfile.inputs.debian_index import PackagesIndex
from sandboxfile.inputs.download import Downloader
from sandboxfile.inputs.signature import Keyring, verified
from sandboxfile.spec.lock import Archive

ASKED_AGAIN_AFTER = 3600.0
"""Seconds for which an archive's last answer is taken as its answer."""
RELEASE_LIMIT = 16 << 20
INDEX_LIMIT = 512 << 20
SEEN_TAG = "sandboxfile.archive/v1"


@dataclass(frozen=True)
class SuiteRequest:
    """One suite that is wanted.

    name: the archive's name in the lock (`debian`)
    urls: base URLs, in order of preference
    past: the caller asked for the archive as it was at a time, so that an index past its Valid-Until is right
    """

    name: str
    suite: str
    components: tuple[str, ...]
    architecture: str
    urls: tuple[str, ...]
    keyring: Keyring
    past: bool = False
    span: Span | None = field(default=None, compare=False)

    @property
    def flat(self) -> bool:
        """Whether it is a flat archive, whose `suite` is a path that ends in a slash."""
        return self.suite.endswith("/")

    @property
    def directory(self) -> str:
        """Where the suite's files are, below the archive's root; ends in a slash."""
        return self.suite.removeprefix("./") if self.flat else f"dists/{self.suite}/"

    @property
    def packages(self) -> tuple[str, ...]:
        """The Packages files, relative to `directory`."""
        if self.flat:
            return ("Packages",)
        return tuple(f"{c}/binary-{self.architecture}/Packages" for c in self.components)

    def __str__(self) -> str:
        return f"the suite {self.suite} of the archive {self.name}"


@dataclass(frozen=True)
class Suite:
    """A verified suite on this machine: `root` is a local repository that holds just it."""

    request: SuiteRequest
    archive: Archive
    root: Path

    @property
    def files(self) -> tuple[Path, ...]:
        """Its Packages files."""
        return tuple(self.root / self.request.directory / name for name in self.request.packages)

    def index(self) -> PackagesIndex:
        """Its packages. Read once for each content and process."""
        found = _INDEXES.get(self.files)
        if found is None:
            if len(_INDEXES) > 16:
                _INDEXES.clear()
            found = _INDEXES[self.files] = PackagesIndex(self.files)
        return found


_INDEXES: dict[tuple[Path, ...], PackagesIndex] = {}


class Archives:
    """Fetches suites and keeps them under the store's `indexes` directory."""

    def __init__(self, directory: Path, downloader: Downloader) -> None:
        self._directory = directory
        self._downloader = downloader

    async def fetch(
        self,
        requests: Sequence[SuiteRequest],
        *,
        refresh: bool = False,
        offline: bool = False,
        locked: Collection[Digest] = (),
    ) -> tuple[Suite, ...]:
        """Every suite, as it is now: asked for at most once an hour, always with `refresh`, never `offline`.

        locked: digests a lock names; such an index is right even when it is past its Valid-Until
        Raises FetchError when no mirror answers, IntegrityError for a bad signature or index.
        """
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._one(request, refresh, offline, locked)) for request in requests
                ]
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None
        return tuple(task.result() for task in tasks)

    async def _one(
        self, request: SuiteRequest, refresh: bool, offline: bool, locked: Collection[Digest]
    ) -> Suite:
        seen = self._seen_path(request)
        suite, age = self._seen(request, seen)
        if suite is not None:
            # gc goes by the time of a suite's directory.
            os.utime(suite.root)
        if suite is not None and (offline or (age < ASKED_AGAIN_AFTER and not refresh)):
            self._check_time(request, (suite.root / request.directory), suite.archive, locked)
            return suite
        if offline:
            raise FetchError(
                f"{request} is not in the store, and this is offline", hint="run it once without --offline"
            )
        document, signature = await self._release(request)
        text = await asyncio.to_thread(
            verified, document, request.keyring, signature=signature, what=str(request)
        )
        release = fields(text.decode("utf-8", "replace"))
        archive = _archive(request, release, digest_bytes(document))
        _check_names(request, release)
        _check_valid_until(request, release, archive, locked)
        root = self._directory / hexadecimal(archive.inrelease)
        suite = Suite(request, archive, root)
        if not all(path.exists() for path in suite.files):
            await self._fetch_indexes(suite, release, document, signature)
        _write_atomically(
            seen, json.dumps({"inrelease": archive.inrelease, "date": archive.date, "asked": time.time()})
        )
        return suite

    def _seen_path(self, request: SuiteRequest) -> Path:
        wanted = {
            "suite": request.suite,
            "components": request.components,
            "architecture": request.architecture,
            "urls": request.urls,
            "keyring": digest_bytes(request.keyring.content),
        }
        return self._directory / "seen" / f"{hexadecimal(digest_of(SEEN_TAG, wanted))}.json"

    def _seen(self, request: SuiteRequest, path: Path) -> tuple[Suite | None, float]:
        """The suite as it was last seen, and how many seconds ago."""
        try:
            record = json.loads(path.read_text())
            archive = Archive(
                request.name, request.suite, request.components, Digest(record["inrelease"]), record["date"]
            )
            age = time.time() - float(record["asked"])
        except (OSError, ValueError, KeyError, TypeError):
            return None, 0.0
        suite = Suite(request, archive, self._directory / hexadecimal(archive.inrelease))
        if not all(path.exists() for path in suite.files):
            return None, 0.0
        # A clock that was set back must not make an old answer count for ever.
        return suite, age if age >= 0 else ASKED_AGAIN_AFTER

    async def _release(self, request: SuiteRequest) -> tuple[bytes, bytes | None]:
        """InRelease, or Release with its detached signature, from the first mirror that has it."""
        directory = request.directory
        try:
            document, _ = await self._downloader.fetch_document(
                [f"{url}/{directory}InRelease" for url in request.urls], RELEASE_LIMIT
            )
            return document, None
        except FetchError as failure:
            if not any(": 404" in line or "No such file" in line for line in failure.details):
                raise FetchError(
                    f"no mirror of {request} answers",
                    span=request.span,
                    details=failure.details,
                    hint="check the network, or set another mirror in the settings",
                ) from None
            first = failure
        try:
            document, url = await self._downloader.fetch_document(
                [f"{url}/{directory}Release" for url in request.urls], RELEASE_LIMIT
            )
            signature, _ = await self._downloader.fetch_document([f"{url}.gpg"], RELEASE_LIMIT)
        except FetchError as failure:
            raise FetchError(
                f"{request} does not exist at its mirrors, or is not signed",
                span=request.span,
                details=(*first.details, *failure.details),
                hint="check the name of the suite",
            ) from None
        return document, signature

    async def _fetch_indexes(
        self, suite: Suite, release: dict[str, str], document: bytes, signature: bytes | None
    ) -> None:
        request = suite.request
        listed = _listed(release)
        self._directory.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".incoming-", dir=self._directory))
        try:
            top = scratch / request.directory
            top.mkdir(parents=True, exist_ok=True)
            if signature is None:
                (top / "InRelease").write_bytes(document)
            else:
                (top / "Release").write_bytes(document)
                (top / "Release.gpg").write_bytes(signature)
            for name in request.packages:
                content = await self._index(request, release, listed, name)
                path = top / name
                path.parent.mkdir(parents=True, exist_ok=True)
                await asyncio.to_thread(path.write_bytes, content)
            _open_for_reading(scratch)
            _merge(scratch, suite.root)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    async def _index(
        self, request: SuiteRequest, release: dict[str, str], listed: dict[str, tuple[str, int]], name: str
    ) -> bytes:
        """One Packages file, decompressed; the digest of what was fetched, and of what came out, are those
        of the signed text."""
        for suffix in (".xz", ".gz", ""):
            if name + suffix in listed:
                break
        else:
            if name in request.packages and not listed:
                raise IntegrityError(f"{request} lists no index files with SHA256 digests")
            # A suite may lack a component or an architecture; it then has nothing to offer for it.
            component = name.partition("/")[0]
            raise FetchError(
                f"{request} has no `{component}` for {request.architecture}",
                span=request.span,
                hint=f"it has: {release.get('Components', '?')} for {release.get('Architectures', '?')}",
            )
        digest, size = listed[name + suffix]
        if size > INDEX_LIMIT:
            raise IntegrityError(f"the index {name} of {request} is larger than {INDEX_LIMIT} bytes")
        plain = name + suffix
        if release.get("Acquire-By-Hash", "").lower() == "yes":
            paths = [f"{plain.rpartition('/')[0]}/by-hash/SHA256/{digest}".lstrip("/"), plain]
        else:
            paths = [plain]
        failures: list[str] = []
        mismatched = False
        for base in request.urls:
            for path in paths:
                url = f"{base}/{request.directory}{path}"
                try:
                    content, _ = await self._downloader.fetch_document([url], size)
                except FetchError as failure:
                    failures.extend(failure.details)
                    continue
                if hashlib.sha256(content).hexdigest() != digest or len(content) != size:
                    mismatched = True
                    failures.append(f"{url}: not the bytes that the signed index names")
                    continue
                return await asyncio.to_thread(
                    _decompressed, content, suffix, listed.get(name), name, request
                )
        kind = IntegrityError if mismatched else FetchError
        raise kind(
            f"the index {name} of {request} "
            + ("is not the one that was signed" if mismatched else "could not be fetched"),
            span=request.span,
            details=tuple(failures),
            hint="the mirror may be in the middle of an update: try again, or set another mirror",
        )

    def _check_time(
        self, request: SuiteRequest, directory: Path, archive: Archive, locked: Collection[Digest]
    ) -> None:
        """The Valid-Until of an index that is in the store already."""
        for name in ("InRelease", "Release"):
            path = directory / name
            if path.exists():
                text = path.read_text("utf-8", "replace")
                _check_valid_until(request, fields(text), archive, locked)
                return


def _archive(request: SuiteRequest, release: dict[str, str], digest: Digest) -> Archive:
    when = _time_of(release.get("Date", ""))
    if when is None:
        raise IntegrityError(f"{request} does not say its date")
    return Archive(request.name, request.suite, request.components, digest, when)


def _check_names(request: SuiteRequest, release: dict[str, str]) -> None:
    """A mirror must not answer with another suite's (validly signed) index."""
    names = {release.get("Suite", ""), release.get("Codename", "")}
    if request.flat or request.suite in names:
        return
    raise IntegrityError(
        f"{request} was answered with the index of another suite "
        f"({' or '.join(sorted(name for name in names if name)) or 'without a name'})",
        span=request.span,
        hint="use the suite's code name, or another mirror",
    )


def _check_valid_until(
    request: SuiteRequest, release: dict[str, str], archive: Archive, locked: Collection[Digest]
) -> None:
    until = _time_of(release.get("Valid-Until", ""))
    if until is None or until >= time.time() or request.past or archive.inrelease in locked:
        return
    day = time.strftime("%Y-%m-%d", time.gmtime(until))
    raise IntegrityError(
        f"the index of {request} was valid until {day} and is too old to be trusted",
        span=request.span,
        hint="run `sandboxfile lock --refresh`, or use another mirror; check this machine's clock",
    )


def _time_of(text: str) -> int | None:
    if not text:
        return None
    from email.utils import parsedate_to_datetime

    try:
        return int(parsedate_to_datetime(text).timestamp())
    except ValueError:
        return None


def _listed(release: dict[str, str]) -> dict[str, tuple[str, int]]:
    """The SHA256 section: digest and size by path."""
    found = {}
    for line in release.get("SHA256", "").splitlines():
        words = line.split()
        if len(words) == 3 and words[1].isdigit() and re.fullmatch("[0-9a-f]{64}", words[0]):
            found[words[2].removeprefix("./")] = (words[0], int(words[1]))
    return found


def _decompressed(
    content: bytes, suffix: str, promised: tuple[str, int] | None, name: str, request: SuiteRequest
) -> bytes:
    limit = promised[1] if promised else INDEX_LIMIT
    try:
        if suffix == ".xz":
            plain = lzma.LZMADecompressor().decompress(content, limit + 1)
        elif suffix == ".gz":
            plain = zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(content, limit + 1)
        else:
            plain = content
    except (lzma.LZMAError, zlib.error):
        raise IntegrityError(f"the index {name} of {request} cannot be decompressed") from None
    if promised and (hashlib.sha256(plain).hexdigest(), len(plain)) != promised:
        raise IntegrityError(f"the index {name} of {request} is not the one that was signed")
    return plain


def _open_for_reading(directory: Path) -> None:
    """A sandbox reads the repository through a mount, with ids that own nothing here."""
    for parent, _, files in os.walk(directory):
        os.chmod(parent, 0o755)
        for name in files:
            os.chmod(os.path.join(parent, name), 0o644)


def _merge(scratch: Path, root: Path) -> None:
    """Put a prepared repository in place; when the suite is there with other components, beside those."""
    try:
        os.rename(scratch, root)
        return
    except OSError:
        # It exists: the signed document is the same by its digest, so that only files are added.
        for parent, _, files in os.walk(scratch):
            target = root / os.path.relpath(parent, scratch)
            target.mkdir(mode=0o755, parents=True, exist_ok=True)
            for name in sorted(files):
                os.replace(os.path.join(parent, name), target / name)


def _write_atomically(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(text)
    os.replace(beside, path)
