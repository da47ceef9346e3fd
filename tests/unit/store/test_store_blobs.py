from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from sandboxfile.errors import IntegrityError, StoreError
from sandboxfile.store.store import Store

HELLO = hashlib.sha256(b"hello").hexdigest()


def left_over(store: Store) -> list[Path]:
    return [path for path in store.blobs.directory.rglob("*") if path.is_file()]


def test_a_written_blob_is_there_under_its_digest_and_read_only(store: Store) -> None:
    with store.blobs.writer(HELLO, 5) as writer:
        writer.write(b"hel")
        assert not store.blobs.has(HELLO)
        writer.write(b"lo")
    path = store.blobs.path(HELLO)
    assert path.read_bytes() == b"hello"
    assert path.relative_to(store.home) == Path("blobs/sha256", HELLO[:2], HELLO[2:])
    assert path.stat().st_mode & 0o777 == 0o444
    assert left_over(store) == [path]


def test_other_bytes_than_promised_leave_nothing(store: Store) -> None:
    with (
        pytest.raises(IntegrityError, match=r"jq\.deb are not what was promised"),
        store.blobs.writer(HELLO, name="jq.deb") as writer,
    ):
        writer.write(b"jello")
    assert left_over(store) == []


def test_too_few_bytes_are_refused(store: Store) -> None:
    with (
        pytest.raises(IntegrityError, match="has 4 bytes, not the 5"),
        store.blobs.writer(HELLO, 5) as writer,
    ):
        writer.write(b"hell")
    assert left_over(store) == []


def test_too_many_bytes_are_refused_as_soon_as_they_come(store: Store) -> None:
    taken = 0

    def endless() -> None:
        nonlocal taken
        with store.blobs.writer(HELLO, 5) as writer:
            while True:
                writer.write(b"hel")
                taken += 1

    with pytest.raises(IntegrityError, match="longer than the 5 bytes"):
        endless()
    assert taken == 1
    assert left_over(store) == []


def test_an_error_in_the_block_leaves_nothing(store: Store) -> None:
    def interrupted() -> None:
        with store.blobs.writer() as writer:
            writer.write(b"hello")
            raise KeyError

    with pytest.raises(KeyError):
        interrupted()
    assert left_over(store) == []


def test_writing_what_is_there_succeeds_and_changes_nothing(store: Store) -> None:
    assert store.blobs.put_bytes(b"hello") == HELLO
    inode = store.blobs.path(HELLO).stat().st_ino
    assert store.blobs.put_bytes(b"hello") == HELLO
    assert store.blobs.path(HELLO).stat().st_ino == inode
    assert len(left_over(store)) == 1


def test_two_writers_of_one_blob_both_succeed(store: Store) -> None:
    with store.blobs.writer(HELLO) as first, store.blobs.writer(HELLO) as second:
        first.write(b"hello")
        second.write(b"hello")
    assert left_over(store) == [store.blobs.path(HELLO)]


def test_missing_names_each_absent_blob_once_in_order(store: Store) -> None:
    store.blobs.put_bytes(b"hello")
    assert store.blobs.missing(["b" * 64, HELLO, "a" * 64, "b" * 64]) == ("b" * 64, "a" * 64)


def test_a_file_is_copied_in_or_moved_in(store: Store, tmp_path: Path) -> None:
    for move in (False, True):
        origin = tmp_path / "origin"
        origin.write_bytes(b"hello")
        assert store.blobs.put_file(origin, HELLO, move=move) == HELLO
        assert origin.exists() is not move
    assert store.blobs.path(HELLO).read_bytes() == b"hello"


def test_a_file_of_another_digest_stays_where_it_is(store: Store, tmp_path: Path) -> None:
    origin = tmp_path / "origin"
    origin.write_bytes(b"jello")
    with pytest.raises(IntegrityError):
        store.blobs.put_file(origin, HELLO, move=True)
    assert origin.exists()
    assert left_over(store) == []


def test_verify_removes_a_damaged_blob(store: Store) -> None:
    store.blobs.put_bytes(b"hello")
    store.blobs.verify(HELLO)
    path = store.blobs.path(HELLO)
    path.chmod(0o644)
    path.write_bytes(b"jello")
    with pytest.raises(IntegrityError, match="damaged"):
        store.blobs.verify(HELLO)
    assert not store.blobs.has(HELLO)
    with pytest.raises(StoreError, match="no file of sha256"):
        store.blobs.verify(HELLO)


