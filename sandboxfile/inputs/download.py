"""Downloads: many files at once, each from the first origin that has the promised bytes.

Every byte is hashed while it streams into the blob store and gets its name there only when digest and size
are what the caller wanted. Small signed documents, whose digest nobody knows beforehand, are fetched into
memory with a limit; their signature is checked by the caller.

The order for a file: the store, the vendored packages, the caches, its own origins, the archives that keep
old versions, what an index knows of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from sandboxfile.core.event import Fallback, Outcome, Reporter, TaskFinished, TaskProgress, TaskStarted
from sandboxfile.core.units import plural, size_text
from sandboxfile.declared import dataclass
from sandboxfile.errors import FetchError, IntegrityError, StoreError
from sandboxfile.inputs.caches import near_urls
from sandboxfile.inputs.inquiry import Health, Inquiry
from sandboxfile.inputs.transport import (
    CLOCK_HINT,
    Fault,
    OriginError,
    is_local,
    is_there,
    new_client,
    open_url,
    origin_of,
    shown,
    warm_up,
)

if TYPE_CHECKING:
    import httpx

    from sandboxfile.inputs.settings import Settings

__all__ = ["Accept", "Blobs", "Downloader", "Search", "Sink", "Wanted", "shown"]

PROGRESS_STEP = 1 << 20
IMPATIENCE = 0.25
"""The part of the time limit that an origin has while others can be asked."""


@dataclass(frozen=True)
class Wanted:
    """A file by what it must be. `size` is in bytes, 0 when it is not known.

    urls:  its origins in order of preference
    older: origins that keep old versions, asked when none of `urls` has it
    distribution: of a Python distribution its name, by which an index may know another place
    """

    sha256: str
    size: int
    name: str
    urls: tuple[str, ...]
    older: tuple[str, ...] = ()
    distribution: str = ""


Search = Callable[[Wanted], Awaitable[Sequence[str]]]
"""Looks for more places of a file that none of its origins has."""
Accept = Callable[[bytes, str], Awaitable[None]]
"""Judges a document and the URL it came from. Raises IntegrityError."""


class Downloader:
    """Fetches files into a blob store.

    Proxies come from the environment, certificates from the settings' bundle, else from the host. While a
    `session` is open, connections are kept for the next file.
    """

    def __init__(self, blobs: Blobs, settings: Settings, reporter: Reporter) -> None:
        self._blobs = blobs
        self._settings = settings
        self._reporter = reporter
        self._health = Health()
        self._users = 0
        self._client: httpx.AsyncClient | None = None
        self._slots: asyncio.Semaphore | None = None
        self._active: dict[str, asyncio.Future[None]] = {}

    @asynccontextmanager
    async def session(self, *, warm: bool = False) -> AsyncIterator[None]:
        """Keep connections open until the block ends. Sessions may overlap; the last one closes them. With
        `warm`, what the first connection needs is loaded beside whatever the block begins with."""
        if not self._users:
            self._slots = asyncio.Semaphore(max(1, self._settings.connections))
        self._users += 1
        warming = asyncio.ensure_future(asyncio.to_thread(warm_up, self._settings)) if warm else None
        try:
            yield
        finally:
            self._users -= 1
            if warming is not None:
                await asyncio.wait([warming])
            if not self._users:
                client, self._client, self._slots = self._client, None, None
                if client is not None:
                    await client.aclose()

    async def fetch(
        self,
        wanted: Sequence[Wanted],
        *,
        task: str = "fetch",
        parent: str | None = None,
        offline: bool = False,
        search: Search | None = None,
    ) -> None:
        """Bring every file that is not there yet into the blob store; `offline` from this machine only.

        Raises FetchError, naming the file and what each origin said; IntegrityError when an origin had
        other bytes and none had the right ones. The other downloads end at once.
        """
        missing = [w for w in {w.sha256: w for w in wanted}.values() if not self._blobs.has(w.sha256)]
        if not missing:
            return
        total = sum(w.size for w in missing)
        self._reporter.emit(TaskStarted(task, f"fetch {plural(len(missing), 'file')}", parent))
        progress = _Progress(self._reporter, task, total or None)
        try:
            async with self.session():
                try:
                    async with asyncio.TaskGroup() as group:
                        # Large files first, so that no connection ends alone on the largest.
                        for item in sorted(missing, key=lambda w: -w.size):
                            group.create_task(self._bring(item, progress, offline, search))
                except BaseExceptionGroup as failures:
                    raise _first(failures) from None
        except BaseException as failure:
            cancelled = not isinstance(failure, Exception)
            self._reporter.emit(TaskFinished(task, Outcome.CANCELLED if cancelled else Outcome.FAILED))
            raise
        progress.report()
        detail = f"{plural(len(missing), 'file')}, {size_text(progress.done)}{progress.elsewhere()}"
        self._reporter.emit(TaskFinished(task, Outcome.DONE, detail))

    def locally(self, item: Wanted) -> bool:
        """Whether the store or another place on this machine says to have a file."""
        urls = (*near_urls(self._settings, item.sha256), *item.urls, *item.older)
        return self._blobs.has(item.sha256) or any(is_there(url) for url in urls if is_local(url))

    async def _bring(self, item: Wanted, progress: _Progress, offline: bool, search: Search | None) -> None:
        """Bring a file, unless another task is at it: then that one's end is waited for."""
        assert self._slots is not None
        while not self._blobs.has(item.sha256):
            if (other := self._active.get(item.sha256)) is not None:
                await asyncio.wait([other])
                continue
            async with self._slots:
                if item.sha256 in self._active or self._blobs.has(item.sha256):
                    continue
                done = self._active[item.sha256] = asyncio.get_running_loop().create_future()
                try:
                    await self._ask(item, progress, offline, search)
                    return
                finally:
                    del self._active[item.sha256]
                    done.set_result(None)
        progress.add(item.size)

    async def _ask(self, item: Wanted, progress: _Progress, offline: bool, search: Search | None) -> None:
        tiers = [near_urls(self._settings, item.sha256), item.urls, item.older]
        if offline:
            tiers = [[url for url in tier if is_local(url)] for tier in tiers]
        with self._blobs.writer(item.sha256, item.size or None, name=item.name, resume=True) as sink:
            transfer = _Transfer(self, item, sink, progress)
            inquiry = Inquiry(self._health, transfer.take)
            taken = await inquiry.ask(*tiers)
            if taken is None and search is not None and not offline:
                found = await search(item)
                taken = await inquiry.ask([url for url in found if url not in inquiry.said])
            if taken is None:
                raise _failure(item, inquiry, offline)
        self._tell(item, taken, inquiry, progress)

    def _tell(self, item: Wanted, taken: str, inquiry: Inquiry, progress: _Progress) -> None:
        """Say that a file did not come from where it was expected."""
        first = next(iter(item.urls), taken)
        if taken in item.urls and origin_of(taken) == origin_of(first):
            return
        failed = [url for url in inquiry.said if url in item.urls or url in item.older]
        if taken != first and failed:
            url = failed[0]
            reason = inquiry.said[url].reason
        elif taken in (*item.urls, *item.older) and taken != first:
            # It was not asked: it has failed too often before.
            url, reason = first, "failed several times before"
        else:
            return
        progress.fallback(Fallback(progress.task, item.name, origin_of(url), reason, origin_of(taken)))

    async def fetch_document(
        self, urls: Sequence[str], limit: int, accept: Accept | None = None
    ) -> tuple[bytes, str]:
        """A document of at most `limit` bytes from the first origin that has it, and that origin's URL.

        Its content is not trusted: `accept` checks its signature or digest, and when that raises an
        IntegrityError the next origin is asked. Raises the first of those when no document was accepted, else
        FetchError, which is `absent` when an origin said that there is none; the details hold what each said.
        """
        body = bytearray()
        wrong: list[IntegrityError] = []

        async def take(url: str, others: bool) -> None:
            body.clear()
            async with self.open(url, others) as (_, chunks):
                async for chunk in chunks:
                    body.extend(chunk)
                    if len(body) > limit:
                        raise OriginError(f"sent more than {limit} bytes", Fault.REFUSED)
            if accept is not None:
                try:
                    await accept(bytes(body), url)
                except IntegrityError as failure:
                    wrong.append(failure)
                    raise OriginError(f"was not accepted: {failure.message}", Fault.LYING) from None

        inquiry = Inquiry(self._health, take)
        async with self.session():
            taken = await inquiry.ask(urls)
        if taken is not None:
            return bytes(body), taken
        if wrong:
            if len(urls) > 1:
                wrong[0].details = (*wrong[0].details, *inquiry.sayings())
            raise wrong[0]
        name = urlsplit(urls[0]).path.rpartition("/")[2] if urls else "the document"
        error = FetchError(
            f"could not fetch {name}",
            details=inquiry.sayings() or ("no origin is known",),
            hint=_hint(inquiry, "check the network, or set another mirror in the settings"),
        )
        error.absent = Fault.ABSENT in inquiry.faults()
        raise error

    @asynccontextmanager
    async def open(
        self, url: str, others: bool, start: int = 0, validator: str | None = None
    ) -> AsyncIterator[tuple[_Kept, AsyncIterator[bytes]]]:
        """An answer's position and validator, and its bytes at no less than the rate that is asked for."""
        silence = self._settings.timeout * (IMPATIENCE if others else 1)
        async with open_url(
            self._connected, url, silence=silence, start=start, validator=validator
        ) as answer:
            rate = self._settings.minimum_rate if others and not is_local(url) else 0.0
            kept = _Kept(answer.start, answer.length, answer.validator)
            yield kept, _at_rate(answer.chunks, rate, silence) if rate else answer.chunks

    def _connected(self) -> httpx.AsyncClient:
        if self._client is None:
            self._client = new_client(self._settings)
        return self._client


