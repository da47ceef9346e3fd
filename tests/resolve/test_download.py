from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from pathlib import Path

import pytest

from sandboxfile.core.event import Outcome, TaskFinished, TaskProgress
from sandboxfile.errors import FetchError, IntegrityError, SandboxfileError
from sandboxfile.inputs.download import Downloader, Wanted, shown
from sandboxfile.store.store import Store
from tests.resolve.conftest import Recorder
from tests.resolve.server import Server, dead_url


def put(web: Server, name: str, content: bytes) -> Wanted:
    (web.directory / name).write_bytes(content)
    return Wanted(hashlib.sha256(content).hexdigest(), len(content), name, (f"{web.url}/{name}",))


def incoming(store: Store) -> list[Path]:
    return list(store.blobs.incoming.iterdir())


def test_files_arrive_whole_and_are_not_fetched_twice(
    web: Server, store: Store, downloader: Downloader, recorder: Recorder
) -> None:
    wanted = [put(web, f"file-{n}", bytes([n]) * (3_000_000 if n == 0 else 10)) for n in range(20)]
    asyncio.run(downloader.fetch(wanted))
    asyncio.run(downloader.fetch(wanted))
    assert all(
        store.blobs.path(w.sha256).read_bytes() == (web.directory / w.name).read_bytes() for w in wanted
    )
    assert len(web.asked) == 20
    progress = [e for e in recorder.events if isinstance(e, TaskProgress)]
    assert progress[-1].done == progress[-1].total == sum(w.size for w in wanted)


def test_a_file_with_other_bytes_is_refused_and_leaves_nothing(
    web: Server, store: Store, downloader: Downloader, recorder: Recorder
) -> None:
    good = put(web, "package.deb", b"right")
    (web.directory / "package.deb").write_bytes(b"wrong")
    with pytest.raises(IntegrityError) as caught:
        asyncio.run(downloader.fetch([good]))
    assert "package.deb" in caught.value.message
    assert not store.blobs.has(good.sha256)
    assert incoming(store) == []
    finished = [e for e in recorder.events if isinstance(e, TaskFinished)]
    assert [e.outcome for e in finished] == [Outcome.FAILED]


@pytest.mark.parametrize("bad", [b"short", b"much longer than what was promised", b"other!!!"])
def test_the_next_origin_is_asked_when_one_has_other_bytes(
    web: Server, store: Store, downloader: Downloader, bad: bytes
) -> None:
    good = put(web, "good", b"promised")
    (web.directory / "bad").write_bytes(bad)
    item = Wanted(good.sha256, good.size, "good", (f"{web.url}/bad", *good.urls))
    asyncio.run(downloader.fetch([item]))
    assert store.blobs.path(good.sha256).read_bytes() == b"promised"


def test_a_dead_mirror_is_passed_over(web: Server, store: Store, downloader: Downloader) -> None:
    good = put(web, "good", b"promised")
    item = Wanted(good.sha256, good.size, "good", (f"{dead_url()}/good", *good.urls))
    asyncio.run(downloader.fetch([item]))
    assert store.blobs.has(good.sha256)


def test_when_no_origin_answers_there_is_one_error_that_names_each(downloader: Downloader) -> None:
    dead = dead_url()
    wanted = [Wanted(f"{n:064x}", 5, f"file-{n}.deb", (f"{dead}/a", f"{dead}/b")) for n in range(5)]
    with pytest.raises(FetchError) as caught:
        asyncio.run(downloader.fetch(wanted))
    assert not isinstance(caught.value, IntegrityError)
    assert "could not fetch file-" in caught.value.message
    (line,) = caught.value.details
    assert line.startswith(f"{dead}/a cannot be reached")


def test_a_server_that_is_busy_is_asked_again(web: Server, store: Store, downloader: Downloader) -> None:
    good = put(web, "good", b"promised")
    web.answers["/good"] = deque([503])
    asyncio.run(downloader.fetch([good]))
    assert web.asked == ["/good", "/good"]


def test_a_missing_file_is_asked_for_once(web: Server, downloader: Downloader) -> None:
    with pytest.raises(FetchError) as caught:
        asyncio.run(downloader.fetch([Wanted("0" * 64, 1, "gone", (f"{web.url}/gone",))]))
    assert web.asked == ["/gone"]
    assert "404" in caught.value.details[0]


def test_files_of_this_machine_are_hashed_like_any_other(
    tmp_path: Path, store: Store, downloader: Downloader
) -> None:
    path = tmp_path / "a b.whl"
    path.write_bytes(b"wheel")
    right = Wanted(hashlib.sha256(b"wheel").hexdigest(), 5, "a", (path.as_uri(),))
    asyncio.run(downloader.fetch([right]))
    assert store.blobs.path(right.sha256).read_bytes() == b"wheel"
    with pytest.raises(IntegrityError):
        asyncio.run(downloader.fetch([Wanted("0" * 64, 5, "a", (path.as_uri(),))]))


def test_a_url_that_is_none_is_a_clear_error(downloader: Downloader) -> None:
    with pytest.raises(SandboxfileError):
        asyncio.run(downloader.fetch([Wanted("0" * 64, 5, "a", ("gopher://nowhere/a",))]))


def test_passwords_in_urls_are_not_shown(downloader: Downloader) -> None:
    url = dead_url().replace("http://", "http://user:hunter2@")
    with pytest.raises(FetchError) as caught:
        asyncio.run(downloader.fetch([Wanted("0" * 64, 5, "a", (f"{url}/a",))]))
    assert "hunter2" not in repr((caught.value.message, caught.value.details, caught.value.hint))
    assert shown("https://user:pw@index.example/x") == "https://index.example/x"


def test_a_document_has_a_limit(web: Server, downloader: Downloader) -> None:
    (web.directory / "doc").write_bytes(b"x" * 1000)
    assert asyncio.run(downloader.fetch_document([f"{web.url}/doc"], 1000))[0] == b"x" * 1000
    with pytest.raises(FetchError):
        asyncio.run(downloader.fetch_document([f"{web.url}/doc"], 999))
