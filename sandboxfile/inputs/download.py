"""Downloads: many files at once, each from the first origin that has the promised bytes.

Every byte is hashed while it streams into the blob store and gets its name there only when digest and size
are what the caller wanted. Small signed documents, whose digest nobody knows beforehand, are fetched into
memory with a limit; their signature is checked by the caller.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import unquote, urlsplit, urlunsplit

from sandboxfile.core.event import Outcome, Reporter, TaskFinished, TaskProgress, TaskStarted
from sandboxfile.core.units import plural, size_text
from sandboxfile.declared import dataclass
from sandboxfile.errors import FetchError, IntegrityError, StoreError

if TYPE_CHECKING:
    import httpx

    from sandboxfile.inputs.settings import Settings

ATTEMPTS = 3
CHUNK = 1 << 18
PROGRESS_STEP = 1 << 20
HEADERS = {"User-Agent": "sandboxfile", "Accept-Encoding": "identity"}
"""No content coding: what is hashed is the file as it lies on the origin."""
RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True)
class Wanted:
    """A file by what it must be. `urls` are its origins in order of preference; `size` in bytes, 0 when
    it is not known."""

    sha256: str
    size: int
    name: str
    urls: tuple[str, ...]


class _OriginError(Exception):
    """One origin did not answer with the bytes; `final` when asking it again is no use."""

    def __init__(self, reason: str, *, final: bool = False, integrity: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.final = final
        self.integrity = integrity


def shown(url: str) -> str:
    """A URL as it may be shown: without user name and password."""
    parts = urlsplit(url)
    if "@" not in parts.netloc:
        return url
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


class Downloader:
    """Fetches files into a blob store.

    Proxies come from the environment, certificates from the settings' bundle, else from the host.
    """

    def __init__(self, blobs: Blobs, settings: Settings, reporter: Reporter) -> None:
        self._blobs = blobs
        self._settings = settings
        self._reporter = reporter

    async def fetch(
        self, wanted: Sequence[Wanted], *, task: str = "fetch", parent: str | None = None
    ) -> None:
        """Bring every file that is not there yet into the blob store.

        Raises FetchError, naming the file and what each origin answered; IntegrityError when an origin
        answered with other bytes and none had the right ones. The other downloads end at once.
        """
        missing = [w for w in {w.sha256: w for w in wanted}.values() if not self._blobs.has(w.sha256)]
        if not missing:
            return
        import asyncio

        total = sum(w.size for w in missing)
        title = f"fetch {plural(len(missing), 'file')}"
        self._reporter.emit(TaskStarted(task, title, parent))
        progress = _Progress(self._reporter, task, total or None)
        slots = asyncio.Semaphore(max(1, self._settings.connections))
        try:
            async with self._client() as client:

                async def one(item: Wanted) -> None:
                    async with slots:
                        await self._fetch_one(client, item, progress)

                try:
                    async with asyncio.TaskGroup() as group:
                        # Large files first, so that no connection ends alone on the largest.
                        for item in sorted(missing, key=lambda w: -w.size):
                            group.create_task(one(item))
                except BaseExceptionGroup as failures:
                    raise _first(failures) from None
        except BaseException as failure:
            cancelled = not isinstance(failure, Exception)
            self._reporter.emit(TaskFinished(task, Outcome.CANCELLED if cancelled else Outcome.FAILED))
            raise
        progress.finish()
        self._reporter.emit(
            TaskFinished(task, Outcome.DONE, f"{plural(len(missing), 'file')}, {size_text(progress.done)}")
        )

    async def _fetch_one(self, client: httpx.AsyncClient, item: Wanted, progress: _Progress) -> None:
        failures: list[str] = []
        mismatched = False
        for url in item.urls:
            try:
                await self._from_origin(client, url, item, progress)
                return
            except _OriginError as failure:
                failures.append(f"{shown(url)}: {failure.reason}")
                mismatched = mismatched or failure.integrity
        if mismatched:
            raise IntegrityError(
                f"{item.name} does not have the bytes that were promised",
                details=tuple(failures),
                hint="nothing of it was used; the file was changed at its origin, or the lock was edited",
            )
        raise FetchError(
            f"could not fetch {item.name}",
            details=tuple(failures) or ("no origin is known for it",),
            hint="check the network, or set another mirror in the settings",
        )

    async def _from_origin(
        self, client: httpx.AsyncClient, url: str, item: Wanted, progress: _Progress
    ) -> None:
        import asyncio

        for attempt in range(1, ATTEMPTS + 1):
            received = 0
            try:
                with self._blobs.writer(item.sha256, item.size or None, name=item.name) as sink:
                    async with _open(client, url) as chunks:
                        async for chunk in chunks:
                            received += len(chunk)
                            sink.write(chunk)
                            progress.add(len(chunk))
                return
            except IntegrityError as wrong:
                progress.add(-received)
                raise _OriginError(wrong.message, final=True, integrity=True) from None
            except _OriginError as failure:
                progress.add(-received)
                if failure.final or attempt == ATTEMPTS:
                    raise
                await asyncio.sleep(0.25 * 2 ** (attempt - 1))

    async def fetch_document(self, urls: Sequence[str], limit: int) -> tuple[bytes, str]:
        """A document of at most `limit` bytes from the first origin that has it, and that origin's URL.

        Its content is not trusted: the caller checks its signature or digest. Raises FetchError, whose
        details hold what each origin answered.
        """
        import asyncio

        failures: list[str] = []
        async with self._client() as client:
            for url in urls:
                for attempt in range(1, ATTEMPTS + 1):
                    try:
                        body = bytearray()
                        async with _open(client, url) as chunks:
                            async for chunk in chunks:
                                body += chunk
                                if len(body) > limit:
                                    raise _OriginError(f"more than {limit} bytes", final=True)
                        return bytes(body), url
                    except _OriginError as failure:
                        if failure.final or attempt == ATTEMPTS:
                            failures.append(f"{shown(url)}: {failure.reason}")
                            break
                        await asyncio.sleep(0.25 * 2 ** (attempt - 1))
        name = urlsplit(urls[0]).path.rpartition("/")[2] if urls else "the document"
        raise FetchError(f"could not fetch {name}", details=tuple(failures) or ("no origin is known",))

    @asynccontextmanager
    async def _client(self) -> AsyncIterator[httpx.AsyncClient]:
        import httpx

        context = ssl.create_default_context(
            cafile=str(self._settings.ca_bundle) if self._settings.ca_bundle else None
        )
        timeout = httpx.Timeout(self._settings.timeout, pool=None)
        async with httpx.AsyncClient(
            verify=context, timeout=timeout, follow_redirects=True, headers=HEADERS
        ) as client:
            yield client


class Blobs(Protocol):
    """What is needed of the blob store (`store.blobs.BlobStore`)."""

    def has(self, sha256: str) -> bool:
        """Whether a blob is there."""
        ...

    def path(self, sha256: str) -> Path:
        """Where a blob is."""
        ...

    def writer(
        self, expected_sha256: str | None = None, expected_size: int | None = None, *, name: str = ""
    ) -> AbstractContextManager[Sink]:
        """A context that takes a blob's bytes; leaving it checks digest and size, and publishes them."""
        ...

    def put_file(self, path: Path, sha256: str | None = None, *, move: bool = False) -> str:
        """Keep a file; its sha256."""
        ...

    def put_bytes(self, content: bytes) -> str:
        """Keep bytes; their sha256."""
        ...