class Blobs(Protocol):
    """What is needed of the blob store (`store.blobs.BlobStore`)."""

    def has(self, sha256: str) -> bool:
        """Whether a blob is there."""
        ...

    def path(self, sha256: str) -> Path:
        """Where a blob is."""
        ...

    def writer(
        self,
        expected_sha256: str | None = None,
        expected_size: int | None = None,
        *,
        name: str = "",
        resume: bool = False,
    ) -> AbstractContextManager[Sink]:
        """A context that takes a blob's bytes; leaving it checks digest and size, and publishes them. With
        `resume` it begins with what an earlier one left unfinished."""
        ...

    def put_file(self, path: Path, sha256: str | None = None, *, move: bool = False) -> str:
        """Keep a file; its sha256."""
        ...

    def put_bytes(self, content: bytes) -> str:
        """Keep bytes; their sha256."""
        ...


class Sink(Protocol):
    """Where a download's bytes go."""

    @property
    def size(self) -> int:
        """How many bytes are there."""
        ...

    def write(self, chunk: bytes) -> object:
        """Take the next bytes. IntegrityError when there are more than were promised."""
        ...

    def restart(self) -> None:
        """Forget all bytes."""
        ...

    def finish(self) -> None:
        """Check the whole and publish it. IntegrityError when it is not what was promised."""
        ...


