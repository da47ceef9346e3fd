"""Digests of files, and when one may be remembered."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from sandboxfile.inputs.context import scan
from sandboxfile.inputs.filehash import FileHasher, FileKey, NotAFileError
from sandboxfile.spec.model import FileRequest


class Remembered(dict[FileKey, str]):
    """A cache in memory."""

    def put(self, key: FileKey, sha256: str, /) -> None:
        self[key] = sha256


@pytest.fixture
def settled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that was touched an hour ago, as the hasher's clock has it."""
    path = tmp_path / "file"
    path.write_bytes(b"x" * (3 << 20))
    later = path.stat().st_ctime_ns + 3600 * 10**9
    monkeypatch.setattr("sandboxfile.inputs.filehash.time.time_ns", lambda: later)
    return path


def test_the_digest_is_that_of_the_content(settled: Path) -> None:
    sha256, status = FileHasher().digest(settled)
    assert sha256 == hashlib.sha256(settled.read_bytes()).hexdigest()
    assert status.st_size == 3 << 20


def test_a_settled_file_is_remembered_and_not_read_again(settled: Path) -> None:
    cache = Remembered()
    sha256, _ = FileHasher(cache).digest(settled)
    (key,) = cache
    status = settled.stat()
    assert key == (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    assert cache[key] == sha256
    cache[key] = "remembered"
    assert FileHasher(cache).digest(settled)[0] == "remembered"


def test_a_file_touched_just_before_is_hashed_each_time(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("new")
    cache = Remembered()
    FileHasher(cache).digest(path)
    assert cache == {}
    # An old time of modification does not hide that the file was just changed.
    os.utime(path, (1, 1))
    FileHasher(cache).digest(path)
    assert cache == {}


def test_a_time_in_the_future_is_not_believed(settled: Path) -> None:
    os.utime(settled, (2**33, 2**33))
    cache = Remembered()
    FileHasher(cache).digest(settled)
    assert cache == {}


def test_a_change_of_same_size_with_its_time_put_back_is_seen(
    settled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = Remembered()
    before, _ = FileHasher(cache).digest(settled)
    status = settled.stat()
    settled.write_bytes(b"y" * status.st_size)
    os.utime(settled, ns=(status.st_atime_ns, status.st_mtime_ns))
    # The time of change moves with the kernel's clock tick; a write within the same tick is the racy case.
    if settled.stat().st_ctime_ns != status.st_ctime_ns:
        assert FileHasher(cache).digest(settled)[0] != before


def test_only_regular_files_are_hashed(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for name in ("pipe", "link", "."):
        with pytest.raises(NotAFileError):
            FileHasher().digest(tmp_path / name)


def test_a_scan_uses_the_cache_it_is_given(settled: Path) -> None:
    cache = Remembered()
    files = [FileRequest("/f", "file")]
    ((entry,),) = scan(settled.parent, files, cache=cache).entries
    assert list(cache.values()) == [entry.sha256]