class Sink(Protocol):
    """Where a download's bytes go."""

    def write(self, chunk: bytes) -> object:
        """Take the next bytes."""
        ...


class _Progress:
    """Bytes of all downloads of one task, reported in steps."""

    def __init__(self, reporter: Reporter, task: str, total: int | None) -> None:
        self._reporter = reporter
        self._task = task
        self._total = total
        self._done = 0
        self._reported = 0

    def add(self, size: int) -> None:
        self._done += size
        if abs(self._done - self._reported) >= PROGRESS_STEP:
            self.finish()

    @property
    def done(self) -> int:
        """Bytes so far."""
        return self._done

    def finish(self) -> None:
        self._reported = self._done
        self._reporter.emit(TaskProgress(self._task, self._done, self._total, "bytes"))


@asynccontextmanager
async def _open(client: httpx.AsyncClient, url: str) -> AsyncIterator[AsyncIterator[bytes]]:
    """The bytes behind a URL. Raises _OriginError for whatever an origin can do wrong."""
    if urlsplit(url).scheme == "file":
        yield _read(Path(unquote(urlsplit(url).path)))
        return
    import httpx

    try:
        async with client.stream("GET", url) as answer:
            if answer.status_code != 200:
                reason = f"{answer.status_code} {answer.reason_phrase}".strip()
                raise _OriginError(reason, final=answer.status_code not in RETRIED)
            yield answer.aiter_raw(CHUNK)
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as failure:
        raise _OriginError(str(failure), final=True) from None
    except httpx.HTTPError as failure:
        reason = str(failure) or type(failure).__name__
        raise _OriginError(reason, final="CERTIFICATE_VERIFY_FAILED" in reason) from None


async def _read(path: Path) -> AsyncIterator[bytes]:
    try:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                yield chunk
    except OSError as failure:
        raise _OriginError(failure.strerror or str(failure), final=True) from None


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """The failure worth telling: a full disk or wrong bytes before a plain failure to fetch."""
    leaves = [_first(f) if isinstance(f, BaseExceptionGroup) else f for f in failures.exceptions]
    for kind in (StoreError, IntegrityError):
        for leaf in leaves:
            if isinstance(leaf, kind):
                return leaf
    return leaves[0]