@dataclass(frozen=True)
class _Kept:
    start: int
    length: int | None
    validator: str | None


class _Transfer:
    """The bytes of one file on their way from its origins into the store.

    What came before a connection broke is not asked for again, from whichever origin. When the whole then
    is not what was promised, nobody knows who was wrong: the origin is asked again for all of it.
    """

    def __init__(self, downloader: Downloader, item: Wanted, sink: Sink, progress: _Progress) -> None:
        self._downloader = downloader
        self._item = item
        self._sink = sink
        self._progress = progress
        self._validators: dict[str, str | None] = {}
        progress.add(sink.size)

    async def take(self, url: str, others: bool) -> None:
        """Take the file from a URL. Raises OriginError."""
        began = self._sink.size
        try:
            await self._stream(url, others)
            await _in_thread(self._sink.finish)
        except IntegrityError as wrong:
            longer = 0 < self._item.size < self._sink.size
            self._restart()
            if began:
                await self.take(url, others)
                return
            what = f"more than the {self._item.size} bytes" if longer else "other bytes than were"
            evidence = "" if longer else f": {wrong.message.rpartition(': ')[2]}"
            raise OriginError(f"sent {what} promised{evidence}", Fault.LYING) from None
        except OriginError as failure:
            failure.gained = max(0, self._sink.size - began)
            raise

    async def _stream(self, url: str, others: bool) -> None:
        item, sink = self._item, self._sink
        validator = self._validators.get(url)
        async with self._downloader.open(url, others, sink.size, validator) as (answer, chunks):
            if answer.start != sink.size:
                self._restart()
            self._validators[url] = answer.validator
            if item.size and answer.length is not None and answer.start + answer.length != item.size:
                self._restart()
                whole = answer.start + answer.length
                raise OriginError(f"offers {whole} bytes, not the {item.size} promised", Fault.LYING)
            async for chunk in chunks:
                sink.write(chunk)
                self._progress.add(len(chunk))
        if sink.size < item.size:
            raise OriginError(f"ended after {sink.size} of {item.size} bytes", Fault.BROKEN)

    def _restart(self) -> None:
        self._progress.add(-self._sink.size)
        self._sink.restart()


