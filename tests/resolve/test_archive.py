from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path

import pytest

from sandboxfile.errors import (
    ClockWrong,
    FetchError,
    IndexExpired,
    IndexRolledBack,
    IntegrityError,
    SignatureInvalid,
)
from sandboxfile.inputs import signature
from sandboxfile.inputs.archive import Archives, Suite, SuiteRequest
from sandboxfile.inputs.download import Downloader
from sandboxfile.inputs.settings import Settings
from sandboxfile.inputs.signature import Keyring, dearmor
from sandboxfile.store.store import Store
from tests.resolve.conftest import Recorder
from tests.resolve.repository import Repository, Signer
from tests.resolve.server import Server, dead_url, saying, status
from tests.resolve.test_origins_at_fault import FAULTS


@pytest.fixture
def archives(store: Store, downloader: Downloader) -> Archives:
    return Archives(store.indexes, downloader, store.suites)


def request_for(
    repository: Repository, *urls: str, suite: str = "stable", past: bool = False
) -> SuiteRequest:
    keyring = Keyring("a test's key", repository.signer.public())
    return SuiteRequest("tests", suite, ("main",), "amd64", urls, keyring, past=past)


def fetch(archives: Archives, request: SuiteRequest, **options: bool) -> Suite:
    return asyncio.run(archives.fetch([request], **options))[0]


def test_a_signed_suite_becomes_a_local_repository(
    repository: Repository, web: Server, archives: Archives
) -> None:
    suite = fetch(archives, request_for(repository, web.url))
    assert (suite.root / "dists/stable/InRelease").is_file()
    assert (suite.root / "dists/stable/main/binary-amd64/Packages").read_bytes() == repository.packages()
    assert suite.archive.name == "tests"
    assert suite.root.name == suite.archive.inrelease.removeprefix("sha256:")
    index = suite.index()
    assert index.versions("alpha") == ("1.0",)
    assert index.providers("virtual-thing") == ("beta",)


@pytest.mark.parametrize("compression", ["xz", "gz"])
def test_a_detached_signature_serves_as_well(
    repository: Repository, web: Server, archives: Archives, compression: str
) -> None:
    repository.publish(inline=False, compression=compression)
    suite = fetch(archives, request_for(repository, web.url))
    assert (suite.root / "dists/stable/Release.gpg").is_file()
    assert "alpha" in suite.index()


def test_a_changed_inrelease_is_refused_in_one_sentence(
    repository: Repository, web: Server, archives: Archives, store: Store
) -> None:
    path = repository.top / "InRelease"
    path.write_bytes(path.read_bytes().replace(b"Components: main", b"Components: evil"))
    with pytest.raises(IntegrityError) as caught:
        fetch(archives, request_for(repository, web.url))
    assert "suite stable of the archive tests" in caught.value.message
    assert "bad signature" in caught.value.message
    assert caught.value.hint
    assert not [p for p in store.indexes.iterdir() if p.name != "seen"]


def test_text_outside_of_the_signature_counts_for_nothing(
    repository: Repository, web: Server, archives: Archives
) -> None:
    path = repository.top / "InRelease"
    path.write_bytes(b"Codename: other\n\n" + path.read_bytes())
    suite = fetch(archives, request_for(repository, web.url))
    assert "alpha" in suite.index()


@pytest.mark.parametrize("name", ["Packages.xz"])
def test_a_changed_index_is_refused(
    repository: Repository, web: Server, archives: Archives, store: Store, name: str
) -> None:
    path = repository.top / "main/binary-amd64" / name
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(IntegrityError) as caught:
        fetch(archives, request_for(repository, web.url))
    assert "not the one that was signed" in caught.value.message
    assert not [p for p in store.indexes.iterdir() if p.name != "seen"]


