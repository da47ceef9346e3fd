"""Vendored packages are a function of the lock, whole at any moment, and checked on their way in and out."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandboxfile.build.vendoring import Vendoring, compare, vendoring_of, write
from sandboxfile.build.wanted import WantedFiles
from sandboxfile.core.digest import Digest
from sandboxfile.errors import FetchError, IntegrityError, UsageError
from sandboxfile.inputs.download import Wanted
from sandboxfile.inputs.settings import Settings
from sandboxfile.inputs.vendored import open_vendored, pieces
from sandboxfile.spec.lock import Archive, DebRow, Group, LockedBase, Lockfile, PipTransition, WheelRow
from sandboxfile.spec.model import DebianRequest, RootfsRequest, Sandboxfile, SnapshotRequest
from sandboxfile.store.blobs import BlobStore
from sandboxfile.store.store import Store


@pytest.fixture
def blobs(tmp_path: Path) -> Iterator[BlobStore]:
    with Store.open(tmp_path / "store") as store:
        yield store.blobs


def vendoring(blobs: BlobStore, *names: str, lock: str = "version = 1\n") -> Vendoring:
    """A lock with a package of each name, whose content is the name."""
    files = {}
    for name in names:
        sha256 = blobs.put_bytes(name.encode())
        files[f"apt/debian/pool/{name[0]}/{name}.deb"] = Wanted(sha256, len(name), f"{name}.deb", ())
    return Vendoring(lock, files, 1_700_000_000)


def tree(place: Path) -> dict[str, bytes]:
    return {str(path.relative_to(place)): path.read_bytes() for path in place.rglob("*") if path.is_file()}


def test_a_directory_holds_the_lock_its_files_and_a_list_that_sha256sum_reads(
    blobs: BlobStore, tmp_path: Path
) -> None:
    place = tmp_path / "v"
    result = write(place, vendoring(blobs, "jq", "bc"), blobs)
    assert sorted(tree(place)) == [
        "SHA256SUMS", "apt/debian/pool/b/bc.deb", "apt/debian/pool/j/jq.deb", "sandboxfile.lock"
    ]  # fmt: skip
    assert (len(result.added), result.files, result.size) == (3, 3, 4)
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=place, check=True)
    there = open_vendored(place)
    assert there.lock_text() == "version = 1\n"
    url = there.url(hashlib.sha256(b"jq").hexdigest())
    assert url is not None
    assert b"".join(pieces(url)) == b"jq"


@pytest.mark.parametrize("name", ["v", "v.tar"])
def test_writing_again_changes_only_what_the_lock_changed(
    blobs: BlobStore, tmp_path: Path, name: str
) -> None:
    place = tmp_path / name
    write(place, vendoring(blobs, "jq", "bc"), blobs)
    assert not write(place, vendoring(blobs, "jq", "bc"), blobs).changed
    kept = place / "apt/debian/pool/j/jq.deb" if name == "v" else place
    inode = kept.stat().st_ino
    result = write(place, vendoring(blobs, "jq", "dc", lock="version = 1\n# more\n"), blobs)
    assert result.added == ("apt/debian/pool/d/dc.deb", "sandboxfile.lock")
    assert result.removed == ("apt/debian/pool/b/bc.deb",)
    assert (kept.stat().st_ino == inode) == (name == "v")
    assert not compare(place, vendoring(blobs, "jq", "dc", lock="version = 1\n# more\n")).changed
    if name == "v":
        assert not (place / "apt/debian/pool/b").exists()


def test_a_tar_has_the_same_bytes_wherever_it_is_made(blobs: BlobStore, tmp_path: Path) -> None:
    umask = os.umask(0o077)
    try:
        write(tmp_path / "one.tar", vendoring(blobs, "bc", "jq"), blobs)
    finally:
        os.umask(umask)
    write(tmp_path / "deep/two.tar", vendoring(blobs, "jq", "bc"), blobs)
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "deep/two.tar").read_bytes()
    with tarfile.open(tmp_path / "one.tar") as archive:
        assert archive.getnames()[0] == "SHA256SUMS"
        assert {(m.uid, m.gid, m.mode, m.mtime) for m in archive} == {(0, 0, 0o644, 1_700_000_000)}


@pytest.mark.parametrize("name", ["v", "v.tar"])
def test_a_write_that_fails_half_way_leaves_what_was_there(
    blobs: BlobStore, tmp_path: Path, name: str
) -> None:
    place = tmp_path / name
    write(place, vendoring(blobs, "jq"), blobs)
    wanted = vendoring(blobs, "jq", "aa", "zz")
    broken = blobs.path(hashlib.sha256(b"zz").hexdigest())
    broken.chmod(0o644)
    broken.write_bytes(b"no")
    with pytest.raises(IntegrityError):
        write(place, wanted, blobs)
    assert not compare(place, vendoring(blobs, "jq")).changed
    assert [path for path in tmp_path.rglob(".*") if path.is_file()] == []
    # The damaged file is gone from the store, so that it is fetched again.
    blobs.put_bytes(b"zz")
    write(place, wanted, blobs)
    assert not compare(place, wanted).changed


def test_what_is_damaged_is_replaced(blobs: BlobStore, tmp_path: Path) -> None:
    place = tmp_path / "v"
    wanted = vendoring(blobs, "jq", "bc")
    write(place, wanted, blobs)
    (place / "apt/debian/pool/j/jq.deb").write_bytes(b"??")
    (place / "apt/debian/pool/b/bc.deb").unlink()
    result = write(place, wanted, blobs)
    assert result.damaged == ("apt/debian/pool/j/jq.deb",)
    assert result.added == ("apt/debian/pool/b/bc.deb",)
    assert not compare(place, wanted).changed


@pytest.mark.parametrize("damage", [b"", b"not a tar", b"x" * 20480])
def test_a_damaged_tar_is_one_clear_error(blobs: BlobStore, tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "v.tar").write_bytes(damage)
    with pytest.raises(FetchError) as caught:
        open_vendored(tmp_path / "v.tar")
    assert "cannot be read" in caught.value.message
    assert "sandboxfile vendor" in (caught.value.hint or "")


def test_what_is_something_else_is_not_touched(blobs: BlobStore, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/file").write_text("kept")
    (tmp_path / "dir.tar").mkdir()
    (tmp_path / "file").write_text("kept")
    for name in ("mine", "dir.tar", "file"):
        with pytest.raises(UsageError):
            write(tmp_path / name, vendoring(blobs, "jq"), blobs)
    assert tree(tmp_path / "mine") == {"file": b"kept"}
    with pytest.raises(UsageError, match="no vendored packages"):
        open_vendored(tmp_path / "nowhere")


def test_everything_that_a_lock_names_is_vendored_under_a_place_of_its_own() -> None:
    archive = Archive("debian", "trixie", ("main",), Digest("sha256:" + "0" * 64), 1)
    deb = DebRow("jq", "1", "amd64", "1" * 64, 1, "pool/main/j/jq/jq_1_amd64.deb", "debian")
    wheels = (
        WheelRow("a", "1", "a-1-py3-none-any.whl", "2" * 64, 1, url="https://index.example/a.whl"),
        WheelRow("b", "1", "b-1-py3-none-any.whl", "3" * 64, 1, url="https://index.example/b-1.tar.gz",
                 built=True, sdist_sha256="4" * 64),
    )  # fmt: skip
    base = LockedBase(
        "debian:trixie", "debian", "amd64", 7, suite="trixie", archives=(archive,), packages=(deb,)
    )
    lock = Lockfile(base, (Group(Digest(""), None, PipTransition(("a", "b"), "3.13.5", wheels)),))

    def files(spec: Sandboxfile, lock: Lockfile) -> WantedFiles:
        return WantedFiles(spec, lock, Path("/p"), Settings(Path("/s")), Path("/c"), offline=True)

    wanted = vendoring_of(files(Sandboxfile("x", DebianRequest("trixie")), lock), "text")
    assert {path: item.sha256[0] for path, item in wanted.files.items()} == {
        "apt/debian/pool/main/j/jq/jq_1_amd64.deb": "1",
        "pip/a-1-py3-none-any.whl": "2",
        "pip/b-1-py3-none-any.whl": "3",
        "pip/b-1.tar.gz": "4",
    }
    assert wanted.epoch == 7
    rootfs = Lockfile(LockedBase("rootfs:5", "rootfs", "amd64", 1, rootfs="5" * 64))
    spec = Sandboxfile("x", RootfsRequest("https://files.example/a/root.tar.gz", "5" * 64))
    assert list(vendoring_of(files(spec, rootfs), "").files) == ["rootfs/root.tar.gz"]
    snapshot = Lockfile(LockedBase("snapshot:x", "snapshot", "amd64", 1, snapshot="x"))
    with pytest.raises(UsageError, match="snapshot of the store"):
        vendoring_of(files(Sandboxfile("x", SnapshotRequest("x")), snapshot), "")