class _Progress:
    """Bytes of all downloads of one task, reported in steps, and what did not come from its first origin."""

    def __init__(self, reporter: Reporter, task: str, total: int | None) -> None:
        self._reporter = reporter
        self.task = task
        self._total = total
        self.done = 0
        self._reported = 0
        self._elsewhere: dict[str, int] = {}

    def add(self, size: int) -> None:
        """Count bytes."""
        self.done += size
        if abs(self.done - self._reported) >= PROGRESS_STEP:
            self.report()

    def report(self) -> None:
        """Say how far it is."""
        self._reported = self.done
        self._reporter.emit(TaskProgress(self.task, self.done, self._total, "bytes"))

    def fallback(self, event: Fallback) -> None:
        """Note a file that came from elsewhere."""
        self._elsewhere[event.taken_from] = self._elsewhere.get(event.taken_from, 0) + 1
        self._reporter.emit(event)

    def elsewhere(self) -> str:
        """Who had files that their first origin did not have, as the end of a sentence."""
        return "".join(f", {count} from {origin}" for origin, count in sorted(self._elsewhere.items()))


async def _at_rate(chunks: AsyncIterator[bytes], rate: float, window: float) -> AsyncIterator[bytes]:
    """The same bytes; OriginError when fewer than `rate` a second came within `window` seconds."""
    loop = asyncio.get_running_loop()
    since, count = loop.time(), 0
    async for chunk in chunks:
        count += len(chunk)
        yield chunk
        now = loop.time()
        if now - since >= window:
            if count < rate * (now - since):
                raise OriginError(f"sends less than {size_text(round(rate))} a second", Fault.SLOW)
            since, count = now, 0


async def _in_thread(work: Callable[[], None]) -> None:
    """Run something in a thread and wait for its end, also when cancelled: it uses what the caller closes."""
    running = asyncio.get_running_loop().run_in_executor(None, work)
    try:
        await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise


def _failure(item: Wanted, inquiry: Inquiry, offline: bool) -> FetchError:
    details = inquiry.sayings()
    if Fault.LYING in inquiry.faults():
        return IntegrityError(
            f"{item.name} does not have the bytes that were promised",
            details=details,
            hint="nothing of it was used; the file was changed at its origin, or the lock was edited",
        )
    if offline:
        return FetchError(
            f"{item.name} is neither in the store nor vendored, and this is offline",
            details=details,
            hint="run `sandboxfile build` or `sandboxfile vendor` once without --offline",
        )
    gone = inquiry.faults() == {Fault.ABSENT}
    hint = "check the network, or set another mirror in the settings"
    if gone and item.distribution:
        hint = (
            f"it was removed from its index: run `sandboxfile lock --update {item.distribution}`, or name a "
            "cache that has it in the settings"
        )
    elif gone:
        hint = (
            "its origins have dropped it: name an archive of old versions (`apt.snapshot-hosts`) or a cache "
            "in the settings, or run `sandboxfile lock --update`"
        )
    error = FetchError(
        f"could not fetch {item.name}",
        details=details or ("no origin is known for it",),
        hint=_hint(inquiry, hint),
    )
    error.absent = Fault.ABSENT in inquiry.faults()
    return error


def _hint(inquiry: Inquiry, usual: str) -> str:
    if any(CLOCK_HINT in failure.reason for failure in inquiry.said.values()):
        return "set this machine's clock"
    return usual


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """The failure worth telling: a full disk or wrong bytes before a plain failure to fetch."""
    leaves = [_first(f) if isinstance(f, BaseExceptionGroup) else f for f in failures.exceptions]
    for kind in (StoreError, IntegrityError):
        for leaf in leaves:
            if isinstance(leaf, kind):
                return leaf
    return leaves[0]
