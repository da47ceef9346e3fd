"""One origin at fault and the file arrives all the same; all of them at fault and the error says so."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sandboxfile.core.event import Fallback, TaskFinished
from sandboxfile.errors import FetchError, IntegrityError
from sandboxfile.inputs import inquiry
from sandboxfile.inputs.download import Downloader, Wanted
from sandboxfile.inputs.inquiry import Health, Inquiry, pause
from sandboxfile.inputs.settings import Settings
from sandboxfile.inputs.transport import Fault, OriginError
from sandboxfile.store.store import Store
from tests.resolve.conftest import Recorder
from tests.resolve.server import (
    Behaviour,
    Server,
    babbling,
    dead_url,
    mute,
    redirecting,
    resetting,
    saying,
    status,
)

CONTENT = os.urandom(3 << 20)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
PATH = "/pool/thing.deb"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "store", timeout=4.0, minimum_rate=4000.0)


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inquiry, "FIRST_WAIT", 0.01)


@pytest.fixture
def mirror(web: Server) -> Server:
    place = web.directory / PATH.lstrip("/")
    place.parent.mkdir()
    place.write_bytes(CONTENT)
    return web


@pytest.fixture
def older(tmp_path: Path, mirror: Server) -> Iterator[Server]:
    """Another server that has the file at the same path."""
    server = Server(mirror.directory)
    yield server
    server.close()


def wanted(*urls: str, older: tuple[str, ...] = (), size: int = len(CONTENT)) -> Wanted:
    return Wanted(SHA256, size, "thing.deb", urls, older)


def consistent(store: Store, *, there: bool) -> None:
    """Nothing wrong was published, and what is left of a download is only what can be gone on with."""
    assert store.blobs.has(SHA256) is there
    if there:
        store.blobs.verify(SHA256)
    left = list(store.blobs.incoming.iterdir())
    assert [path.name for path in left if path.name != f"{SHA256}.part"] == []
    if there:
        assert left == []


def fallbacks(recorder: Recorder) -> list[Fallback]:
    return [event for event in recorder.events if isinstance(event, Fallback)]


FAULTS: dict[str, Callable[[Server], Behaviour]] = {
    "answers 404": lambda _: status(404),
    "answers 410": lambda _: status(410),
    "answers 403": lambda _: status(403),
    "answers 500": lambda _: status(500),
    "answers 503": lambda _: status(503),
    "is busy for an hour": lambda _: status(429, Retry_After="3600"),
    "truncates": lambda server: server.truncating(1000),
    "ends early without a length": lambda server: server.without_length(1000),
    "sends other bytes": lambda _: saying(b"x" * len(CONTENT)),
    "sends more bytes": lambda _: saying(CONTENT + b"more"),
    "sends an empty file": lambda _: saying(b""),
    "announces too much": lambda server: server.announcing(len(CONTENT) + 7),
    "announces too little": lambda server: server.announcing(7),
    "redirects for ever": lambda _: redirecting,
    "speaks another protocol": lambda _: babbling,
    "drops the connection": lambda _: resetting,
    "says nothing": lambda server: server.silent,
    "trickles": lambda server: server.trickling,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_with_one_mirror_at_fault_the_file_comes_from_the_next(
    mirror: Server, older: Server, store: Store, downloader: Downloader, recorder: Recorder, fault: str
) -> None:
    mirror.always = FAULTS[fault](mirror)
    asyncio.run(downloader.fetch([wanted(mirror.url + PATH, older=(older.url + PATH,))]))
    consistent(store, there=True)
    (event,) = fallbacks(recorder)
    assert event.file == "thing.deb"
    assert (event.origin, event.taken_from) == (mirror.url[7:], older.url[7:])
    assert event.reason
    finished = [event for event in recorder.events if isinstance(event, TaskFinished)]
    assert finished[-1].detail.endswith(f", 1 from {older.url[7:]}")


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_mirror_that_takes_connections_and_says_nothing_is_passed_over(
    mirror: Server, store: Store, downloader: Downloader, scheme: str
) -> None:
    with mute() as host:
        asyncio.run(downloader.fetch([wanted(f"{scheme}://{host}{PATH}", mirror.url + PATH)]))
    consistent(store, there=True)


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault not in ("trickles", "says nothing")])
def test_when_every_origin_is_at_fault_each_is_told_in_one_sentence(
    mirror: Server, older: Server, store: Store, downloader: Downloader, fault: str
) -> None:
    mirror.always = older.always = FAULTS[fault](mirror)
    dead = dead_url()
    urls = (mirror.url + PATH, dead + PATH)
    with pytest.raises(FetchError) as caught:
        asyncio.run(downloader.fetch([wanted(*urls, older=(older.url + PATH,))]))
    lines = caught.value.details
    assert [line.split()[0] for line in lines] == [*urls, older.url + PATH]
    assert "cannot be reached" in lines[1]
    assert caught.value.hint
    lies = ("sends", "announces")
    assert isinstance(caught.value, IntegrityError) == fault.startswith(lies)
    consistent(store, there=False)


def test_a_mirror_that_lacks_one_version_serves_the_others(
    mirror: Server, older: Server, store: Store, downloader: Downloader, recorder: Recorder
) -> None:
    other = mirror.directory / "pool/other.deb"
    other.write_bytes(b"other")
    mirror.plan(PATH, status(404))
    item = Wanted(hashlib.sha256(b"other").hexdigest(), 5, "other.deb", (f"{mirror.url}/pool/other.deb",))
    asyncio.run(downloader.fetch([wanted(mirror.url + PATH, older=(older.url + PATH,)), item]))
    consistent(store, there=True)
    assert older.asked == [PATH]
    assert [event.reason for event in fallbacks(recorder)] == ["answered 404 Not Found"]


def test_an_archive_of_old_versions_is_not_asked_while_a_mirror_has_the_file(
    mirror: Server, older: Server, downloader: Downloader, recorder: Recorder
) -> None:
    mirror.plan(PATH, status(503), status(500))
    asyncio.run(downloader.fetch([wanted(mirror.url + PATH, older=(older.url + PATH,))]))
    assert mirror.asked == [PATH] * 3
    assert older.asked == []
    assert fallbacks(recorder) == []


def test_an_only_origin_that_is_slow_is_waited_for(mirror: Server, store: Store, settings: Settings) -> None:
    small = b"slow but sure, and all of it"
    (mirror.directory / "small").write_bytes(small)
    mirror.plan("/small", mirror.trickling)
    item = Wanted(hashlib.sha256(small).hexdigest(), len(small), "small", (f"{mirror.url}/small",))
    downloader = Downloader(store.blobs, settings, Recorder())
    asyncio.run(downloader.fetch([item]))
    assert store.blobs.path(item.sha256).read_bytes() == small
    assert mirror.asked == ["/small"]


def test_what_came_before_a_connection_broke_is_not_fetched_again(
    mirror: Server, store: Store, downloader: Downloader
) -> None:
    mirror.plan(PATH, mirror.truncating(2_000_000))
    asyncio.run(downloader.fetch([wanted(mirror.url + PATH)]))
    consistent(store, there=True)
    assert mirror.ranges == ["", "bytes=2000000-"]


def test_a_download_goes_on_at_another_origin(
    mirror: Server, older: Server, store: Store, downloader: Downloader
) -> None:
    mirror.always = mirror.truncating(2_000_000)
    asyncio.run(downloader.fetch([wanted(mirror.url + PATH, older.url + PATH)]))
    consistent(store, there=True)
    assert older.ranges == ["bytes=2000000-"]


def test_a_part_of_a_liar_is_thrown_away_and_the_whole_is_asked_for(
    mirror: Server, older: Server, store: Store, downloader: Downloader
) -> None:
    lies = mirror.directory / "lies"
    lies.write_bytes(b"x" * len(CONTENT))
    mirror.files[PATH] = lies
    mirror.always = mirror.truncating(2_000_000)
    asyncio.run(downloader.fetch([wanted(mirror.url + PATH, older.url + PATH)]))
    consistent(store, there=True)
    assert older.ranges == ["bytes=2000000-", ""]


def test_an_unfinished_download_is_gone_on_with_by_the_next_run(
    mirror: Server, store: Store, settings: Settings
) -> None:
    mirror.always = mirror.truncating(2_000_000)
    with pytest.raises(FetchError):
        asyncio.run(Downloader(store.blobs, settings, Recorder()).fetch([wanted(mirror.url + PATH)]))
    consistent(store, there=False)
    mirror.always = None
    mirror.ranges.clear()
    asyncio.run(Downloader(store.blobs, settings, Recorder()).fetch([wanted(mirror.url + PATH)]))
    consistent(store, there=True)
    assert mirror.ranges == ["bytes=2000000-"]


def test_a_server_that_knows_no_ranges_is_asked_for_the_whole(
    mirror: Server, store: Store, downloader: Downloader
) -> None:
    mirror.plan(PATH, mirror.truncating(2_000_000), mirror.without_length(len(CONTENT)))
    asyncio.run(downloader.fetch([wanted(mirror.url + PATH)]))
    consistent(store, there=True)


def test_an_origin_that_failed_again_and_again_is_asked_last(
    mirror: Server, older: Server, store: Store, downloader: Downloader, recorder: Recorder
) -> None:
    mirror.always = status(500)
    files = []
    for number in range(12):
        content = f"file {number}".encode()
        (mirror.directory / f"{number}").write_bytes(content)
        urls = (f"{mirror.url}/{number}", f"{older.url}/{number}")
        files.append(Wanted(hashlib.sha256(content).hexdigest(), len(content), f"f{number}", urls))
    for item in files:
        asyncio.run(downloader.fetch([item]))
    assert len(mirror.asked) == inquiry.TOLERATED
    assert len(older.asked) == 12
    assert {event.taken_from for event in fallbacks(recorder)} == {older.url[7:]}
    assert fallbacks(recorder)[-1].reason == "failed several times before"
    older.always = status(500)
    mirror.always = None
    (mirror.directory / "last").write_bytes(b"last")
    last = Wanted(hashlib.sha256(b"last").hexdigest(), 4, "last", (f"{mirror.url}/last", f"{older.url}/last"))
    asyncio.run(downloader.fetch([last]))
    assert store.blobs.has(last.sha256)


def test_an_origin_says_when_it_wants_to_be_asked_again(
    mirror: Server, store: Store, downloader: Downloader, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[tuple[int, float]] = []

    def no_pause(attempt: int, wanted: float = 0.0) -> float:
        waited.append((attempt, wanted))
        return 0.0

    monkeypatch.setattr(inquiry, "pause", no_pause)
    mirror.plan(PATH, status(503, Retry_After="2"), status(503))
    asyncio.run(downloader.fetch([wanted(mirror.url + PATH)]))
    assert waited == [(1, 2.0), (2, 0.0)]


def test_pauses_grow_are_bounded_and_differ() -> None:
    for attempt in range(1, 40):
        longest = min(inquiry.LONGEST_WAIT, inquiry.FIRST_WAIT * 2.0 ** (attempt - 1))
        waits = {pause(attempt) for _ in range(50)}
        assert all(longest / 2 <= wait <= longest for wait in waits)
        assert len(waits) > 1
    assert pause(1, wanted=20.0) == 20.0


def test_an_attempt_that_gained_much_does_not_count() -> None:
    gains = [inquiry.WORTH] * 20

    async def take(url: str, others: bool) -> None:
        if gains:
            failure = OriginError("broke off", Fault.BROKEN)
            failure.gained = gains.pop()
            raise failure

    health = Health()
    assert asyncio.run(Inquiry(health, take).ask(["https://mirror.example/x"])) is not None
    assert not health.is_down("https://mirror.example/y")


def test_two_tasks_that_want_the_same_file_fetch_it_once(
    mirror: Server, store: Store, downloader: Downloader
) -> None:
    async def both() -> None:
        item = wanted(mirror.url + PATH)
        await asyncio.gather(downloader.fetch([item], task="one"), downloader.fetch([item], task="two"))

    asyncio.run(both())
    consistent(store, there=True)
    assert mirror.asked == [PATH]


def test_a_cancelled_download_leaves_the_store_as_it_was(
    mirror: Server, store: Store, downloader: Downloader
) -> None:
    async def cancelled() -> None:
        task = asyncio.ensure_future(downloader.fetch([wanted(mirror.url + PATH)]))
        while not mirror.asked:
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    mirror.always = mirror.silent
    asyncio.run(cancelled())
    consistent(store, there=False)


def test_what_was_asked_for_over_tls_is_not_taken_from_a_plain_redirect() -> None:
    import httpx

    from sandboxfile.inputs.transport import _no_downgrade

    request = httpx.Request("GET", "https://index.example/a")
    answer = httpx.Response(302, request=request, headers={"Location": "http://index.example/a"})
    answer.next_request = httpx.Request("GET", "http://index.example/a")
    with pytest.raises(OriginError, match="not https"):
        asyncio.run(_no_downgrade(answer))


def test_a_cache_is_asked_before_any_mirror_and_need_not_have_the_file(
    mirror: Server, older: Server, store: Store, settings: Settings, tmp_path: Path, recorder: Recorder
) -> None:
    from dataclasses import replace

    near = tmp_path / "cache"
    place = near / "sha256" / SHA256[:2] / SHA256[2:]
    place.parent.mkdir(parents=True)
    both = replace(settings, caches=(str(near), f"{older.url}/cache"))
    asyncio.run(Downloader(store.blobs, both, recorder).fetch([wanted(mirror.url + PATH)]))
    assert older.asked == [f"/cache/sha256/{SHA256[:2]}/{SHA256[2:]}"]
    assert mirror.asked == [PATH]
    assert fallbacks(recorder) == []
    store.blobs.path(SHA256).unlink()
    place.write_bytes(CONTENT)
    asyncio.run(Downloader(store.blobs, both, recorder).fetch([wanted(mirror.url + PATH)], offline=True))
    consistent(store, there=True)
    assert mirror.asked == [PATH]


@pytest.mark.parametrize("damage", ["other bytes", "a directory", "no permission to read"])
def test_a_damaged_cache_is_passed_over(
    mirror: Server, store: Store, settings: Settings, tmp_path: Path, damage: str
) -> None:
    from dataclasses import replace

    place = tmp_path / "cache/sha256" / SHA256[:2] / SHA256[2:]
    place.parent.mkdir(parents=True)
    if damage == "a directory":
        place.mkdir()
    else:
        place.write_bytes(b"x" * len(CONTENT))
        place.chmod(0o644 if damage == "other bytes" else 0)
    near = replace(settings, caches=(str(tmp_path / "cache"),))
    asyncio.run(Downloader(store.blobs, near, Recorder()).fetch([wanted(mirror.url + PATH)]))
    consistent(store, there=True)


def test_offline_asks_nobody_and_says_what_is_missing(
    mirror: Server, store: Store, downloader: Downloader
) -> None:
    with pytest.raises(FetchError) as caught:
        asyncio.run(downloader.fetch([wanted(mirror.url + PATH)], offline=True))
    assert "offline" in caught.value.message
    assert mirror.asked == []


def test_a_file_that_is_gone_everywhere_is_looked_for_in_the_indexes(
    mirror: Server, older: Server, store: Store, downloader: Downloader
) -> None:
    looked: list[str] = []

    async def search(item: Wanted) -> list[str]:
        looked.append(item.distribution)
        return [older.url + PATH]

    mirror.always = status(404)
    item = Wanted(SHA256, len(CONTENT), "thing.whl", (mirror.url + PATH,), distribution="thing")
    asyncio.run(downloader.fetch([item], search=search))
    consistent(store, there=True)
    assert looked == ["thing"]
