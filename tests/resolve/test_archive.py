from __future__ import annotations

import asyncio
import time
from email.utils import formatdate
from pathlib import Path

import pytest

from sandboxfile.errors import FetchError, IntegrityError
from sandboxfile.inputs.archive import Archives, Suite, SuiteRequest
from sandboxfile.inputs.download import Downloader
from sandboxfile.inputs.signature import Keyring, dearmor
from sandboxfile.store.store import Store
from tests.resolve.repository import Repository, Signer
from tests.resolve.server import Server, dead_url


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