def test_a_key_that_is_not_trusted_does_not_count(
    repository: Repository, web: Server, archives: Archives, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = Signer(tmp_path_factory.mktemp("o") / "h", "other@sandboxfile.test")
    try:
        keyring = Keyring("the other key", other.public())
    finally:
        other.close()
    request = SuiteRequest("tests", "stable", ("main",), "amd64", (web.url,), keyring)
    with pytest.raises(IntegrityError) as caught:
        fetch(archives, request)
    assert "not trusted" in caught.value.message
    assert "the other key" in (caught.value.hint or "")


def test_an_unsigned_suite_is_refused(repository: Repository, web: Server, archives: Archives) -> None:
    repository.publish(inline=False)
    (repository.top / "Release.gpg").unlink()
    with pytest.raises(FetchError) as caught:
        fetch(archives, request_for(repository, web.url))
    assert "not signed" in caught.value.message


def test_an_index_past_its_time_is_refused_unless_a_lock_or_a_snapshot_names_it(
    repository: Repository, web: Server, archives: Archives
) -> None:
    fresh = fetch(archives, request_for(repository, web.url))
    repository.release["Valid-Until"] = formatdate(time.time() - 3600, usegmt=True)
    repository.publish()
    with pytest.raises(IntegrityError) as caught:
        fetch(archives, request_for(repository, web.url), refresh=True)
    assert "valid until" in caught.value.message
    old = fetch(archives, request_for(repository, web.url, past=True), refresh=True)
    assert old.archive.inrelease != fresh.archive.inrelease
    request = request_for(repository, web.url)
    again = asyncio.run(archives.fetch([request], refresh=True, locked=[old.archive.inrelease]))[0]
    assert again.archive == old.archive


def test_the_validly_signed_index_of_another_suite_is_refused(
    repository: Repository, web: Server, archives: Archives
) -> None:
    (repository.root / "dists/testing").symlink_to(repository.top)
    with pytest.raises(IntegrityError) as caught:
        fetch(archives, request_for(repository, web.url, suite="testing"))
    assert "another suite" in caught.value.message


def test_a_mirror_that_is_down_is_one_clear_error(repository: Repository, archives: Archives) -> None:
    with pytest.raises(FetchError) as caught:
        fetch(archives, request_for(repository, dead_url()))
    assert "no mirror of the suite stable of the archive tests answers" in caught.value.message
    assert caught.value.details


def test_the_second_mirror_serves_when_the_first_is_down(
    repository: Repository, web: Server, archives: Archives
) -> None:
    assert "alpha" in fetch(archives, request_for(repository, dead_url(), web.url)).index()


def test_an_archive_is_asked_once_in_an_hour_unless_refreshed(
    repository: Repository, web: Server, archives: Archives
) -> None:
    request = request_for(repository, web.url)
    fetch(archives, request)
    asked = len(web.asked)
    fetch(archives, request)
    assert len(web.asked) == asked
    repository.add("gamma")
    repository.publish()
    assert "gamma" in fetch(archives, request, refresh=True).index()


def test_offline_takes_what_is_there_and_says_what_is_not(
    repository: Repository, web: Server, archives: Archives
) -> None:
    request = request_for(repository, web.url)
    with pytest.raises(FetchError) as caught:
        fetch(archives, request, offline=True)
    assert "offline" in caught.value.message
    fetch(archives, request)
    asked = len(web.asked)
    assert "alpha" in fetch(archives, request, offline=True).index()
    assert len(web.asked) == asked


def test_a_component_that_does_not_exist_is_named(
    repository: Repository, web: Server, archives: Archives
) -> None:
    request = request_for(repository, web.url)
    wrong = SuiteRequest("tests", "stable", ("man",), "amd64", request.urls, request.keyring)
    with pytest.raises(FetchError) as caught:
        fetch(archives, wrong)
    assert "`man`" in caught.value.message
    assert "main" in (caught.value.hint or "")


def test_keys_are_read_armoured_and_binary(signer: Signer) -> None:
    assert dearmor(signer.public(armoured=True)) == signer.public() == dearmor(signer.public())
    both = signer.public(armoured=True) * 2
    assert dearmor(both) == signer.public() * 2


@pytest.mark.parametrize(
    "damaged", [b"", b"not a key", b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nAAAA", b"<html></html>"]
)
def test_a_damaged_key_is_a_value_error(damaged: bytes) -> None:
    with pytest.raises(ValueError, match="key"):
        dearmor(damaged)


def test_readers_with_other_ids_may_read_the_repository(
    repository: Repository, web: Server, archives: Archives
) -> None:
    suite = fetch(archives, request_for(repository, web.url))
    for path in (suite.root, *suite.root.rglob("*")):
        wanted = 0o755 if path.is_dir() else 0o644
        assert path.stat().st_mode & 0o777 == wanted, Path(path)


@pytest.fixture
def other_mirror(tmp_path: Path, web: Server) -> Iterator[Server]:
    """A second mirror of the same archive."""
    server = Server(web.directory)
    yield server
    server.close()


def dated(repository: Repository, seconds: float) -> None:
    """Publish the archive as it is said to have been so long ago."""
    repository.release["Date"] = formatdate(time.time() - seconds, usegmt=True)
    repository.publish()


def test_an_index_older_than_the_last_seen_is_refused_until_it_is_accepted(
    repository: Repository, web: Server, store: Store, downloader: Downloader, archives: Archives
) -> None:
    dated(repository, 3600)
    fresh = fetch(archives, request_for(repository, web.url))
    dated(repository, 86400)
    with pytest.raises(IndexRolledBack) as caught:
        fetch(archives, request_for(repository, web.url), refresh=True)
    assert "older than the one seen before" in caught.value.message
    assert "--accept-older" in (caught.value.hint or "")
    # Another mirror of the same archive is no way around it, and neither is gc.
    with pytest.raises(IndexRolledBack):
        fetch(archives, request_for(repository, f"{web.url}/"), refresh=True)
    shutil.rmtree(store.indexes)
    with pytest.raises(IndexRolledBack):
        fetch(archives, request_for(repository, web.url))
    # What a lock names, and what is asked for by its time, is right however old it is.
    old = fetch(archives, request_for(repository, web.url, past=True))
    assert old.archive.date < fresh.archive.date
    request = request_for(repository, web.url)
    locked = asyncio.run(archives.fetch([request], refresh=True, locked=[old.archive.inrelease]))
    assert locked[0].archive == old.archive
    accepting = Archives(store.indexes, downloader, store.suites, accept_older=True)
    assert fetch(accepting, request, refresh=True).archive == old.archive
    assert fetch(archives, request, refresh=True).archive == old.archive


def test_a_mirror_that_is_held_back_is_passed_over_for_one_that_is_not(
    repository: Repository, web: Server, other_mirror: Server, archives: Archives
) -> None:
    dated(repository, 86400)
    held_back = (repository.top / "InRelease").read_bytes()
    dated(repository, 3600)
    fresh = fetch(archives, request_for(repository, web.url))
    other_mirror.plan("/dists/stable/InRelease", saying(held_back))
    request = request_for(repository, other_mirror.url, web.url)
    assert fetch(archives, request, refresh=True).archive == fresh.archive
    assert "/dists/stable/InRelease" in other_mirror.asked


def test_a_mirror_with_a_bad_signature_is_passed_over_for_one_without(
    repository: Repository, web: Server, other_mirror: Server, archives: Archives
) -> None:
    good = (repository.top / "InRelease").read_bytes()
    other_mirror.plan(
        "/dists/stable/InRelease", saying(good.replace(b"Components: main", b"Components: evil"))
    )
    assert "alpha" in fetch(archives, request_for(repository, other_mirror.url, web.url)).index()


def test_a_mirror_in_the_middle_of_an_update_is_passed_over_for_one_that_is_not(
    repository: Repository, web: Server, other_mirror: Server, archives: Archives
) -> None:
    path = "/dists/stable/main/binary-amd64/Packages.xz"
    other_mirror.plan(path, saying(b"the next one"))
    assert "alpha" in fetch(archives, request_for(repository, other_mirror.url, web.url)).index()
    assert path in other_mirror.asked


def test_when_every_mirror_is_refused_the_error_says_what_each_did(
    repository: Repository, web: Server, other_mirror: Server, archives: Archives
) -> None:
    good = (repository.top / "InRelease").read_bytes()
    bad = saying(good.replace(b"Components: main", b"Components: evil"))
    web.plan("/dists/stable/InRelease", bad)
    other_mirror.plan("/dists/stable/InRelease", *[status(500)] * 3)
    with pytest.raises(SignatureInvalid) as caught:
        fetch(archives, request_for(repository, other_mirror.url, web.url))
    told = "\n".join(caught.value.details)
    assert f"{other_mirror.url}/dists/stable/InRelease answered 500" in told
    assert f"{web.url}/dists/stable/InRelease was not accepted" in told


def test_an_index_past_its_time_has_an_error_of_its_own(
    repository: Repository, web: Server, archives: Archives
) -> None:
    repository.release["Valid-Until"] = formatdate(time.time() - 60, usegmt=True)
    repository.publish()
    with pytest.raises(IndexExpired):
        fetch(archives, request_for(repository, web.url))


@pytest.mark.parametrize(
    ("expires", "options", "words"),
    [
        ("1d", ("--faked-system-time", "20200101T000000!"), "keys that have expired"),
        (
            "never",
            ("--faked-system-time", "20200101T000000!", "--default-sig-expire", "1d"),
            "signatures that have expired",
        ),
    ],
)
def test_a_key_or_signature_that_has_expired_does_not_count(
    repository: Repository,
    web: Server,
    archives: Archives,
    tmp_path_factory: pytest.TempPathFactory,
    expires: str,
    options: tuple[str, ...],
    words: str,
) -> None:
    repository.signer = Signer(tmp_path_factory.mktemp("e") / "h", "old@sandboxfile.test", expires, options)
    try:
        repository.publish()
        with pytest.raises(SignatureInvalid) as caught:
            fetch(archives, request_for(repository, web.url))
    finally:
        repository.signer.close()
    assert words in caught.value.message


def test_a_clock_in_the_past_is_called_that(
    repository: Repository, web: Server, archives: Archives, monkeypatch: pytest.MonkeyPatch
) -> None:
    dated(repository, -7200)
    with pytest.raises(ClockWrong) as caught:
        fetch(archives, request_for(repository, web.url))
    assert "this machine's clock says" in caught.value.message
    assert "set the clock" in (caught.value.hint or "")
    assert signature.MAX_FUTURE < 7200


def test_a_clock_before_the_key_was_made_is_called_that_too(repository: Repository, tmp_path: Path) -> None:
    if shutil.which("faketime") is None:
        pytest.skip("needs faketime: apt-get install faketime")
    (tmp_path / "key").write_bytes(repository.signer.public())
    program = (
        "import sys, pathlib\n"
        "from sandboxfile.errors import ClockWrong\n"
        "from sandboxfile.inputs.signature import Keyring, verified\n"
        "document, key = (pathlib.Path(p).read_bytes() for p in sys.argv[1:])\n"
        "try:\n"
        "    verified(document, Keyring('k', key), signature=None, what='the suite stable')\n"
        "except ClockWrong as wrong:\n"
        "    print(wrong.message)\n"
    )
    argv = ["faketime", "2020-01-01 00:00:00", sys.executable, "-c", program]
    document = str(repository.top / "InRelease")
    done = subprocess.run(
        [*argv, document, str(tmp_path / "key")], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("this machine's clock says 2020-01-01"), done.stderr


@pytest.mark.parametrize("fault", FAULTS)
def test_with_one_mirror_at_fault_the_suite_comes_from_the_next(
    repository: Repository,
    web: Server,
    other_mirror: Server,
    store: Store,
    settings: Settings,
    recorder: Recorder,
    fault: str,
) -> None:
    other_mirror.always = FAULTS[fault](other_mirror)
    downloader = Downloader(store.blobs, replace(settings, timeout=4.0), recorder)
    archives = Archives(store.indexes, downloader, store.suites)
    suite = fetch(archives, request_for(repository, other_mirror.url, web.url))
    assert "alpha" in suite.index()
    assert other_mirror.asked