def test_a_copy_can_be_written_to_without_harm(store: Store, tmp_path: Path) -> None:
    store.blobs.put_bytes(b"hello")
    store.blobs.copy_to(HELLO, tmp_path / "copy")
    (tmp_path / "copy").write_bytes(b"changed")
    store.blobs.verify(HELLO)


def test_touch_moves_the_time_of_use(store: Store) -> None:
    store.blobs.put_bytes(b"hello")
    os.utime(store.blobs.path(HELLO), (1, 1))
    store.blobs.touch([HELLO, "a" * 64])
    assert store.blobs.path(HELLO).stat().st_mtime > 1


@pytest.mark.parametrize("text", ["", "../../etc/passwd", "A" * 64, f"sha256:{HELLO}"])
def test_only_a_sha256_names_a_blob(store: Store, text: str) -> None:
    with pytest.raises(ValueError, match="not a sha256"):
        store.blobs.path(text)


BIG = os.urandom(2 << 20)
BIG_SHA256 = hashlib.sha256(BIG).hexdigest()


class CutOffError(Exception):
    """A download that breaks off."""


def broken_off(store: Store, content: bytes) -> None:
    try:
        with store.blobs.writer(BIG_SHA256, len(BIG), resume=True) as writer:
            writer.write(content)
            raise CutOffError
    except CutOffError:
        pass


def test_an_unfinished_blob_is_gone_on_with(store: Store) -> None:
    broken_off(store, BIG[: 3 << 19])
    assert not store.blobs.has(BIG_SHA256)
    with store.blobs.writer(BIG_SHA256, len(BIG), resume=True) as writer:
        assert writer.size == 3 << 19
        writer.write(BIG[writer.size :])
    assert store.blobs.path(BIG_SHA256).read_bytes() == BIG
    assert left_over(store) == [store.blobs.path(BIG_SHA256)]


def test_a_little_of_a_blob_is_not_kept(store: Store) -> None:
    broken_off(store, BIG[:1000])
    assert left_over(store) == []


@pytest.mark.parametrize("wrong", [b"x" * len(BIG), b"x" * (len(BIG) + 1), b"x" * (len(BIG) - 1)])
def test_what_turned_out_wrong_is_not_gone_on_with(store: Store, wrong: bytes) -> None:
    with pytest.raises(IntegrityError), store.blobs.writer(BIG_SHA256, len(BIG), resume=True) as writer:
        writer.write(wrong)
    assert left_over(store) == []


def test_a_restart_forgets_everything(store: Store) -> None:
    broken_off(store, b"x" * (3 << 19))
    with store.blobs.writer(BIG_SHA256, len(BIG), resume=True) as writer:
        writer.restart()
        assert writer.size == 0
        writer.write(BIG)
        writer.finish()
        writer.finish()
    assert store.blobs.path(BIG_SHA256).read_bytes() == BIG


def test_two_who_want_the_same_do_not_write_into_one_file(store: Store) -> None:
    broken_off(store, BIG[: 3 << 19])
    with store.blobs.writer(BIG_SHA256, len(BIG), resume=True) as first:
        with store.blobs.writer(BIG_SHA256, len(BIG), resume=True) as second:
            assert (first.size, second.size) == (3 << 19, 0)
            second.write(BIG)
        first.write(BIG[first.size :])
    assert left_over(store) == [store.blobs.path(BIG_SHA256)]


def test_gc_removes_what_nobody_goes_on_with(store: Store) -> None:
    from sandboxfile.store.sweep import sweep

    broken_off(store, BIG[: 3 << 19])
    assert sweep(store, dry_run=True).sizes["garbage"] == 3 << 19
    with store.blobs.writer(BIG_SHA256, len(BIG), resume=True) as writer:
        assert writer.size == 3 << 19
        sweep(store)
        writer.write(BIG[writer.size :])
    assert store.blobs.has(BIG_SHA256)
    store.blobs.path(BIG_SHA256).unlink()
    broken_off(store, BIG[: 3 << 19])
    sweep(store)
    assert left_over(store) == []
