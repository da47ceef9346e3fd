"""What happens when the disk is full, on a small file system of its own."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandboxfile.errors import StoreError
from sandboxfile.store.store import Store

pytestmark = pytest.mark.root

SIZE = 2 << 20


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A directory on a file system of two megabytes."""
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=0700", "tmpfs", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def files(store: Store) -> list[Path]:
    return [path for path in store.blobs.directory.rglob("*") if path.is_file()]


def fill(directory: Path) -> Path:
    """Use up all space with one file."""
    filler = directory / "filler"
    descriptor = os.open(filler, os.O_WRONLY | os.O_CREAT)
    try:
        while True:
            os.write(descriptor, b"x" * 65536)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
    finally:
        os.close(descriptor)
    return filler


def test_a_blob_that_does_not_fit_is_one_clear_error_and_leaves_nothing(small: Path) -> None:
    with Store.open(small / "home") as store:
        with pytest.raises(StoreError, match=r"^the disk is full; it happened while writing") as caught:
            store.blobs.put_bytes(b"x" * 2 * SIZE)
        assert "sandboxfile cache gc" in str(caught.value.hint)
        assert files(store) == []
        store.blobs.put_bytes(b"x" * (SIZE // 4))
        assert len(files(store)) == 1


def test_an_index_that_cannot_grow_is_one_clear_error_and_keeps_what_it_has(small: Path) -> None:
    with Store.open(small / "home") as store:
        store.index.keep_document("kind", "kept", "x")
        filler = fill(small)
        with pytest.raises(StoreError, match="the disk is full"):
            store.index.keep_document("kind", "big", "x" * SIZE)
        assert store.index.document("kind", "kept") == "x"
        filler.unlink()
        store.index.keep_document("kind", "after", "y")
        assert store.index.documents("kind", ["kept", "big", "after"]) == {"kept": "x", "after": "y"}


def test_a_store_cannot_be_made_on_a_full_disk_but_later(small: Path) -> None:
    filler = fill(small)
    with pytest.raises(StoreError, match="the disk is full"), Store.open(small / "home") as store:
        store.index.snapshots()
    filler.unlink()
    with Store.open(small / "home") as store:
        assert store.index.snapshots() == ()


def test_a_read_only_store_is_one_clear_error(small: Path) -> None:
    Store.open(small / "home").close()
    subprocess.run(["mount", "-o", "remount,ro", small], check=True)
    with Store.open(small / "home") as store, pytest.raises(StoreError, match="read-only") as caught:
        store.blobs.put_bytes(b"hello")
    assert "SANDBOXFILE_HOME" in str(caught.value.hint)
